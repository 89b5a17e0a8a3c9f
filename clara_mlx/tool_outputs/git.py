"""The rules for git status, git log and git diff."""

from __future__ import annotations

import re

from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import Line, Lines, Matched

# On branch main
_BRANCH = re.compile(r"On branch (?P<branch>\S+)$")
# Your branch is ahead of 'origin/main' by 2 commits.
_AHEAD = re.compile(r"Your branch is ahead of '(?P<upstream>[^']+)' by (?P<ahead>\d+) commits?")
# Your branch is behind 'origin/main' by 1 commit, and can be fast-forwarded.
_BEHIND = re.compile(r"Your branch is behind '(?P<upstream>[^']+)' by (?P<behind>\d+) commits?")
# Your branch is up to date with 'origin/main'.
_UP_TO_DATE = re.compile(r"Your branch is up to date with '(?P<upstream>[^']+)'")
# ## main...origin/main [ahead 2]
_SHORT_BRANCH = re.compile(
    r"## (?P<branch>[^\s.]+(?:\.[^\s.]+)*)(?:\.\.\.(?P<upstream>\S+))?"
    r"(?: \[(?:ahead (?P<ahead>\d+))?(?:, )?(?:behind (?P<behind>\d+))?(?:gone)?\])?$"
)
# \tmodified:   settings/app.env
_LONG_CHANGE = re.compile(
    r"\t(?P<what>new file|modified|deleted|both modified|both added): +(?P<path>\S+)$"
)
# R  inventory/report.py -> inventory/summary.py
_RENAME = re.compile(r"(?:\trenamed: +|R[ MD] +)(?P<old>\S+) -> (?P<new>\S+)$")
# \tnotes.md
_UNTRACKED = re.compile(r"\t(?P<path>[^\s:]+)$")
#  M settings/app.env
_SHORT_CHANGE = re.compile(r"(?P<what>[ MADUC?!]{2}) (?P<path>\S+)$")
# The words of the long form and the letters of the short one, with the names of their facts.
_CHANGED = {
    "new file": "new_file",
    "modified": "modified_file",
    "deleted": "deleted_file",
    "both modified": "conflict_file",
    "both added": "conflict_file",
    " M": "modified_file",
    "M ": "modified_file",
    "MM": "modified_file",
    " D": "deleted_file",
    "D ": "deleted_file",
    "A ": "new_file",
    "AM": "new_file",
    "??": "untracked_file",
    "UU": "conflict_file",
    "AA": "conflict_file",
}
# You are currently rebasing branch 'fix' on '1ea647b'.
_REBASING = re.compile(
    r"You are currently rebasing branch '(?P<rebased_branch>[^']+)' on '(?P<commit>[0-9a-f]+)'\.$"
)
_STATUS = (_BRANCH, _AHEAD, _BEHIND, _UP_TO_DATE, _SHORT_BRANCH, _REBASING)
# How lines begin that one of these patterns matches, and the headings of the long form.
# Untracked files:
_STATUS_LINE = re.compile(
    r"Untracked files:|Changes |Unmerged |Ignored files:|\t[^\s:]|R[ MD] |[ MADUC?!]{2} \S"
    r"|On branch |Your branch |## |You are currently rebasing "
)


def status(facts: Facts, lines: Lines) -> None:
    """Read git status, in its long and its short form."""
    untracked = False
    for _, line in lines.matching(_STATUS_LINE):
        text = line.text
        if text.startswith(("Untracked files:", "Changes ", "Unmerged ", "Ignored files:")):
            untracked = text.startswith("Untracked")
        elif match := _RENAME.match(text):
            facts.add("renamed_to", line, match, "new", path=match["old"])
        elif match := _LONG_CHANGE.match(text) or _SHORT_CHANGE.match(text):
            if fact := _CHANGED.get(match["what"]):
                facts.add(fact, line, match, "path")
        elif untracked and (match := _UNTRACKED.match(text)):
            facts.add("untracked_file", line, match, "path")
        else:
            facts.add_first(line, _STATUS)


# commit 1ea647bb49a5d795353e7ad85e7be4346e633cc2 (HEAD -> main)
_COMMIT = re.compile(r"commit (?P<commit>[0-9a-f]{7,64})(?: \((?P<refs>.+)\))?$")
# Author: Mira Osei <mira@example.org>
_AUTHOR = re.compile(r"Author: +(?P<author>[^< ][^<]*?)(?: <(?P<address>[^>]+)>)?$")
# Date:   Sat Feb 14 21:26:30 2026 +0000
_DATE = re.compile(r"(?:Author)?Date: +(?P<date>[^ ].*)$")
#     Port stock counting to Rust
_SUBJECT = re.compile(r"    (?P<subject>\S.*)$")
# 1ea647b (HEAD -> main) Port stock counting to Rust
_ONELINE = re.compile(
    r"(?P<commit>[0-9a-f]{7,40}) (?:\((?P<refs>(?:HEAD|tag: |[\w./-]+(?:, |\)))[^)]*)\) )?"
    r"(?P<subject>\S.*)$"
)
# 1ea647b 2026-02-14 Mira Osei Port stock counting to Rust
_DATED_ONELINE = re.compile(r"(?P<commit>[0-9a-f]{7,40}) (?P<date>\d{4}-\d\d-\d\d) (?P<rest>\S.*)$")
# How lines begin that one of these patterns matches.
# Author: Mira Osei <mira@example.org>
_LOG_LINE = re.compile(r"commit [0-9a-f]{7}|[0-9a-f]{7,40} \S|Author: |(?:Author)?Date: |    \S")
# HEAD -> main
_HEAD = re.compile(r"HEAD -> (?P<branch>[^\s,)]+)")


def log(facts: Facts, lines: Lines) -> None:
    """Read git log and git show: in full, with one line per commit, and with --stat."""
    commit = ""
    has_subject = False  # the subject of this commit has been read
    heading: Matched | None = None
    for _, line in lines.matching(_LOG_LINE):
        text = line.text
        if match := _COMMIT.match(text):
            commit = match["commit"][:7]
            has_subject = False
            heading = line, match
            facts.add("commit", line, match, "commit")
            _add_head(facts, line, match)
        elif not heading and _DATED_ONELINE.match(text):
            continue  # where the author's name ends is not known
        elif not heading and (match := _ONELINE.match(text)):
            facts.add("commit_of", line, match, "commit", subject=match["subject"])
            facts.add("subject_of", line, match, "subject", commit=match["commit"])
            _add_head(facts, line, match)
        elif not heading:
            continue
        elif match := _AUTHOR.match(text):
            facts.add("author", line, match, "author")
            facts.add("author_of", line, match, "author", commit=commit)
            facts.add("address", line, match, "address")
        elif match := _DATE.match(text):
            facts.add("date", line, match, "date")
            facts.add("date_of", line, match, "date", commit=commit)
        elif not has_subject and (match := _SUBJECT.match(text)):
            has_subject = True
            facts.add("subject", line, match, "subject")
            facts.add("subject_of", line, match, "subject", commit=commit)
            facts.add("commit_of", *heading, "commit", subject=match["subject"])
    if heading and any(text.startswith(("--- ", "diff --git ")) for text in lines.texts):
        diff(facts, lines)
    else:
        _add_stat(facts, lines)


def _add_head(facts: Facts, line: Line, match: re.Match[str]) -> None:
    if match["refs"] and (head := _HEAD.search(line.text, *match.span("refs"))):
        facts.add("branch", line, head, "branch")


#  crate/src/lib.rs | 12 ++++++++----
_STAT_ROW = re.compile(r" (?P<path>\S+) +\| +(?P<changes>\d+) ?[+-]*$")
#  1 file changed, 8 insertions(+), 4 deletions(-)
_STAT_END = re.compile(
    r" (?P<changed_files>\d+) files? changed(?:, (?P<insertions>\d+) insertions?\(\+\))?"
    r"(?:, (?P<deletions>\d+) deletions?\(-\))?$"
)


# How lines begin that one of these patterns matches.
#  1 file changed, 8 insertions(+), 4 deletions(-)
_STAT_LINE = re.compile(r" (?:\S+ +\||\d+ files? changed)")


def _add_stat(facts: Facts, lines: Lines) -> None:
    for _, line in lines.matching(_STAT_LINE):
        if match := _STAT_ROW.match(line.text):
            if not match["path"].startswith("...") and "=>" not in match["path"]:
                facts.add("changes_in", line, match, "changes", path=match["path"])
        else:
            facts.add_first(line, (_STAT_END,))


# +++ b/settings/app.env
_NEW_SIDE = re.compile(r"\+\+\+ b/(?P<path>\S+)$")
# @@ -1,5 +1,5 @@ def total(items):
_HUNK = re.compile(r"@@ -(?P<old>\d+)(?:,\d+)? \+(?P<new>\d+)(?:,\d+)? @@")
# +STOCK_PORT = 9443
_SETTING = re.compile(
    r"[+-] *(?P<key>[\"']?[A-Za-z_][\w.-]*[\"']?)(?P<sign> ?= ?|: )(?P<quote>[\"']?)"
    r"(?P<value>[^\"',;]+)(?P=quote),?$"
)
# How lines begin that are read: headings, and lines that were removed or added.
# --- a/settings/app.env
_DIFF_LINE = re.compile(r"[+-]|@@ -|diff --git ")
# +    return total
_CONTENT = re.compile(r"[+-]\s*(?P<text>\S(?:.*\S)?)\s*$")


def diff(facts: Facts, lines: Lines) -> None:
    """Read git diff: files, hunks, settings, and the line that changed if it is the only one."""
    removed: list[Line] = []
    added: list[Line] = []
    inside = False
    for _, line in lines.matching(_DIFF_LINE):
        text = line.text
        if text.startswith("diff --git ") or (not inside and text.startswith("--- ")):
            inside = False
        elif match := _NEW_SIDE.match(text):
            facts.add("diff_file", line, match, "path")
        elif match := _HUNK.match(text):
            inside = True
            if match["old"] == match["new"]:
                facts.add("hunk_line", line, match, "new")
            else:
                facts.mark_unread("hunk_line")
        elif inside and text.startswith("+"):
            added.append(line)
        elif inside and text.startswith("-"):
            removed.append(line)
    _add_stat(facts, lines)
    _add_only(facts, "added_text", added)
    _add_only(facts, "removed_text", removed)
    _add_settings(facts, removed, added)


def _add_only(facts: Facts, fact: str, changed: list[Line]) -> None:
    if len(changed) == 1 and (content := _CONTENT.match(changed[0].text)):
        facts.add(fact, changed[0], content, "text")


def _add_settings(facts: Facts, removed: list[Line], added: list[Line]) -> None:
    """Add the values of settings whose key occurs once on each side."""
    sides = []
    for changed in (removed, added):
        settings: dict[str, Matched | None] = {}
        for line in changed:
            if match := _SETTING.match(line.text):
                key = match["key"].strip("\"'")
                settings[key] = None if key in settings else (line, match)
        sides.append(settings)
    old, new = sides
    for key, before in old.items():
        after = new.get(key)
        if before and after and before[1]["value"] != after[1]["value"]:
            facts.add("old_value", *before, "value", key=key)
            facts.add("new_value", *after, "value", key=key)
