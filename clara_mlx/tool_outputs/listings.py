"""The rules for searches and listings: grep, ripgrep, ls, du, find and tree."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import Line, Lines, Matched

# inventory/store.py:12:    def take(self):
_GREP_MATCH = re.compile(
    r"(?P<path>[^\s:./]*[./][^\s:]*|[A-Z]\w+file):(?:(?P<line>\d+):)?(?P<text>.*)$"
)
# inventory/store.py:4
_GREP_COUNT = re.compile(r"(?P<path>[^\s:]+):(?P<count>\d+)$")
# 12:    def take(self):
_GREP_NUMBERED = re.compile(r"(?P<line>\d+):(?P<text>.*)$")
# 2 files contained matches
_RG_TOTAL = re.compile(
    r"(?:(?P<matches>\d+) matches|(?P<searched_files>\d+) files searched"
    r"|(?P<matched_files>\d+) files contained matches)$"
)
# pub fn total(items: &[u32]) -> u32 {
_DEFINITION = re.compile(
    r"[ \t]*(?:(?:export |default |pub(?:\([a-z]+\))? |async |static |abstract |public |final )*"
    r"(?:def|class|fn|struct|enum|trait|interface|function|func|type) (?P<name>[A-Za-z_]\w*)"
    r"|(?:int|void|char|float|double|bool|size_t) (?P<declared>[a-z_]\w*)\("
    r"|(?P<constant>[A-Z][A-Z0-9_]+)(?:: [\w\[\], ]+)? = )"
)
#   any text, without the blanks around it
_TEXT = re.compile(r"\s*(?P<text>\S(?:.*\S)?)\s*$")
# Lines. With fewer matches than this the count is a fact although no line prints it: a reader could
# count them, too.
_COUNTABLE = 20
# How lines begin that one of these patterns matches.
# inventory/store.py:12:    def take(self):
_GREP_LINE = re.compile(r"\d+:|[^\s:./]*[./][^\s:]*:|[A-Z]\w+file:|\d+ (?:matches|files) ")
# inventory/store.py:4
_GREP_COUNT_LINE = re.compile(r"[^\s:]+:\d|\d+ (?:matches|files) ")


def ripgrep(facts: Facts, lines: Lines) -> None:
    """Read grep and ripgrep: with file names, under headings, of a single file, and counts."""
    printed = sum(1 for text in lines.texts if text.strip())
    counts = sum(1 for text in lines.texts if ":" in text and _GREP_COUNT.match(text))
    if counts > printed // 2:
        _add_match_counts(facts, lines)
        return
    heading: Matched | None = None
    matched: list[Line] = []
    for number, text in enumerate(lines.texts):
        if not text:
            heading = None
        if not text or not _GREP_LINE.match(text):
            continue
        line = lines[number]
        if match := _GREP_NUMBERED.match(text):
            heading = _heading_above(lines, number) or heading
            _add_numbered(facts, line, match, heading)
        elif _heading_above(lines, number + 1):
            continue
        elif match := _GREP_MATCH.match(text):
            matched.append(line)
            _add_match(facts, line, match)
        elif match := _RG_TOTAL.match(text):
            facts.add_groups(line, match)
    if 1 < len(matched) < _COUNTABLE and len(matched) == printed:
        span = matched[0].start, matched[-1].start + len(matched[-1].text)
        facts.add_at(span, "matches", str(len(matched)))


def _heading_above(lines: Lines, number: int) -> Matched | None:
    """The line above line ``number`` if it names the file in which numbered lines were found."""
    if not number or not _GREP_NUMBERED.match(lines.text_after(number - 1)):
        return None
    above = lines[number - 1]
    path = (
        None if " " in above.text or _GREP_NUMBERED.match(above.text) else _TEXT.match(above.text)
    )
    return (above, path) if path else None


def _add_match_counts(facts: Facts, lines: Lines) -> None:
    for _, line in lines.matching(_GREP_COUNT_LINE):
        if match := _GREP_COUNT.match(line.text):
            facts.add("matches_in", line, match, "count", path=match["path"])
        else:
            facts.add_first(line, (_RG_TOTAL,))


def _add_match(facts: Facts, line: Line, match: re.Match[str]) -> None:
    path = match["path"]
    facts.add("match_line_in", line, match, "line", path=path)
    if text := _TEXT.match(line.text, match.start("text")):
        facts.add("match_text_in", line, text, "text", path=path)
    if definition := _DEFINITION.match(line.text, match.start("text")):
        name = definition[definition.lastgroup or 0]
        facts.add("defined_file", line, match, "path", name=name)
        facts.add("defined_line", line, match, "line", name=name)


def _add_numbered(facts: Facts, line: Line, match: re.Match[str], heading: Matched | None) -> None:
    definition = _DEFINITION.match(line.text, match.start("text"))
    if heading:
        path = heading[1]["text"]
        facts.add("match_line_in", line, match, "line", path=path)
    if definition:
        group = definition.lastgroup or ""
        name = definition[group]
        facts.add("defined_line", line, match, "line", name=name)
        if heading:
            facts.add("defined_file", *heading, "text", name=name)
            facts.add("match_name_in", line, definition, group, path=path)


# -rw-r--r-- 1 root root   85 Nov 23 06:13 CMakeLists.txt
_LS_LONG = re.compile(
    r"(?P<mode>[-dlbcps][-rwxsStT]{9})[.+@]? +\d+ +(?P<owner>\S+) +\S+ "
    r"+(?P<size>\d[\d.,]*[KMGT]?) +"
    r"(?P<date>[A-Z][a-z]{2} +\d{1,2} +(?:\d\d:\d\d|\d{4})|\d{4}-\d\d-\d\d \d\d:\d\d) "
    r"(?P<name>\S+)(?: -> (?P<target>\S+))?$"
)
# total 44
_LS_TOTAL = re.compile(r"total (?P<total>\d[\d.]*[KMGT]?)$")
# 4.0K\tsettings/app.env
_SIZED_PATH = re.compile(r" *(?P<size>\d[\d.]*[KMGT]?)[ \t]+(?P<path>[^\s]+)$")
# ./inventory:
_LS_FOLDER = re.compile(r"(?:\./)?(?P<path>[^\s:]+):$")
# store.py
_LS_FILE = re.compile(r"(?P<name>\S+\.\w+)$")
# How lines begin that one of these patterns matches.
# total 44
_LS_LINE = re.compile(r"[-dlbcps][-rwxsStT]{9}|total \d| *\d[\d.]*[KMGT]?[ \t]|[^\s:]+:$")


def ls(facts: Facts, lines: Lines) -> None:
    """Read ls -l, ls -R, ls -s and du."""
    folder = ""
    for number, text in enumerate(lines.texts):
        if not text:
            folder = ""
        if not folder and not _LS_LINE.match(text):
            continue
        line = lines[number]
        if match := _LS_LONG.match(text):
            _add_long_entry(facts, line, match)
        elif match := _LS_TOTAL.match(text):
            facts.add("total", line, match, "total")
        elif match := _SIZED_PATH.match(text):
            if match["path"] == "total":
                facts.add("total", line, match, "size")
            else:
                facts.add("file_size", line, match, "size", file=match["path"])
        elif match := _LS_FOLDER.match(text):
            folder = match["path"]
        elif folder:
            _add_file_in(facts, line, folder)


def _add_long_entry(facts: Facts, line: Line, match: re.Match[str]) -> None:
    name = match["name"]
    if match["mode"].startswith("l"):
        facts.add("link_target", line, match, "target", file=name)
        return
    facts.add("file_mode", line, match, "mode", file=name)
    facts.add("file_owner", line, match, "owner", file=name)
    facts.add("file_date", line, match, "date", file=name)
    if not match["mode"].startswith("d"):
        facts.add("file_size", line, match, "size", file=name)


def _add_file_in(facts: Facts, line: Line, folder: str) -> None:
    """Add a file with its folder; where a folder is listed, not all files of it are known."""
    if entry := _LS_FILE.match(line.text):
        facts.add("file_in", line, entry, "name", path=folder)
        span = line.start, line.start + len(line.text)
        facts.add_at(span, "parent", folder, file=entry["name"])
    else:
        facts.mark_unread("file_in", path=folder)


# ./inventory/store.py
_FOUND_FILE = re.compile(r"(?:\./)?(?P<folder>\S+)/(?P<name>[^\s/]+\.\w+)$")
# ./inventory/store.py
_FIND_LINE = re.compile(r"[^\s/]*/")


def find(facts: Facts, lines: Lines) -> None:
    """Read find: one path a line."""
    for _, line in lines.matching(_FIND_LINE):
        if match := _FOUND_FILE.match(line.text):
            facts.add("parent", line, match, "folder", file=match["name"])


# │   └── a.py
_TREE_ENTRY = re.compile(
    r"(?P<indent>(?:│[ \xa0]{3}|\|   | {4})*)(?:├|└|\||`)(?:──|--)[ \xa0]"
    r"(?:\[ *(?P<size>[\d.]+[KMGT]?)\] +)?(?P<name>[^\s→]+?)(?P<folder>/?)$"
)
# 2 directories, 3 files
_TREE_END = re.compile(r"(?P<directories>\d+) director(?:y|ies)(?:, (?P<files>\d+) files?)?$")


def tree(facts: Facts, lines: Lines) -> None:
    """Read tree, with or without sizes."""
    folders: list[str] = []
    entries = [_TREE_ENTRY.match(text) if text else None for text in lines.texts]
    for number, text in enumerate(lines.texts):
        if match := entries[number]:
            line = lines[number]
            depth = len(match["indent"]) // 4
            name = match["name"]
            facts.add("file_size", line, match, "size", file=name)
            folders[depth + 1 :] = [name]
            if len(folders) < depth + 2:
                continue  # a level is missing above
            below = entries[number + 1] if number + 1 < len(entries) else None
            if match["folder"] or (below and below.end("indent") > match.end("indent")):
                facts.mark_unread("file_in", path=folders[depth])
            elif folders[depth] not in ("", "."):
                facts.add("file_in", line, match, "name", path=folders[depth])
                span = line.start, line.start + len(line.text)
                facts.add_at(span, "parent", folders[depth], file=name)
        elif match := _TREE_END.match(text):
            facts.add_groups(lines[number], match)
        elif text and not folders and " " not in text and (root := _TEXT.match(text)):
            folders = [root["text"].rstrip("/")]
            if folders[0] != ".":
                facts.add("root", lines[number], root, "text")
