"""Outputs of ripgrep, ls and tree."""

from __future__ import annotations

import random

from clara_mlx.evaluate.corpus.names import MONTHS
from clara_mlx.evaluate.corpus.page import Layout, Page, mark

_ENDINGS = ("py", "py", "rs", "ts", "c", "md", "toml", "json", "txt", "sh", "log", "csv")
_UNITS = ("K", "K", "M", "G")


def _definition(page: Page) -> tuple[str, str, str, str]:
    """Draw a line that defines a name: file ending, text before the name, name, text after it."""
    names = page.names
    function, word = names.snake(), names.word()
    return page.rng.choice(
        (
            ("py", "def ", function, f"({word}):"),
            ("py", "class ", names.camel(), ":"),
            ("py", "", names.constant(), f" = {names.count(9000)}"),
            ("rs", "fn ", function, f"({word}: &str) {{"),
            ("rs", "pub struct ", names.camel(), " {"),
            ("go", "func ", names.mixed(), "() error {"),
            ("ts", "export function ", names.mixed(), "() {"),
            ("h", "int ", function, "(void);"),
        )
    )


def _rg_definitions(page: Page) -> None:
    """``rg -n``: each line with its file and number."""
    names = page.names

    def match() -> None:
        ending, before, name, after = _definition(page)
        path = names.path(ending)
        page.line(
            *(mark("defined_file", path, name=name), ":"),
            *(mark("defined_line", mark("match_line_in", names.line(), path=path), name=name), ":"),
            *(before, mark("match_name_in", name, path=path), after),
        )

    page.fill(match, 2, 4)


def _rg_uses(page: Page) -> None:
    """``rg -n NAME``: one name, used in several files."""
    names, rng = page.names, page.rng
    name = names.snake(2, 2)

    def match() -> None:
        path = names.path("py")
        code = rng.choice(
            (
                f"{names.word()} = {name}({names.word()})",
                f"from {names.snake()} import {name}",
                f"return {name}({names.word()})",
                f"{name}({names.word()}, {names.word()})",
            )
        )
        page.line(
            *(path, ":", mark("match_line_in", names.line(), path=path), ":"),
            mark("match_text_in", code, path=path),
        )

    matches = page.fill(match, 2, 3)
    if matches < 20:
        page.infer("matches", matches, (0, page.length - 1))


def _rg_headings(page: Page) -> None:
    """``rg --heading``: the file once, its lines below."""
    names = page.names

    def group() -> None:
        ending, before, name, after = _definition(page)
        path = names.path(ending)
        page.line(path)
        first, second = sorted((names.line(), names.line()))
        page.line(mark("defined_line", first, name=name), ":", before, name, after)
        if first != second and page.rng.random() < 0.5:
            name = names.snake(2, 2)
            page.line(mark("defined_line", second, name=name), ":", before, name, after)
        page.line()

    page.fill(group, 2, 2)


def _rg_counts(page: Page) -> None:
    """``rg --count``, sometimes with ``--stats``."""
    names, rng = page.names, page.rng
    total = 0

    def row(count: int) -> None:
        nonlocal total
        total += count
        path = names.path(rng.choice(_ENDINGS))
        page.line(path, ":", mark("matches_in", count, path=path))

    files = page.fill(lambda: row(names.count(300)), 2, 3) + 1
    row(names.addend(total, 300))
    if names.all_belong(files) and rng.random() < 0.5:
        page.line()
        page.line(mark("matches", total), " matches")
        page.line(mark("matched_files", files), " files contained matches")
        if rng.random() < 0.5:
            searched = names.number(files, files + 900)
            page.line(mark("searched_files", searched), " files searched")


def _size(page: Page) -> str:
    """A size as ``ls -h`` prints it."""
    names, rng = page.names, page.rng
    if rng.random() < 0.5:
        return names.decimal(1, 10, 1) + rng.choice(_UNITS)
    return str(names.number(10, 999)) + rng.choice(_UNITS)


def _file_name(page: Page) -> str:
    names, rng = page.names, page.rng
    return (names.snake() if rng.random() < 0.6 else names.kebab()) + "." + rng.choice(_ENDINGS)


def _ls_date(rng: random.Random) -> str:
    day, hour, minute = rng.randint(1, 28), rng.randrange(24), rng.randrange(60)
    return f"{rng.choice(MONTHS)} {day:2d} {hour:02}:{minute:02}"


def _ls_long(page: Page) -> None:
    """``ls -l``: files and folders with mode, owner, size and date, sometimes a link."""
    names, rng = page.names, page.rng
    human = rng.random() < 0.5
    if rng.random() < 0.7:
        page.line("total ", mark("total", _size(page) if human else names.number(4, 4000)))
    same_owner = names.user()
    several = rng.random() < 0.3

    def row() -> None:
        folder = rng.random() < 0.15
        name = names.kebab() if folder else _file_name(page)
        owner = names.user() if several else same_owner
        mode = "drwxr-xr-x" if folder else rng.choice(("-rw-r--r--", "-rwxr-xr-x", "-rw-------"))
        size = _size(page) if human else str(names.count(900_000))
        if folder:
            size = "4.0K" if human else "4096"
        date = names.draw_until_ours(lambda: _ls_date(rng))
        page.line(
            *(mark("file_mode", mode, file=name), f" {rng.randint(1, 3)} "),
            *(mark("file_owner", owner, file=name), f" {owner} "),
            *(mark("file_size", size, file=name), " "),
            *(mark("file_date", date, file=name), f" {name}"),
        )

    if rng.random() < 0.75:
        page.fill(row, 3, 4)
    else:
        page.fill(row, 1, 2, 0.9)
        link = names.kebab()
        page.line(
            f"lrwxrwxrwx 1 {same_owner} {same_owner} {rng.randint(5, 19)} Jan  1 00:00 {link} -> ",
            mark("link_target", names.path("so"), file=link),
        )


def _du(page: Page) -> None:
    """``du -h``, or ``du -kc`` with the total."""
    names, rng = page.names, page.rng
    in_total = rng.random() < 0.6
    total = 0

    def row(size: str) -> None:
        path = names.path(rng.choice(_ENDINGS), ("data", "logs", "build", "cache"))
        page.line(mark("file_size", size, file=path), "\t", path)

    def counted() -> None:
        nonlocal total
        size = names.count(9000)
        total += size
        row(str(size))

    if not in_total:
        page.fill(lambda: row(_size(page)), 3, 5)
        return
    page.fill(counted, 2, 3)
    last = names.addend(total, 9000)
    row(str(last))
    page.line(mark("total", total + last), "\ttotal")


def _ls_folders(page: Page) -> None:
    """``ls -R``: names under their folders."""
    names, rng = page.names, page.rng

    def folder() -> None:
        path = names.folder(("data", "logs", "docs", "etc"))
        page.line(f"./{path}:")
        for _ in range(rng.randint(1, 2)):
            name = _file_name(page)
            span = page.line(mark("file_in", name, path=path))
            page.infer("parent", path, span, file=name)
        page.line()

    page.fill(folder, 2, 3)


def _tree(page: Page) -> None:
    """Folders with files; the counts at the end are the real ones."""
    names, rng = page.names, page.rng
    page.line(mark("root", names.kebab()) if rng.random() < 0.6 else ".")
    folders = page.draw_count(1, 3, 120 if page.long else 60, 40)
    sizes: list[int] = []
    while not sizes or not names.all_belong(sum(sizes)):
        sizes = [rng.randint(2, 7) if page.long else rng.randint(1, 2) for _ in range(folders)]
    for number, size in enumerate(sizes, 1):
        last = number == folders
        folder = names.kebab()
        page.line("└── " if last else "├── ", folder)
        for place in range(1, size + 1):
            name = _file_name(page)
            page.put("    " if last else "│   ", "└── " if place == size else "├── ")
            span = page.line(mark("file_in", name, path=folder))
            page.infer("parent", folder, span, file=name)
    page.line()
    page.line(
        *(mark("directories", folders), " director" + ("y" if folders == 1 else "ies") + ", "),
        *(mark("files", sum(sizes)), " file" + ("s" if sum(sizes) > 1 else "")),
    )


def _tree_sizes(page: Page) -> None:
    """``tree -h --noreport``: each file with its size."""
    names = page.names
    page.line(mark("root", names.kebab()))

    def row(sign: str = "├── ") -> None:
        name = _file_name(page)
        page.line(sign, "[", mark("file_size", _size(page), file=name), "]  ", name)

    page.fill(row, 2, 3)
    row("└── ")


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "ripgrep": (_rg_definitions, _rg_uses, _rg_headings, _rg_counts),
    "ls": (_ls_long, _ls_long, _du, _ls_folders),
    "tree": (_tree, _tree_sizes),
}
