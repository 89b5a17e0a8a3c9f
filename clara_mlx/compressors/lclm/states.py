"""StateCache: pooled states by the content of their window, so that known text is not run again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import mlx.core as mx
import numpy as np

#: Bytes of the states that are kept: those of a million tokens at 16x in LCLM 0.6B's width.
MOST_BYTES = 256 << 20


class StateCache:
    """The states of the windows that were used last, by a digest of their ids.

    Args:
        most_bytes: What all of them may take; the longest unused are dropped first.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._states: OrderedDict[bytes, mx.array] = OrderedDict()

    def get(self, ids: Sequence[int]) -> mx.array | None:
        """The states of a window, (groups, hidden), if they are known."""
        key = _digest(ids)
        if key in self._states:
            self._states.move_to_end(key)
        return self._states.get(key)

    def put(self, ids: Sequence[int], states: mx.array) -> None:
        """Keep the states of a window."""
        key = _digest(ids)
        if key in self._states:
            return
        self._states[key] = states
        self._bytes += states.nbytes
        while self._bytes > self._most_bytes:
            _, dropped = self._states.popitem(last=False)
            self._bytes -= dropped.nbytes


def _digest(ids: Sequence[int]) -> bytes:
    return hashlib.sha256(np.asarray(ids, np.uint32).tobytes()).digest()
