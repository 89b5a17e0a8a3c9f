"""The vocabulary in a base's ``tokenizer.json``, to which CLaRa adds its own tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from clara_mlx.convert.files import read_json
from clara_mlx.errors import CheckpointError
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.regular import MOST_BYTES


def read_tokenizer(base: Path, checkpoint: Path) -> dict[str, Any]:
    """Read the base's tokenizer, as the reference does, or the checkpoint's if it has none."""
    for folder in (base, checkpoint):
        path = folder / "tokenizer.json"
        if path.is_file() or path.is_symlink():
            tokenizer = read_json(folder / "tokenizer.json", MOST_BYTES)
            if not _has_vocabulary(tokenizer):
                raise CheckpointError(f"{folder / 'tokenizer.json'}: it has no vocabulary")
            return tokenizer
    raise CheckpointError(f"there is no tokenizer.json in {base} or {checkpoint}")


def _has_vocabulary(tokenizer: dict[str, Any]) -> bool:
    """Whether vocabulary and added tokens have the form that the functions below rely on."""
    model = tokenizer.get("model")
    added = tokenizer.setdefault("added_tokens", [])
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    return (
        isinstance(vocabulary, dict)
        and len(vocabulary) > 0
        and all(type(id) is int for id in vocabulary.values())
        and isinstance(added, list)
        and all(
            isinstance(token, dict)
            and type(token.get("id")) is int
            and isinstance(token.get("content"), str)
            for token in added
        )
    )


def vocabulary_size(tokenizer: dict[str, Any]) -> int:
    """Number of the base's token ids; CLaRa's own tokens don't count, should it have them."""
    ids = [*tokenizer["model"]["vocab"].values()]
    for token in tokenizer["added_tokens"]:
        if not re.fullmatch(r"<(MEM\d*|AE|ENC|SEP)>", token["content"]):
            ids.append(token["id"])
    return max(ids) + 1


def add_tokens(tokenizer: dict[str, Any], config: ClaraConfig, where: Path) -> None:
    """Append CLaRa's tokens to a parsed ``tokenizer.json``, or check those it has already.

    Raises:
        CheckpointError: One of them has another id; the message names the folder ``where``.
    """
    present = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    for id, content in enumerate(config.added_tokens, config.base_vocab_size):
        if present.get(content, id) != id:
            raise CheckpointError(
                f"{where}: tokenizer.json gives {content} the id {present[content]}, not {id}"
            )
        if content not in present:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            tokenizer["added_tokens"].append(
                {"id": id, "content": content, **flags, "special": True}
            )
