"""Finds exact identifiers in any text: what an agent must not lose when the text is compacted.

Every repetition in the regular expressions is possessive or bounded, so that the work grows
linearly with the text, whatever it holds. An expression begins with characters, not with a look at
what is before them, because ``re`` skips quickly to where its first character can be; a line begins
with the line feed before it. The comment above an expression is a text that it matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from clara_mlx.tool_outputs.pieces import cut_into_pieces

Kind = Literal["url", "test", "path", "uuid", "hash", "version", "code", "exception", "line"]

# Characters. A longer "identifier" is data, not a name; it is left out rather than cut.
MAX_LENGTH = 512

# Characters around a place that can matter to what is found there; two lengths of a URL do.
_CONTEXT = 4 * MAX_LENGTH

_Found = tuple[int, int]  # start, end


@dataclass(frozen=True, slots=True)
class Identifier:
    """One identifier and its place: ``source[start:end] == text``.

    A path includes the location that is written against it (``a.py:12:5``, ``a.ts(12,5)``).
    """

    kind: Kind
    text: str
    start: int
    end: int


def identifiers(text: str, limit: int | None = None) -> tuple[Identifier, ...]:
    """The identifiers of ``text`` in their order, none inside another, each kind and text once.

    Args:
        text: Any text; no character is special.
        limit: Greatest number of identifiers; the first ones are given. None: all.
    """
    kept: dict[tuple[int, str], Identifier] = {}
    last = 0
    for words, offset, first, end_of_piece in cut_into_pieces(text, _CONTEXT):
        found: list[tuple[int, int, int]] = []
        for rank, rule in enumerate(_RULES.values()):
            found += [
                (start, rank, -end)
                for start, end in rule(words)
                if first <= start < end_of_piece and end - start <= MAX_LENGTH
            ]
        for start, rank, minus_end in sorted(found):
            if start + offset < last:
                continue
            last = offset - minus_end
            exact = words[start:-minus_end]
            if (rank, exact) not in kept:
                if limit is not None and len(kept) >= limit:
                    return tuple(kept.values())
                kept[rank, exact] = Identifier(_KINDS[rank], exact, start + offset, last)
    return tuple(kept.values())


# https://
_AFTER_SCHEME = re.compile(r"://(?<=[A-Za-z0-9+.-]{2}://)")
# example.org/a?b=1#c
_URL = re.compile(r"[^\s\"'<>`\\^{}|\x00-\x1f]++")
# https
_SCHEME = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+\Z")
_SCHEME_CHARACTERS = 16


def _urls(text: str) -> Iterator[_Found]:
    last = 0
    while colon := _AFTER_SCHEME.search(text, last):
        before = max(last, colon.start() - _SCHEME_CHARACTERS)
        last = colon.end()
        scheme = _SCHEME.search(text, before, colon.start())
        rest = _URL.match(text, last) if scheme else None
        if scheme is None or rest is None:
            continue
        start = scheme.start()
        last = end = rest.end()
        if end - start > 2 * MAX_LENGTH:
            continue
        unclosed = text.count("(", start, end) - text.count(")", start, end)
        while text[end - 1] in ".,;:!?*)]" and not (text[end - 1] == ")" and unclosed >= 0):
            end -= 1
            unclosed += text[end] == ")"
        if text[end - 3 : end] != "://":
            yield start, end


# tests/test_price.py::TestPrice::test_parse
_PYTEST_NODE = re.compile(r"([\w./@+~-](?<![\w./@+~-].)[\w./@+~-]*+)::\w++(?:::\w++)*+")
_PARAMETERS_CHARACTERS = 200  # a longer [...] after a test is not its parameters
# \n--- FAIL: TestAdd/zero (0.00s)
_TEST_LINE = re.compile(
    r"\n(?:test (?P<cargo>\S{1,300}+)(?: - should panic)? \.\.\. (?:ok|FAILED|ignored)"
    r"|---- (?P<captured>\S{1,300}+) stdout ----"
    r"|[ \t]{0,40}+--- (?:PASS|FAIL|SKIP): (?P<go>\S{1,300}+) \("
    r"|=== (?:RUN|PAUSE|CONT|NAME)[ \t]{1,4}+(?P<run>\S{1,300}+)"
    r"|(?P<unittest>(?:(?:FAIL|ERROR): |(?=test))(?P<name>\w{1,200}+)"
    r" \((?P<dotted>[\w.]{1,300}+)\)))"
)


def _tests(text: str) -> Iterator[_Found]:
    for match in _PYTEST_NODE.finditer(text) if ".py::" in text else ():
        if match[1].endswith(".py"):  # not a name of Rust or C++
            end = match.end()
            yield (
                match.start(),
                _end_of_parameters(text, end) if text[end : end + 1] == "[" else end,
            )
    for match in _TEST_LINE.finditer(text):
        group = match.lastgroup or ""
        if group != "unittest":
            yield match.span(group)
        elif match["dotted"].endswith(f".{match['name']}"):
            yield match.span("dotted")
        else:
            yield match.start("name"), match.end("unittest")


def _end_of_parameters(text: str, start: int) -> int:
    """The end of ``[...]`` at ``start``, where a ``]`` ends a word; ``start`` if there is none."""
    stop = min(start + _PARAMETERS_CHARACTERS, len(text))
    line_end = text.find("\n", start, stop)
    stop = stop if line_end < 0 else line_end
    end = text.find("]", start, stop)
    while end >= 0:
        following = text[end + 1 : end + 2]
        if not following or following.isspace() or following in ":,;)\"'`":
            return end + 1
        end = text.find("]", end + 1, stop)
    return start


# yaml
_EXTENSION = re.compile(
    r"bat|bazel|bin|bz2|c|cc|cfg|cjs|cmake|conf|cpp|cs|css|csv|cts|cu|cxx|dart|db|dll|dylib"
    r"|env|erl|ex|exs|f90|gemspec|go|gradle|graphql|gz|h|hh|hpp|hs|htm|html|hxx|ini|ipynb|jar"
    r"|java|jl|jpeg|jpg|js|json|jsonl|jsx|kt|less|lock|log|lua|m|map|md|metal|mjs|ml|mm|mts"
    r"|nix|npy|npz|o|parquet|patch|pb|pdf|php|pl|plist|png|proto|ps1|pth|py|pyc|pyi|pyx|r|rb"
    r"|rlib|rs|rst|s|safetensors|sass|scala|scss|sh|so|sol|sql|sqlite|svelte|svg|swift|tar|tf"
    r"|toml|traj|ts|tsv|tsx|txt|vue|wasm|whl|xml|yaml|yml|zig|zip|zsh",
    re.IGNORECASE,
)
# Makefile
_FILE_NAME = re.compile(
    r"(?:Docker|Make|Gem|Rake|Proc|Jenkins|Vagrant|Just)file|LICENSE"
    r"|\.(?:git(?:ignore|attributes)|dockerignore|editorconfig|env|npmrc|bashrc)"
)
# Node.js
_PRODUCT = re.compile(r"(?:Node|Vue|Next|Nuxt|Three|D3)\.js|Socket\.io")
# File "/opt/my app/load.py", line 42
_QUOTED_PATH = re.compile(r'File "([^"\n]{1,500}+)", line')
# C:\project\a.py:12
_WINDOWS_PATH = re.compile(
    r":\\(?<=[A-Za-z]:\\)(?<![A-Za-z0-9][A-Za-z]:\\)[^\s\"'<>|*?:;,()]++"
    r"(?::\d{1,7}+(?::\d{1,7}+)?|\(\d{1,7}+(?:,\d{1,7}+)?\))?"
)
# src/app.ts(12,5)
_PATH = re.compile(
    r"([\w./@+~%-](?<![\w./@+~%-].)"
    r"(?:(?<=[^\W\d])|(?=[\d./@+~%-]*+\w))"  # it has a letter
    r"(?!(?<=</)[\w-]++>)"  # </a-tag> is none
    # Without a slash or a dot only well-known names are paths.
    r"(?:(?:(?<=[./])|[\w@+~%-]*+[./])[\w./@+~%-]*+"
    r"|(?:(?<=[A-Z])[a-z]{2,8}file|(?<=L)ICENSE)(?![\w@+~%-])))"
    r"(:\d{1,7}+(?::\d{1,7}+)?|\(\d{1,7}+(?:,\d{1,7}+)?\))?"
)


def _paths(text: str) -> Iterator[_Found]:
    """Paths with the locations written against them, without the a/ and b/ of git's diffs."""
    for match in _QUOTED_PATH.finditer(text):
        if match[1][0] not in "<(":  # <stdin>, <frozen importlib._bootstrap>
            yield match.span(1)
    last = 0
    for match in _WINDOWS_PATH.finditer(text):
        if match.start() > last:
            last = match.end()
            yield match.start() - 1, last
    # A text names the same paths again and again: those that are one whatever is around them, but
    # for a call, and those that never are.
    always: set[str] = set()
    never: set[str] = set()
    for match in _PATH.finditer(text):
        whole = match[0]
        if whole in never:
            continue
        start, end = match.span()
        if whole in always:
            if not text.startswith("(", end):
                yield start, end
            continue
        name, location = match.groups()
        has_side = name[:2] in ("a/", "b/")
        in_diff = has_side and (
            text[start - 4 : start] in ("--- ", "+++ ", "git ")
            or text.startswith(f"a/{name[2:]} ", start - len(name) - 1)
        )
        if in_diff:  # one of git's two sides
            name = name[2:]
            start += 2
        if not location:
            bare = name.rstrip(".-,") or name
            end -= len(name) - len(bare)
            name = bare
        if len(name) > MAX_LENGTH:
            continue
        if not _is_path(name, bool(location)):
            if not in_diff:
                never.add(whole)
        elif location or not text.startswith("(", end):  # data.json() is a call
            yield start, end
            if name == whole and not has_side:
                always.add(whole)


def _is_path(name: str, located: bool) -> bool:
    """Whether a match of `_PATH` looks like a file or folder, not like a word or an attribute."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.rpartition(".")
    known = bool(dot and stem and _EXTENSION.fullmatch(extension))
    if slash:
        if name.startswith("//") or not re.search("[A-Za-z_]", name):
            return False
        rooted = name.startswith(("/", "./", "../", "~/"))
        return (
            known
            or _FILE_NAME.fullmatch(last) is not None
            or (rooted and len(name) > 2)
            or bool("/" in folder and last)
        )
    if _FILE_NAME.fullmatch(last):
        return True
    if _PRODUCT.fullmatch(last):
        return False
    # obj.c and self.h are attributes more often than files; with a line number they are files.
    return known and (located or len(extension) > 1)


# 01234567-89ab-cdef-0123-456789abcdef
_UUID = re.compile(
    r"[0-9A-Fa-f](?<![\w-].)[0-9A-Fa-f]{7}-"
    r"[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![\w-])"
)
# 1ea647bb49a5d795353e7ad85e7be4346e633cc2
_HASH = re.compile(r"[0-9a-f](?<![\w-].)(?<!\d\..)[0-9a-f]{6,127}+(?![\w-])")
_HASH_LENGTHS = frozenset((32, 40, 56, 64, 96, 128))  # hexadecimal digits, of MD5 to SHA-512


def _hashes(text: str) -> Iterator[_Found]:
    for match in _HASH.finditer(text):
        value = match[0]
        letters = value.strip("0123456789")
        mixed = letters not in ("", "e") and not value.isalpha()
        full = len(value) in _HASH_LENGTHS and len(set(value)) > 4
        if mixed or full or text.endswith("commit ", 0, match.start()):
            yield match.span()


# v1.2.3-rc.1
_VERSION = re.compile(
    r"([v\d](?<![\w.].)(?:(?<=v)\d{1,9}+|(?<!v)\d{0,8}+)(?:\.\d{1,9}+){1,4}+)"
    r"((?:[-+.]?(?:alpha|beta|pre|a|b|rc|dev|post)[.-]?\d{0,9}+){0,3}(?:[+-][0-9A-Za-z.-]{1,60}+)?)"
    r"(?![\w%])(?!\.\w)"
)
# version:
_BEFORE_VERSION = re.compile(
    r"(?<=[=<>~!]=)|(?<=[@^~])|(?i:(?<=\bversion)|(?<=\bversion[: ])|(?<=\bversion: ))"
)


def _versions(text: str) -> Iterator[_Found]:
    for match in _VERSION.finditer(text):
        start, end = match.span()
        number, suffix = match.groups()
        if number.count(".") > 1:
            # Four small numbers are an address.
            parts = number.split(".")
            if len(parts) != 4 or number[0] == "v" or any(int(part) > 255 for part in parts):
                yield start, end
        # Two numbers with a dot are a decimal, unless the text says that they are a version.
        elif number[0] == "v" or suffix or _BEFORE_VERSION.match(text, _before(text, start)):
            yield start, end


def _before(text: str, start: int) -> int:
    """Where what stands before ``start`` ends, without a line feed."""
    return start - (text[start - 1] == "\n")


# F401, E0382, TS2322
_CODE = r"([A-Z]{1,5}\d{3,5})(?=[\]:)\s])"
# error TS2322:
_CODES = re.compile(
    rf"\n{_CODE}|: {_CODE}|\[{_CODE}|\({_CODE}|e(?<!\we)rror {_CODE}|w(?<!\ww)arning {_CODE}"
    r"|  \[([a-z]{2,40}+(?:-[a-z]{1,40}+){0,6}+)\]$"  # mypy's
    r"|\[(-W[\w=+-]{1,60}+)\]"  # gcc's and clang's
    r"|\[(Errno -?\d{1,5}+)\]"
    r"|e(?<!\we)xit(?: code| status|ed with code|ed with status) -?\d{1,5}+\b"
    r"|\nmake(?:\[\d{1,4}\])?: \*\*\* .{1,300}(\bError \d{1,3}+)$"
    r"|S(?<!\wS)IG(?:ABRT|BUS|FPE|HUP|ILL|INT|KILL|PIPE|QUIT|SEGV|TERM|TRAP)\b"
    r"|E(?<!\wE)(?:ACCES|ADDRINUSE|AGAIN|AI_AGAIN|BADF|BUSY|CONNABORTED|CONNREFUSED|CONNRESET"
    r"|EXIST|HOSTUNREACH|INTR|INVAL|IO|ISDIR|LIFECYCLE|LOOP|MFILE|NAMETOOLONG|NETUNREACH|NFILE"
    r"|NOENT|NOLOCK|NOMEM|NOSPC|NOTDIR|NOTEMPTY|NOTFOUND|PERM|PIPE|RESOLVE|ROFS|TIMEDOUT|XDEV)\b",
    re.MULTILINE,
)

# json.JSONDecodeError
_EXCEPTION_END = re.compile(
    r"(?:Error|Exception|Warning|Failure|Fault|KeyboardInterrupt|SystemExit|StopIteration"
    r"|StopAsyncIteration|GeneratorExit)(?=\.*+(?!\w))"
)
# json.JSONDecodeError
_DOTTED_NAME = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*+\Z")
_EXCEPTION_ENDINGS = ("Error", "Exception", "Warning", "Failure", "Fault")
_OTHER_EXCEPTIONS = {
    "KeyboardInterrupt",
    "SystemExit",
    "StopIteration",
    "StopAsyncIteration",
    "GeneratorExit",
}


def _exceptions(text: str) -> Iterator[_Found]:
    last = 0
    for match in _EXCEPTION_END.finditer(text):
        end = match.end()
        dotted = _DOTTED_NAME.search(text, max(last, end - MAX_LENGTH), end)
        last = end
        if dotted is None or not (
            dotted[0].endswith(_EXCEPTION_ENDINGS) or dotted[0] in _OTHER_EXCEPTIONS
        ):
            continue
        name = dotted[0].rpartition(".")[2]
        if name not in _EXCEPTION_ENDINGS and name[0].isupper() and ".." not in dotted[0]:
            yield dotted.span()


# line 12
_LINE = re.compile(
    r"l(?<!\wl)ines? \d{1,7}+(?:-\d{1,7}+)?\b|L(?<!\wL)ines? \d{1,7}+(?:-\d{1,7}+)?\b"
    r"|\n(@@ -\d{1,7}+(?:,\d{1,7}+)? \+\d{1,7}+(?:,\d{1,7}+)? @@)"
)


def _every_match(pattern: re.Pattern[str]) -> Callable[[str], Iterator[_Found]]:
    """A rule for a pattern that matches nothing else; where it has groups, one of them matches."""
    return lambda text: (match.span(match.lastindex or 0) for match in pattern.finditer(text))


# If two rules find something at the same place, the one that comes first here wins.
_RULES: dict[Kind, Callable[[str], Iterator[_Found]]] = {
    "url": _urls,
    "test": _tests,
    "path": _paths,
    "uuid": _every_match(_UUID),
    "hash": _hashes,
    "version": _versions,
    "code": _every_match(_CODES),
    "exception": _exceptions,
    "line": _every_match(_LINE),
}
_KINDS = tuple(_RULES)
