"""Generated tool outputs with probes, in real formats, with random names and values.

`generate` draws one output of one tool. Training takes ``split="train"`` and evaluation
``split="test"``. The two splits share no name word, pseudo-word, hash, date, version or number of
20 or more (see `names`). They share what the tools themselves always print: layouts, exception
types, rule codes, status codes, percentages, days, months and numbers below 20. One tool,
`LEFT_OUT`, is for evaluation only. The splits of brief outputs share words, but no name made of
two words.

Each tool has a module here, named as the tool. A layout is a function that writes one output on a
`Page`, so layouts have the names of what they write.
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

#: The layouts of every tool; a layout that is listed twice is drawn twice as often.
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

TOOLS = tuple(LAYOUTS)  # the names that `generate` takes
BRIEF_TOOLS = tuple(BRIEF_LAYOUTS)  # the tools that have brief outputs
LEFT_OUT = "go"  # the tool that is never used for training

SIZES = ("brief", "short", "long")
SHORT_CHARACTERS = 280  # largest length of a short output
LONG_CHARACTERS = (600, 3000)  # smallest and largest length of a long output
FEWEST_PROBES = 3  # of an output
MOST_PROBES = 8  # of an output; others are left out
_ATTEMPTS = 500  # pages written before `generate` gives up
_ATTEMPTS_PER_LAYOUT = 10  # pages written with one layout before another is drawn


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
    """Draw one output of a tool with three to eight probes.

    Args:
        rng: The only source of chance: the same state gives the same output.
        tool: One of `TOOLS`, or of `BRIEF_TOOLS` for brief outputs.
        split: ``train`` or ``test``.
        size: ``short`` for one chunk of at most `SHORT_CHARACTERS`, ``long`` for several chunks
            with distractors (`LONG_CHARACTERS`), or ``brief`` for the one fixed layout of each of
            `BRIEF_TOOLS`.
        fits: Says whether a brief or short text is short enough, for example for a tokenizer;
            outputs are drawn until it accepts one.
        full: Share of the short outputs that have as many items and distractors as one chunk
            holds; the others have few.

    Raises:
        GenerateError: The tool, split or size is unknown, or ``fits`` accepts nothing.
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
        attempt_with_layout = attempt % _ATTEMPTS_PER_LAYOUT
        if attempt_with_layout == 0:
            layout = rng.choice(layouts[tool])
        low, high, room = 1, SHORT_CHARACTERS, 0
        if size == "long":
            low, high = LONG_CHARACTERS
            room = rng.randint(low + 100, high - 800)
        elif filled and attempt_with_layout < _ATTEMPTS_PER_LAYOUT // 2:
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
