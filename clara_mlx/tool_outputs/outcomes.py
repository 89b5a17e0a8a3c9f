"""The lines of an output that say how it went, as its block shows them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice

from clara_mlx.tool_outputs import rules
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.quoting import one_line
from clara_mlx.tool_outputs.signs import Sign, Weight, signs
from clara_mlx.tool_outputs.sources import is_listing
from clara_mlx.tool_outputs.undress import undress

# Characters that a block gives to a line of the output.
_LINE = 160

# Characters that it gives to all of them.
_ROOM = 640

# The most lines of an output that a block shows.
_KEY_LINES = 8

# The most lines of a listing that it shows.
_LISTED_LINES = 4

# Characters from each end of an output that rules look at; more would keep a request waiting.
_LOOK = 28_672

# Characters of an output that is undressed as a whole; of a longer one, its ends are.
_UNDRESSED = 1_000_000

# Characters of each end of a text in which a table, or a result, is looked for.
_READ = 4_000

# The first lines that tell whether a text is a table.
_READ_ROWS = 40

# Lines below what went wrong that may say more of it.
_BELOW = 4

# The most rows of a table that are shown of its end, besides its head and its first row.
_LAST_ROWS = 4

# an ordinary word
_WORD = re.compile(r"[^\W\d_]{3}")
# ---- captured ----
_RULE = re.compile(r"[-=_*#~]{3}")

# Characters of a line that is too short to be an error's message.
_SHORT = 16

# make: *** [Makefile:9: all] Error 2
_BAD = re.compile(r"(?i:fail|error|exit|abort)(?!(?:ures?|ed|s)?\b[: =]{1,3}+0\b)")

# How many lines of each weight are chosen, in the order in which they are.
_CHOICES: tuple[tuple[Weight, int], ...] = (
    ("verdict", 2),
    ("error", 1),
    ("failed", 3),
    ("error", 3),
    ("trouble", 2),
    ("verdict", 4),
    ("failed", 8),
    ("error", 8),
    ("trouble", 8),
    ("warning", 3),
    ("finding", 8),
)


def key_lines(text: str, command: str | None = None) -> list[str]:
    """The lines of an output that say how it went, exact but for their length, in their order.

    These are the verdicts, the first error, the tests that failed, then what went wrong otherwise,
    what is rare before what is said again and again. Lines with facts follow, if the rules know the
    tool. A listing of source code has none.

    Args:
        text: The output.
        command: The command that printed it, if it is known.
    """
    seen = _ends(text)
    facts = _fact_lines(seen, command)
    if not facts and is_listing(seen, command):
        return []
    starts = list(dict.fromkeys((*_telling(seen), *(facts or _said_further(seen)))))
    starts += [] if starts and seen.count("\n") > _KEY_LINES else _rows(seen)
    chosen: dict[int, str] = {}
    room = _ROOM
    for start in starts:
        line = _quoted(seen, start) if start not in chosen else ""
        if not re.search(r"\w\W+\w", line) or line in chosen.values() or len(line) > room:
            continue
        chosen[start] = line
        room -= len(line)
        if len(chosen) == _KEY_LINES:
            break
    return [chosen[start] for start in sorted(chosen)]


def trouble_lines(text: str) -> list[str]:
    """The first lines of an output that say by themselves that something went wrong, cut."""
    seen = _ends(text[:_LOOK])
    lines = ((sign.weight, _quoted(seen, sign.line)) for sign in signs(seen))
    wrong = (
        line
        for weight, line in lines
        if weight in ("error", "failed") or (weight == "verdict" and _BAD.search(line))
    )
    return list(islice(wrong, 2))


def _telling(text: str) -> Iterator[int]:
    """Where the lines start that tell how a run went, what matters most first."""
    found = signs(text)
    counts = Counter(sign.like for sign in found)
    has_verdict = any(sign.weight == "verdict" for sign in found)
    of_weight: dict[Weight, list[Sign]] = {}
    for sign in found:
        # "1) adds" is a test that failed where there is a verdict; else a list's first entry.
        if has_verdict or sign.weight != "failed" or text[sign.line : sign.line + 8].find(")") < 0:
            of_weight.setdefault(sign.weight, []).append(sign)
    for weight, signs_of_it in of_weight.items():
        if weight == "verdict":
            signs_of_it.reverse()
        elif weight != "failed":
            first = signs_of_it[:1] if weight == "error" else []
            rest = sorted(signs_of_it[len(first) :], key=lambda sign: counts[sign.like])
            signs_of_it[:] = _different_first(first + rest)
    for weight, most in _CHOICES:
        for sign in of_weight.get(weight, ())[:most]:
            yield sign.line
            if _goes_on(text, sign):
                yield text.find("\n", sign.line) + 1


def _said_further(text: str) -> Iterator[int]:
    """Where the lines start that stand below the first two signs of what went wrong."""
    wrong = (sign for sign in signs(text) if sign.weight in ("failed", "error", "trouble"))
    for sign in islice(wrong, 2):
        start = text.find("\n", sign.line) + 1
        for _ in range(_BELOW):
            line = _line(text, start)[:_LINE] if start else ""
            if _WORD.search(line) and not _RULE.match(line):
                yield start
            start = start and text.find("\n", start) + 1


def _different_first(found: list[Sign]) -> list[Sign]:
    """Signs in their order, but for those that say what one before them says of something else."""
    said: set[str] = set()
    again: list[Sign] = []
    new: list[Sign] = []
    for sign in found:
        (again if sign.like in said else new).append(sign)
        said.add(sign.like)
    return new + again


def _goes_on(text: str, sign: Sign) -> bool:
    """Whether the message of an error stands in the next line."""
    end = text.find("\n", sign.line)
    if sign.weight not in ("error", "trouble", "warning") or end < 0:
        return False
    line = text[sign.line : end].rstrip()
    return line.endswith(":") or len(line) < _SHORT


def _fact_lines(text: str, command: str | None) -> list[int]:
    """Where the lines with the most telling facts start; none for an unknown tool.

    The last lines about the outcome come first: they are the failures and their summary. Headers
    and settings get the room that is left. Where no line is about the outcome, the output is a
    listing, of which the first line and the last ones are taken.
    """
    tool = classify(text, command or None)
    if not tool:
        return []
    facts = rules.facts(text, tool)
    starts = _starts_of_lines(text, [fact.start for fact in facts])
    about = zip(starts, facts, strict=True)
    outcome = dict.fromkeys(start for start, fact in about if fact.tells_outcome)
    others = [start for start in dict.fromkeys(starts) if start not in outcome]
    telling = list(outcome)
    if not telling and any(sign.weight in ("verdict", "error") for sign in signs(text)):
        return []
    if not telling:
        return others[:1] + others[1:][1 - _LISTED_LINES :]
    return telling[-_LISTED_LINES:] + others[: max(0, _LISTED_LINES - len(telling))]


# /home/me/project/src/deep/down/a.c, of which the last two parts are shown
_LONG_PATH = re.compile(r"[/\\][\w.@+~/\\-]{20,600}+")


def _its_end(path: re.Match[str]) -> str:
    """The last two parts of a path, behind dots."""
    parts = re.split(r"([/\\])", path[0])
    return "..." + "".join(parts[-4:]) if len(parts) > 7 else path[0]


def _quoted(text: str, start: int) -> str:
    """The line of a text that starts there, cut, and without the beginnings of long paths."""
    line = _line(text, start).strip()
    if len(line) > _LINE:
        line = _LONG_PATH.sub(_its_end, line[: 8 * _LINE])
    return one_line(line, _LINE)


def _line(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)]


def _ends(text: str) -> str:
    """The beginning and the end of a text as a reader sees it, without line numbers and times."""
    if len(text) > _UNDRESSED:
        text = text[:_LOOK] + "\n" + text[-_LOOK:]
    seen = undress(text).bare.text
    return seen if len(seen) <= 2 * _LOOK else seen[:_LOOK] + "\n" + seen[-_LOOK:]


# drwxr-xr-x  2 coin  staff   64 Jan  4 09:24 tills
_ROW = re.compile(r"\S(?:  |[ ]?\t)[ \t]*+\S")
# accuracy: 0.93
_RESULT = re.compile(r"(?:[:=]|\bis|\bwas)[ \t]{0,8}+-?\d")
# Characters at a line's beginning in which a result's name ends.
_RESULT_NAME = 60
# The share of lines that are rows in a table.
_ROWS = 0.7


def _rows(text: str) -> list[int]:
    """Of a table that says nothing else, its head, its first row and its last ones; of anything
    else, a line at its end that gives a result in numbers.
    """
    lines = _lines(text[:_READ])
    rows = [start for start, line in lines[:_READ_ROWS] if _ROW.search(line[:_LINE])]
    rest = max(0, len(text) - _READ)
    last = [(rest + start, line) for start, line in _lines(text[rest:])]
    if len(rows) > 1 and len(rows) >= _ROWS * len(lines[:_READ_ROWS]):
        return list(dict.fromkeys([start for start, _ in (*lines[:2], *last[-_LAST_ROWS:])]))
    return [
        start
        for start, line in last[-2:]
        if line.lstrip()[0].isalpha() and _RESULT.search(line[:_RESULT_NAME])
    ]


def _lines(text: str) -> list[tuple[int, str]]:
    """The lines of a text that are not empty, and where they start."""
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    lines = [(start, _line(text, start)) for start in starts]
    return [(start, line) for start, line in lines if line and not line.isspace()]


def _starts_of_lines(text: str, positions: Sequence[int]) -> list[int]:
    """For each position, where the line that it is in starts; in one pass over the text."""
    starts: dict[int, int] = {}
    start = end = -1  # of the line before
    for position in sorted(set(positions)):
        if position > end:
            start = text.rfind("\n", max(0, end), position) + 1
            end = text.find("\n", position)
            end = end if end >= 0 else len(text)
        starts[position] = start
    return [starts[position] for position in positions]
