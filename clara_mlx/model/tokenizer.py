"""TextTokenizer: text from outside becomes ids of ordinary text, never layout tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from clara_mlx.errors import CheckpointError

_LONE_SURROGATES = re.compile("[\ud800-\udfff]")
_GROUP = 256  # texts per call of the library
_PIECE = 1 << 20  # characters that are read without a break


class TextTokenizer:
    """A ``tokenizer.json`` read as it is, with all special tokens taken out of its reach.

    ``</s>``, ``<MEM0>`` or ``[/INST]`` in a text are plain characters. Text is encoded as
    the reference encodes it after a special token: a Prepend normaliser still puts its ``▁`` in
    front, a Metaspace pre-tokenizer with ``first`` does not. A lone surrogate, which UTF-8 cannot
    carry, is read as U+FFFD; the caller's string is not changed, so character offsets hold.
    """

    def __init__(self, tokenizer_json: str, *, where: str = "tokenizer.json") -> None:
        try:
            spec: dict[str, Any] = json.loads(tokenizer_json)
            #: The tokenizer with its special tokens, for decoding.
            self.full = Tokenizer.from_str(tokenizer_json)
            _remove_special_words(spec)
            spec["added_tokens"] = []
            spec["post_processor"] = spec["truncation"] = spec["padding"] = None
            at_start = json.dumps(spec)
            _drop_first_piece_prefix(spec.get("pre_tokenizer"))
            self._tokenizer = Tokenizer.from_str(json.dumps(spec))
            self._at_start = self._tokenizer
            if json.dumps(spec) != at_start:
                self._at_start = Tokenizer.from_str(at_start)
        except Exception as error:  # the library raises bare Exception on malformed files
            raise CheckpointError(f"{where}: not a usable tokenizer: {error}") from error
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        added = self.full.get_added_tokens_decoder().items()
        self._open_ids = frozenset(
            [id for token, id in vocabulary.items() if re.fullmatch("<0x[0-9A-F]{2}>", token)]
            + [id for id, token in added if token.special]
        )
        #: The longest entry of the vocabulary, in characters: no token covers more text.
        self.longest_token = max(map(len, vocabulary), default=1)

    def encode(self, text: str, *, starts: bool = False) -> list[int]:
        """Ids of a text that follows something, or that ``starts`` a prompt."""
        tokenizer = self._at_start if starts else self._tokenizer
        return tokenizer.encode(_without_lone_surrogates(text)).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, on all cores."""
        ids: list[list[int]] = []
        # In groups, because the library's own results are many times larger than the ids.
        for start in range(0, len(texts), _GROUP):
            group = [_without_lone_surrogates(text) for text in texts[start : start + _GROUP]]
            ids += [encoded.ids for encoded in self._tokenizer.encode_batch_fast(group)]
        return ids

    def ends(self, text: str) -> list[int]:
        """For each token of a text, the character offset at which it ends."""
        return [end for _, end in self._tokenizer.encode(_without_lone_surrogates(text)).offsets]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        return self.full.decode(list(ids), skip_special_tokens=True)

    def is_open(self, id: int) -> bool:
        """Whether later ids can change the text up to this one.

        A byte-fallback token's text depends on its neighbours; special tokens, which `decode`
        leaves out, do not separate them.
        """
        return id in self._open_ids


def _without_lone_surrogates(text: str) -> str:
    """The text without them, piece by piece, so that other threads run while a long one is read."""
    pieces = (text[i : i + _PIECE] for i in range(0, len(text), _PIECE))
    return "".join(_LONE_SURROGATES.sub("\ufffd", piece) for piece in pieces)


def _remove_special_words(spec: dict[str, Any]) -> None:
    """Remove special tokens from a vocabulary in which text is looked up as it stands."""
    model = spec["model"]
    if model.get("type") == "Unigram":  # ids are places in a list: each keeps its own, and no text
        special = {token["content"] for token in spec.get("added_tokens", []) if token["special"]}
        model["vocab"] = [["" if t in special else t, score] for t, score in model["vocab"]]
    if model.get("ignore_merges"):
        for token in spec.get("added_tokens", []):
            if token["special"] and token["content"] != model.get("unk_token"):
                model["vocab"].pop(token["content"], None)


def _drop_first_piece_prefix(pre_tokenizer: dict[str, Any] | None) -> None:
    """Encode every text as a continuation: no ``▁`` before the first piece only."""
    for part in (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer or {}]):
        if part.get("type") == "Metaspace" and part.get("prepend_scheme") == "first":
            part["prepend_scheme"] = "never"
