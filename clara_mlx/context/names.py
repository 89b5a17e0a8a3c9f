"""The identifiers of a text, as its block names them: a line for each kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from clara_mlx.context.quoting import exact_line
from clara_mlx.tool_outputs.identifiers import identifiers

#: Characters that a block gives to identifiers.
IDENTIFIERS = 480

# Characters of the first name of a kind.
_LONGEST = 160

# Names of one length; more are not searched for one by one, which would take time for each.
_SEARCHED_ONE_BY_ONE = 150

# The kinds of identifiers, in the order in which a block names them: what a failing run is about
# comes before what it mentions.
_KINDS = ("test", "exception", "code", "path", "line", "hash", "uuid", "version", "url")

# Characters from each end of a text that rules look at; more would keep a request waiting.
_LOOK = 32_768

# The names that source code defines, in languages that say so with a word.
_DEFINES = re.compile(
    r"^[ \t]{0,12}(?:(?:export|pub|public|async|static|default) ){0,3}"
    r"(?:def|class|func|fn|function|struct|enum|trait|interface|module) (\w{2,80})",
    re.MULTILINE,
)


def identifier_lines(text: str, most: int = IDENTIFIERS, shown: str = "") -> list[str]:
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
            if len(name) + 2 > room and (chosen or len(name) > _LONGEST):
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
