"""The rules for configuration files as ``cat`` prints them, and for what pip prints."""

from __future__ import annotations

import re
from collections.abc import Iterator

from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import LINE_CHARACTERS, Line, Lines

# Tables and objects whose values are versions of other packages.
_DEPENDENCY_TABLES = ("dependencies", "devDependencies", "dev-dependencies", "build-dependencies")

# [tool.ruff]
_TOML_TABLE = re.compile(r"\[(?P<many>\[)?(?P<section>[\w.\"'*-]+)\]\]?\s*(?:#.*)?$")
# host = "stock.internal"  # a comment
_TOML_PAIR = re.compile(
    r"(?P<key>[\w.-]+) *= *(?:(?:\"(?P<text>[^\"\\]*)\"|'(?P<raw>[^']*)'|(?P<plain>[-+\w.:]+))"
    r"\s*(?:#.*)?$|(?P<other>[\[{\"'].*))"
)
#     "numpy>=1.26",
_TOML_REQUIREMENT = re.compile(
    r"\s*\"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?[>=~]=(?P<version>[\w.*]+)\",?$"
)
# { version = "1.0", features = ["derive"] }
_TOML_INLINE_VERSION = re.compile(r"\{.*?\bversion = \"(?P<version>[^\"]+)\"")


def toml(facts: Facts, lines: Lines) -> None:
    """Read TOML: scalars with their keys and tables, and versions of dependencies."""
    section = ""
    depth = 0  # number of brackets that a value has left open
    quoted = False  # inside a string of several lines
    for number, text in enumerate(lines.texts):
        if not text:
            continue
        if quoted or depth > 0:
            if depth > 0 and (package := _TOML_REQUIREMENT.match(text)):
                facts.add("version", lines[number], package, "version", name=package["name"])
            depth += _count_open_brackets(text)
            quoted ^= text.count('"""') % 2 == 1 or text.count("'''") % 2 == 1
        elif table := _TOML_TABLE.match(text):
            section = "" if table["many"] else table["section"]
        elif pair := _TOML_PAIR.match(text):
            if pair["other"]:
                quoted = pair["other"].startswith(('"""', "'''")) and len(pair["other"]) < 6
                depth = 0 if quoted else max(_count_open_brackets(pair["other"]), 0)
                version = _TOML_INLINE_VERSION.match(text, pair.start("other"))
                if version and section.endswith(_DEPENDENCY_TABLES):
                    facts.add("version", lines[number], version, "version", name=pair["key"])
            elif section.endswith(_DEPENDENCY_TABLES):
                facts.add("version", lines[number], pair, pair.lastgroup or 0, name=pair["key"])
            else:
                _add_value(facts, lines[number], pair, pair.lastgroup or "", section)


def _count_open_brackets(text: str) -> int:
    """The number of brackets that a line opens less those it closes, outside of strings."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", text)
    return sum(map(bare.count, "[{")) - sum(map(bare.count, "]}"))


def _add_value(facts: Facts, line: Line, pair: re.Match[str], group: str, section: str) -> None:
    key = pair["key"]
    facts.add("value", line, pair, group, key=key)
    if section:
        facts.add("value_in", line, pair, group, key=key, section=section)
    if key == "name" and section in ("project", "package"):
        facts.add("package", line, pair, group)


#   - name:
_YAML_KEY = re.compile(r"(?P<indent> *)(?P<item>- +)?(?P<key>[\w./-]+|\"[^\"]+\"):")
#  web  # a comment
_YAML_VALUE = re.compile(
    r" +(?P<other>[\[{&*!].*)"
    r"|(?: +(?:\"(?P<text>[^\"\\]*)\"|'(?P<raw>[^']*)'|(?P<block>[|>][-+\d]*)"
    r"|(?P<plain>[^\s#\"'](?:[^#]*[^\s#])?)))?(?:\s+(?:#.*)?)?$"
)
# What is neither empty nor a comment.
#   - name: web
_YAML_LINE = re.compile(r"\s*[^\s#]")
#       - "8080:80"
_YAML_PORT = re.compile(r" +- \"?(?P<port>\d{2,5}):\d+\"?$")


def yaml(facts: Facts, lines: Lines) -> None:
    """Read YAML: scalars with their keys and the keys above, and published ports of services."""
    above: list[tuple[int, str]] = []  # indents and keys of the open mappings
    block: int | None = None  # indent of a key whose text follows in a block
    for number, text in enumerate(lines.texts):
        if not text or not _YAML_LINE.match(text):
            continue
        if block is not None and len(text) - len(text.lstrip()) > block:
            continue
        block = None
        opened = _YAML_KEY.match(text)
        if opened and (value := _YAML_VALUE.match(text, opened.end())):
            indent = len(opened["indent"]) + len(opened["item"] or "")
            while above and above[-1][0] >= indent:
                above.pop()
            key = opened["key"].strip('"')
            group = value.lastgroup
            if group == "block":
                block = len(opened["indent"])
            elif group and group != "other":
                line = lines[number]
                facts.add("value", line, value, group, key=key)
                if above:
                    facts.add("value_in", line, value, group, key=key, section=above[-1][1])
            above.append((indent, key))
        elif (port := _YAML_PORT.match(text)) and len(above) > 1 and above[-1][1] == "ports":
            facts.add("port_of", lines[number], port, "port", name=above[-2][1])


# "retries"
_JSON_TOKEN = re.compile(
    r"(?P<sign>[{}\[\]:,])|(?P<plain>[-+\d.eE]+|true|false|null)"
    r"|\"(?P<text>[^\"\\]*(?:\\.[^\"\\]*)*)\"|(?P<unended>\".*)"
)
_SIGN = _JSON_TOKEN.groupindex["sign"]
_UNENDED = _JSON_TOKEN.groupindex["unended"]
# What has a token.
#   "retries": 3
_JSON_LINE = re.compile(r"[^-+\d.eEtfn{}\[\]:,\"]*[-+\d.eEtfn{}\[\]:,\"]")
# 12
_JSON_PLAIN_TOKEN = re.compile(r"(?P<sign>[{}\[\]:,])|(?P<plain>[-+\d.eE]+|true|false|null)")
# ^2.4.0
_JSON_VERSION = re.compile(r"[\^~]?(?P<version>\d[\w.+-]*)$")


def json(facts: Facts, lines: Lines) -> None:
    """Read JSON, indented or on one line: scalars with their keys and the keys above."""
    if max(map(len, lines.texts)) >= LINE_CHARACTERS:
        return  # what was not read could hold the same key again
    above: list[str] = []  # key of each open object or list, empty if it has none
    key = ""
    expects_value = False
    package: tuple[Line, re.Match[str], int] | None = None
    for number, text in enumerate(lines.texts):
        if not text or not _JSON_LINE.match(text):
            continue
        for token in _json_tokens(text):
            group = token.lastindex or 0
            value = token[group]
            if value == ":" and group == _SIGN:
                expects_value = True
            elif group == _SIGN:
                if value in "{[":
                    above.append(key if expects_value else "")
                elif value in "}]" and above:
                    above.pop()
                expects_value = False
                key = ""
            elif not expects_value:
                key = value
            elif key and "\\" not in value:
                line = lines[number]
                section = above[-1] if above else ""
                _add_json(facts, line, token, group, key, section)
                if key == "name" and len(above) == 1:
                    package = line, token, group
                if package and section in _DEPENDENCY_TABLES:
                    facts.add("package", *package)


def _json_tokens(text: str) -> Iterator[re.Match[str]]:
    """The tokens of a line; after a quotation mark without its partner, only those outside strings.

    No later string has an end either: every quotation mark that follows is escaped.
    """
    for token in _JSON_TOKEN.finditer(text):
        if token.lastindex != _UNENDED:
            yield token
        else:
            yield from _JSON_PLAIN_TOKEN.finditer(text, token.start() + 1)


def _add_json(
    facts: Facts, line: Line, token: re.Match[str], group: int, key: str, section: str
) -> None:
    if section in _DEPENDENCY_TABLES:
        if version := _JSON_VERSION.match(line.text, *token.span(group)):
            facts.add("version", line, version, "version", name=key)
        return
    facts.add("value", line, token, group, key=key)
    if section:
        facts.add("value_in", line, token, group, key=key, section=section)


# export STOCK_PORT=8443
_ENV_PAIR = re.compile(
    r"(?:export |declare -x )?(?P<key>[A-Za-z_]\w*)="
    r"(?:\"(?P<text>[^\"\\$]*)\"|'(?P<raw>[^']*)'|(?P<plain>[^\s\"'$#][^\s\"'$]*))$"
)
# How lines begin that may be settings.
# export STOCK_PORT=8443
_ENV_LINE = re.compile(r"(?:export |declare -x )?[A-Za-z_]\w*=")


def env(facts: Facts, lines: Lines) -> None:
    """Read environment files and what env prints."""
    for _, line in lines.matching(_ENV_LINE):
        if pair := _ENV_PAIR.match(line.text):
            facts.add("value", line, pair, pair.lastgroup or 0, key=pair["key"])


# click    8.1.7
_PIP_ROW = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*) +(?P<version>\d[\w.+!-]*)(?: +\S+)?$")
# Package    Version
_PIP_HEADER = re.compile(r"Package +Version\b")
# Author: Ada Keller
_PIP_FIELD = re.compile(r"(?P<key>[A-Z][A-Za-z-]+): (?P<value>\S(?:.*\S)?)\s*$")
# Successfully installed click-8.1.7 rich-13.7.1
_PIP_INSTALLED = re.compile(r"Successfully installed (?P<packages>.+)$")
# click-8.1.7
_PIP_INSTALLED_ONE = re.compile(
    r"(?<![\w.-])(?P<name>[A-Za-z0-9][\w.-]*)-(?P<version>\d[\w.+!]*)(?: |$)"
)
# How lines begin that one of these patterns matches.
# Package    Version
_PIP_LINE = re.compile(r"Package +Version|[A-Za-z0-9][\w.-]*(?:: | +\d)|Successfully installed ")


def pip(facts: Facts, lines: Lines) -> None:
    """Read pip list, pip show, pip install, and the head of a package's METADATA file."""
    table = False
    is_file = any(text.startswith("Metadata-") for text in lines.texts[:3])
    for number, text in enumerate(lines.texts):
        if not text and is_file:
            return  # what follows the head is prose
        if not text or not _PIP_LINE.match(text):
            continue
        line = lines[number]
        if _PIP_HEADER.match(line.text):
            table = True
        elif table and (row := _PIP_ROW.match(line.text)):
            facts.add("version", line, row, "version", name=row["name"])
        elif field := _PIP_FIELD.match(line.text):
            facts.add("value", line, field, "value", key=field["key"])
            if field["key"] == "Name":
                facts.add("package", line, field, "value")
        elif installed := _PIP_INSTALLED.match(line.text):
            for one in _PIP_INSTALLED_ONE.finditer(line.text, installed.start("packages")):
                facts.add("version", line, one, "version", name=one["name"])
