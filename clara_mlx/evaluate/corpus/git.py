"""Outputs of git status, git log and git diff."""

from __future__ import annotations

import math
from collections.abc import Callable

from clara_mlx.evaluate.corpus.messages import code_line, subject, unequal_values
from clara_mlx.evaluate.corpus.names import MONTHS
from clara_mlx.evaluate.corpus.page import Layout, Page, mark

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_ENDINGS = ("py", "py", "rs", "ts", "c", "md", "toml", "json", "yaml", "sh", "go", "js")


def _path(page: Page) -> str:
    return page.names.path(page.rng.choice(_ENDINGS), ("src", "lib", "tests", "docs", "app"))


def _branch(page: Page) -> str:
    names, rng = page.names, page.rng
    kind = rng.random()
    if kind < 0.2:
        return rng.choice(("main", "master", "develop"))
    if kind < 0.6:
        return f"{rng.choice(('feature', 'fix', 'release', names.user()))}/{names.kebab()}"
    return names.kebab()


def _git_date(page: Page) -> str:
    """Git's default date, such as ``Tue Mar 4 09:41:07 2025 +0100``."""
    names, rng = page.names, page.rng
    day, zone = rng.randint(1, 28), rng.choice(("+0000", "+0100", "+0200", "-0500", "-0800"))
    return (
        f"{rng.choice(_DAYS)} {rng.choice(MONTHS)} {day} {names.clock()}"
        f" {rng.randint(2023, 2026)} {zone}"
    )


def _status_long(page: Page) -> None:
    """``git status``: the branch and its upstream, changed and untracked files."""
    names, rng = page.names, page.rng
    branch = _branch(page)
    hints = page.long or rng.random() < 0.2
    page.line("On branch ", mark("branch", branch))
    kind = rng.random()
    if kind < 0.3:
        page.line(
            *("Your branch is ahead of 'origin/", branch, "' by "),
            *(mark("ahead", names.number(2, 90)), " commits."),
        )
    elif kind < 0.5:
        page.line(
            *("Your branch is behind 'origin/", branch, "' by "),
            *(mark("behind", names.number(2, 90)), " commits, and can be fast-forwarded."),
        )
    elif kind < 0.6:
        page.line("Your branch is up to date with '", mark("upstream", f"origin/{branch}"), "'.")
    page.line()
    if rng.random() < 0.3:
        page.line("Changes to be committed:")
        if hints:
            page.line('  (use "git restore --staged <file>..." to unstage)')
        page.line("\tnew file:   ", mark("new_file", _path(page)))
    else:
        page.line("Changes not staged for commit:")
        if hints:
            page.line('  (use "git add <file>..." to update what will be committed)')
        page.fill(
            lambda: page.line("\tmodified:   ", mark("modified_file", _path(page))), 1, 1, 0.6
        )
    if rng.random() < 0.4:
        page.line("\tdeleted:    ", mark("deleted_file", _path(page)))
    page.line()
    if page.long or rng.random() < 0.6:
        page.line("Untracked files:")
        if hints:
            page.line('  (use "git add <file>..." to include in what will be committed)')
        page.fill(lambda: page.line("\t", mark("untracked_file", _path(page))), 1, 1, 0.95)


def _status_short(page: Page) -> None:
    """``git status -sb``: the branch, then one line for each file."""
    names, rng = page.names, page.rng
    branch = _branch(page)
    page.put("## ", mark("branch", branch), "...", mark("upstream", f"origin/{branch}"))
    kind = rng.random()
    if kind < 0.4:
        page.put(" [ahead ", mark("ahead", names.number(1, 60)), "]")
    elif kind < 0.6:
        page.put(" [behind ", mark("behind", names.number(1, 60)), "]")
    elif kind < 0.7:
        ahead, behind = names.number(1, 30), names.number(1, 30)
        page.put(" [ahead ", mark("ahead", ahead), ", behind ", mark("behind", behind), "]")
    page.line()

    def entry() -> None:
        sign, fact = rng.choice(
            (
                (" M ", "modified_file"),
                ("?? ", "untracked_file"),
                (" D ", "deleted_file"),
                ("A  ", "new_file"),
                ("UU ", "conflict_file"),
            )
        )
        page.line(sign, mark(fact, _path(page)))

    page.fill(entry, 2, 4)
    if rng.random() < 0.3:
        old = _path(page)
        page.line("R  ", old, " -> ", mark("renamed_to", _path(page), path=old))


def _status_conflict(page: Page) -> None:
    """``git status`` during a merge or a rebase, with one conflict."""
    names, rng = page.names, page.rng
    page.line("On branch ", mark("branch", _branch(page)))
    if rng.random() < 0.5:
        page.line("You have unmerged paths.")
    else:
        page.line(
            *("You are currently rebasing branch '", mark("rebased_branch", names.kebab())),
            *("' on '", mark("commit", names.hex(7)), "'."),
        )
    page.line()
    page.line("Unmerged paths:")
    page.line("\tboth modified:   ", mark("conflict_file", _path(page)))
    if page.long or rng.random() < 0.6:
        page.line()
        page.line("Changes not staged for commit:")
        page.fill(lambda: page.line("\tmodified:   ", mark("modified_file", _path(page))), 1, 1)


def _author(page: Page) -> tuple[str, str]:
    names = page.names
    given, family = names.person()
    address = page.rng.choice((given, f"{given}.{family}", given[0] + family)).lower()
    return f"{given} {family}", f"{address}@{names.word()}.{page.rng.choice(('com', 'org', 'io'))}"


def _log_full(page: Page) -> None:
    """Commits; where there are several, questions name them by their first seven digits."""
    names, rng = page.names, page.rng

    def commit() -> None:
        name, address = _author(page)
        commit = names.hex(40 if page.long or rng.random() < 0.1 else 7)
        said = subject(names)
        page.line("commit ", mark("commit_of", mark("commit", commit), subject=said))
        page.line(
            *("Author: ", mark("author_of", mark("author", name), commit=commit[:7])),
            *(" <", mark("address", address), ">"),
        )
        page.line("Date:   ", mark("date_of", mark("date", _git_date(page)), commit=commit[:7]))
        page.line()
        page.line("    ", mark("subject_of", mark("subject", said), commit=commit[:7]))
        page.line()

    page.fill(commit, 1, 1)


def _log_oneline(page: Page) -> None:
    names, rng = page.names, page.rng
    first = True

    def commit() -> None:
        nonlocal first
        commit, said = names.hex(7), subject(names)
        page.put(mark("commit_of", commit, subject=said))
        if first and rng.random() < 0.4:
            page.put(" (HEAD -> ", mark("branch", _branch(page)), ")")
        first = False
        page.line(" ", mark("subject_of", said, commit=commit))

    page.fill(commit, 3, 4)


def _log_table(page: Page) -> None:
    """The output of ``--format='%h %as %an %s'``."""
    names = page.names

    def commit() -> None:
        commit, said = names.hex(7), subject(names)
        page.line(
            *(mark("commit_of", commit, subject=said), " "),
            *(mark("date_of", names.date(), commit=commit), " "),
            *(mark("author_of", _author(page)[0], commit=commit), " "),
            mark("subject_of", said, commit=commit),
        )

    page.fill(commit, 2, 3)


def _write_stat(page: Page, files: int) -> None:
    """Write the table of ``--stat``: changes by file, then their sums."""
    names = page.names
    paths = [_path(page) for _ in range(files)]
    inserted = deleted = 0
    while inserted < 2 or deleted < 2 or not names.all_belong(inserted, deleted):
        pluses = [names.count(500) for _ in paths]
        minuses = [names.at_least(plus, 19) - plus for plus in pluses]
        inserted, deleted = sum(pluses), sum(minuses)
    sums = [plus + minus for plus, minus in zip(pluses, minuses, strict=True)]
    width, digits = max(map(len, paths)), len(str(max(sums)))
    for path, changes, plus, minus in zip(paths, sums, pluses, minuses, strict=True):
        scale = min(1.0, 12 / changes)
        bar = "+" * math.ceil(plus * scale) + "-" * math.ceil(minus * scale)
        space = " " * (digits - len(str(changes)))
        page.line(f" {path:<{width}} | {space}", mark("changes_in", changes, path=path), f" {bar}")
    page.line(
        *(" ", mark("changed_files", files), " file" + ("s" if files > 1 else "") + " changed, "),
        *(mark("insertions", inserted), " insertions(+), "),
        *(mark("deletions", deleted), " deletions(-)"),
    )


def _log_stat(page: Page) -> None:
    names = page.names
    page.line("commit ", mark("commit", names.hex(7)))
    page.line("Author: ", mark("author", _author(page)[0]))
    page.line()
    page.line("    ", mark("subject", subject(names)))
    page.line()
    _write_stat(page, min(page.draw_count(1, 1, 45, 140), 19))


def _write_diff_header(page: Page) -> str:
    """Write the lines before the first hunk; returns the file's path."""
    names, rng = page.names, page.rng
    path = _path(page)
    if page.long or rng.random() < 0.5:
        page.line(f"diff --git a/{path} b/{path}")
        if rng.random() < 0.5:
            page.line(f"index {names.hex(7)}..{names.hex(7)} 100644")
    page.line(f"--- a/{path}")
    page.line("+++ b/", mark("diff_file", path))
    return path


def _write_diff(page: Page, change: Callable[[Page], None]) -> None:
    """Write one changed line of one file; a long page has the usual three lines around it."""
    names, rng = page.names, page.rng
    path = _write_diff_header(page)
    before, after = (3, 3) if page.long else (rng.choice((0, 0, 1)), rng.choice((0, 0, 0, 1)))
    start, lines = names.line(), before + 1 + after
    length = f",{lines}" if lines > 1 else ""
    page.put(f"@@ -{start}{length} +", mark("hunk_line", start), f"{length} @@")
    if path.endswith(".py") and rng.random() < 0.5:
        page.put(" def ", mark("function", names.snake()), "():")
    page.line()
    for _ in range(before):
        page.line(f"     {code_line(names)}")
    change(page)
    for _ in range(after):
        page.line(f"     {code_line(names)}")


def _write_changed_value(page: Page) -> None:
    names, rng = page.names, page.rng
    key = names.constant() if rng.random() < 0.5 else names.snake()
    old, new = unequal_values(names, '"')
    quote = '"' if old.startswith('"') else ""
    sign = rng.choice((" = ", ": ", "="))
    page.line(f"-{key}{sign}{quote}", mark("old_value", old.strip('"'), key=key), quote)
    page.line(f"+{key}{sign}{quote}", mark("new_value", new.strip('"'), key=key), quote)


def _write_changed_line(page: Page) -> None:
    indent = " " * page.rng.choice((0, 4, 8))
    page.line(f"-{indent}", mark("removed_text", code_line(page.names)))
    page.line(f"+{indent}", mark("added_text", code_line(page.names)))


def _diff_values(page: Page) -> None:
    """A setting changes; on a long page many, each in a file of its own."""
    page.fill(lambda: _write_diff(page, _write_changed_value), 1, 1)


def _diff_line(page: Page) -> None:
    """A line of code changes; on a long page among settings."""
    position = page.rng.random()
    page.fill(lambda: _write_diff(page, _write_changed_value), 0, 0, position)
    _write_diff(page, _write_changed_line)
    page.fill(lambda: _write_diff(page, _write_changed_value), 0, 0)


def _diff_stat(page: Page) -> None:
    _write_stat(page, min(page.draw_count(2, 3, 45, 60), 19))


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "git-status": (_status_long, _status_short, _status_conflict),
    "git-log": (_log_full, _log_oneline, _log_table, _log_stat),
    "git-diff": (_diff_values, _diff_values, _diff_line, _diff_stat),
}
