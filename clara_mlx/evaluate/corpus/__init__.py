"""Generated tool outputs with probes: real formats, names and values that nobody has seen.

`generate` draws one output of one tool. Training takes ``split="train"``, evaluation
``split="test"``; the two share no name word, pseudo-word, hash, date, version or number of 20 or
more (see `names`). What they do share is what the tools themselves always say:
layouts, exception types, rule codes, status codes, percentages, days, months and numbers below 20.
One tool, `LEFT_OUT`, is for evaluation only. The splits of brief outputs share words, but no name
made of two.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from clara_mlx.errors import ClaraError
from clara_mlx.evaluate.corpus import (
    builds,
    cargo,
    checkers,
    compilers,
    configs,
    git,
    listings,
    pytest_runs,
    python,
    unittest_runs,
    web,
)
from clara_mlx.evaluate.corpus.brief import BRIEF_LAYOUTS
from clara_mlx.evaluate.corpus.names import SPLITS, Names
from clara_mlx.evaluate.corpus.page import Layout, Page
from clara_mlx.evaluate.probes.probe import Output

LAYOUTS: dict[str, tuple[Layout, ...]] = {
    **pytest_runs.LAYOUTS,
    **unittest_runs.LAYOUTS,
    **python.LAYOUTS,
    **checkers.LAYOUTS,
    **cargo.LAYOUTS,
    **compilers.LAYOUTS,
    **web.LAYOUTS,
    **builds.LAYOUTS,
    **listings.LAYOUTS,
    **git.LAYOUTS,
    **configs.LAYOUTS,
}
"""Every tool's layouts; one that stands twice is drawn twice as often."""

TOOLS = tuple(LAYOUTS)
"""The names `generate` takes."""

BRIEF_TOOLS = tuple(BRIEF_LAYOUTS)
"""The tools that have brief outputs."""

LEFT_OUT = "go"
"""The tool that no training ever sees."""

SIZES = ("brief", "short", "long")
SHORT_CHARACTERS = 280
"""A short output has at most this many."""
LONG_CHARACTERS = (600, 3000)
"""A long output has so many."""
FEWEST_PROBES, MOST_PROBES = 3, 8
_ATTEMPTS = 500


class GenerateError(ClaraError):
    """No output of this kind can be drawn."""


def generate(
    rng: random.Random,
    tool: str,
    split: str = "train",
    size: str = "short",
    fits: Callable[[str], bool] | None = None,
    full: float = 0.6,
) -> Output:
    """One output of a tool with three to eight probes, the same for the same state of ``rng``.

    Args:
        rng: the only source of chance.
        tool: one of `TOOLS`.
        split: ``train`` or ``test``.
        size: ``short`` (one chunk: at most `SHORT_CHARACTERS`), ``long`` (several chunks with
            distractors: `LONG_CHARACTERS`) or ``brief`` (one fixed layout of each of
            `BRIEF_TOOLS`, whose splits share words but no name made of them).
        full: share of the short outputs that have as many items and distractors as one chunk
            holds; the others have few.
        fits: whether a short text is short enough, such as for a tokenizer; drawn again until
            it says so.

    Raises:
        GenerateError: for an unknown tool, split or size, or when ``fits`` accepts nothing.
    """
    layouts = BRIEF_LAYOUTS if size == "brief" else LAYOUTS
    if tool not in layouts or split not in SPLITS or size not in SIZES:
        raise GenerateError(
            f"no {size!r} output of {tool!r} for split {split!r}: tools are {', '.join(layouts)}; "
            f"splits are {', '.join(SPLITS)}; sizes are {', '.join(SIZES)}"
        )
    names = Names(rng, split)
    filled = size == "short" and rng.random() < full
    for attempt in range(_ATTEMPTS):
        if attempt % 10 == 0:
            layout = rng.choice(layouts[tool])
        low, high, room = 1, SHORT_CHARACTERS, 0
        if size == "long":
            low, high = LONG_CHARACTERS
            room = rng.randint(low + 100, high - 800)
        elif filled and attempt % 10 < 5:
            low = high * 2 // 3
            room = rng.randint(low, high + 80)
        elif filled:  # not every layout can be filled
            room = rng.randint(0, high)
        page = Page(names, room, long=size == "long")
        layout(page)
        text = page.text
        if not low <= len(text) <= high:
            continue
        if size != "long" and fits is not None and not fits(text):
            continue
        probes = page.probes(MOST_PROBES)
        if len(probes) >= FEWEST_PROBES:
            return Output(tool, text, probes)
    raise GenerateError(
        f"{_ATTEMPTS} {size} {tool} outputs were all refused; let `fits` accept longer texts"
    )
