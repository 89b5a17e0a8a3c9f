"""Facts in configuration files as ``cat`` prints them, and in what pip prints of packages."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import LINE_CHARACTERS, Facts, Line

_DEPENDENCY_TABLES = ("dependencies", "devDependencies", "dev-dependencies", "build-dependencies")

_TOML_TABLE = re.compile(r"\[(?P<many>\[)?(?P<section>[\w.\"'*-]+)\]\]?\s*(?:#.*)?$")
_TOML_PAIR = re.compile(
    r"(?P<key>[\w.-]+) *= *(?:\"(?P<text>[^\"\\]*)\"|'(?P<raw>[^']*)'"
    r"|(?P<plain>[-+\w.:]+)|(?P<other>[\[{\"'].*))\s*(?:#.*)?$"
)
_TOML_PACKAGE = re.compile(r"\s*\"(?P<name>[\w.-]+)(?:\[[\w,-]+\])?[>=~]=(?P<version>[\w.*]+)\",?$")
_INLINE_VERSION = re.compile(r"\{.*?\bversion = \"(?P<version>[^\"]+)\"")


def toml(facts: Facts, lines: list[Line]) -> None:
    """TOML: scalars by key and by table; versions of dependencies."""
    section = ""
    depth = 0  # of brackets that a value left open
    quoted = False  # inside a text of several lines
    for line in lines:
        text = line.text
        if quoted or depth > 0:
            if depth > 0 and (package := _TOML_PACKAGE.match(text)):
                facts.add("version", line, package, "version", name=package["name"])
            depth += _brackets(text)
            quoted ^= text.count('"""') % 2 == 1 or text.count("'''") % 2 == 1
        elif table := _TOML_TABLE.match(text):
            section = "" if table["many"] else table["section"]
        elif pair := _TOML_PAIR.match(text):
            if pair["other"]:
                quoted = pair["other"].startswith(('"""', "'''")) and len(pair["other"]) < 6
                depth = 0 if quoted else max(_brackets(pair["other"]), 0)
                version = _INLINE_VERSION.match(text, pair.start("other"))
                if version and section.endswith(_DEPENDENCY_TABLES):
                    facts.add("version", line, version, "version", name=pair["key"])
            elif section.endswith(_DEPENDENCY_TABLES):
                facts.add("version", line, pair, pair.lastgroup or 0, name=pair["key"])
            else:
                _add_value(facts, line, pair, pair.lastgroup or "", section)


def _brackets(text: str) -> int:
    """Brackets opened less brackets closed, outside of texts."""
    bare = re.sub(r"\"[^\"]*\"|'[^']*'|#.*", "", text)
    return sum(map(bare.count, "[{")) - sum(map(bare.count, "]}"))


def _add_value(facts: Facts, line: Line, pair: re.Match[str], group: str, section: str) -> None:
    key = pair["key"]
    facts.add("value", line, pair, group, key=key)
    if section:
        facts.add("value_in", line, pair, group, key=key, section=section)
    if key == "name" and section in ("project", "package"):
        facts.add("package", line, pair, group)


_YAML_PAIR = re.compile(
    r"(?P<indent> *)(?P<item>- +)?(?P<key>[\w./-]+|\"[^\"]+\"):"
    r"(?: +(?:\"(?P<text>[^\"\\]*)\"|'(?P<raw>[^']*)'|(?P<block>[|>][-+\d]*)"
    r"|(?P<other>[\[{&*!].*)|(?P<plain>[^\s#\"'][^#]*?)))?\s*(?:(?<=\s)#.*)?$"
)
_YAML_PORT = re.compile(r" +- \"?(?P<port>\d{2,5}):\d+\"?$")


def yaml(facts: Facts, lines: list[Line]) -> None:
    """YAML: scalars by key and by the key above; published ports of services."""
    above: list[tuple[int, str]] = []  # indents and keys of the mappings that are open
    block: int | None = None  # the indent of a key whose text follows
    for line in lines:
        text = line.text
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        if block is not None and len(text) - len(text.lstrip()) > block:
            continue
        block = None
        if pair := _YAML_PAIR.match(text):
            indent = len(pair["indent"]) + len(pair["item"] or "")
            while above and above[-1][0] >= indent:
                above.pop()
            key = pair["key"].strip('"')
            if pair["block"]:
                block = len(pair["indent"])
            elif not pair["other"] and (group := pair.lastgroup) in ("text", "raw", "plain"):
                facts.add("value", line, pair, group, key=key)
                if above:
                    facts.add("value_in", line, pair, group, key=key, section=above[-1][1])
            above.append((indent, key))
        elif (port := _YAML_PORT.match(text)) and len(above) > 1 and above[-1][1] == "ports":
            facts.add("port_of", line, port, "port", name=above[-2][1])


_JSON_TOKEN = re.compile(
    r"\"(?P<text>(?:[^\"\\]|\\.)*+)\"|(?P<plain>[-+\d.eE]++|true|false|null)|(?P<sign>[{}\[\]:,])"
)
_CARET = re.compile(r"[\^~]?(?P<version>\d[\w.+-]*)$")


def json(facts: Facts, lines: list[Line]) -> None:
    """JSON, laid out or on one line: scalars by key and by the key above."""
    if any(len(line.text) >= LINE_CHARACTERS for line in lines):
        return  # what was not looked at could hold the same key again
    above: list[str] = []  # the key of each object or list that is open; "" without one
    key = ""
    expects_value = False
    package: tuple[Line, re.Match[str], str] | None = None
    for line in lines:
        for token in _JSON_TOKEN.finditer(line.text):
            sign, group = token["sign"], token.lastgroup or ""
            if sign == ":":
                expects_value = True
            elif sign in ("{", "["):
                above.append(key if expects_value else "")
                expects_value, key = False, ""
            elif sign in ("}", "]"):
                if above:
                    above.pop()
                expects_value, key = False, ""
            elif sign == ",":
                expects_value, key = False, ""
            elif not expects_value:
                key = token[group]
            elif key and "\\" not in token[group]:
                section = above[-1] if above else ""
                _add_json(facts, line, token, group, key, section)
                if key == "name" and len(above) == 1:
                    package = line, token, group
                if package and section in _DEPENDENCY_TABLES:
                    facts.add("package", *package)


def _add_json(
    facts: Facts, line: Line, token: re.Match[str], group: str, key: str, section: str
) -> None:
    if section in _DEPENDENCY_TABLES:
        if version := _CARET.match(line.text[: token.end(group)], token.start(group)):
            facts.add("version", line, version, "version", name=key)
        return
    facts.add("value", line, token, group, key=key)
    if section:
        facts.add("value_in", line, token, group, key=key, section=section)


_VARIABLE = re.compile(
    r"(?:export |declare -x )?(?P<key>[A-Za-z_]\w*)="
    r"(?:\"(?P<text>[^\"\\$]*)\"|'(?P<raw>[^']*)'|(?P<plain>[^\s\"'$#][^\s\"'$]*))$"
)


def env(facts: Facts, lines: list[Line]) -> None:
    """Environment files, and what env prints."""
    for line in lines:
        if pair := _VARIABLE.match(line.text):
            facts.add("value", line, pair, pair.lastgroup or 0, key=pair["key"])


_PIP_ROW = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*) +(?P<version>\d[\w.+!-]*)(?: +\S+)?$")
_PIP_HEADER = re.compile(r"Package +Version\b")
_FIELD = re.compile(r"(?P<key>[A-Z][A-Za-z-]+): (?P<value>\S.*?)\s*$")
_INSTALLED = re.compile(r"Successfully installed (?P<packages>.+)$")
_INSTALLED_ONE = re.compile(r"(?P<name>[A-Za-z][\w.-]*?)-(?P<version>\d[\w.+!]*)(?: |$)")


def pip(facts: Facts, lines: list[Line]) -> None:
    """pip list, pip show, pip install, and a package's METADATA up to its description."""
    table = False
    for line in lines:
        if _PIP_HEADER.match(line.text):
            table = True
        elif table and (row := _PIP_ROW.match(line.text)):
            facts.add("version", line, row, "version", name=row["name"])
        elif field := _FIELD.match(line.text):
            facts.add("value", line, field, "value", key=field["key"])
            if field["key"] == "Name":
                facts.add("package", line, field, "value")
        elif installed := _INSTALLED.match(line.text):
            for one in _INSTALLED_ONE.finditer(line.text, installed.start("packages")):
                facts.add("version", line, one, "version", name=one["name"])
        elif not line.text and any(other.text.startswith("Metadata-") for other in lines[:3]):
            return
