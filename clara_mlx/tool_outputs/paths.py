"""Paths of files and folders, with the positions written against them, and lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from clara_mlx.tool_outputs.spans import MAX_LENGTH, Span, every_match

# Matches of which it is kept at hand whether they are paths.
_KEPT_PATHS = 1 << 13

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
# fs, which names an attribute as often as a file: one with a folder, or a place in it, is a file
_RARE_EXTENSION = re.compile(
    r"adoc|bash|bib|clj|cljs|cshtml|csproj|cmd|crt|csr|deb|dts|dtsi|el|exe|feature|fish|fs|fsi|fsx"
    r"|groovy|inl|ipp|key|ko|kts|mk|pem|pid|pm|properties|razor|rpm|service|sln|socket|spec|sv|t"
    r"|tcc|tex|vb|vcxproj|vhd|vim|xsd",
    re.IGNORECASE,
)
# Makefile
_FILE_NAME = re.compile(
    r"(?:Docker|Make|Gem|Rake|Proc|Jenkins|Vagrant|Just)file|LICENSE"
    r"|\.(?:git(?:ignore|attributes)|dockerignore|editorconfig|env|npmrc|bashrc)"
)
# Node.js
_PRODUCT = re.compile(r"(?:Node|Vue|Next|Nuxt|Three|D3)\.js|Socket\.io")
# The place in a file, as tools write it against its path: a.py:12:5, a.ts(12,5), A.java:[12,5],
# a.kt: (12, 5), a.cs:line 12, A.hs:(12,5)-(14,2).
_PLACE = (
    r"(?::\d{1,7}+(?::\d{1,7}+)?|\(\d{1,7}+(?:,\d{1,7}+){0,3}+\)|:\[\d{1,7}+,\d{1,7}+\]"
    r"|: \(\d{1,7}+, \d{1,7}+\)|:line \d{1,7}+|:\(\d{1,7}+,\d{1,7}+\)-\(\d{1,7}+,\d{1,7}+\))"
)
# a.ts(12,5)
_PLACE_AT_END = re.compile(_PLACE + r"\Z")
# File "/opt/my app/load.py", line 42
_QUOTED_PATH = re.compile(
    r"File \"([^\"\n]{1,500}+)\", line|['\"`]([A-Za-z]:\\[^'\"`\n]{1,300}+)['\"`]"
)
# C:\my files\a.cs(10,5): error CS1002: ; expected
_COMPILED = re.compile(rf"{_PLACE}(?= ?: (?:fatal |internal )?(?:error|warning|note|info)\b)")
# C:\my files\a.cs
_COMPILED_PATH = re.compile(r"[ \t]{0,4}+((?:[A-Za-z]:\\|\.{0,2}/)[^:*?\"<>|]++)\Z")
# C:\project\a.py:12
_WINDOWS_PATH = re.compile(
    r":\\(?<=[A-Za-z]:\\)(?<![A-Za-z0-9][A-Za-z]:\\)"
    # Folders with spaces, as Windows names its own: Program Files (x86).
    r"(?:[^\s\"'<>|*?:;,()\\]++(?: [A-Z(\d][^\s\"'<>|*?:;,\\.]*+)*+\\++)*+"
    rf"[^\s\"'<>|*?:;,()]*+{_PLACE}?"
)
# \\server\share\a.txt
_SHARED_PATH = re.compile(
    r"\\\\(?<![\w\\]..)[A-Za-z][\w.-]{1,60}+\\(?=[\w$])[^\s\"'<>|*?:;,()]{2,300}+" + _PLACE + "?"
)
# file:///opt/app/load.mjs:3:36
_FILE_URL = re.compile(r"file://(?<![\w.+-].{7})(?=[/A-Za-z])[^\s\"'<>`^{}|\x00-\x1f]++")
# src/app.ts(12,5)
_PATH = re.compile(
    r"([\w./@+~%-](?<![\w./@+~%-].)"
    r"(?:(?<=[^\W\d])|(?=[\d./@+~%-]*+\w))"  # it has a letter
    r"(?!(?<=</)[\w-]++>)"  # </a-tag> is none
    # Without a slash or a dot only well-known names are paths.
    r"(?:(?:(?<=[./])|[\w@+~%-]*+[./])[\w./@+~%-]*+"
    r"|(?:(?<=[A-Z])[a-z]{2,8}file|(?<=L)ICENSE)(?![\w@+~%-])))"
    rf"({_PLACE})?"
)


def without_place(path: str) -> str:
    """A path without the place that is written against it."""
    return _PLACE_AT_END.sub("", path)


def paths(text: str) -> Iterator[Span]:
    """Paths with the locations written against them, without the a/ and b/ of git's diffs."""
    for match in _QUOTED_PATH.finditer(text):
        group = match.lastindex or 0
        if match[group][0] not in "<(":  # <stdin>, <frozen importlib._bootstrap>
            yield match.span(group)
    for match in _COMPILED.finditer(text) if ": " in text else ():
        line = text.rfind("\n", max(0, match.start() - MAX_LENGTH), match.start()) + 1
        if path := _COMPILED_PATH.match(text, line, match.start()):
            yield path.start(1), match.end()
    for match in _SHARED_PATH.finditer(text) if "\\\\" in text else ():
        yield match.span()
    for match in _FILE_URL.finditer(text) if "file://" in text else ():
        yield match.start(), match.end() - len(match[0]) + len(match[0].rstrip(".,;:!?)]"))
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


# A conversation names the same paths again and again.
@lru_cache(maxsize=_KEPT_PATHS)
def _is_path(name: str, located: bool) -> bool:
    """Whether a match of `_PATH` looks like a file or folder, not like a word or an attribute."""
    folder, slash, last = name.rpartition("/")
    stem, dot, extension = last.rpartition(".")
    known = bool(
        dot
        and stem
        and (
            _EXTENSION.fullmatch(extension)
            or ((slash or located) and _RARE_EXTENSION.fullmatch(extension))
        )
    )
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


# line 12
_LINE = re.compile(
    r"l(?<!\wl)ines? \d{1,7}+(?:-\d{1,7}+|, (?:col(?:umn)?|character) \d{1,7}+|:\d{1,7}+)?\b"
    r"|L(?<!\wL)ines? \d{1,7}+(?:-\d{1,7}+|, (?:col(?:umn)?|character) \d{1,7}+|:\d{1,7}+)?\b"
    # eslint's, under the name of the file
    r"|\n[ \t]{1,8}+(\d{1,6}+:\d{1,5}+)(?=[ \t]{1,8}+(?:error|warning|info|[✖⚠✘]))"
    r"|\n(@@ -\d{1,7}+(?:,\d{1,7}+)? \+\d{1,7}+(?:,\d{1,7}+)? @@)"
)

lines = every_match(_LINE)
