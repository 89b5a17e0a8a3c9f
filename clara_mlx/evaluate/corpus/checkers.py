"""Outputs of ruff and mypy."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import MESSAGES, code_line, compose
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, place, underline, write_log


def _draw_rule(page: Page) -> tuple[str, str]:
    names = page.names
    code, message = page.rng.choice(MESSAGES["ruff"])
    message = message.replace("<n>", str(names.number(11, 19)))
    return code, compose(names, message.replace("<wide>", str(names.number(101, 190))))


def _write_fixable(page: Page, found: int) -> None:
    if page.rng.random() < 0.6:
        fixable = page.rng.randint(1, found)
        page.line("[*] ", mark("fixable", fixable), " fixable with the `--fix` option.")


def _write_found(page: Page, errors: int) -> None:
    page.line("Found ", mark("errors", errors), " error" + ("s." if errors > 1 else "."))


def _ruff_concise(page: Page) -> None:
    """Several findings, one on each line, and their number."""
    names, rng = page.names, page.rng

    def finding() -> None:
        path = names.path("py")
        code, message = _draw_rule(page)
        fix = "[*] " if rng.random() < 0.3 else ""
        page.line(
            *(path, ":", mark("error_line_in", names.line(), path=path)),
            *(":", mark("error_column_in", rng.randint(1, 19), path=path), ": "),
            *(mark("error_code_in", code, path=path), f" {fix}"),
            mark("error_message_in", message, path=path),
        )

    found = page.fill(finding, 2, 3, most=19)
    _write_found(page, found)
    _write_fixable(page, found)


def _ruff_one(page: Page) -> None:
    """One finding on one line, after a log."""
    names, rng = page.names, page.rng
    write_log(page, 0.9)
    page.put(*place(page, names.path("py")), ": ")
    if rng.random() < 0.3:
        code, after = rng.choice(
            (("F401", "imported but unused"), ("F841", "is assigned to but never used"))
        )
        before = "" if code == "F401" else "Local variable "
        page.line(
            *(mark("error_code", code), f" {before}`"),
            *(mark("unused_name", names.snake()), f"` {after}"),
        )
    else:
        code, message = _draw_rule(page)
        page.line(mark("error_code", code), " ", mark("error_message", message))
    _write_found(page, 1)
    _write_fixable(page, 1)


def _ruff_full(page: Page) -> None:
    """The default format since ruff 0.5: the rule first, then the place and the source line."""
    names = page.names
    write_log(page, 0.9)
    code, message = _draw_rule(page)
    line, text = names.line(), code_line(names)
    margin = " " * len(str(line))
    column, carets = underline(page.rng, "    " + text)
    page.line(mark("error_code", code), " ", mark("error_message", message))
    page.line(
        *(margin, "--> ", mark("error_file", names.path("py"))),
        *(":", mark("error_line", line), ":", mark("error_column", column)),
    )
    page.line(margin, " |")
    page.line(f"{line} |     ", mark("code", text))
    page.line(margin, " | ", carets)


def _ruff_format(page: Page) -> None:
    names = page.names
    write_log(page, 0.9)
    page.line("Would reformat: ", mark("reformatted_file", names.path("py")))
    page.line(
        *(mark("reformatted", 1), " file would be reformatted, "),
        *(mark("formatted", names.number(2, 300)), " files already formatted"),
    )


_TYPES = (
    "int",
    "str",
    "float",
    "bytes",
    "bool",
    "list[int]",
    "list[str]",
    "dict[str, int]",
    "None",
)


def _draw_error(page: Page) -> tuple[str, str]:
    names, rng = page.names, page.rng
    code, message = rng.choice(MESSAGES["mypy"])
    while "<type>" in message:
        drawn = rng.choice(_TYPES) if rng.random() < 0.6 else names.camel()
        message = message.replace("<type>", drawn, 1)
    return code, compose(names, message)


def _write_checked(page: Page, errors: int, files: int) -> None:
    checked = page.names.number(max(2, files), 400)
    page.line(
        *("Found ", mark("errors", errors), " error" + ("s" if errors > 1 else "") + " in "),
        *(mark("error_files", files), " file" + ("s" if files > 1 else "") + " (checked "),
        *(mark("checked_files", checked), " source files)"),
    )


def _mypy_one(page: Page) -> None:
    names = page.names
    write_log(page, 0.9)
    code, message = _draw_error(page)
    page.line(
        *(mark("error_file", names.path("py")), ":", mark("error_line", names.line()), ": error: "),
        *(mark("error_message", message), "  [", mark("error_code", code), "]"),
    )
    _write_checked(page, 1, 1)


def _mypy_several(page: Page) -> None:
    names = page.names

    def finding() -> None:
        path = names.path("py")
        code, message = _draw_error(page)
        page.line(
            *(path, ":", mark("error_line_in", names.line(), path=path), ": error: "),
            *(mark("error_message_in", message, path=path), "  ["),
            *(mark("error_code_in", code, path=path), "]"),
        )

    errors = page.fill(finding, 2, 2, most=19)
    _write_checked(page, errors, errors)


def _mypy_types(page: Page) -> None:
    """An error about two types, sometimes with mypy's note."""
    names, rng = page.names, page.rng
    write_log(page, 0.9)
    expected, actual = names.camel(), rng.choice((*_TYPES[:6], names.camel(2, 2)))
    page.put(mark("error_file", names.path("py")), ":", mark("error_line", names.line()))
    if rng.random() < 0.5:
        page.line(
            *(': error: Incompatible return value type (got "', mark("actual_type", actual)),
            *('", expected "', mark("expected_type", expected), '")  ['),
            *(mark("error_code", "return-value"), "]"),
        )
    else:
        page.line(
            *(': error: Argument 1 to "', mark("callee", names.snake())),
            *('" has incompatible type "', mark("actual_type", actual)),
            *('"; expected "', mark("expected_type", expected), '"  ['),
            *(mark("error_code", "arg-type"), "]"),
        )
    if rng.random() < 0.5:
        _write_checked(page, 1, 1)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "ruff": (_ruff_concise, _ruff_one, _ruff_full, _ruff_format),
    "mypy": (_mypy_one, _mypy_several, _mypy_types),
}
