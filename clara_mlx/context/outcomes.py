"""The lines of an output that say how it went, as its block shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

from clara_mlx.context.quoting import one_line
from clara_mlx.tool_outputs import rules
from clara_mlx.tool_outputs.classify import classify

# Characters that a block gives to a line of the output.
_LINE = 160

# The most lines of an output that a block shows.
_KEY_LINES = 4

# Characters from each end of an output that rules look at; more would keep a request waiting.
_LOOK = 32_768

# Lines of an unknown tool's output that say by themselves that something went wrong.
_TROUBLE = re.compile(
    r"^(?:Traceback \(|error\b|fatal\b|panic\b|[\w.]*(?:Error|Exception)\b|E  |make: \*\*\*|"
    r".{0,200}?\b(?:exit code|exit status|return code|command not found|No such file))",
    re.MULTILINE | re.IGNORECASE,
)


def key_lines(text: str, command: str | None = None) -> list[str]:
    """The lines of an output that say how it went, exact but for their length, in their order.

    If the rules know the tool, those are lines with facts; if not, the first two that tell of
    trouble, and the last line.

    Args:
        text: The output.
        command: The command that printed it, if it is known.
    """
    starts = _fact_lines(text, command)
    if not starts:
        starts = _trouble(text) + _starts_of_lines(text, [max(0, len(text.rstrip()) - 1)])
    lines = [one_line(_line_from(text, start).strip(), _LINE) for start in sorted(set(starts))]
    return [line for line in lines if len(re.findall(r"\w+", line)) > 1]


def _fact_lines(text: str, command: str | None) -> list[int]:
    """Where the lines with the most telling facts start; none for an unknown tool.

    The last lines about the outcome come first: they are the failures and their summary. Headers
    and settings get the room that is left. Where no line is about the outcome, the output is a
    listing, of which the first line and the last ones are taken.
    """
    heads = text[:_LOOK]
    tool = classify(heads, command or None)
    if not tool:
        return []
    rest = max(_LOOK, len(text) - _LOOK)
    facts = [(fact.start, fact.tells_outcome) for fact in rules.facts(heads, tool)]
    facts += [(rest + fact.start, fact.tells_outcome) for fact in rules.facts(text[rest:], tool)]
    starts = _starts_of_lines(text, [start for start, _ in facts])
    about = zip(starts, facts, strict=True)
    outcome = dict.fromkeys(start for start, (_, tells) in about if tells)
    others = [start for start in dict.fromkeys(starts) if start not in outcome]
    telling = list(outcome)
    if not telling:
        return others[:1] + others[1:][1 - _KEY_LINES :]
    return telling[-_KEY_LINES:] + others[: max(0, _KEY_LINES - len(telling))]


def trouble_lines(text: str) -> list[str]:
    """The first lines of an output that say by themselves that something went wrong, cut."""
    return [one_line(_line_from(text[:_LOOK], start).strip(), _LINE) for start in _trouble(text)]


def _trouble(text: str) -> list[int]:
    """Where the first two lines that tell of trouble start."""
    found = islice(_TROUBLE.finditer(text[:_LOOK]), 2)
    return _starts_of_lines(text, [match.start() for match in found])


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


def _line_from(text: str, start: int) -> str:
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)]
