"""The names of packages with their versions, and of images with their tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from clara_mlx.tool_outputs.spans import Span

# react@17.0.1
_AT = re.compile(
    r"@(?<=[\w.-]@)(?:\"[\^~<>=v\d][^\"\n]{0,80}+\""
    r"|[\^~<>=v]{0,4}+\d(?![\d.]*\.\d{1,3}(?:\.\d{1,3}){2}\b)[\w.+*-]{0,60}+)"
)
# @types/node
_BEFORE_AT = re.compile(r"(?<![\w.@/-])(?:@[\w.-]{1,60}+/)?[A-Za-z][\w./-]*+\Z")
_NAME_CHARACTERS = 200

# Packages that are looked for in a piece of a text; a tree of them has fewer.
_MOST = 5_000

# org.apache.commons:commons-lang3:jar:3.12.0:compile
_MAVEN = re.compile(
    r"[a-z](?<![\w.:/@-].)[\w-]{0,60}+(?:\.[\w-]{1,60}+){1,8}+:[A-Za-z][\w.-]{1,80}+"
    r"(?::[\w.$-]{1,60}+){1,3}+"
)
# maven-compiler-plugin:3.8.0:compile
_PLUGIN = re.compile(
    r"[a-z](?<![\w.:/@-].)[\w.-]{2,80}+:\d{1,4}+(?:\.[\w-]{1,30}+){1,5}+:[a-z][\w-]{1,40}+"
)
# What stands inside them, which is found faster.
# :commons-lang3:j
_IN_MAVEN = re.compile(r":[A-Za-z][\w.-]{1,80}+:[\w.$-]")
# :3.8.0:c
_IN_PLUGIN = re.compile(r":\d{1,4}+(?:\.[\w-]{1,30}+){1,5}+:[a-z]")
# /till:2
_IN_REGISTRY = re.compile(r"/[a-z\d][\w.-]{0,60}+:\w")
# a.py:12:5
_PLACE = re.compile(
    r"\.(?:py|js|ts|tsx|jsx|c|h|cc|cpp|go|rs|rb|php|java|kt|cs|sh|scala):|:\d+(?::\d+)?\Z"
)
# image: registry.example.com:5000/shop/till:2.4.0
_IMAGE = re.compile(
    r"(?:[Ii]mage:?|FROM|naming to|Pulling from|[Pp]ulling|[Pp]ushing|pulled|tagged"
    r"|Loaded image:)[ \t]{1,24}+"
    r"[\"']?(?:docker\.io/)?((?:[\w.-]{1,80}+(?::\d{2,5}+)?/){0,6}+[a-z\d][\w.-]{0,80}+"
    r"(?::[\w][\w.-]{0,80}+(?:@sha256:[0-9a-f]{12,64}+)?|@sha256:[0-9a-f]{12,64}+))"
)
# ghcr.io/shop/till:2.4.0
_REGISTRY = re.compile(
    r"(?:[a-z\d](?<![\w./-].)[a-z\d-]{0,40}+\.(?:[a-z\d-]{1,40}+\.){0,5}+[a-z]{2,8}"
    r"|l(?<!\wl)ocalhost)"
    r"(?::\d{2,5}+)?(?:/[a-z\d][\w.-]{0,60}+){1,6}+:[\w][\w.-]{0,60}+(?:@sha256:[0-9a-f]{12,64}+)?"
    r"(?![:\w/])"
)


def packages(text: str) -> Iterator[Span]:
    """Packages with a version, coordinates of Maven, and images with a tag."""
    if "@" in text:
        last = 0
        for match in islice(_AT.finditer(text), _MOST):
            before = max(last, match.start() - _NAME_CHARACTERS)
            last = match.end()
            if name := _BEFORE_AT.search(text, before, match.start()):
                yield name.start(), match.end() - match[0].endswith(".")
    for part, pattern in ((_IN_MAVEN, _MAVEN), (_IN_PLUGIN, _PLUGIN)):
        for match in pattern.finditer(text) if part.search(text) else ():
            if not _PLACE.search(match[0]):
                yield match.start(), match.start() + len(match[0].rstrip(".-"))
    for match in _IMAGE.finditer(text) if ":" in text else ():
        yield match.start(1), match.start(1) + len(match[1].rstrip(".-"))
    for match in _REGISTRY.finditer(text) if _IN_REGISTRY.search(text) else ():
        if not _PLACE.search(match[0]):
            yield match.start(), match.start() + len(match[0].rstrip(".-"))
