"""Decoder rows of pretraining: token ids, slots for latents, answers, and what is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

STEP = 8  # lengths are padded to multiples of this, so that few shapes are compiled


@dataclass
class Rows:
    """Decoder rows, padded on the right.

    Attributes:
        ids: (rows, length) int32 token ids, 0 after the end; memory tokens' own ids at slots.
        slots: (rows, length) int32: which vector of the batch's flattened latents, or -1.
        at: (rows, learned) int32: where in the flattened rows a token's successor is learned.
        labels: (rows, learned) int32 those successors, -1 where there is none.
        answers: (rows, learned) int32: which of the row's answers they belong to.
        sources: (rows, learned) int32: where in the row the token is to be had, or -1: where the
            same token stands in a text, or the memory token whose place it has.
        heads: (rows, learned) int32: which head is to look there.
    """

    ids: np.ndarray
    slots: np.ndarray
    at: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    sources: np.ndarray
    heads: np.ndarray

    def arrays(self) -> list[np.ndarray]:
        """All arrays, in a fixed order."""
        return [
            *(self.ids, self.slots, self.at, self.labels, self.answers),
            *(self.sources, self.heads),
        ]


@dataclass
class Row:
    """One decoder row, while it is made.

    Attributes:
        ids: its token ids.
        slots: positions that take latents, in the latents' order.
        vectors: which of the batch's flattened latents each of them takes.
        answers: positions of the tokens that are learned, an answer each.
        sources: of learned positions: where in the row the token is to be had, and by which head.
    """

    ids: list[int]
    slots: list[int] = field(default_factory=list)
    vectors: list[int] = field(default_factory=list)
    answers: list[range] = field(default_factory=list)
    sources: dict[int, tuple[int, int]] = field(default_factory=dict)


def padded_rows(rows: list[Row]) -> Rows:
    """Rows as arrays."""
    learned = up(max((sum(map(len, row.answers)) for row in rows), default=1))
    at = np.zeros((len(rows), learned), np.int32)
    labels = np.full((len(rows), learned), -1, np.int32)
    answers = np.zeros((len(rows), learned), np.int32)
    sources = np.full((len(rows), learned), -1, np.int32)
    heads = np.zeros((len(rows), learned), np.int32)
    ids = padded([row.ids for row in rows])
    slots = np.full(ids.shape, -1, np.int32)
    for number, row in enumerate(rows):
        slots[number, row.slots] = row.vectors
        first = 0
        for answer, positions in enumerate(row.answers):
            here = slice(first, first + len(positions))
            at[number, here] = np.array(positions) - 1 + number * ids.shape[1]
            labels[number, here] = row.ids[positions.start : positions.stop]
            answers[number, here] = answer
            shown = [row.sources.get(position, (-1, 0)) for position in positions]
            sources[number, here], heads[number, here] = zip(*shown, strict=True)
            first += len(positions)
    return Rows(ids, slots, at, labels, answers, sources, heads)


def padded(rows: list[list[int]]) -> np.ndarray:
    """(rows, length) int32 token ids, 0 after the end."""
    longest = up(max((len(row) for row in rows), default=1))
    array = np.zeros((len(rows), longest), np.int32)
    for number, row in enumerate(rows):
        array[number, : len(row)] = row
    return array


def up(length: int, step: int = STEP) -> int:
    """A length, rounded up to a multiple of a step."""
    return -(-length // step) * step
