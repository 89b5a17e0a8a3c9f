"""Outputs of go and gcc."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import MESSAGES, compose, unequal_values
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, place, underline


def _module(page: Page) -> str:
    names, rng = page.names, page.rng
    return rng.choice(("github.com/" + names.word(), "example.com")) + "/" + names.kebab()


def _write_passing_package(page: Page) -> None:
    page.line(f"ok  \t{_module(page)}\t{page.names.decimal(0.01, 9, 3)}s")


def _go_failure(page: Page) -> None:
    """One failing test and its package, after packages that pass."""
    names = page.names
    page.fill(lambda: _write_passing_package(page), 0, 0, 0.8)
    got, want = unequal_values(names, '"')
    page.line(
        *("--- FAIL: ", mark("failed_test", "Test" + names.camel())),
        f" ({names.decimal(0, 2)}s)",
    )
    page.line(
        *("    ", mark("test_file", names.snake() + "_test.go"), ":"),
        *(mark("error_line", names.line()), ": got "),
        *(mark("actual", got), ", want ", mark("expected", want)),
    )
    page.line("FAIL")
    page.line(
        *("FAIL\t", mark("failed_package", _module(page)), "\t"),
        mark("duration", names.decimal(0.001, 9, 3) + "s"),
    )


def _go_packages(page: Page) -> None:
    names, rng = page.names, page.rng

    def package() -> None:
        module = _module(page)
        seconds = names.decimal(0.001, 9, 3) + "s"
        page.line(f"ok  \t{module}\t", mark("package_duration", seconds, name=module))

    page.fill(package, 2, 2, 0.9)
    if rng.random() < 0.5:
        page.line(f"?   \t{_module(page)}\t[no test files]")
    else:
        page.line("FAIL\t", mark("failed_package", _module(page)), " [build failed]")


def _go_build(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_passing_package(page), 0, 0, 0.8)
    page.line("# ", mark("failed_package", _module(page)))
    page.line(
        *(rng.choice(("./", "./", "")), *place(page, names.path("go", ("internal", "cmd")))),
        *(": ", mark("error_message", compose(names, rng.choice(MESSAGES["go_errors"])))),
    )


def _go_panic(page: Page) -> None:
    """A panic with the function, the place and the exit status."""
    names, rng = page.names, page.rng
    page.fill(lambda: _write_passing_package(page), 0, 0, 0.8)
    message = rng.choice(
        (
            f"runtime error: index out of range [{names.number(3, 99)}] with length 3",
            "runtime error: invalid memory address or nil pointer dereference",
            "assignment to entry in nil map",
            f"no {names.word()} for {names.kebab()}",
        )
    )
    page.line("panic: ", mark("error_message", message))
    page.line()
    page.line("goroutine 1 [running]:")
    page.line(mark("function", f"{rng.choice(('main', names.word()))}.{names.mixed()}"), "(...)")
    page.line(
        *("\t", mark("error_file", f"/home/{names.user()}/{names.path('go')}")),
        *(":", mark("error_line", names.line()), f" +0x{names.hex(3)}"),
    )
    page.line("exit status ", mark("exit_status", 2))


def _write_compiling(page: Page) -> None:
    page.line(f"gcc -O2 -Wall -c -o {page.names.snake()}.o {page.names.path('c')}")


def _draw_message(page: Page) -> tuple[str, str]:
    """Draw a file ending of C or C++ and an error of that language."""
    rng = page.rng
    if rng.random() < 0.6:
        return rng.choice(("c", "c", "h")), compose(page.names, rng.choice(MESSAGES["c_errors"]))
    return rng.choice(("cpp", "cc", "hpp")), compose(page.names, rng.choice(MESSAGES["cpp_errors"]))


def _gcc_error(page: Page) -> None:
    """One error, usually with its function, its source line and carets."""
    names, rng = page.names, page.rng
    page.fill(lambda: _write_compiling(page), 0, 0, 0.9)
    ending, message = _draw_message(page)
    path, line = names.path(ending), names.line()
    text = f"{names.word()} = {names.snake()}({names.word()});"
    column, carets = underline(rng, "    " + text)
    if rng.random() < 0.8:
        page.line(f"{path}: In function '", mark("function", names.snake()), "':")
    page.line(
        *(mark("error_file", path), ":", mark("error_line", line)),
        *(":", mark("error_column", column), ": error: ", mark("error_message", message)),
    )
    if rng.random() < 0.7:
        page.line(f"{line:5d} |     ", mark("code", text))
        page.line("      | ", carets.replace("^", "~").replace("~", "^", 1))


def _gcc_several(page: Page) -> None:
    """Several errors, one on each line, sometimes with the end of a make run."""
    names, rng = page.names, page.rng

    def finding() -> None:
        ending, message = _draw_message(page)
        path = names.path(ending)
        page.line(
            *(path, ":", mark("error_line_in", names.line(), path=path)),
            *(":", mark("error_column_in", rng.randint(1, 19), path=path), ": error: "),
            mark("error_message_in", message, path=path),
        )

    page.fill(finding, 2, 2, 0.9)
    if rng.random() < 0.6:
        page.line(
            *("make: *** [Makefile:", mark("makefile_line", names.line()), ": "),
            *(mark("target", names.snake() + ".o"), "] Error ", mark("exit_status", 1)),
        )


def _gcc_warning(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_compiling(page), 0, 0, 0.9)
    message, option = rng.choice(MESSAGES["c_warnings"])
    line, text = names.line(), f"int {names.snake()} = {names.word()};"
    column, carets = underline(rng, "    " + text)
    page.line(
        *(mark("warning_file", names.path("c")), ":", mark("warning_line", line)),
        *(f":{column}: warning: ", mark("warning_message", compose(names, message))),
        *(" [", mark("warning_option", option), "]"),
    )
    if rng.random() < 0.6:
        page.line(f"{line:5d} |     {text}")
        page.line("      | ", carets.replace("^", "~").replace("~", "^", 1))


def _gcc_link(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_compiling(page), 0, 0, 0.9)
    stem = names.snake()
    page.line(f"/usr/bin/ld: {stem}.o: in function `", mark("function", names.snake()), "':")
    page.line(
        *(mark("error_file", f"{stem}.c"), f":(.text+0x{names.hex(2)}): undefined reference to `"),
        *(mark("undefined_name", names.snake()), "'"),
    )
    if rng.random() < 0.7:
        page.line("collect2: error: ld returned ", mark("exit_status", 1), " exit status")


def _gcc_header(page: Page) -> None:
    names = page.names
    page.fill(lambda: _write_compiling(page), 0, 0, 0.9)
    line, header = names.line(), f"{names.word()}/{names.file('h')}"
    page.line(
        *(mark("error_file", names.path("c")), ":", mark("error_line", line)),
        *(":", mark("error_column", "10"), ": fatal error: "),
        *(mark("missing_file", header), ": No such file or directory"),
    )
    page.line(f"{line:5d} | #include <{header}>")
    page.line("compilation terminated.")


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "go": (_go_failure, _go_packages, _go_build, _go_panic),
    "gcc": (_gcc_error, _gcc_several, _gcc_warning, _gcc_link, _gcc_header),
}
