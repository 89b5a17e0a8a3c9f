"""What counts as a right answer, and how sure a share is."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

#: The definitions, as a report states them.
DEFINITIONS = {
    "exact": (
        "Equal to the expected answer after normalising both: Unicode NFC, every run of white "
        "space one blank, then blanks, quotation marks (\", ', `) and full stops off the end, and "
        "blanks and quotation marks off the start, unless nothing would be left. Case counts."
    ),
    "f1": (
        "Harmonic mean of precision and recall of the answer's tokens among the expected ones, as "
        "multisets, after the same normalising. A token is a run of letters, digits and "
        "underscores, or any other single character that is not blank."
    ),
    "interval": (
        "95% percentile interval of a bootstrap over documents: all probes of a document are drawn "
        "together. One of no width says that all documents agree, not that there is no doubt; "
        "there is none for a single document."
    ),
    "difference": "Mean of the differences probe by probe, with the same bootstrap (paired).",
}

#: Bootstrap samples, and those that are drawn at a time.
RESAMPLES, _BLOCK = 2000, 250

_QUOTES = "\"'`"
_TOKEN = re.compile(r"\w+|[^\w\s]")


def normalise(answer: str) -> str:
    """An answer as it is compared, see `DEFINITIONS`."""
    text = " ".join(unicodedata.normalize("NFC", answer).split())
    return text.rstrip(f"{_QUOTES}. ").lstrip(f"{_QUOTES} ") or text


def exact(answer: str, expected: str) -> bool:
    """Whether an answer is the expected one, normalised."""
    return normalise(answer) == normalise(expected)


def f1(answer: str, expected: str) -> float:
    """Token F1 of an answer, 0 to 1."""
    given = Counter(_TOKEN.findall(normalise(answer)))
    wanted = Counter(_TOKEN.findall(normalise(expected)))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


@dataclass(frozen=True)
class Estimate:
    """A mean over probes with the bounds of its 95% interval; None for a single document."""

    mean: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Ready for JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def estimates(documents: Sequence[int], values: Any, seed: int) -> list[Estimate]:
    """Means of several figures of the same probes, all from the same bootstrap samples.

    Args:
        documents: which document each of n probes is about.
        values: (figures, n) numbers.
        seed: of the samples. The same documents get the same samples.

    Raises:
        ValueError: there are no probes.
    """
    if not documents:
        raise ValueError("no probes, so there is no share of them")
    table = np.asarray(values, np.float64).reshape(-1, len(documents))
    _, which = np.unique(np.asarray(documents), return_inverse=True)
    clusters = int(which.max()) + 1
    counts = np.bincount(which, minlength=clusters)
    sums = np.stack([np.bincount(which, row, clusters) for row in table])
    means = table.mean(axis=1)
    if clusters == 1:
        return [Estimate(float(mean), None, None) for mean in means]
    random = np.random.default_rng(seed)
    resampled = np.empty((len(table), RESAMPLES))
    for start in range(0, RESAMPLES, _BLOCK):
        drawn = random.integers(clusters, size=(_BLOCK, clusters))
        resampled[:, start : start + _BLOCK] = sums[:, drawn].sum(-1) / counts[drawn].sum(-1)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=1)
    return [
        Estimate(float(m), float(a), float(b)) for m, a, b in zip(means, low, high, strict=True)
    ]
