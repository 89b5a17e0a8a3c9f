"""Whatever an agent reads costs time in proportion to its length, and little of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from fed_entries import Entry, entries, modules
from growth import KNOWN, cpu_seconds, slowness, units
from sizes import sized

from clara_mlx.memory import Memory
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.rules import facts
from clara_mlx.tool_outputs.secrets import secrets
from clara_mlx.tool_outputs.undress import undress

# Characters of the texts.
SIZES = (1_000, 10_000, 100_000)

# Repetitions that are tried first: what grows exponentially ends for a few, and never for many.
FEW = (4, 8, 12, 16, 20, 24)

# Seconds that the longest may take.
LONGEST = 0.05

# Entries that may take longer, with the seconds and the reason.
SLOWER = {
    "tool_outputs.identifiers.identifiers": (0.06, "a test's name at each ninth character: 51 ms"),
    "model.chunking.split": (0.4, "the tokenizer's own work: half a microsecond for each token"),
    "tool_outputs.identifiers.occurrences": (0.08, "the same, at every place"),
    "context.drafts.Drafts.text": (0.1, "identifiers, facts and the key lines of both ends"),
    "compressors.ranking.lines_sharing_words": (0.1, "a text as long as its one line"),
    "compressors.ranking.best_lines": (0.15, "a question as long as the text, and one line of it"),
    "context.conversation.Context.prepare": (0.4, "a text's block, its index and a note of it"),
    "context.freezer.Freezer.draft": (0.1, "the same"),
    "context.freezer.Freezer.freeze": (0.2, "the same, and SQLite writes"),
    "context.freezer.Freezer.choose": (0.2, "the same"),
    "context.freezer.Freezer.told": (0.1, "the same as a draft"),
    "context.freezer.Freezer.observe": (0.4, "a draft, and a text that is cut and written"),
    "context.conversation.Context.observe": (0.4, "the same"),
    "context.observed.Observer.observe": (0.4, "the same"),
}

# Of this, the time for ten times the text may be a multiple.
MOST_GROWTH = 15

# Times the longest text at which a growth that is too fast is looked for again.
FURTHER = 4

# Seconds below which time does not say how it grows.
LEAST = 0.001

# Units whose texts are in one memory; a search in more takes longer.
UNITS_OF_ONE_FILE = 20

# Seconds for which other threads may wait.
LONGEST_GAP = 0.1

ENTRIES = entries()
MODULES = tuple(modules())


def test_every_entry_is_fed() -> None:
    """A public function that takes a text under a new name needs a line in tests/support."""
    assert len(ENTRIES) > 80
    missing = {entry.name: entry.missing for entry in ENTRIES if entry.missing}
    assert not missing, "tests/support/fed_entries.py: TEXTS, OTHERS or OBJECTS lack these"
    assert set(SLOWER) <= {entry.name for entry in ENTRIES}


def is_longer(seconds: float, limit: float) -> bool:
    """Whether something takes longer than it may, also if the machine is slow just now."""
    return seconds > limit and seconds > limit * slowness()


def problem(entry: Entry, unit: str, memory: Memory, times: int) -> str | None:
    """What is wrong with the time that an entry takes for a repeated unit."""

    def seconds(size: int) -> float:
        text = (unit * (size // len(unit) + 1))[:size]
        return cpu_seconds(lambda: entry.prepare(text, memory), times)

    limit, _ = SLOWER.get(entry.name, (LONGEST, ""))
    for number in FEW:
        if is_longer(seconds(number * len(unit)), limit):
            return f"{entry.name} of {number} times {unit!r} takes more than {1000 * limit:.0f} ms"
    took = {SIZES[-1]: seconds(SIZES[-1])}
    if took[SIZES[-1]] < MOST_GROWTH * LEAST:
        return None
    took.update((size, seconds(size)) for size in SIZES[:-1])
    shown = ", ".join(f"{size}: {1000 * took[size]:.1f} ms" for size in SIZES)
    if is_longer(took[SIZES[-1]], limit):
        return f"{entry.name} of {unit!r} takes more than {1000 * limit:.0f} ms ({shown})"
    for smaller, larger in pairwise(SIZES):
        # Two sizes may take different ways; what grows too fast also does so from there on.
        if (
            took[larger] > MOST_GROWTH * max(took[smaller], LEAST)
            and seconds(FURTHER * SIZES[-1]) > 2 * FURTHER * took[SIZES[-1]]
        ):
            return f"{entry.name} of {unit!r} grows faster than the text ({shown})"
    return None


def lasting_problem(entry: Entry, unit: str, memory: Memory) -> str | None:
    """What is still wrong after other tries: other work on the machine slows one, not all."""
    found = None
    for times in (1, 3, 3, 6):
        found = problem(entry, unit, memory, times)
        if found is None:
            break
    return found


@pytest.mark.alone
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_time_grows_with_the_text_not_faster(entry: Entry, tmp_path: Path) -> None:
    known = len(KNOWN) if entry.name.startswith("tool_outputs.") else sized(3, len(KNOWN))
    chosen = units(MODULES, known, sized(3, 400), entry.name)
    for first in range(0, len(chosen), UNITS_OF_ONE_FILE):
        with Memory.open(tmp_path / f"{first}.db") as memory:
            for unit in chosen[first : first + UNITS_OF_ONE_FILE]:
                assert not (found := lasting_problem(entry, unit, memory)), found


@pytest.mark.alone
@pytest.mark.parametrize("unit", ["a", "\n"])
@pytest.mark.parametrize("look", [classify, identifiers, secrets, facts, undress])
def test_other_threads_get_to_run(look: Callable[[str], object], unit: str) -> None:
    """However long a text is: no search in all of it holds the interpreter."""
    text = unit * (sized(3_000_000, 32_000_000) // len(unit))
    ended = threading.Event()
    gaps = [0.0]

    def tick() -> None:
        last = time.process_time()  # of this process: others may take the processor
        while not ended.is_set():
            time.sleep(0.005)
            now = time.process_time()
            gaps.append(now - last)
            last = now

    ticking = threading.Thread(target=tick)
    ticking.start()
    look(text)
    ended.set()
    ticking.join()
    assert max(gaps) < LONGEST_GAP * slowness()
