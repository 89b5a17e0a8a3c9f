"""PISCO's checkpoints, which CLaRa's are derived from: the same files, and a config of its own.

Its model class is called COCOM, as is that of relatives whose texts another network compresses
(OSCAR, COCOM-light) and of models that were trained whole (COCOM); those are told apart here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clara_mlx.errors import CheckpointError

#: The compressor's name in a model folder.
NAME = "pisco"

_MODEL_TYPE = "COCOM"

#: What the reference takes for fields that a config leaves out.
_DEFAULTS = {
    "doc_max_length": 128,
    "compr_rate": 64,
    "lora_r": 16,
    "sep": False,
    "different_mem_tokens": False,
    "compr_model_name": "google-bert/bert-base-uncased",
    "lora": False,
    "training_form": "both",
    "kbtc_training": False,
}
#: Values of ``training_form``: an adapter each for compressing and answering, or one for both.
_SEPARATE, _SHARED = "both_separately", "both"

_LICENCE = (
    "it states no licence; naver's own PISCO models are under CC BY-NC 4.0, not for commercial use"
)
_NO_QUERIES = "PISCO has no encoder for questions: a memory finds by words"


def is_pisco(fields: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's ``config.json`` is that of PISCO's model class."""
    return fields.get("model_type") == _MODEL_TYPE


def read_fields(fields: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """PISCO's config with the reference's defaults; its fields have the names of CLaRa's.

    Args:
        fields: The content of the checkpoint's ``config.json``.
        where: That file, for errors.

    Raises:
        CheckpointError: It is a relative of PISCO that works in another way.
    """
    known = {**_DEFAULTS, **fields}
    if known["compr_model_name"] is not None:
        raise CheckpointError(
            f"{where}: its texts are compressed by another network (compr_model_name "
            f"{known['compr_model_name']!r:.60}), as those of OSCAR and COCOM-light are; of this "
            "family only PISCO can be converted, which compresses with its decoder"
        )
    if known["lora"] is not True:
        raise CheckpointError(
            f"{where}: it was trained whole (lora is {known['lora']!r:.20}), but PISCO has adapters"
        )
    if known["training_form"] not in (_SEPARATE, _SHARED):
        raise CheckpointError(
            f"{where}: training_form {known['training_form']!r:.40} is not one of PISCO's, "
            f"which are {_SEPARATE} and {_SHARED}"
        )
    if known["kbtc_training"]:
        raise CheckpointError(
            f"{where}: kbtc_training adds a token to the vocabulary, which is not supported"
        )
    return known


def share_adapter(
    adapters: Mapping[str, Mapping[str, Any]], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """A checkpoint's adapters by its own names, where one adapter compresses and answers twice."""
    shared = dict(adapters)
    if fields["training_form"] == _SHARED and "decoder_adapter" in shared:
        shared.setdefault("encoder_adapter", shared["decoder_adapter"])
    return shared


def notes(licence: str | None) -> list[str]:
    """What the user should know of any PISCO checkpoint, whose licence is stated or not."""
    return [_NO_QUERIES, *([] if licence else [_LICENCE])]
