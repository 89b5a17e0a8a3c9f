"""Two benches, figure by figure: what is faster, what is slower, and what is only noise."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from clara_mlx.evaluate.tables import Grid
from clara_mlx.speed.figures import Figure, figures_of
from clara_mlx.store.atomic import write_text

Word = Literal["better", "worse", "within the noise", "same", "too few runs"]

# Runs of a figure below which no spread can be told from it.
_LEAST_RUNS = 3

# A difference that is smaller than this can be the machine's, whatever the runs say.
_ALWAYS_NOISE = 0.03

_RESAMPLES = 2000  # of the bootstrap
_SEED = 0

# Of a machine: what makes figures of two benches those of different machines.
_MACHINE = ("processor", "cores", "memory_bytes", "system", "device", "preloaded", "mlx", "mlx-lm")

# Of a model and its bench.
_MODEL = ("model", "fingerprint", "compute_dtype", "clara_mlx")

# What is not the program's: the machine's own rates, and what mlx-lm does on it.
_NOT_OURS = "machine"


@dataclass(frozen=True)
class Difference:
    """A figure in both benches.

    Attributes:
        part: The part of the bench.
        name: What was measured.
        unit: Of both figures.
        a: The first bench's.
        b: The second's.
        ratio: b / a.
        low: The lower end of the ratio's 95% interval (bootstrap of the medians of the runs); None
            if there are too few runs.
        high: Its upper end.
        word: What that means for the second bench.
        worse_by: By which share the second is worse; negative if it is better.
    """

    part: str
    name: str
    unit: str
    a: float
    b: float
    ratio: float
    low: float | None
    high: float | None
    word: Word
    worse_by: float


def compare(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Compare two benches that `figures.read` has read.

    Returns:
        A dict ready for JSON: ``differences``, ``only_in_a`` and ``only_in_b`` (names of figures),
        and ``remarks``, sentences on what makes the two less comparable.
    """
    first, second = figures_of(a), figures_of(b)
    both = [name for name in first if name in second]
    return {
        "differences": [asdict(_difference(first[name], second[name])) for name in both],
        "only_in_a": [name for name in first if name not in second],
        "only_in_b": [name for name in second if name not in first],
        "remarks": _remarks(a, b),
    }


def worse(comparison: dict[str, Any], share: float) -> list[str]:
    """Names of the figures that are clearly worse in the second bench, by more than a share."""
    return [
        one["name"]
        for one in comparison["differences"]
        if one["word"] == "worse" and one["worse_by"] > share and one["part"] != _NOT_OURS
    ]


def _difference(a: Figure, b: Figure) -> Difference:
    ratio = b.median / a.median if a.median else 1.0
    low, high = _interval(a, b)
    worse_by = (1 / ratio if ratio and a.more_is_better else ratio) - 1
    return Difference(
        a.part, a.name, a.unit, a.median, b.median, ratio, low, high,
        _word(a.unit, ratio, low, high, worse_by), worse_by,
    )  # fmt: skip


def _interval(a: Figure, b: Figure) -> tuple[float | None, float | None]:
    """The 95% interval of the ratio of the medians."""
    if min(len(a.runs), len(b.runs)) < _LEAST_RUNS:
        return None, None
    random = np.random.default_rng(_SEED)

    def medians(runs: tuple[float, ...]) -> Any:
        drawn = random.choice(np.array(runs), (_RESAMPLES, len(runs)))
        return np.median(drawn, axis=1)

    ratios = medians(b.runs) / np.maximum(medians(a.runs), 1e-12)
    return float(np.percentile(ratios, 2.5)), float(np.percentile(ratios, 97.5))


def _word(unit: str, ratio: float, low: float | None, high: float | None, worse_by: float) -> Word:
    if unit == "bytes":  # these have no noise worth speaking of, but a page is a page
        return "same" if abs(worse_by) < _ALWAYS_NOISE else _better_or_worse(worse_by)
    if low is None or high is None:
        return "too few runs"
    if low <= 1 <= high or abs(ratio - 1) < _ALWAYS_NOISE:
        return "within the noise"
    return _better_or_worse(worse_by)


def _better_or_worse(worse_by: float) -> Word:
    return "worse" if worse_by > 0 else "better"


def _remarks(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """What makes two benches less comparable than two runs of one program on one machine."""
    found = [
        f"{name.replace('_', ' ')}: {first} in A, {second} in B"
        for one, other, names in ((a["machine"], b["machine"], _MACHINE), (a, b, _MODEL))
        for name in names
        if (first := one.get(name)) != (second := other.get(name))
        and (name in one or name in other)
    ]
    for letter, result in (("A", a), ("B", b)):
        found += [f"{letter}: {one}" for one in result.get("busy") or []]
        if (result.get("settings") or {}).get("quick"):
            found.append(f"{letter} is a quick bench: few runs")
        if "format" not in result:
            found.append(
                f"{letter} was written by an older clara-mlx: its chunk lengths are rounded to "
                "lines, its answers end where the model ends them, and it has no runs of answers"
            )
    return found


def grid(comparison: dict[str, Any]) -> Grid:
    """The differences as a table."""
    rows: list[tuple[str, ...]] = [
        (
            one["name"],
            _shown(one["a"], one["unit"]),
            _shown(one["b"], one["unit"]),
            f"{one['ratio']:.3g}",
            "" if one["low"] is None else f"{one['low']:.3g} to {one['high']:.3g}",
            one["word"],
        )
        for one in comparison["differences"]
    ]
    header = ("figure", "A", "B", "B / A", "95% interval", "B is")
    return Grid("A and B", header, rows)


def lines(comparison: dict[str, Any]) -> list[str]:
    """What is no table: what is in one bench only, and what makes them less comparable."""
    count = Counter(one["word"] for one in comparison["differences"])
    words = ", ".join(f"{number} {word}" for word, number in count.most_common())
    found = [f"{len(comparison['differences'])} figures in both: {words or 'none'}."]
    for which in ("a", "b"):
        if names := comparison[f"only_in_{which}"]:
            found.append(f"not comparable, only in {which.upper()}: {'; '.join(names)}")
    return found + [f"note: {remark}" for remark in comparison["remarks"]]


def write(comparison: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``compare.json`` and ``compare.md``; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join([grid(comparison).to_markdown(), *lines(comparison)]) + "\n"
    texts = {"compare.json": json.dumps(comparison, indent=1) + "\n", "compare.md": text}
    for name, content in texts.items():
        write_text(folder / name, content)
    return [folder / name for name in texts]


def _shown(value: float, unit: str) -> str:
    match unit:
        case "s":
            return f"{1e3 * value:,.4g} ms"
        case "bytes":
            return f"{value / 1e6:,.4g} MB"
        case "x":
            return f"{value:.3g}"
        case _:
            large = value >= 1e9  # operations or bytes
            return f"{value / 1e9:,.4g} G/s" if large else f"{value:,.4g}/s"
