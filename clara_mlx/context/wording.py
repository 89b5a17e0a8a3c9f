"""The text of a block: handle, tool, command, outcome and exact identifiers, taken by rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from clara_mlx.context.messages import Piece, calls_in, content_text
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

#: How a block that stands for many messages names them.
FOLDED = "earlier messages"

#: Characters. A shorter text is left as it is, because a block would save nothing.
LEAST_CHARACTERS = 240

# Characters that a block gives to the command.
_COMMAND = 120

# Characters that it gives to a line of the output.
_LINE = 160

# Characters that it gives to identifiers.
_IDENTIFIERS = 480

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

    Arguments of a call stay valid JSON: only their long strings are replaced.

    Args:
        piece: The text that the block stands for.
        handle: The handle of its original.
        excerpt: Characters of the original to quote as well, from its beginning and its end.
    """
    if piece.part.startswith("arguments"):
        return _replace_surrogates(_shorten_arguments(piece, handle))
    name = f"{piece.tool} output" if piece.role == "tool" else f"{piece.role} text"
    lines = [f"[clara {handle}: {name}, {_size(piece.text)}, kept whole]"]
    command = short_command(piece.arguments)
    if command:
        lines.append(f"command: {command}")
    if piece.role == "tool":
        lines += [f"outcome: {line}" for line in key_lines(piece.text, command)]
    else:
        lines.append(f"begins: {_cut(piece.text.strip(), 2 * _LINE)}")
    quoted = _excerpt(piece.text, excerpt) if excerpt else []
    lines += identifier_lines(piece.text, shown="\n".join(lines + quoted))
    return _replace_surrogates("\n".join(lines + quoted))


def describe_recalled(piece: Piece, number: str) -> str:
    """The text of a block for what a tool of the memory gave; it has a number, not a handle."""
    first = f"[clara {number}: what {piece.tool} gave, {_size(piece.text)}; call it again for more]"
    command = f"command: {short_command(piece.arguments)}"
    return _replace_surrogates("\n".join([first, command, *identifier_lines(piece.text)]))


def fold_entries(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """For each text and call of messages, one line and a fuller form of it.

    The fuller form of a block is the block itself; other texts are cut.
    """
    entries: list[tuple[str, str]] = []
    for message in messages:
        role = str(message.get("role"))
        text = content_text(message).strip().removesuffix(EXPLANATION)
        if text.startswith("[clara ") and FOLDED in text.partition("\n")[0]:
            # A fuller form has further lines, indented; they stay with their first.
            for full in re.split(r"\n(?!  )", text)[1:]:
                entries.append((_one_line(full.replace("\n  ", "\n")), full))
        elif text.startswith("[clara "):
            # Indented, so that no line of an output passes for a user's later.
            entries.append((_one_line(text), text.replace("\n", "\n  ")))
        elif text:
            entries.append((f"{role}: {_cut(text, _LINE)}", f"{role}: {_cut(text, 4 * _LINE)}"))
        for name, arguments in calls_in(message):
            line = f"called {name}: {short_command(arguments)}"
            entries.append((line, line))
    return entries


def describe_fold(entries: list[tuple[str, str]], handle: str, messages: int, most: int) -> str:
    """The text that stands for many messages.

    Users' words and all handles with their commands come first, then the newest of the others in
    a quarter of the room that is left. The rest of the room is for fuller forms, newest first.

    Args:
        entries: What `fold_entries` gave.
        handle: The handle of the transcript.
        messages: The number of messages.
        most: Characters that the text may have, about.
    """
    order = sorted(range(len(entries)), key=lambda i: (_rank(entries[i][0]), -i))
    chosen: dict[int, str] = {}
    room = most

    def choose(indices: Iterable[int], spare: int, form: Callable[[tuple[str, str]], str]) -> None:
        """Choose a form of these entries, as long as ``spare`` characters stay free."""
        nonlocal room
        for index in indices:
            text = form(entries[index])
            needed = len(text) - len(chosen[index]) if index in chosen else len(text) + 1
            if room - needed >= spare:
                room -= needed
                chosen[index] = text

    first = [i for i in order if _rank(entries[i][0]) < _OTHERS]
    choose(first, 0, lambda entry: _shortest(entry[0]))
    choose(order[len(first) :], room * 3 // 4, lambda entry: entry[0])
    choose(first, room // 4, lambda entry: entry[1])
    choose([i for i in first if chosen.get(i) != entries[i][1]], 0, lambda entry: entry[0])
    left = f"; {len(entries) - len(chosen)} lines only there" if len(chosen) < len(entries) else ""
    heading = f"[clara {handle}: {messages} {FOLDED}, kept whole{left}]"
    return _replace_surrogates("\n".join([heading, *(chosen[i] for i in sorted(chosen))]))


# The rank of lines that are not a user's words and have no handle.
_OTHERS = 2


def _rank(line: str) -> int:
    """Which lines of a fold come first; the lowest do."""
    return 0 if line.startswith("user: ") else 1 if line.startswith("[clara m-") else _OTHERS


def _one_line(text: str) -> str:
    """A block's handle, tool, size, command and first outcome, as one line."""
    lines = text.split("\n", 3)
    rest = [line.partition(": ")[2] for line in lines[1:3] if line[:8] in ("command:", "outcome:")]
    return " | ".join([lines[0], *rest])


def _shortest(line: str) -> str:
    """A block's line cut down to handle and command; other lines as they are."""
    head, _, rest = line.partition("] | ")
    if not line.startswith("[clara m-") or not rest:
        return line
    return f"{head.partition(':')[0]}] | {rest.partition(' | ')[0]}"


def key_lines(text: str, command: str | None = None) -> list[str]:
    """The lines of an output that say how it went, exact but for their length, in their order.

    If the rules know the tool, those are lines with facts; if not, the first two that tell of
    trouble, and the last line.

    Args:
        text: The output.
        command: The command that printed it, if it is known.
    """
    places = _fact_lines(text, command) or [
        *_trouble(text[:_LOOK]),
        _line_at(text, len(text.rstrip()) - 1),
    ]
    lines = [_cut(line.strip(), _LINE) for _, line in sorted(set(places))]
    return [line for line in lines if len(re.findall(r"\w+", line)) > 1]


def _fact_lines(text: str, command: str | None) -> list[tuple[int, str]]:
    """The lines with the most telling facts, each with its place; none for an unknown tool.

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
    telling = list(dict.fromkeys(_line_at(text, start) for start, tells in facts if tells))
    others = list(dict.fromkeys(_line_at(text, start) for start, _ in facts))
    others = [line for line in others if line not in telling]
    if not telling:
        return others[:1] + others[1:][1 - _KEY_LINES :]
    return telling[-_KEY_LINES:] + others[: max(0, _KEY_LINES - len(telling))]


def trouble_lines(text: str) -> list[str]:
    """The first lines of an output that say by themselves that something went wrong, cut."""
    return [_cut(line.strip(), _LINE) for _, line in _trouble(text[:_LOOK])]


def _trouble(text: str) -> list[tuple[int, str]]:
    found = islice(_TROUBLE.finditer(text), 2)
    return [_line_at(text, match.start()) for match in found]


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
        kinds[one.kind].append(one.text)
    kinds["defines"] = [match[1] for match in _DEFINES.finditer(text[: 2 * _LOOK])]
    lines: list[str] = []
    room = most
    for kind, texts in kinds.items():
        names = [name for name in dict.fromkeys(texts) if name not in shown]
        chosen: list[str] = []
        for name in _from_both_ends(names):
            # Every kind gets its first name, however many the kinds before it have.
            if len(name) + 2 > room and (chosen or len(name) > _LINE):
                break
            chosen.append(name)
            room -= len(name) + 2
        if chosen:
            more = f" (+{len(names) - len(chosen)})" if len(chosen) < len(names) else ""
            lines.append(f"{kind}: {', '.join(sorted(chosen, key=names.index))}{more}")
    return lines


def _from_both_ends(names: list[str]) -> Iterator[str]:
    """From both ends inwards: outputs say what matters where they begin and where they end."""
    for index in range((len(names) + 1) // 2):
        yield names[index]
        if index != len(names) - 1 - index:
            yield names[-1 - index]


def _size(text: str) -> str:
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"{lines} lines" if lines > 1 else f"{len(text)} characters"


def short_command(arguments: str | None) -> str:
    """The arguments of a call as one short line: the value of a single one, or names and values."""
    try:
        parsed = json.loads(arguments) if arguments else {}
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        return _cut(arguments or "", _COMMAND)
    values = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in parsed.items()
    }
    if len(values) == 1:
        return _cut(next(iter(values.values())), _COMMAND)
    each = max(24, _COMMAND // max(1, len(values)))
    return _cut(", ".join(f"{k}={_cut(v, each)}" for k, v in values.items()), 2 * _COMMAND)


def _shorten_arguments(piece: Piece, handle: str) -> str:
    """The arguments of a call with a block in place of each long string; still JSON."""

    def shorten(value: Any) -> Any:
        if isinstance(value, str) and len(value) >= LEAST_CHARACTERS:
            about = "; ".join(identifier_lines(value, _IDENTIFIERS // 4))
            about = f": {about}" if about else ""
            return f"[clara {handle}: {_size(value)} of this call, kept whole{about}]"
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


def _line_at(text: str, position: int) -> tuple[int, str]:
    """The line that a position is in, and where it starts."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return start, text[start : end if end >= 0 else len(text)]


def _cut(text: str, most: int) -> str:
    """A text as one line of at most ``most`` characters."""
    flat = " ".join(text[: 4 * most].split())
    return flat if len(flat) <= most and len(text) <= 4 * most else flat[: most - 3] + "..."


def _replace_surrogates(text: str) -> str:
    """Lone surrogates can't be sent; the original keeps them."""
    return text.encode("utf-8", "replace").decode()
