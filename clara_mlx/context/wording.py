"""What a block says: handle, tool, command, outcome and exact identifiers, taken by rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from clara_mlx.context.messages import Piece, called, content_text
from clara_mlx.tool_outputs import rules
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.identifiers import identifiers

#: Said once in a conversation, after its first block.
HOW_TO = (
    "(Texts marked [clara m-...] are kept whole outside this conversation. "
    "expand gives one back by its handle; ask_memory answers a question about all, or about one.)"
)

#: How it is said.
EXPLANATION = f"\n{HOW_TO}"

#: What a block that stands for many messages says of them.
FOLDED = "earlier messages"

#: Below so many characters a text is left as it is: a block would save nothing.
LEAST_CHARACTERS = 240

# Characters a block gives to the command, to a line of the output, and to identifiers.
_COMMAND, _LINE, _IDENTIFIERS = 120, 160, 480

# In this order, for what a failing run names comes before what it mentions.
_KINDS = ("test", "exception", "code", "path", "line", "hash", "uuid", "version", "url")

# Characters from each end of an output that rules look at; more would keep a request waiting.
_LOOK = 32_768

# Lines that say by themselves that something went wrong, in the output of an unknown tool.
_TROUBLE = re.compile(
    r"^(?:Traceback \(|error\b|fatal\b|panic\b|[\w.]*(?:Error|Exception)\b|E  |make: \*\*\*|"
    r".{0,200}?\b(?:exit code|exit status|return code|command not found|No such file))",
    re.MULTILINE | re.IGNORECASE,
)

# What source code defines, in the languages that say so with a word.
_DEFINES = re.compile(
    r"^[ \t]{0,12}(?:(?:export|pub|public|async|static|default) ){0,3}"
    r"(?:def|class|func|fn|function|struct|enum|trait|interface|module) (\w{2,80})",
    re.MULTILINE,
)


def describe(piece: Piece, handle: str, excerpt: int = 0) -> str:
    """The text of a block; the same for the same input, always.

    Arguments of a call stay valid JSON: only their long strings are replaced.

    Args:
        piece: what the block stands for.
        handle: of its original.
        excerpt: characters of the original to show besides, from its beginning and its end.
    """
    if piece.part.startswith("arguments"):
        return _readable(_arguments(piece, handle))
    lines = [f"[clara {handle}: {_name(piece)}, {_size(piece.text)}, kept whole]"]
    asked = command(piece.arguments)
    if asked:
        lines.append(f"command: {asked}")
    if piece.role == "tool":
        lines += [f"outcome: {line}" for line in key_lines(piece.text, asked)]
    else:
        lines.append(f"begins: {_cut(piece.text.strip(), 2 * _LINE)}")
    quoted = _excerpt(piece.text, excerpt) if excerpt else []
    lines += named(piece.text, besides="\n".join(lines + quoted))
    return _readable("\n".join(lines + quoted))


def describe_recalled(piece: Piece, number: str) -> str:
    """The text of a block for what a tool of the memory gave, which is no memory of its own."""
    first = f"[clara {number}: what {piece.tool} gave, {_size(piece.text)}; call it again for more]"
    return _readable("\n".join([first, f"command: {command(piece.arguments)}", *named(piece.text)]))


def fold_entries(messages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """For each text of messages, a line and a fuller form: blocks as they are, others cut."""
    entries: list[tuple[str, str]] = []
    for message in messages:
        text, role = content_text(message).strip(), str(message.get("role"))
        text = text.removesuffix(EXPLANATION)
        if text.startswith("[clara ") and FOLDED in text.partition("\n")[0]:
            # A fuller form has further lines, indented; they stay with their first.
            for full in re.split(r"\n(?!  )", text)[1:]:
                entries.append((_one_line(full.replace("\n  ", "\n")), full))
        elif text.startswith("[clara "):
            # Indented, so that no line of an output passes for a user's later.
            entries.append((_one_line(text), text.replace("\n", "\n  ")))
        elif text:
            entries.append((f"{role}: {_cut(text, _LINE)}", f"{role}: {_cut(text, 4 * _LINE)}"))
        for name, arguments in called(message):
            line = f"called {name}: {command(arguments)}"
            entries.append((line, line))
    return entries


def describe_fold(entries: list[tuple[str, str]], handle: str, messages: int, most: int) -> str:
    """The text that stands for many messages, of about ``most`` characters.

    Users' words and all handles with their commands come first, then the newest of the others with
    a quarter of the room that is left. The rest of it is for fuller forms, of the newest first.
    """
    order = sorted(range(len(entries)), key=lambda i: (_rank(entries[i][0]), -i))
    chosen: dict[int, str] = {}
    room = most

    def choose(indices: Iterable[int], spare: int, form: Callable[[tuple[str, str]], str]) -> None:
        nonlocal room
        for index in indices:
            text, now = form(entries[index]), len(chosen.get(index, "")) - (index not in chosen)
            if room - (len(text) - now) >= spare:
                room -= len(text) - now
                chosen[index] = text

    first = [i for i in order if _rank(entries[i][0]) < _OTHERS]
    choose(first, 0, lambda entry: _shortest(entry[0]))
    choose(order[len(first) :], room * 3 // 4, lambda entry: entry[0])
    choose(first, room // 4, lambda entry: entry[1])
    choose([i for i in first if chosen.get(i) != entries[i][1]], 0, lambda entry: entry[0])
    left = f"; {len(entries) - len(chosen)} lines only there" if len(chosen) < len(entries) else ""
    heading = f"[clara {handle}: {messages} {FOLDED}, kept whole{left}]"
    return _readable("\n".join([heading, *(chosen[i] for i in sorted(chosen))]))


# The rank of lines that are no user's words and have no handle.
_OTHERS = 2


def _rank(line: str) -> int:
    return 0 if line.startswith("user: ") else 1 if line.startswith("[clara m-") else _OTHERS


def _one_line(text: str) -> str:
    """The first lines of a block as one: handle, tool, size, command, the first outcome."""
    lines = text.split("\n", 3)
    rest = [line.partition(": ")[2] for line in lines[1:3] if line[:8] in ("command:", "outcome:")]
    return " | ".join([lines[0], *rest])


def _shortest(line: str) -> str:
    """The handle and the command of a block's line; other lines as they are."""
    head, _, rest = line.partition("] | ")
    if not line.startswith("[clara m-") or not rest:
        return line
    return f"{head.partition(':')[0]}] | {rest.partition(' | ')[0]}"


def key_lines(text: str, asked: str | None = None) -> list[str]:
    """The lines of an output that say how it went, exact but for their length, in their order.

    Where the rules know the tool, lines with facts: the first and the last three. Else the first
    two that tell of trouble, and the last line.
    """
    start = max(0, len(text) - _LOOK)
    heads, ends = text[:_LOOK], text[max(start, _LOOK) :]
    offset = len(text) - len(ends)
    tool = classify(heads, asked or None)
    facts = [fact.start for fact in rules.facts(heads, tool)] if tool else []
    facts += [offset + fact.start for fact in rules.facts(ends, tool)] if tool else []
    if facts:
        every = list(dict(_line_at(text, place) for place in sorted(facts)).items())
        at = every[:1] + every[-3:]
    else:
        at = _trouble(heads)
        at.append(_line_at(text, len(text.rstrip()) - 1))
    lines = [_cut(line.strip(), _LINE) for _, line in sorted(dict(at).items())]
    return [line for line in lines if len(re.findall(r"\w+", line)) > 1]


def trouble(text: str) -> list[str]:
    """The first lines of an output that say by themselves that something went wrong, cut."""
    return [_cut(line.strip(), _LINE) for _, line in _trouble(text[:_LOOK])]


def _trouble(text: str) -> list[tuple[int, str]]:
    found = islice(_TROUBLE.finditer(text), 2)
    return [_line_at(text, match.start()) for match in found]


def named(text: str, most: int = _IDENTIFIERS, besides: str = "") -> list[str]:
    """The exact identifiers of a text, a line for each kind; what does not fit is counted.

    Args:
        text: where they stand; of a long text, its beginning and its end are looked at.
        most: characters for them all.
        besides: what the reader sees anyway; identifiers in it are not said again.
    """
    found = identifiers(text[:_LOOK])
    if len(text) > _LOOK:
        found += identifiers(text[max(_LOOK, len(text) - _LOOK) :])
    kinds: dict[str, list[str]] = {kind: [] for kind in _KINDS}
    for one in found:
        kinds[one.kind].append(one.text)
    kinds["defines"] = [match[1] for match in _DEFINES.finditer(text[: 2 * _LOOK])]
    lines, room = [], most
    for kind, texts in kinds.items():
        names = [name for name in dict.fromkeys(texts) if name not in besides]
        shown: list[str] = []
        for name in _ends_first(names):
            # Every kind gets its first name, however many the kinds before it have.
            if len(name) + 2 > room and (shown or len(name) > _LINE):
                break
            shown.append(name)
            room -= len(name) + 2
        if shown:
            more = f" (+{len(names) - len(shown)})" if len(shown) < len(names) else ""
            lines.append(f"{kind}: {', '.join(sorted(shown, key=names.index))}{more}")
    return lines


def _ends_first(names: list[str]) -> Iterator[str]:
    """From both ends inwards: outputs tell what matters where they begin and where they end."""
    for index in range((len(names) + 1) // 2):
        yield names[index]
        if index != len(names) - 1 - index:
            yield names[-1 - index]


def _name(piece: Piece) -> str:
    return f"{piece.tool} output" if piece.role == "tool" else f"{piece.role} text"


def _size(text: str) -> str:
    lines = text.count("\n") + (not text.endswith("\n"))
    return f"{lines} lines" if lines > 1 else f"{len(text)} characters"


def command(arguments: str | None) -> str:
    """The arguments of a call as one short line: a single one by its value, others with names."""
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


def _arguments(piece: Piece, handle: str) -> str:
    def shortened(value: Any) -> Any:
        if isinstance(value, str) and len(value) >= LEAST_CHARACTERS:
            about = "; ".join(named(value, _IDENTIFIERS // 4))
            about = f": {about}" if about else ""
            return f"[clara {handle}: {_size(value)} of this call, kept whole{about}]"
        if isinstance(value, dict):
            return {key: shortened(one) for key, one in value.items()}
        if isinstance(value, list):
            return [shortened(one) for one in value]
        return value

    try:
        given = json.loads(piece.text)
        short = shortened(given)
    except (ValueError, RecursionError):
        return piece.text  # not JSON: no shorter form is sure to be read
    return piece.text if short == given else json.dumps(short, ensure_ascii=False)


def _excerpt(text: str, characters: int) -> list[str]:
    """The beginning and the end of a text in whole lines where they fit, with what is between."""
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
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return start, text[start : end if end >= 0 else len(text)]


def _cut(text: str, most: int) -> str:
    flat = " ".join(text[: 4 * most].split())
    return flat if len(flat) <= most and len(text) <= 4 * most else flat[: most - 3] + "..."


def _readable(text: str) -> str:
    """Lone surrogates can't be sent; the original keeps them."""
    return text.encode("utf-8", "replace").decode()
