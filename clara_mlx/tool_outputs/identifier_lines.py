"""The identifiers of a text, as its block names them: a line for each kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from clara_mlx.tool_outputs.code_names import definitions, names
from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.quoting import exact_line
from clara_mlx.tool_outputs.signs import first_trouble
from clara_mlx.tool_outputs.sources import is_listing
from clara_mlx.tool_outputs.undress import Undressed, undress

#: Characters that a block gives to identifiers.
IDENTIFIERS = 480

# Characters of the first name of a kind.
_LONGEST = 160

# Characters of a path; of a longer one the end is shown, which tells it from others.
_PATH = 96

# Names of one length; more are not searched for one by one, which would take time for each.
_SEARCHED_ONE_BY_ONE = 150

# The kinds of identifiers, in the order in which a block names them: what a failing run is about
# comes before what it mentions. Of the room, each kind that a text has gets its share first.
_SHARES = {
    "test": 3,
    "exception": 1,
    "code": 2,
    "path": 5,
    "line": 1,
    "target": 1,
    "resource": 2,
    "package": 2,
    "address": 2,
    "defines": 5,
    "names": 4,
    "hash": 1,
    "uuid": 1,
    "version": 1,
    "url": 1,
}

# Characters from each end of a text that rules look at; more would keep a request waiting.
_LOOK = 28_672

# Characters of a text that is undressed as a whole; of a longer one, its ends are.
_UNDRESSED = 1_000_000

# Characters above and below the first sign of trouble: what stands there is what went wrong.
_ABOVE = 600
_BELOW = 1_500

# How a line says that a test failed.
_FAILED = re.compile(r"FAIL|ERROR|[Ff]ailed|not ok|panicked|[✕✗✖×●]|\d\)")  # noqa: RUF001


def identifier_lines(text: str, most: int = IDENTIFIERS, shown: str = "") -> list[str]:
    """The exact identifiers of a text, a line for each kind; those that don't fit are counted.

    Args:
        text: The text; of a long one, only its beginning and its end are looked at.
        most: Characters for all of them.
        shown: What the reader sees anyway; identifiers in it are not repeated.
    """
    kinds = {
        kind: left
        for kind, found in _by_kind(text).items()
        if (left := _not_shown(dict.fromkeys(map(exact_line, found)), shown))
    }
    chosen: dict[str, list[str]] = {kind: [] for kind in kinds}
    total = sum(_SHARES[kind] for kind in kinds)
    room = most
    # Every kind gets its share, and the first name of all; then the first kinds get what is left.
    for share in (True, False):
        for kind, found in kinds.items():
            rest = min(room, most * _SHARES[kind] // total) if share else room
            for name in found[len(chosen[kind]) :]:
                cost = len(_shortened(kind, name)) + 2
                if cost > rest and (chosen[kind] or cost > _LONGEST or cost > room):
                    break
                chosen[kind].append(name)
                rest -= cost
                room -= cost
    lines = []
    for kind, kept in chosen.items():
        if kept:
            more = f" (+{len(kinds[kind]) - len(kept)})" if len(kept) < len(kinds[kind]) else ""
            lines.append(f"{kind}: {', '.join(_shortened(kind, name) for name in kept)}{more}")
    return lines


def _shortened(kind: str, name: str) -> str:
    """A path cut at its beginning if it is long; anything else as it is."""
    if kind != "path" or len(name) <= _PATH:
        return name
    begin = name.find("/", len(name) - _PATH)
    return f"...{name[begin if begin >= 0 else len(name) - _PATH :]}"


def _by_kind(text: str) -> dict[str, list[str]]:
    """The identifiers of a text by their kinds, those first that are most likely asked for."""
    kinds: dict[str, list[str]] = {kind: [] for kind in _SHARES}
    near: dict[str, list[str]] = {kind: [] for kind in _SHARES}
    # The names that are defined, with the line's number if it was printed.
    places: dict[str, str] = {}
    bare: list[str] = []
    close: list[str] = []  # the names near the first sign of trouble
    for view in _ends(text):
        part = view.text
        found = first_trouble(view.bare.text)
        trouble = None if found is None else view.bare.original_span(found, found)[0]
        for one in identifiers(part):
            if one.kind == "test":
                first = _says_failed(part, one.start, one.end)
            else:
                first = trouble is not None and -_ABOVE <= one.start - trouble < _BELOW
            if one.kind == "path" and _OF_OTHERS.search(one.text):
                first = False
            (near if first else kinds)[one.kind].append(one.text)
        if found is not None:
            close += names(view.bare.text[max(0, found - _ABOVE) : found + _BELOW])
        bare.append(view.bare.text)
        for name, start in definitions(view.code.text):
            number = view.code.line_number(start)
            places.setdefault(name, name if number is None else f"{name}:{number}")
    whole = "\n".join(bare)
    used = names(whole)
    if close and not is_listing(whole):
        used = list(dict.fromkeys(close + used))
    rank = {name.rpartition(".")[2]: place for place, name in enumerate(used)}
    defined = sorted(places, key=lambda name: rank.get(name, len(rank)))
    kinds["defines"] = [places[name] for name in defined]
    for kind in kinds:
        if kind != "defines":
            kinds[kind] = near[kind] + list(_from_both_ends(kinds[kind]))
    kinds["path"].sort(key=lambda path: bool(_OF_OTHERS.search(path)))
    others = " ".join(text for found in kinds.values() for text in found)
    new = [name for name in used if name.rpartition(".")[2] not in places]
    kinds["names"] = _not_shown(new, others)
    return kinds


def _says_failed(text: str, start: int, end: int) -> bool:
    """Whether the line of a test's name says that it failed."""
    line_end = text.find("\n", end, end + _LONGEST)
    before = _FAILED.search(text, text.rfind("\n", 0, start) + 1, start)
    return bool(before or _FAILED.search(text, end, line_end if line_end >= 0 else end + _LONGEST))


# /usr/lib/python3.12/json/decoder.py, and anything else that is not the project's own; a route
_OF_OTHERS = re.compile(
    r"^(?:/usr/|/lib|/build/|/rustc/|/dev/|/proc/|/sys/)|site-packages/|dist-packages/|node_modules/"
    r"|/\.cargo/|/registry/src/|/go/pkg/mod/|/lib/python|^node:|^\.\.?/[^/]*$|^/[\w-]*/?$"
)


def _ends(text: str) -> Iterator[Undressed]:
    """Views of the beginning and the end of a text, or of all of it; each has its text already."""
    seen = undress(text).text if len(text) <= _UNDRESSED else text
    ends = (seen,) if len(seen) <= 2 * _LOOK else (seen[:_LOOK], seen[-_LOOK:])
    for end in ends:
        yield undress(undress(end).text)


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
