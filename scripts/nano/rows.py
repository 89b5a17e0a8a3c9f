"""Decoder rows of pretraining: token ids, slots for latents, answers, and where to copy from."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

STEP = 8  # tokens; lengths are padded to multiples of it, so that few shapes are compiled


@dataclass
class Rows:
    """Decoder rows as int32 arrays, padded on the right.

    Shapes are (rows, length), or (rows, learned) with one entry per token to learn.
    """

    ids: np.ndarray  # (rows, length): token ids, memory tokens' own at slots, 0 after the end
    slots: np.ndarray  # (rows, length): index into the batch's flattened latents, or -1
    at: np.ndarray  # (rows, learned): flattened position whose next token is learned
    labels: np.ndarray  # (rows, learned): that next token, or -1
    answers: np.ndarray  # (rows, learned): number of the answer in its row
    sources: np.ndarray  # (rows, learned): position in the row to copy the token from, or -1
    heads: np.ndarray  # (rows, learned): the head that should look there

    def arrays(self) -> list[np.ndarray]:
        """All arrays in a fixed order."""
        return [
            *(self.ids, self.slots, self.at, self.labels, self.answers),
            *(self.sources, self.heads),
        ]


@dataclass
class Row:
    """One decoder row while it is being made."""

    ids: list[int]  # token ids
    slots: list[int] = field(default_factory=list)  # positions that take latents, in their order
    vectors: list[int] = field(default_factory=list)  # index of each slot's flattened latent
    answers: list[range] = field(default_factory=list)  # positions of each answer's tokens
    #: By learned position: the position to copy from, and the head that should look there.
    sources: dict[int, tuple[int, int]] = field(default_factory=dict)


def pad_rows(rows: list[Row]) -> Rows:
    """Turn rows into arrays of one shape."""
    learned = round_up(max((sum(map(len, row.answers)) for row in rows), default=1))
    at = np.zeros((len(rows), learned), np.int32)
    labels = np.full((len(rows), learned), -1, np.int32)
    answers = np.zeros((len(rows), learned), np.int32)
    sources = np.full((len(rows), learned), -1, np.int32)
    heads = np.zeros((len(rows), learned), np.int32)
    ids = pad([row.ids for row in rows])
    slots = np.full(ids.shape, -1, np.int32)
    for number, row in enumerate(rows):
        slots[number, row.slots] = row.vectors
        first = 0
        for answer, positions in enumerate(row.answers):
            here = slice(first, first + len(positions))
            at[number, here] = np.array(positions) - 1 + number * ids.shape[1]
            labels[number, here] = row.ids[positions.start : positions.stop]
            answers[number, here] = answer
            pointers = [row.sources.get(position, (-1, 0)) for position in positions]
            sources[number, here], heads[number, here] = zip(*pointers, strict=True)
            first += len(positions)
    return Rows(ids, slots, at, labels, answers, sources, heads)


def pad(rows: list[list[int]]) -> np.ndarray:
    """Turn token ids into an int32 array (rows, length), with 0 after the end of each row."""
    longest = round_up(max((len(row) for row in rows), default=1))
    array = np.zeros((len(rows), longest), np.int32)
    for number, row in enumerate(rows):
        array[number, : len(row)] = row
    return array


def round_up(length: int, step: int = STEP) -> int:
    """A length rounded up to a multiple of ``step``."""
    return -(-length // step) * step
