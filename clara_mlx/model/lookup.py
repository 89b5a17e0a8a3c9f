"""Drafts of an answer from texts that it may copy: what mlx-lm's speculative decoding verifies.

Answers are mostly copies of what stands in the documents. After two tokens of a line, the tokens
that follow there are drafted, and one pass of the network verifies them all. A network in memory
reads all its weights for each pass, so verifying a few tokens takes little longer than making one.
The answer is the one without drafts, but for the rounding of passes of another length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

#: Tokens that are drafted at a time, at most.
DRAFTED = 6

# Tokens at the end of an answer that must stand in a text for the next ones to be drafted.
_MATCHED = 2

# Tokens before these that are compared, to choose among several places.
_COMPARED = 8

_BETWEEN = -1  # stands between two texts, and is no token


class Lookup(nn.Module):
    """A draft model for mlx-lm that looks tokens up in texts, and also the cache of this model.

    As the model it is called with the tokens that it has not seen yet, its last draft or what the
    network has made, and gives logits of which the largest is the next draft's. As the cache it is
    told to forget the drafts that were not right.

    Args:
        texts: The ids of each text, the most important first.
        vocabulary: Number of logits of the network. This number stands for no draft; the network
            never gives it, so that it is never right.
    """

    def __init__(self, texts: Sequence[Sequence[int]], vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._vocabulary = vocabulary
        # In tuples, as a module takes a list for one of modules.
        self._ids = tuple(id for text in texts for id in (*text, _BETWEEN))
        self._places: dict[tuple[int, ...], list[int]] = {}
        for end in range(_MATCHED, len(self._ids)):
            self._places.setdefault(self._ids[end - _MATCHED : end], []).append(end)
        self._seen: tuple[int, ...] = ()
        self._drafts: tuple[int, ...] | None = None
        self._given = 0

    @property
    def drafted(self) -> int:
        """Number of tokens that were drafted since the last ones were verified."""
        return len(self._drafts or ())

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        """Logits (1, 1, vocabulary + 1) of the next draft for ids (1, length)."""
        if self._drafts is None:
            new: Any = inputs[0].tolist()
            self._seen += tuple(new)
            self._drafts, self._given = self._look_up(), 0
        else:  # its own last draft, which need not be computed to be known
            self._seen += (self._draft(self._given - 1),)
        draft = self._draft(self._given)
        self._given += 1
        return (mx.arange(self._vocabulary + 1) == draft).astype(mx.float32)[None, None] * 99

    def is_trimmable(self) -> bool:
        """Yes; mlx-lm asks its caches."""
        return True

    def trim(self, count: int) -> int:
        """Forget the last tokens; mlx-lm does so after each verification, also with none."""
        self._seen = self._seen[: len(self._seen) - count]
        self._drafts = None
        return count

    def _draft(self, number: int) -> int:
        drafts = self._drafts or ()
        return drafts[number] if number < len(drafts) else self._vocabulary

    def _look_up(self) -> tuple[int, ...]:
        """What follows where the texts have the longest part of the answer's end."""
        places = self._places.get(self._seen[-_MATCHED:], ())
        end = max(places, key=self._alike, default=None)  # of equal ones, the first
        if end is None:
            return ()
        following = self._ids[end : end + DRAFTED]
        return following[: following.index(_BETWEEN)] if _BETWEEN in following else following

    def _alike(self, end: int) -> int:
        """Number of tokens before a place that are also at the end of the answer."""
        alike = _MATCHED
        most = min(_COMPARED, len(self._seen), end)
        while alike < most and self._seen[-alike - 1] == self._ids[end - alike - 1]:
            alike += 1
        return alike


class Verifying(nn.Module):
    """A network whose passes leave out the drafts that `Lookup` did not have.

    mlx-lm verifies as many drafts each time. What is left out counts in the cache, as mlx-lm takes
    it back again: it is at the end, and never right.
    """

    def __init__(self, network: nn.Module, lookup: Lookup) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._lookup = lookup

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        """Logits (1, length, vocabulary) for ids (1, length); zeros at what is left out."""
        run = min(1 + self._lookup.drafted, inputs.shape[1])
        logits: mx.array = self._network(inputs[:, :run], cache=cache)
        left_out = inputs.shape[1] - run
        if left_out:
            for layer in cache:
                layer.offset += left_out
            logits = mx.pad(logits, [(0, 0), (0, left_out), (0, 0)])
        return logits

    @property
    def layers(self) -> list[nn.Module]:
        """The layers, for which mlx-lm has a cache each."""
        return self._network.layers
