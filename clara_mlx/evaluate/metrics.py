"""When an answer counts as right, and how certain a share of right answers is."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from clara_mlx.evaluate.cases import PLACES, THIRDS

#: The definitions, as a report prints them.
DEFINITIONS = {
    "exact": (
        "Equal to the expected answer after both are normalised: Unicode NFC, every run of white "
        "space becomes one blank, then blanks, quotation marks (\", ', `) and full stops are "
        "removed from the end, and blanks and quotation marks from the start, unless nothing would "
        "be left. Case counts."
    ),
    "f1": (
        "Harmonic mean of precision and recall of the answer's tokens among the expected ones, as "
        "multisets, after the same normalisation. A token is a run of letters, digits and "
        "underscores, or any other single character that is not blank."
    ),
    "interval": (
        "Wilson's 95% score interval, for the number of independent probes that would be as "
        "certain as these. Probes of one document are right or wrong together more often than "
        "not, so the variance of a share is estimated between documents (ratio estimator of "
        "cluster sampling). If all answers are right, or all wrong, each document counts as one "
        "probe. A single document has no interval."
    ),
    "difference": (
        "Mean of the differences probe by probe (paired), with the 95% interval of Agresti and Min "
        "(2005), which has a width even if no probe differs, for the number of independent probes "
        "that would be as certain, estimated between documents in the same way."
    ),
    "kept": (
        "The share answered exactly from latents, as a share of what the same decoder answers "
        "exactly from the text, with the 95% interval of Bonett and Price (2006) for paired "
        "shares, for the same number of independent probes. What is lost is the rest."
    ),
}

_Z = NormalDist().inv_cdf(0.975)  # standard errors on either side of a 95% interval

_QUOTES = "\"'`"
_TOKEN = re.compile(r"\w+|[^\w\s]")


def normalise(answer: str) -> str:
    """Bring an answer into the form in which it is compared; see `DEFINITIONS`."""
    text = " ".join(unicodedata.normalize("NFC", answer).split())
    return text.rstrip(f"{_QUOTES}. ").lstrip(f"{_QUOTES} ") or text


def exact(answer: str, expected: str) -> bool:
    """Whether an answer equals the expected one once both are normalised."""
    return normalise(answer) == normalise(expected)


def f1(answer: str, expected: str) -> float:
    """Token F1 of an answer, from 0 to 1."""
    given = Counter(_TOKEN.findall(normalise(answer)))
    wanted = Counter(_TOKEN.findall(normalise(expected)))
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (given & wanted).total() / (given.total() + wanted.total())


def scores(answers: Sequence[str], expected: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """For each answer, whether it is exactly right (1.0, else 0.0), and its F1."""
    pairs = list(zip(answers, expected, strict=True))
    return {
        "exact": np.array([float(exact(*pair)) for pair in pairs]),
        "f1": np.array([f1(*pair) for pair in pairs]),
    }


@dataclass(frozen=True)
class Estimate:
    """A mean over probes and the bounds of its 95% interval; None for a single document."""

    mean: float
    low: float | None
    high: float | None


def share(documents: Sequence[int], values: Any) -> Estimate:
    """Mean of figures between 0 and 1, with Wilson's interval for clustered probes.

    Wilson (1927) gives the interval for independent probes. Korn and Graubard (1998, Survey
    Methodology 24) put an effective number in place of theirs: as many independent probes as would
    have the variance found between documents, but never more than there are.

    Args:
        documents: The number of the document that each of n probes is about.
        values: One figure for each probe.

    Raises:
        ValueError: There are no probes.
    """
    mean, variance = _mean_and_variance(documents, values)
    if variance is None:
        return Estimate(mean, None, None)
    effective: float = len(documents)
    if mean in (0, 1):
        effective = len(set(documents))
    elif variance:
        effective = min(effective, mean * (1 - mean) / variance)
    return wilson(mean, effective)


def wilson(mean: float, number: float) -> Estimate:
    """A share of so many independent probes, with Wilson's 95% score interval."""
    low, high = _wilson(mean, number, _Z)
    return Estimate(mean, max(0.0, low), min(1.0, high))


def _wilson(mean: float, number: float, errors: float) -> tuple[float, float]:
    """The score interval with so many standard errors on either side."""
    scale = 1 + errors**2 / number
    centre = (mean + errors**2 / (2 * number)) / scale
    half = errors / scale * sqrt(mean * (1 - mean) / number + (errors / (2 * number)) ** 2)
    return centre - half, centre + half


def difference(documents: Sequence[int], values: Any) -> Estimate:
    """Mean of paired differences between -1 and 1, with an interval for clustered probes.

    Agresti and Min (2005, Statistics in Medicine 24) add two pairs that are as unlike as they can
    be, so that few pairs, or pairs that are all alike, are no certainty. The effective number of
    pairs is found as in `share`, and so are the arguments and errors.
    """
    figures = np.asarray(values, np.float64)
    mean, effective = _pairs_as_certain(documents, figures)
    if effective is None:
        return Estimate(mean, None, None)
    total = effective + 2
    gained = mean * effective
    unlike = float(np.abs(figures).mean()) * effective + 1
    half = _Z * sqrt(max(0.0, unlike - gained**2 / total)) / total
    low, high = gained / total - half, gained / total + half
    return Estimate(mean, max(-1.0, min(mean, low)), min(1.0, max(mean, high)))


def kept(documents: Sequence[int], some: Any, all_of: Any) -> Estimate | None:
    """A share of right answers relative to another on the same probes; None if that one is 0.

    The interval is the hybrid score interval of Bonett and Price (2006, Biometrics 62) for a ratio
    of paired shares, with the effective number of pairs of `difference`.

    Args:
        documents: The number of the document that each of n probes is about.
        some: For each probe 1 if it is right where something was left out, else 0.
        all_of: The same where nothing was.
    """
    one, other = np.asarray(some, np.float64), np.asarray(all_of, np.float64)
    if not other.any():
        return None
    mean = float(one.mean() / other.mean())
    _, effective = _pairs_as_certain(documents, one - other)
    if effective is None:
        return Estimate(mean, None, None)
    right = float(one.mean()) * effective
    right_before = float(other.mean()) * effective
    both = float((one * other).mean()) * effective
    either = right + right_before - both  # pairs of which neither is right say nothing
    unlike = either - both
    spread = sqrt((unlike + 2) / ((right + 1) * (right_before + 1)))
    apart = sum(sqrt((1 - (n + 1) / (either + 2)) / (n + 1)) for n in (right, right_before))
    errors = _Z * spread / apart  # so many on either side of each share: their errors go together
    of_one = _wilson(right / either, either, errors)
    of_other = _wilson(right_before / either, either, errors)
    return Estimate(mean, of_one[0] / of_other[1], of_one[1] / of_other[0])


def _pairs_as_certain(documents: Sequence[int], differences: Any) -> tuple[float, float | None]:
    """Mean of paired differences, and the number of independent pairs that are as certain."""
    mean, variance = _mean_and_variance(documents, differences)
    if variance is None:
        return mean, None
    of_one = float(np.abs(differences).mean()) - mean**2
    if not variance or not of_one:
        return mean, len(set(documents))
    return mean, max(1.0, min(len(differences), of_one / variance))


def _mean_and_variance(documents: Sequence[int], values: Any) -> tuple[float, float | None]:
    """The mean over probes and its variance, estimated between documents; None for one document.

    This is the ratio estimator for clusters of unequal sizes (Cochran, Sampling Techniques, 1977).
    """
    if not documents:
        raise ValueError("there are no probes to compute a share of")
    figures = np.asarray(values, np.float64)
    mean = float(figures.mean())
    _, which = np.unique(np.asarray(documents), return_inverse=True)
    clusters = int(which.max()) + 1
    if clusters == 1:
        return mean, None
    surplus = np.bincount(which, figures - mean)  # of each document over what the mean predicts
    return mean, float(clusters / (clusters - 1) * np.sum(surplus**2) / len(figures) ** 2)


def break_down(
    counted: str,
    documents: Sequence[int],
    figures: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Means with intervals over all probes, and by each dimension's groups, ready for JSON.

    Args:
        counted: The name of what is counted: ``probes`` or ``queries``.
        documents: The number of the document that each of n probes is about.
        figures: For each figure an array (n,) with values from 0 to 1.
        groups: For each dimension the group that each of n probes is in.
    """

    def shares(which: list[int]) -> dict[str, Any]:
        chosen = [documents[i] for i in which]
        means = {name: asdict(share(chosen, values[which])) for name, values in figures.items()}
        return {counted: len(which), "documents": len(set(chosen)), **means}

    by = {
        dimension: {
            name: shares([i for i, other in enumerate(names) if other == name])
            for name in in_report_order(dimension, set(names))
        }
        for dimension, names in groups.items()
    }
    return {"all": shares(list(range(len(documents)))), "by": by}


def in_report_order(dimension: str, names: set[str]) -> list[str]:
    """The names of one dimension's groups in the order of a report."""
    orders = {"third": THIRDS, "place": PLACES}
    if dimension in orders:
        return [name for name in orders[dimension] if name in names]
    if dimension == "ratio":
        return sorted(
            names, key=lambda name: int(name.removeprefix("over ").split(" ")[0].rstrip("x"))
        )
    return sorted(names)
