"""The names in source code: what a listing defines, and the names that stand in any text.

The lexers of pygments need to know the language, which a listing does not say, tell no definition
from a use, and take several times as long as a block may take. These patterns read a line at a
time and need no language.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

# Characters of a name; a longer one is data.
_MAX_NAME = 80

# Lines that may define something, of which more are not looked at: a file has far fewer.
_MOST_LINES = 4_000

# Characters of a name with parts that has fewer.
_LEAST_NAME = 3

# Names of which it is kept at hand whether they have parts.
_KEPT_NAMES = 1 << 14

# Names that are counted; more take more time than a block may.
_MOST_NAMES = 20_000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


class Definition(NamedTuple):
    """A name that a text defines, and where it stands in it."""

    name: str
    start: int


# pub(crate) async
_MODIFIER = (
    r"(?:export|default|declare|pub(?:\(\w{1,20}+\))?|public|private|protected|internal|static"
    r"|async|abstract|final|override|open|sealed|data|inline|const|unsafe|extern(?: \"C\")?|virtual"
    r"|readonly|partial|suspend|operator|fileprivate|mutating|case|implicit|native|local|strictfp"
    r"|synchronized|transient|volatile|record|annotation|inner|value|required|convenience|indirect)"
)
# \nexport default async function* read
_BY_WORD = re.compile(
    rf"\n[ \t]*+(?:{_MODIFIER}[ \t]++)*+"
    r"(?:def|defp|defmodule|defmacro|class|func|fn|fun|function\*?|struct|enum(?: class| struct)?"
    r"|union|trait|interface|protocol|extension|actor|object|module|mod|namespace|package|sub"
    r"|macro_rules!|type|typedef|typealias|record|impl|message|service|rpc|#define"
    r"|(?i:create(?: or replace)?(?: temp(?:orary)?)?"
    r" (?:table|view|index|function|procedure|trigger|type)(?: if not exists)?)"
    r")[ \t]++(?:\([^()\n]++\)[ \t]*+)?"  # Go's receiver
    r"(?:self\.)?([A-Za-z_$][\w$]*+(?:(?:\.|::)[\w$]++)*+[?!]?)(?=([^\n]{0,60}))"
)
# \nconst parseLine = async (
_BY_VALUE = re.compile(
    rf"\n(?:{_MODIFIER}[ \t]++)*+[ \t]*+(?:(?:const|let|var|val)[ \t]++)?"
    r"([A-Za-z_$][\w$]++)(?:: [^=\n]++)?[ \t]*+(?:=|:=|<-)[ \t]*+"
    r"(?=(?:async[ \t]*+)?(?:\(|function\b|lambda\b|\w++[ \t]*+=>)|(?<=[A-Z\d_] = ))"
)
# \n    public static List<String> readAll(Path from) throws IOException {
_BY_SHAPE = re.compile(
    r"\n([ \t]{0,16}+)((?:[\w<>\[\],.?&*:|@~]+[ \t]+)*+)"
    r"[*&]{0,2}+([A-Za-z_$~#][\w$:~#]++)(?:<[^<>()\n]++>)?[ \t]?\(([^\n]{0,300}+)"
)
# Words that stand before a bracket, and define nothing.
_NO_NAMES = _words(
    """
    if for while switch catch return function with synchronized using lock foreach match elif
    when await yield throw new typeof super assert sizeof print and or not in is except raise
    del else do try until unless case echo test expect describe it require import constructor fn
    func fun def sub defined ifdef ifndef elsif class struct __attribute__ alignof decltype
    defer go select where pub void static async guard let var val const unset isset array list
    include_once
    """
)
# Words at a line's start after which a call comes, no definition.
_NO_TYPES = _words(
    """
    return new throw await yield else case in and or not is raise del assert delete goto emit if
    elif while for try except with from import print echo go defer select typeof co_await
    co_return where let var val const unless until when do then
    """
)
# Words that only a definition has before its name.
_ACCESS = _words(
    """
    public private protected internal static async abstract final override virtual readonly
    inline extern partial native synchronized constexpr explicit
    """
)
# Words that come after "type" or "class" in prose and in code that defines nothing.
_NO_DEFINITIONS = _words(
    """
    of is in to the and or for that this with has from as if not name names was are it a an by
    on be must should can will into itself so when which
    """
)


def definitions(text: str) -> list[Definition]:
    """What source code defines, in its order: functions, methods, classes and types of the common
    languages, and the functions and constants that a file gives a name to.

    Args:
        text: A listing without line numbers; the whole file or any part of it.
    """
    text = "\n" + text
    found: dict[int, str] = {}
    for match in islice(_BY_WORD.finditer(text), _MOST_LINES):
        name = match[1]
        is_constant = "#define" in match[0]
        if name not in _NO_DEFINITIONS and (is_constant or _goes_on_as_code(match[2])):
            found[match.start(1)] = name
    for match in islice(_BY_VALUE.finditer(text), _MOST_LINES):
        found.setdefault(match.start(1), match[1])
    for match in islice(_BY_SHAPE.finditer(text), _MOST_LINES):
        indent, words, name, rest = match.groups()
        if name not in _NO_NAMES and _is_head(bool(indent), words.split(), rest.rstrip()):
            found.setdefault(match.start(3), name)
    return [
        Definition(name, start - 1)
        for start, name in sorted(found.items())
        if 1 < len(name) <= _MAX_NAME
    ]


def _goes_on_as_code(rest: str) -> bool:
    """Whether what follows a name on its line can follow it in code; a sentence has words there."""
    word = _WORD.match(rest)
    return word is None or word[1] in _AFTER_NAMES


#  extends
_WORD = re.compile(r"[ \t]*+(\w++|[.!?…](?=\s|$))")
# Words that follow a name where it is defined.
_AFTER_NAMES = _words(
    """
    extends implements where is struct interface for do returns as with throws final permits on func
    map string int bool error class
    """
)


def _is_head(indented: bool, words: list[str], rest: str) -> bool:
    """Whether a line with a name and a bracket is the head of a function, not a call."""
    if words and (words[0] in _NO_TYPES or words[-1] in ("=", "==")):
        return False
    has_access = not _ACCESS.isdisjoint(words)
    if rest.endswith("{"):
        return not rest.endswith(("=> {", "({", "[{", ", {")) or has_access
    if rest.endswith(("(", ",", ")")) or not rest:
        # The head goes on in the next lines, or its body begins there.
        return has_access or (not indented and bool(words))
    if rest.endswith(");") or rest.endswith(") = 0;") or rest.endswith(") const;"):
        return bool(words) and "=" not in rest and (has_access or len(words) < 4)
    return False


# parse_header, this.setQueueMode
_NAME = re.compile(r"[A-Za-z_$](?<![\w$.].)[\w$]{0,79}+(?:\.[A-Za-z_$][\w$]{0,79}+){0,8}+(?![\w$])")
# parse_header: what makes a name of a word is that it has parts.
_PARTS = re.compile(r"[A-Za-z\d]_+[A-Za-z\d]|[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z]\d+[A-Za-z]")
# \nfrom shop.prices.parse import
_IMPORTED = re.compile(
    r"\n[ \t]*+(?:from|import|package|use|using|require|open)[ \t]++['\"<(]*+"
    r"([A-Za-z_@][\w@/-]*+(?:(?:\.|::|\\)[\w*]++)++)"
)
# Names that nearly every file of a language has; they tell nothing of one.
_COMMON = _words(
    """
    isinstance __init__ __name__ __main__ __file__ __all__ __repr__ __str__ __call__ __class__
    __doc__ __eq__ __hash__ __len__ __dict__ __future__ toString hasOwnProperty forEach indexOf
    getElementById addEventListener useState useEffect setTimeout NotImplemented staticmethod
    classmethod ValueError TypeError KeyError RuntimeError AttributeError AssertionError
    NotImplementedError IndexError ImportError basestring println printf size_t uint8_t uint32_t
    uint64_t int64_t int32_t uint16_t std_string JavaScript TypeScript GitHub startsWith
    endsWith endswith StringBuilder ArrayList HashMap IOException readFileSync writeFileSync
    to_string is_empty unwrap_or as_str
    """
)


# fd7a, 0x1fA0
_IS_NUMBER = re.compile(r"(?:0x)?[0-9a-f]++|(?:0x)?[0-9A-F]++")

# What stands before a dot and tells nothing of the name after it.
_OWN = frozenset(("self", "cls", "super"))

# Characters from which on a name with a dot is one, though its last part is an ordinary word.
_LEAST_DOTTED = 8


def names(text: str) -> list[str]:
    """The names with parts that stand in a text, and the modules that it imports; those that
    stand in it most often come first.

    A name that most often stands after the same one and a dot is given with both.

    Args:
        text: Any text.
    """
    counts: Counter[str] = Counter()
    before: dict[str, Counter[str]] = {}
    for chain, count in Counter(_NAME.findall(text)[:_MOST_NAMES]).items():
        owner, dot, name = chain.rpartition(".")
        if _has_parts(name):
            if name not in _COMMON:
                # An ordinary word with a dot before it counts half of a name with parts.
                counts[name] += 2 * count
                before.setdefault(name, Counter())[owner + dot] += 2 * count
        elif dot and len(chain) >= _LEAST_DOTTED and owner not in _OWN and name not in _COMMON:
            counts[chain] += count
    for match in islice(_IMPORTED.finditer("\n" + text), _MOST_LINES):
        name = match[1].rstrip(".:*\\")
        if len(name) >= _LEAST_DOTTED:
            counts[name] += 2
    return [
        _with_owner(name, counts, before)
        for name in sorted(counts, key=counts.__getitem__, reverse=True)
    ]


# The same names stand in one output after the other.
@lru_cache(maxsize=_KEPT_NAMES)
def _has_parts(name: str) -> bool:
    is_long = len(name) > _LEAST_NAME
    return is_long and bool(_PARTS.search(name)) and not _IS_NUMBER.fullmatch(name)


def _with_owner(name: str, counts: Counter[str], before: dict[str, Counter[str]]) -> str:
    """A name with what stands before it and a dot, if that is mostly the same."""
    if name in before:
        owner, count = before[name].most_common(1)[0]
        if 2 * count > counts[name] and owner.removesuffix(".") not in _OWN:
            return owner + name
    return name
