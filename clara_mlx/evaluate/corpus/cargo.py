"""Outputs of cargo and rustc."""

from __future__ import annotations

from clara_mlx.evaluate.corpus.messages import MESSAGES, compose
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, place, underline

_RUST_TYPES = ("u8", "u32", "u64", "i32", "i64", "f64", "usize", "bool", "String", "&str", "char")


def _write_crate(page: Page) -> None:
    crate = page.names.kebab()
    act = "   Compiling" if page.rng.random() < 0.8 else "  Downloaded"
    page.line(f"{act} {crate} v", mark("version", page.names.version(), name=crate))


def _write_place(page: Page, what: str, text: str) -> tuple[str, str]:
    """Write where an ``error`` or ``warning`` is, with its line; returns margin and carets."""
    names = page.names
    line = names.line()
    margin = " " * len(str(line))
    column, carets = underline(page.rng, "    " + text)
    page.put(margin, "--> ", mark(f"{what}_file", names.path("rs")), ":")
    page.put(mark(f"{what}_line", line), ":")
    page.line(mark("error_column", column) if what == "error" else str(column))
    page.line(margin, " |")
    page.line(f"{line} |     ", mark("code", text) if what == "error" else text)
    return margin, carets


def _cargo_error(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_crate(page), 0, 0, 0.8)
    code, message = rng.choice(MESSAGES["rust_errors"])
    page.line(
        "error[", mark("error_code", code), "]: ", mark("error_message", compose(names, message))
    )
    text = f"let {names.snake()} = {names.word()}.{names.snake()}();"
    margin, carets = _write_place(page, "error", text)
    if rng.random() < 0.5:
        page.line(margin, " | ", carets)
    if rng.random() < 0.4:
        page.line()
        page.line("error: could not compile `", mark("failed_package", names.kebab()), "` (lib)")


def _cargo_types(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_crate(page), 0, 0, 0.8)
    expected, actual = rng.sample((*_RUST_TYPES, names.camel(), names.camel(2, 2)), 2)
    page.line("error[", mark("error_code", "E0308"), "]: mismatched types")
    margin, carets = _write_place(page, "error", f"{names.snake()}({names.word()})")
    page.line(
        *(margin, f" | {carets} expected `"),
        *(mark("expected_type", expected), "`, found `", mark("actual_type", actual), "`"),
    )


def _write_result(page: Page, failed: int, shown: int) -> None:
    """Write the last line; ``shown`` tests are seen to pass."""
    names = page.names
    passed = names.at_least(max(shown, 1), int(400 ** page.rng.random()))
    verdict = "FAILED" if failed else "ok"
    page.line(
        *(f"test result: {verdict}. ", mark("passed", passed), " passed; "),
        *(mark("failed", failed), " failed; ", mark("ignored", page.rng.randint(0, 5))),
        *(
            " ignored; 0 measured; 0 filtered out; finished in ",
            mark("duration", names.seconds() + "s"),
        ),
    )


def _write_passing_test(page: Page) -> None:
    page.line(f"test {page.names.word()}::{page.names.snake()} ... ok")


def _cargo_panic(page: Page) -> None:
    """A test that panics: an assertion, a message, or one of Rust's own panics."""
    names, rng = page.names, page.rng
    shown = page.fill(lambda: _write_passing_test(page), 0, 0, 0.8)
    test = f"{rng.choice(('tests', names.word()))}::{names.snake()}"
    page.line(
        *("thread '", mark("failed_test", test), "' panicked at "),
        *(*place(page, names.path("rs")), ":"),
    )
    kind = rng.random()
    if kind < 0.5:
        page.line("assertion `left == right` failed")
        page.line("  left: ", mark("left", names.number(0, 999)))
        page.line(" right: ", mark("right", names.number(0, 999)))
    elif kind < 0.8:
        page.line(mark("error_message", compose(names, "no <word> for <kebab>")))
    else:
        page.line(
            "called `Option::unwrap()` on a `None` value"
            if rng.random() < 0.5
            else f"index out of bounds: the len is {rng.randint(0, 9)} but the index is 10"
        )
    if rng.random() < 0.4:
        _write_result(page, 1, shown)


def _cargo_test(page: Page) -> None:
    names, rng = page.names, page.rng
    shown = page.fill(lambda: _write_passing_test(page), 0, 1, 0.9)
    failed = rng.random() < 0.7
    fact, outcome = ("failed_test", "FAILED") if failed else ("ignored_test", "ignored")
    page.line("test ", mark(fact, f"{names.word()}::{names.snake()}"), f" ... {outcome}")
    page.line()
    _write_result(page, int(failed), shown)


def _cargo_build(page: Page) -> None:
    names, rng = page.names, page.rng
    page.fill(lambda: _write_crate(page), 2, 3, 0.95)
    profile = rng.choice(
        ("`dev` profile [unoptimized + debuginfo]", "`release` profile [optimized]")
    )
    page.line(f"    Finished {profile} target(s) in ", mark("duration", names.seconds() + "s"))


def _cargo_warning(page: Page) -> None:
    """One warning of rustc with its place, sometimes with the count of warnings."""
    names, rng = page.names, page.rng
    page.fill(lambda: _write_crate(page), 0, 0, 0.8)
    if rng.random() < 0.5:
        unused = names.snake()
        page.line("warning: unused variable: `", mark("unused_name", unused), "`")
        text = f"let {unused} = {names.snake()}();"
    else:
        said = compose(names, rng.choice(MESSAGES["rust_warnings"]))
        page.line("warning: ", mark("warning_message", said))
        text = f"fn {names.snake()}() {{"
    _write_place(page, "warning", text)
    if rng.random() < 0.5:
        page.line()
        crate, count = names.kebab(), names.number(2, 40)
        page.line(
            *("warning: `", mark("package", crate), "` (lib) generated "),
            *(mark("warnings", count), " warnings"),
        )


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "cargo": (_cargo_error, _cargo_types, _cargo_panic, _cargo_test, _cargo_build, _cargo_warning),
}
