"""The text of a block: handle, tool, command, outcome and exact identifiers, taken by rules."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from clara_mlx.context.messages import Piece
from clara_mlx.context.quoting import (
    MARKER,
    exact_line,
    one_line,
    plain_name,
    quote_markers,
    replace_surrogates,
    role_label,
)
from clara_mlx.tool_outputs import rules
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.identifiers import identifiers

#: Said once in a conversation, after its first block.
HOW_TO = (
    "(Texts marked [clara m-...] are kept whole outside this conversation. "
    "expand gives one back by its handle; ask_memory answers a question about all, or about one.)"
)

#: The same, as it follows a block's text.
EXPLANATION = f"\n{HOW_TO}"

#: Characters. A shorter text is left as it is, because a block would save nothing.
LEAST_CHARACTERS = 240

# Characters that a block gives to the command.
_COMMAND = 120

# Characters that it gives to a line of the output.
_LINE = 160

# Characters that it gives to identifiers.
_IDENTIFIERS = 480

# Names of one length; more are not searched for one by one, which would take time for each.
_SEARCHED_ONE_BY_ONE = 150

# The most lines of an output that a block shows.
_KEY_LINES = 4

# The kinds of identifiers, in the order in which a block names them: what a failing run is about
# comes before what it mentions.
_KINDS = ("test", "exception", "code", "path", "line", "hash", "uuid", "version", "url")

# Characters from each end of an output that rules look at; more would keep a request waiting.
_LOOK = 32_768

# Lines of an unknown tool's output that say by themselves that something went wrong.
_TROUBLE = re.compile(
    r"^(?:Traceback \(|error\b|fatal\b|panic\b|[\w.]*(?:Error|Exception)\b|E  |make: \*\*\*|"
    r".{0,200}?\b(?:exit code|exit status|return code|command not found|No such file))",
    re.MULTILINE | re.IGNORECASE,
)

# The names that source code defines, in languages that say so with a word.
_DEFINES = re.compile(
    r"^[ \t]{0,12}(?:(?:export|pub|public|async|static|default) ){0,3}"
    r"(?:def|class|func|fn|function|struct|enum|trait|interface|module) (\w{2,80})",
    re.MULTILINE,
)


def describe(piece: Piece, handle: str, excerpt: int = 0) -> str:
    """The text of a block; the same for the same input, always.

    What it quotes can't pass for our own words, see `quoting`. Arguments of a call stay valid JSON:
    only their long strings are replaced.

    Args:
        piece: The text that the block stands for.
        handle: The handle of its original.
        excerpt: Characters of the original to quote as well, from its beginning and its end.
    """
    if piece.part.startswith("arguments"):
        return replace_surrogates(_shorten_arguments(piece, handle))
    name = f"{role_label(piece.role)} text"
    if piece.role == "tool":
        name = f"{plain_name(piece.tool or 'tool')} output"
    lines = [f"{MARKER}{handle}: {name}, {_size(piece.text)}, kept whole]"]
    command = short_command(piece.arguments)
    if command:
        lines.append(f"command: {command}")
    if piece.role == "tool":
        lines += [f"outcome: {line}" for line in key_lines(piece.text, command)]
    else:
        lines.append(f"begins: {one_line(piece.text.strip(), 2 * _LINE)}")
    # An excerpt has the lines of its text as they are: it stays under its role.
    quoted = [quote_markers(part) for part in _excerpt(piece.text, excerpt)] if excerpt else []
    lines += identifier_lines(piece.text, shown="\n".join(lines + quoted))
    return replace_surrogates("\n".join(lines + quoted))


def describe_recalled(piece: Piece, number: str) -> str:
    """The text of a block for what a tool of the memory gave; it has a number, not a handle."""
    tool = plain_name(piece.tool or "tool")
    first = f"{MARKER}{number}: what {tool} gave, {_size(piece.text)}; call it again for more]"
    command = f"command: {short_command(piece.arguments)}"
    return replace_surrogates("\n".join([first, command, *identifier_lines(piece.text)]))


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


def identifier_lines(text: str, most: int = _IDENTIFIERS, shown: str = "") -> list[str]:
    """The exact identifiers of a text, a line for each kind; those that don't fit are counted.

    Args:
        text: The text; of a long one, only its beginning and its end are looked at.
        most: Characters for all of them.
        shown: What the reader sees anyway; identifiers in it are not repeated.
    """
    found = identifiers(text[:_LOOK])
    if len(text) > _LOOK:
        found += identifiers(text[max(_LOOK, len(text) - _LOOK) :])
    kinds: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for one in found:
        kinds[one.kind].append(exact_line(one.text))
    kinds["defines"] = [match[1] for match in _DEFINES.finditer(text[: 2 * _LOOK])]
    lines: list[str] = []
    room = most
    for kind, texts in kinds.items():
        names = _not_shown(dict.fromkeys(texts), shown)
        chosen: list[str] = []
        for name in _from_both_ends(names):
            # Every kind gets its first name, however many the kinds before it have.
            if len(name) + 2 > room and (chosen or len(name) > _LINE):
                break
            chosen.append(name)
            room -= len(name) + 2
        if chosen:
            more = f" (+{len(names) - len(chosen)})" if len(chosen) < len(names) else ""
            order = {name: index for index, name in enumerate(names)}
            lines.append(f"{kind}: {', '.join(sorted(chosen, key=order.__getitem__))}{more}")
    return lines


def _not_shown(names: Iterable[str], shown: str) -> list[str]:
    """The names that are no part of a text; many of one length are looked up together."""
    parts: dict[int, set[str]] = {}
    for size, count in Counter(map(len, names)).items():
        if count > _SEARCHED_ONE_BY_ONE:
            parts[size] = {shown[i : i + size] for i in range(len(shown) - size + 1)}
    return [name for name in names if name not in parts.get(len(name), shown)]


def _from_both_ends(names: list[str]) -> Iterator[str]:
    """From both ends inwards: outputs say what matters where they begin and where they end."""
    for index in range((len(names) + 1) // 2):
        yield names[index]
        if index != len(names) - 1 - index:
            yield names[-1 - index]


def _size(text: str) -> str:
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"{lines} lines" if lines > 1 else f"{len(text)} characters"


def short_command(arguments: str | None, own: str = "") -> str:
    """The arguments of a call as one short line: the value of a single one, or names and values.

    Args:
        arguments: The arguments, as JSON.
        own: How the marker of their own block begins, if they are one.
    """
    try:
        parsed = json.loads(arguments) if arguments else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        return one_line(arguments or "", _COMMAND, own)
    values = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in parsed.items()
    }
    if len(values) == 1:
        return one_line(next(iter(values.values())), _COMMAND, own)
    each = max(24, _COMMAND // max(1, len(values)))
    written = ", ".join(f"{key}={one_line(value, each, own)}" for key, value in values.items())
    return one_line(written, 2 * _COMMAND, own)


def _shorten_arguments(piece: Piece, handle: str) -> str:
    """The arguments of a call with a block in place of each long string; still JSON."""

    def shorten(value: Any) -> Any:
        if isinstance(value, str) and len(value) >= LEAST_CHARACTERS:
            about = "; ".join(identifier_lines(value, _IDENTIFIERS // 4))
            about = f": {about}" if about else ""
            return f"{MARKER}{handle}: {_size(value)} of this call, kept whole{about}]"
        if isinstance(value, dict):
            return {key: shorten(one) for key, one in value.items()}
        if isinstance(value, list):
            return [shorten(one) for one in value]
        return value

    try:
        given = json.loads(piece.text)
        short = shorten(given)
    except (ValueError, RecursionError):
        return piece.text  # not JSON: no shorter form is sure to be read
    return piece.text if short == given else json.dumps(short, ensure_ascii=False)


def _excerpt(text: str, characters: int) -> list[str]:
    """The beginning and the end of a text, in whole lines if they fit, and what is left out."""
    if len(text) <= characters:
        return [text]
    head = text[: characters * 2 // 3]
    head = head[: head.rfind("\n") + 1] or head
    tail = text[len(text) - characters // 3 :]
    tail = tail[tail.find("\n") + 1 :] or tail
    between = len(text) - len(head) - len(tail)
    first = text.count("\n", 0, len(text) - len(tail)) + 1
    return [head.rstrip("\n"), f"[... {between} characters; from line {first} on:]", tail]


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
