"""Outputs of Python itself: tracebacks and syntax errors, alone or in a log."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import code_line, exception, failure
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, write_frame, write_log


def _python_path(page: Page) -> str:
    top = page.rng.choice(("", "", "/app/", f"/home/{page.names.user()}/", "/opt/"))
    return top + page.names.path("py")


def _write_raised(page: Page) -> None:
    write_frame(page, _python_path(page))
    kind, message = exception(page.names)
    page.line(mark("exception", kind), ": ", mark("error_message", message))


def _traceback(page: Page) -> None:
    """One or two frames; only the last has the error."""
    names, rng = page.names, page.rng
    write_log(page, 0.7)
    page.line("Traceback (most recent call last):")
    if page.long or rng.random() < 0.35:
        page.line(
            *('  File "', mark("caller_file", _python_path(page)), '", line '),
            *(mark("caller_line", names.line()), ", in <module>"),
        )
        page.line(f"    {names.snake()}({names.word()})")
    for _ in range(rng.randint(1, 6) if page.long else 0):
        page.line(f'  File "{_python_path(page)}", line {names.line()}, in {names.snake()}')
        page.line(f"    {code_line(names)}")
    write_frame(page, _python_path(page))
    page.line(f"    {code_line(names)}")
    kind, message = exception(names)
    if rng.random() < 0.15:
        kind = f"{names.snake()}.{names.camel()}Error"
    page.line(mark("exception", kind), ": ", mark("error_message", message))
    if rng.random() < 0.5:
        write_log(page, 1.0)


def _logged_exception(page: Page) -> None:
    """A traceback under the line that logged it."""
    names, rng = page.names, page.rng
    write_log(page, rng.choice((0.1, 0.5, 0.9)))
    page.line(
        *(mark("error_date", names.date()), f" {names.clock()} ERROR "),
        *(mark("logger", names.snake()), ": ", mark("log_message", failure(names))),
    )
    page.line("Traceback (most recent call last):")
    _write_raised(page)


def _chained(page: Page) -> None:
    names = page.names
    write_log(page, 0.7)
    cause, message = exception(names)
    page.line(mark("cause", cause), ": ", message)
    page.line()
    page.line("The above exception was the direct cause of the following exception:")
    page.line()
    _write_raised(page)


def _syntax_error(page: Page) -> None:
    """A syntax error with its source line and a caret, after a log."""
    names, rng = page.names, page.rng
    write_log(page, 0.9)
    page.line(
        *('  File "', mark("error_file", _python_path(page)), '", line '),
        mark("error_line", names.line()),
    )
    kind, message, code = rng.choice(
        (
            ("SyntaxError", "expected ':'", f"def {names.snake()}({names.word()})"),
            (
                "SyntaxError",
                "'(' was never closed",
                f"{names.snake()} = {names.word()}({names.word()}",
            ),
            ("SyntaxError", "invalid syntax", f"{names.word()} = {names.word()} {names.word()}"),
            ("SyntaxError", "unterminated string literal", f"{names.snake()} = '{names.kebab()}"),
            ("IndentationError", "unexpected indent", f"return {names.snake()}"),
        )
    )
    page.line("    ", mark("code", code))
    page.line("    " + " " * (len(code) - 1) + "^")
    page.line(mark("exception", kind), ": ", mark("error_message", message))


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "traceback": (_traceback, _traceback, _logged_exception, _chained, _syntax_error),
}
