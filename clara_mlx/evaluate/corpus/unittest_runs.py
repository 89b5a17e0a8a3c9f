"""Outputs of unittest."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import exception, test_name, unequal_values
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, write_frame


def _write_passing_test(page: Page) -> None:
    names = page.names
    test = test_name(names)
    page.line(f"{test} (tests.test_{names.word()}.{names.camel()}Test.{test}) ... ok")


def _write_last_lines(page: Page, shown: int, failures: int, errors: int = 0) -> None:
    """Write how many tests ran and the verdict.

    ``shown`` tests are seen to pass, so at least those and the failed ones ran.
    """
    names = page.names
    fewest = max(shown + failures + errors, 1)
    ran = names.at_least(fewest, int(500 ** page.rng.random()))
    page.line()
    page.line(
        *("Ran ", mark("ran", ran), " tests in "),
        mark("duration", names.decimal(0.001, 9, 3) + "s"),
    )
    page.line()
    if failures and errors:
        page.line(
            "FAILED (failures=", mark("failed", failures), ", errors=", mark("errors", errors), ")"
        )
    elif failures:
        page.line("FAILED (failures=", mark("failed", failures), ")")
    elif errors:
        page.line("FAILED (errors=", mark("errors", errors), ")")
    elif page.rng.random() < 0.4:
        page.line("OK (skipped=", mark("skipped", names.number(1, min(19, ran))), ")")
    else:
        page.line("OK")


def _write_heading(page: Page, what: str) -> tuple[str, str]:
    """Write the heading of one failure; returns the test and its module."""
    names = page.names
    test, module, case = test_name(names), f"test_{names.word()}", names.camel() + "Test"
    page.line(
        *(f"{what}: ", mark("failed_test", test), f" (tests.{module}."),
        *(mark("test_class", case), f".{test})"),
    )
    return test, module


def _unittest_failure(page: Page) -> None:
    """A failed comparison, sometimes with its heading and the last lines."""
    names, rng = page.names, page.rng
    shown = page.fill(lambda: _write_passing_test(page), 0, 0, 0.8)
    if rng.random() < 0.7:
        test, module = _write_heading(page, "FAIL")
        page.line("-" * rng.choice((70, 40, 20)))
    else:
        test, module = test_name(page.names), f"test_{names.word()}"
    if rng.random() < 0.5:
        page.line("Traceback (most recent call last):")
    page.line(
        *('  File "', mark("test_file", f"tests/{module}.py"), '", line '),
        *(mark("error_line", names.line()), ", in ", mark("function", test)),
    )
    actual, expected = unequal_values(names)
    page.line(f"    self.assertEqual({names.word()}, {names.word()})")
    page.line("AssertionError: ", mark("actual", actual), " != ", mark("expected", expected))
    if rng.random() < 0.4:
        _write_last_lines(page, shown, 1)


def _unittest_error(page: Page) -> None:
    names, rng = page.names, page.rng
    shown = page.fill(lambda: _write_passing_test(page), 0, 0, 0.8)
    _write_heading(page, "ERROR")
    page.line("-" * rng.choice((70, 40, 20)))
    kind, message = exception(names)
    if rng.random() < 0.5:
        page.line("Traceback (most recent call last):")
    write_frame(page, names.path("py"))
    page.line(mark("exception", kind), ": ", mark("error_message", message))
    if rng.random() < 0.4:
        _write_last_lines(page, shown, 0, 1)


def _unittest_end(page: Page) -> None:
    rng = page.rng
    kind, message = exception(page.names)
    shown = page.fill(lambda: _write_passing_test(page), 0, 0, 0.9)
    page.line(mark("exception", kind), ": ", mark("error_message", message))
    _write_last_lines(page, shown, rng.randint(1, 9), rng.randint(0, 9))


def _unittest_verbose(page: Page) -> None:
    """``unittest -v``: a test that fails or is skipped, after tests that pass."""
    names, rng = page.names, page.rng
    shown = page.fill(lambda: _write_passing_test(page), 1, 1, 0.9)
    test, case = test_name(page.names), names.camel() + "Test"
    if rng.random() < 0.5:
        page.line(
            *(mark("failed_test", test), f" (tests.test_{names.word()}."),
            *(mark("test_class", case), f".{test}) ... FAIL"),
        )
        _write_last_lines(page, shown, 1)
    else:
        page.line(
            *(mark("skipped_test", test), f" (tests.test_{names.word()}.{case}.{test}) ... "),
            *("skipped '", mark("skip_reason", f"needs {names.kebab()}"), "'"),
        )
        _write_last_lines(page, shown, 0)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "unittest": (_unittest_failure, _unittest_error, _unittest_end, _unittest_verbose),
}
