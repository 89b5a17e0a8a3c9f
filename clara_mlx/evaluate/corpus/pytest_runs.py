"""Outputs of pytest."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import exception, test_name, unequal_values
from clara_mlx.evaluate.corpus.page import Layout, Page, mark

_TOPS = ("tests", "tests", "test", "tests/unit")


def _rule_sides(page: Page, title: str, sign: str = "=") -> tuple[str, str]:
    """The signs left and right of a centred title, on a terminal of one of several widths."""
    width = page.rng.choice((80, 64, 48, 40))
    fill = sign * max((width - len(title) - 2) // 2, 1)
    right = fill + sign if 2 * len(fill) + len(title) + 2 < width else fill
    return fill + " ", " " + right


def _rule(page: Page, title: str, sign: str = "=") -> str:
    left, right = _rule_sides(page, title, sign)
    return left + title + right


def _test_path(page: Page) -> str:
    return f"{page.rng.choice(_TOPS)}/test_{page.names.snake()}.py"


def _draw_outcomes(page: Page, failed: int, shown: int = 0) -> list[tuple[str, int]]:
    """Draw outcomes with their counts, in pytest's order; ``shown`` tests are seen to pass."""
    names, rng = page.names, page.rng
    skipped = names.count(40) if rng.random() < 0.35 else 0
    passed = names.at_least(max(shown, 1), int(600 ** rng.random()), failed + skipped)
    counts = [("failed", failed), ("passed", passed), ("skipped", skipped)]
    counts = [(outcome, count) for outcome, count in counts if count]
    if rng.random() < 0.3:
        counts.append(("warnings", names.number(2, 60)))
    return counts


def _total(counts: list[tuple[str, int]]) -> int:
    return sum(count for outcome, count in counts if outcome != "warnings")


def _write_last_line(page: Page, counts: list[tuple[str, int]]) -> None:
    """Write a last line such as ``1 failed, 4 passed in 0.12s``, sometimes in a frame."""
    seconds = page.names.seconds() + "s"
    left = right = ""
    if page.rng.random() < 0.3:
        text = ", ".join(f"{count} {outcome}" for outcome, count in counts) + f" in {seconds}"
        left, right = _rule_sides(page, text)
    page.put(left)
    for number, (outcome, count) in enumerate(counts):
        page.put(", " if number else "", mark(outcome, count), f" {outcome}")
    page.line(" in ", mark("duration", seconds), right)


def _write_passing_files(page: Page, low: int, high: int, share: float) -> int:
    """Write files whose tests passed, with pytest's percentage; returns the number of tests."""
    rng = page.rng
    percent, passed = rng.randint(1, 9), 0

    def row() -> None:
        nonlocal percent, passed
        dots = rng.randint(1, 14)
        page.line(f"{_test_path(page)} {'.' * dots} [{percent:3d}%]")
        percent = min(percent + rng.randint(0, max(1, (99 - percent) // 4)), 99)
        passed += dots

    page.fill(row, low, high, share)
    return passed


def _pytest_summary(page: Page) -> None:
    """The end of a run with one failure."""
    rng = page.rng
    shown = _write_passing_files(page, 0, 0, 0.7)
    if rng.random() < 0.4:
        before, after = rng.randint(0, 9), rng.randint(0, 9)
        page.line("." * before, "F", "." * after, " [100%]")
        shown += before + after
    if rng.random() < 0.6:
        page.line(_rule(page, "short test summary info"))
    kind, message = exception(page.names)
    page.line(
        *("FAILED ", mark("test_file", _test_path(page))),
        *("::", mark("failed_test", test_name(page.names))),
        *(" - ", mark("exception", kind)),
        *(": ", mark("error_message", message)),
    )
    _write_last_line(page, _draw_outcomes(page, 1, shown))


def _pytest_failures(page: Page) -> None:
    """The end of a run with several failures; questions name the test or its file."""
    shown = _write_passing_files(page, 0, 0, 0.6)
    if page.rng.random() < 0.5:
        page.line(_rule(page, "short test summary info"))

    def failure() -> None:
        word, name = page.names.word(), page.names.word()
        path, test = f"tests/test_{word}.py", f"test_{name}"
        kind, message = exception(page.names)
        page.line(
            *("FAILED ", mark("test_file_of", path, name=test)),
            *("::", mark("failed_test_in", test, path=path)),
            *(" - ", mark("exception_of", kind, name=test)),
            *(": ", mark("error_message_of", message, name=test)),
        )

    _write_last_line(page, _draw_outcomes(page, page.fill(failure, 2, 2, 0.9, most=19), shown))


def _pytest_assertion(page: Page) -> None:
    """A failed comparison with its two values and its place."""
    names, rng = page.names, page.rng
    _write_passing_files(page, 0, 0, 0.8)
    test = test_name(page.names)
    actual, expected = unequal_values(names)
    if rng.random() < 0.4:
        page.line(_rule(page, test, "_"))
        page.line()
    page.line("    def ", mark("failed_test", test), "():")
    if rng.random() < 0.5:
        page.line(f">       assert {names.snake()}({names.word()}) == {expected}")
    page.line("E       assert ", mark("actual", actual), " == ", mark("expected", expected))
    page.line()
    page.line(
        *(mark("test_file", _test_path(page)), ":", mark("error_line", names.line())),
        *(": ", mark("exception", "AssertionError")),
    )


def _pytest_raised(page: Page) -> None:
    names = page.names
    shown = _write_passing_files(page, 0, 0, 0.8)
    kind, message = exception(names)
    if page.rng.random() < 0.6:
        page.line(f">       {names.word()} = {names.word()}.{names.snake()}({names.word()})")
    page.line("E       ", mark("exception", kind), ": ", mark("error_message", message))
    page.line()
    page.line(
        *(mark("error_file", names.path("py")), ":", mark("error_line", names.line())),
        f": {kind}",
    )
    if page.rng.random() < 0.6:
        _write_last_line(page, _draw_outcomes(page, 1, shown))


def _pytest_run(page: Page) -> None:
    """A whole run: what was collected, the files, the counts."""
    rng = page.rng
    passing = [rng.randint(1, 14) for _ in range(page.draw_count(0, 1, 36, 130))]
    before, after = rng.randint(0, 5), rng.randint(0, 5)
    shown = sum(passing) + before + after
    counts = _draw_outcomes(page, 1, shown)
    page.line("collected ", mark("ran", _total(counts)), " items")
    page.line()
    done = 0
    for dots in passing:
        done += dots
        page.line(f"{_test_path(page)} {'.' * dots} [{100 * done // _total(counts):3d}%]")
    page.line(mark("test_file", _test_path(page)), f" {'.' * before}F{'.' * after} [100%]")
    page.line()
    _write_last_line(page, counts)


def _pytest_verbose(page: Page) -> None:
    path = _test_path(page)
    percent = 0

    def passed() -> None:
        nonlocal percent
        percent += page.rng.randint(1, max(1, (99 - percent) // 3))
        page.line(f"{path}::{test_name(page.names)} PASSED [{min(percent, 99):3d}%]")

    shown = page.fill(passed, 1, 2, 0.9)
    page.line(
        mark("test_file", path), "::", mark("failed_test", test_name(page.names)), " FAILED [100%]"
    )
    _write_last_line(page, _draw_outcomes(page, 1, shown))


def _pytest_collection(page: Page) -> None:
    names, rng = page.names, page.rng
    _write_passing_files(page, 0, 0, 0.8)
    module = names.snake()
    if rng.random() < 0.5:
        page.line(_rule(page, "short test summary info"))
    page.line(
        *("ERROR ", mark("error_file", _test_path(page)), " - "),
        *(mark("exception", "ModuleNotFoundError"), ": No module named '"),
        *(mark("missing_module", module), "'"),
    )
    if rng.random() < 0.5:
        page.line(_rule(page, "Interrupted: 1 error during collection", "!"))
    page.line(mark("errors", 1), " error in ", mark("duration", names.seconds() + "s"))


def _pytest_slowest(page: Page) -> None:
    names = page.names
    page.line(_rule(page, "slowest durations"))
    tests = page.draw_count(2, 2, 65, 70)
    durations = sorted((float(names.seconds()) for _ in range(tests)), reverse=True)
    for duration in durations:
        path, test = _test_path(page), test_name(names)
        page.line(
            *(mark("package_duration", f"{duration:.2f}s", name=test), " call     "),
            *(mark("test_file_of", path, name=test), f"::{test}"),
        )
    page.put(mark("passed", names.count(600)), " passed in ")
    whole = sum(durations)
    page.line(mark("duration", names.decimal(whole + 1, 2 * whole + 9) + "s"))


def _pytest_coverage(page: Page) -> None:
    """The table of pytest-cov: statements, missed ones, percent."""
    names, rng = page.names, page.rng
    statements = missed = 0
    page.line("Name    Stmts   Miss  Cover")

    def row() -> None:
        nonlocal statements, missed
        path, lines = names.path("py"), names.number(5, 400)
        gaps = names.number(0, min(lines, 60))
        statements, missed = statements + lines, missed + gaps
        percent = f"{100 * (lines - gaps) // lines}%"
        page.line(
            *(path, "  ", mark("statements_in", lines, path=path)),
            *("  ", mark("missed_in", gaps, path=path)),
            *("  ", mark("coverage_of", percent, path=path)),
        )

    page.fill(row, 2, 3)
    page.line("-" * rng.choice((27, 40)))
    percent = f"{100 * (statements - missed) // statements}%"
    if names.all_belong(statements, missed):
        page.line(f"TOTAL  {statements}  {missed}  ", mark("coverage", percent))


def _pytest_passed(page: Page) -> None:
    names, rng = page.names, page.rng
    page.line(f"platform linux -- Python 3.{rng.randint(9, 14)}.{rng.randint(0, 14)}")
    page.line("rootdir: ", mark("directory", f"/home/{names.user()}/{names.kebab()}"))
    rows = page.draw_count(0, 1, 36, 130)
    counts = _draw_outcomes(page, 0, 14 * rows)
    page.line("collected ", mark("ran", _total(counts)), " items")
    for row in range(rows):
        page.line(f"{_test_path(page)} {'.' * rng.randint(1, 14)} [{100 * (row + 1) // rows:3d}%]")
    _write_last_line(page, counts)


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "pytest": (
        _pytest_summary,
        _pytest_failures,
        _pytest_assertion,
        _pytest_raised,
        _pytest_run,
        _pytest_verbose,
        _pytest_collection,
        _pytest_slowest,
        _pytest_passed,
        _pytest_coverage,
    ),
}
