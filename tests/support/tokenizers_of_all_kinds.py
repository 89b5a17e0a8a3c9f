"""The golden tokenizer, as it is and with other ways to mark spaces."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from golden_files import GOLDEN
from hostile_texts import SPECIAL

from clara_mlx.model.tokenizer import TextTokenizer

GOLDEN_JSON = (GOLDEN / "tiny-base" / "tokenizer.json").read_text(encoding="utf-8")


def metaspace(spec: dict[str, Any], scheme: str, split: bool) -> None:
    spec["normalizer"] = None
    spec["pre_tokenizer"] = {
        "type": "Metaspace",
        "replacement": "▁",
        "prepend_scheme": scheme,
        "split": split,
    }


def _byte_level(spec: dict[str, Any]) -> None:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [*map(chr, printable), *(chr(256 + i) for i in range(256 - len(printable)))]
    spec["normalizer"] = None
    spec["model"] |= {
        "vocab": {token: id for id, token in enumerate(["<unk>", "<s>", "</s>", *alphabet])},
        "merges": [],
        "byte_fallback": False,
        "ignore_merges": True,
    }
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    spec["pre_tokenizer"] = {**byte_level, "add_prefix_space": False}
    spec["decoder"] = {**byte_level, "add_prefix_space": True}


@functools.cache
def tokenizer(kind: str = "prepend") -> TextTokenizer:
    """The golden tokenizer with the added tokens, as it is or with another way to mark spaces."""
    spec = json.loads(GOLDEN_JSON)
    if kind == "byte level":
        _byte_level(spec)
    elif kind != "prepend":
        scheme, *options = kind.split()
        metaspace(spec, scheme, split="split" in options)
        spec["model"]["ignore_merges"] = "whole" in options
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for id, content in enumerate(SPECIAL[3:], 643):  # the base has the first three
        spec["added_tokens"].append({"id": id, "content": content, **flags, "special": True})
    return TextTokenizer(json.dumps(spec))


KINDS = ["prepend", "first", "always", "first split", "always split", "byte level"]


def readable(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
