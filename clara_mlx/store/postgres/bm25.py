"""BM25 of a few thousand candidates, as FTS5 has it, from the frequencies beside their vectors.

PostgreSQL's own ``ts_rank`` does not know how rare a word is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import numpy.typing as npt

from clara_mlx.store.hadamard import Floats
from clara_mlx.store.postgres.vectors import hash_of
from clara_mlx.store.terms import Term

Ids = npt.NDArray[np.int64]

#: A word's frequencies, as `vectors` writes them.
FREQUENCY = np.dtype([("hash", "<u4"), ("words", "u1"), ("parts", "u1")])

# How soon the same word again adds nothing, and how much a long chunk loses: FTS5's values.
_SATURATION = 1.2
_LENGTH = 0.75

# What a part of an identifier counts, beside the words as they are written.
_PART = 0.5

# What a word says that more than half of all have.
_LEAST = 1e-6

# Bits of a hash by which most frequencies are seen to be of no word that is asked for.
_BITS = 16


@dataclass(frozen=True)
class Candidates:
    """Rows of the index; several may be of the same chunk.

    Attributes:
        ids: The chunks, (n,).
        lengths: Words and parts of each row, (n,).
        sizes: Number of frequencies of each row, (n,).
        frequencies: Those of all rows, one after the other, as `FREQUENCY`.
    """

    ids: Ids
    lengths: Ids
    sizes: Ids
    frequencies: bytes


@dataclass(frozen=True)
class Collection:
    """What all chunks are like.

    Attributes:
        count: Number of chunks.
        length: Their mean length in words and parts.
    """

    count: float
    length: float


def scores(
    candidates: Candidates,
    counts: Mapping[Term, float],
    places: Mapping[Term, Sequence[int]],
    collection: Collection,
) -> tuple[Ids, Floats]:
    """The chunks (m,) of candidates, in the order of their ids, and their scores (m,).

    Args:
        candidates: The candidates.
        counts: What ranks them, and the number of all chunks that have it.
        places: The chunks that have what is no single word, and so has no frequency.
        collection: What all chunks are like.
    """
    ids, rows = np.unique(candidates.ids, return_inverse=True)
    lengths = np.bincount(rows, candidates.lengths, len(ids))
    terms = {term: place for place, term in enumerate(counts)}
    often = np.zeros((len(terms), len(ids)))
    single = {hash_of(t.words[0]): at for t, at in terms.items() if t not in places}
    hashes = np.array(sorted(single), np.uint32)
    found = np.frombuffer(candidates.frequencies, FREQUENCY)
    is_asked = np.zeros(1 << _BITS, bool)
    is_asked[hashes & ((1 << _BITS) - 1)] = True
    maybe = np.flatnonzero(is_asked[found["hash"] & ((1 << _BITS) - 1)])
    if len(hashes) and len(maybe):
        row_of = np.repeat(rows, candidates.sizes)
        given = found["hash"][maybe]
        nearest = np.minimum(np.searchsorted(hashes, given), len(hashes) - 1)
        same = hashes[nearest] == given
        maybe, nearest = maybe[same], nearest[same]
        term_of = np.array([single[int(one)] for one in hashes])[nearest]
        number = found["words"][maybe] + _PART * found["parts"][maybe]
        np.add.at(often, (term_of, row_of[maybe]), number)
    for term, chunks in places.items():
        if term in terms:
            often[terms[term], np.isin(ids, np.asarray(chunks, np.int64))] = 1
    usual = _SATURATION * (1 - _LENGTH + _LENGTH * lengths / max(1.0, collection.length))
    weights = [_weight(counts[term], collection.count) for term in terms]
    total = np.asarray(weights) @ (often * (_SATURATION + 1) / (often + usual))
    return ids, total.astype(np.float32)


def _weight(count: float, among: float) -> float:
    """What a word says that ``count`` of ``among`` chunks have."""
    odds = (among - count + 0.5) / (count + 0.5)
    return max(_LEAST, log(odds)) if odds > 0 else _LEAST
