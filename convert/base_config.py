"""A base's ``config.json``: its text model's fields, its special tokens, and what mlx-lm reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clara_mlx.convert.chat_template import special_tokens
from clara_mlx.convert.files import read_json
from clara_mlx.convert.rope import settle_rope
from clara_mlx.errors import CheckpointError

#: What transformers takes for a field that these families' configs leave out.
_DEFAULT_IDS = {"bos_token_id": 1, "eos_token_id": 2}
_WITH_DEFAULT_IDS = ("mistral", "llama")

#: Fields that a model with images keeps beside those of its text model.
_SHARED = ("bos_token_id", "eos_token_id", "torch_dtype", "dtype", "quantization_config")


def read_base_config(folder: Path) -> dict[str, Any]:
    """The config of a base, or of the text model inside one that reads images, too.

    Raises:
        CheckpointError: There is none, or it says that the base is quantised.
    """
    config = read_json(folder / "config.json")
    nested = config.get("text_config")
    if isinstance(nested, dict):
        shared = {key: config[key] for key in _SHARED if config.get(key) is not None}
        config = shared | {key: value for key, value in nested.items() if value is not None}
    if config.get("quantization") or config.get("quantization_config"):
        raise CheckpointError(f"{folder}: already quantised; name the original base with --base")
    return config


def special_ids(config: dict[str, Any], folder: Path, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """`ClaraConfig`'s ``bos_id``, ``eos_id`` and ``more_stop_ids``, from all that a base names.

    The end that its tokenizer names comes first, as in the reference, and ends the texts of a
    layout; Llama 3.1's ``config.json`` has another one first. Those of ``config.json`` and
    ``generation_config.json`` follow. Each of them ends an answer.

    Args:
        config: The base's ``config.json``.
        folder: The base's folder.
        tokenizer: Its parsed ``tokenizer.json``.

    Raises:
        CheckpointError: No end is named.
    """
    generation: dict[str, Any] = {}
    if (folder / "generation_config.json").is_file():
        generation = read_json(folder / "generation_config.json")
    defaults = _DEFAULT_IDS if config.get("model_type") in _WITH_DEFAULT_IDS else {}
    starts = _ids(config.get("bos_token_id", defaults.get("bos_token_id")))
    ends = _ids(config.get("eos_token_id")) + _ids(generation.get("eos_token_id"))
    named = special_tokens(folder).get("eos_token")
    ends = [t["id"] for t in tokenizer["added_tokens"] if t["content"] == named] + ends
    ends = list(dict.fromkeys(ends or _ids(defaults.get("eos_token_id"))))
    if not ends:
        raise CheckpointError(
            f"{folder / 'config.json'}: it names no eos_token_id, without which no answer ends"
        )
    return {
        "bos_id": starts[0] if starts else None,
        "eos_id": ends[0],
        "more_stop_ids": tuple(ends[1:]),
    }


def _ids(value: Any) -> list[Any]:
    """One id, several, or none, as a list; `ClaraConfig` checks what they are."""
    if value is None:
        return []
    several = value if isinstance(value, list) else [value]
    return [one if isinstance(one, int) else str(one) for one in several]


def mlx_config(config: dict[str, Any], vocab_size: int, *, where: Path) -> dict[str, Any]:
    """A base's config, changed where mlx-lm would read something else from it.

    Args:
        config: The base's own.
        vocab_size: Token ids with the added ones.
        where: Its file, for errors.

    Raises:
        CheckpointError: mlx-lm would compute other positions than it says; see `settle_rope`.
    """
    config = dict(config)
    for key in ("quantization", "quantization_config"):  # empty, or the base would be refused
        config.pop(key, None)
    # Newer transformers nest what mlx-lm's Llama expects at the top, and would silently default.
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(f"{where}: rope_parameters must be an object")
    if not rope:
        config.pop("rope_parameters", None)
    if any(isinstance(value, dict) for value in rope.values()):
        raise CheckpointError(
            f"{where}: rope_parameters that differ by layer are not supported; use the config of "
            "transformers 4, which has rope_theta"
        )
    if "rope_theta" in rope:
        config.setdefault("rope_theta", rope["rope_theta"])
    if rope.get("rope_type", "default") != "default":
        config["rope_scaling"] = rope
    config["vocab_size"] = vocab_size
    config["tie_word_embeddings"] = False
    return settle_rope(config, where)
