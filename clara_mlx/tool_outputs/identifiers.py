"""Finds exact identifiers in any text: what an agent must not lose when the text is compacted.

Every repetition in the regular expressions is possessive or bounded, so that the work grows
linearly with the text, whatever it holds. The comment above an expression is a text that it
matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["url", "test", "path", "uuid", "hash", "version", "code", "exception", "line"]

# Characters. A longer "identifier" is data, not a name; it is left out rather than cut.
MAX_LENGTH = 512

_Found = tuple[int, int, Kind]  # start, end, kind


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
    found = sorted(
        (start, rank, -end, kind)
        for rank, rule in enumerate(_RULES)
        for start, end, kind in rule(text)
        if end - start <= MAX_LENGTH
    )
    kept: dict[tuple[Kind, str], Identifier] = {}
    last = 0
    for start, _, minus_end, kind in found:
        if start < last:
            continue
        last = -minus_end
        exact = text[start:last]
        if (kind, exact) not in kept:
            if limit is not None and len(kept) >= limit:
                break
            kept[kind, exact] = Identifier(kind, exact, start, last)
    return tuple(kept.values())


# https://example.org/a?b=1#c
_URL = re.compile(
    r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,15}+://[^\s\"'<>`\\^{}|\x00-\x1f]++"
)


def _urls(text: str) -> Iterator[_Found]:
    for match in _URL.finditer(text):
        start, end = match.span()
        if end - start > 2 * MAX_LENGTH:
            continue
        while text[end - 1] in ".,;:!?*)]" and not (
            text[end - 1] == ")" and text.count("(", start, end) >= text.count(")", start, end)
        ):
            end -= 1
        if text[end - 3 : end] != "://":
            yield start, end, "url"


# tests/test_price.py::TestPrice::test_parse
_PYTEST_NODE = re.compile(r"(?<![\w./@+~-])([\w./@+~-]++)::\w++(?:::\w++)*+")
_PARAMETERS_CHARACTERS = 200  # a longer [...] after a test is not its parameters
# --- FAIL: TestAdd/zero (0.00s)
_TEST_LINE = re.compile(
    r"^(?:test (?P<cargo>\S{1,300}+)(?: - should panic)? \.\.\. (?:ok|FAILED|ignored)"
    r"|---- (?P<captured>\S{1,300}+) stdout ----"
    r"|[ \t]{0,40}+--- (?:PASS|FAIL|SKIP): (?P<go>\S{1,300}+) \("
    r"|=== (?:RUN|PAUSE|CONT|NAME)[ \t]{1,4}+(?P<run>\S{1,300}+)"
    r"|(?P<unittest>(?:(?:FAIL|ERROR): |(?=test))(?P<name>\w{1,200}+)"
    r" \((?P<dotted>[\w.]{1,300}+)\)))",
    re.MULTILINE,
)


def _tests(text: str) -> Iterator[_Found]:
    for match in _PYTEST_NODE.finditer(text):
        if match[1].endswith(".py"):  # not a name of Rust or C++
            yield match.start(), _end_of_parameters(text, match.end()), "test"
    for match in _TEST_LINE.finditer(text):
        group = match.lastgroup or ""
        if group != "unittest":
            yield *match.span(group), "test"
        elif match["dotted"].endswith(f".{match['name']}"):
            yield *match.span("dotted"), "test"
        else:
            yield match.start("name"), match.end("unittest"), "test"


def _end_of_parameters(text: str, start: int) -> int:
    """The end of ``[...]`` at ``start``, where a ``]`` ends a word; ``start`` if there is none."""
    if not text.startswith("[", start):
        return start
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
    r"(?<![A-Za-z0-9])[A-Za-z]:\\[^\s\"'<>|*?:;,()]++"
    r"(?::\d{1,7}+(?::\d{1,7}+)?|\(\d{1,7}+(?:,\d{1,7}+)?\))?"
)
# src/app.ts(12,5)
_PATH = re.compile(
    # Without a slash or a dot only well-known names are paths, and </a-tag> is none.
    r"(?<![\w./@+~%-])(?!(?<=<)/[\w-]+>)"
    r"([\w@+~%-]*+[./][\w./@+~%-]*+|(?:[A-Z][a-z]{2,8}file|LICENSE)(?![\w@+~%-]))"
    r"(:\d{1,7}+(?::\d{1,7}+)?|\(\d{1,7}+(?:,\d{1,7}+)?\))?"
)


def _paths(text: str) -> Iterator[_Found]:
    """Paths with the locations written against them, without the a/ and b/ of git's diffs."""
    for match in _QUOTED_PATH.finditer(text):
        if match[1][0] not in "<(":  # <stdin>, <frozen importlib._bootstrap>
            yield *match.span(1), "path"
    for match in _WINDOWS_PATH.finditer(text):
        yield *match.span(), "path"
    for match in _PATH.finditer(text):
        name = match[1]
        start, end = match.span()
        if name[:2] in ("a/", "b/") and (
            text[start - 4 : start] in ("--- ", "+++ ", "git ")
            or text.startswith(f"a/{name[2:]} ", start - len(name) - 1)
        ):  # git's two sides of a diff
            name = name[2:]
            start += 2
        if not match[2]:
            bare = name.rstrip(".-,") or name
            end -= len(name) - len(bare)
            name = bare
            if text.startswith("(", end):
                continue  # a call: data.json()
        if len(name) <= MAX_LENGTH and _is_path(name, bool(match[2])):
            yield start, end, "path"


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
    r"(?<![\w-])[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}(?![\w-])"
)
# 1ea647bb49a5d795353e7ad85e7be4346e633cc2
_HASH = re.compile(r"(?<![\w-])(?<!\d\.)[0-9a-f]{7,128}+(?![\w-])")
_HASH_LENGTHS = frozenset((32, 40, 56, 64, 96, 128))  # hexadecimal digits, of MD5 to SHA-512


def _hashes(text: str) -> Iterator[_Found]:
    for match in _HASH.finditer(text):
        value = match[0]
        letters = value.strip("0123456789")
        mixed = letters not in ("", "e") and not value.isalpha()
        full = len(value) in _HASH_LENGTHS and len(set(value)) > 4
        if mixed or full or text.endswith("commit ", 0, match.start()):
            yield *match.span(), "hash"


# v1.2.3-rc.1
_VERSION = re.compile(
    r"(?<![\w.])(v?)(\d{1,9}+(?:\.\d{1,9}+){1,4}+)"
    r"((?:[-+.]?(?:alpha|beta|pre|a|b|rc|dev|post)[.-]?\d{0,9}+){0,3}(?:[+-][0-9A-Za-z.-]{1,60}+)?)"
    r"(?![\w%])(?!\.\w)"
)
# version:
_BEFORE_VERSION = re.compile(r"(?:[=<>~!]=|[@^~]|(?i:\bversion:?) ?)$")


def _versions(text: str) -> Iterator[_Found]:
    for match in _VERSION.finditer(text):
        start, end = match.span()
        parts = match[2].split(".")
        address = len(parts) == 4 and not match[1] and all(int(part) < 256 for part in parts)
        if address:
            continue
        # Two numbers with a dot are a decimal, unless the text says that they are a version.
        before = text[max(0, start - 10) : start]
        if len(parts) > 2 or match[1] or match[3] or _BEFORE_VERSION.search(before):
            yield start, end, "version"


# error TS2322:
_CODES = re.compile(
    r"(?:^|: |\[|\(|\berror |\bwarning )([A-Z]{1,5}\d{3,5})(?=[\]:)\s])"  # F401, E0382, TS2322
    r"|  \[([a-z]{2,40}+(?:-[a-z]{1,40}+){0,6}+)\]$"  # mypy's
    r"|\[(-W[\w=+-]{1,60}+)\]"  # gcc's and clang's
    r"|\[(Errno -?\d{1,5}+)\]"
    r"|\b((?:exit code|exit status|exited with code|exited with status) -?\d{1,5}+)\b"
    r"|^make(?:\[\d{1,4}\])?: \*\*\* .{1,300}(\bError \d{1,3}+)$"
    r"|\b(SIG(?:ABRT|BUS|FPE|HUP|ILL|INT|KILL|PIPE|QUIT|SEGV|TERM|TRAP))\b"
    r"|\b(E(?:ACCES|ADDRINUSE|AGAIN|AI_AGAIN|BADF|BUSY|CONNABORTED|CONNREFUSED|CONNRESET|EXIST"
    r"|HOSTUNREACH|INTR|INVAL|IO|ISDIR|LIFECYCLE|LOOP|MFILE|NAMETOOLONG|NETUNREACH|NFILE|NOENT"
    r"|NOLOCK|NOMEM|NOSPC|NOTDIR|NOTEMPTY|NOTFOUND|PERM|PIPE|RESOLVE|ROFS|TIMEDOUT|XDEV))\b",
    re.MULTILINE,
)

# json.JSONDecodeError
_DOTTED_NAME = re.compile(r"(?<![\w.])[A-Za-z_][\w.]*+")
_EXCEPTION_ENDINGS = ("Error", "Exception", "Warning", "Failure", "Fault")
_OTHER_EXCEPTIONS = {
    "KeyboardInterrupt",
    "SystemExit",
    "StopIteration",
    "StopAsyncIteration",
    "GeneratorExit",
}


def _exceptions(text: str) -> Iterator[_Found]:
    for match in _DOTTED_NAME.finditer(text):
        name = match[0].rstrip(".")
        if not name.endswith(_EXCEPTION_ENDINGS) and name not in _OTHER_EXCEPTIONS:
            continue
        last = name.rpartition(".")[2]
        if last not in _EXCEPTION_ENDINGS and last[0].isupper() and ".." not in name:
            yield match.start(), match.start() + len(name), "exception"


# @@ -1,3 +4,5 @@
_LINE = re.compile(
    r"\b[Ll]ines? \d{1,7}+(?:-\d{1,7}+)?\b"
    r"|^@@ -\d{1,7}+(?:,\d{1,7}+)? \+\d{1,7}+(?:,\d{1,7}+)? @@",
    re.MULTILINE,
)


def _every_match(pattern: re.Pattern[str], kind: Kind) -> Callable[[str], Iterator[_Found]]:
    """A rule for a pattern that matches nothing else; where it has groups, one of them matches."""
    return lambda text: (
        (*match.span(match.lastindex or 0), kind) for match in pattern.finditer(text)
    )


# If two rules find something at the same place, the one that comes first here wins.
_RULES = (
    _urls,
    _tests,
    _paths,
    _every_match(_UUID, "uuid"),
    _hashes,
    _versions,
    _every_match(_CODES, "code"),
    _exceptions,
    _every_match(_LINE, "line"),
)
