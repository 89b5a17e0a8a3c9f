"""Outputs of docker, make, cmake and ninja, and logs of continuous integration."""

from __future__ import annotations

from collections.abc import Iterator

from clara_mlx.evaluate.corpus.messages import compose, failure, log_message, times
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, place


def _rising_steps(page: Page, last: int) -> Iterator[int]:
    """Yield step numbers that rise up to ``last`` and stay there."""
    number = page.rng.randint(1, 3)
    while True:
        yield number
        number = min(number + page.rng.randint(1, 2), last)


def _build_docker(page: Page) -> None:
    """BuildKit's plain progress."""
    names, rng = page.names, page.rng
    step = _rising_steps(page, 19)
    page.fill(lambda: page.line(f"#{next(step)} DONE {names.decimal(0.1, 9, 1)}s"), 0, 1, 0.9)
    command = rng.choice(
        (
            f"pip install {names.kebab()}",
            f"npm run {names.word()}",
            f"apt-get install -y {names.kebab()}",
            f"make {names.word()}",
            f"cargo build --bin {names.kebab()}",
        )
    )
    number = f"{rng.randint(2, 6)}/{rng.randint(7, 12)}"
    page.line(f"#{next(step)} [", mark("step_number", number), "] RUN ", mark("command", command))
    if rng.random() < 0.6:
        said = compose(names, "no matching <word> for <kebab>")
        page.line("ERROR: ", mark("error_message", said))
    page.line(
        "failed to solve: process did not complete successfully: exit code: ",
        mark("exit_status", rng.choice((1, 2, 3, 5, 7, 9))),
    )


def _build_image(page: Page) -> None:
    """The end of docker's classic builder."""
    names = page.names
    number = _rising_steps(page, 9)

    def step() -> None:
        page.line(f"Step {next(number)}/10 : RUN {names.word()} {names.kebab()}")
        page.line(f" ---> Running in {names.hex(12)}")

    page.fill(step, 0, 2, 0.9)
    page.line("Successfully built ", mark("image_id", names.hex(12)))
    page.line(
        *("Successfully tagged ", mark("image", f"{names.word()}/{names.kebab()}")),
        *(":", mark("tag", names.version())),
    )


def _build_make(page: Page) -> None:
    """A make run that stops: a missing file, or a failing command of a target."""
    names, rng = page.names, page.rng
    page.fill(lambda: page.line(f"gcc -O2 -c {names.path('c')}"), 0, 1, 0.9)
    target = rng.choice((names.word(), f"build/{names.snake()}.o", names.kebab()))
    missing = rng.random() < 0.4
    if missing:
        page.line(
            *("make: *** No rule to make target '", mark("missing_file", names.path("c"))),
            *("', needed by '", mark("target", target), "'.  Stop."),
        )
    else:
        page.line(
            *("make: *** [Makefile:", mark("makefile_line", names.line()), ": "),
            *(mark("target", target), "] Error ", mark("exit_status", rng.choice((1, 2, 127)))),
        )
    if missing or rng.random() < 0.4:
        page.line(
            "make: Leaving directory '", mark("directory", f"/{names.word()}/{names.kebab()}"), "'"
        )


def _build_cmake(page: Page) -> None:
    """The start of a cmake run, then a missing package or a built target."""
    names, rng = page.names, page.rng
    compiler = rng.choice(("GNU", "Clang"))
    page.line(
        f"-- The C compiler identification is {compiler} ",
        mark("version", names.version(), name=compiler),
    )
    page.fill(
        lambda: page.line(f"-- Found {names.camel()}: /usr/lib/{names.kebab()}.so"), 0, 0, 0.8
    )
    if rng.random() < 0.5:
        page.line(
            *("CMake Error at ", mark("error_file", f"{names.folder()}/CMakeLists.txt")),
            *(":", mark("error_line", names.line()), " (find_package):"),
        )
        page.line('  Could not find "', mark("missing_module", names.camel()), '".')
    else:
        progress = mark("progress", f"{rng.randint(1, 9) * 11}%")
        page.line("[", progress, "] Building CXX object ", names.path("o"))
        page.line("[100%] Built target ", mark("built_target", names.snake()))


def _build_ninja(page: Page) -> None:
    names = page.names
    step = _rising_steps(page, 18)
    page.fill(lambda: page.line(f"[{next(step)}/19] CXX {names.path('o')}"), 0, 1, 0.9)
    page.line("FAILED: ", mark("target", names.path("o", ("obj", "build"))))
    page.put(*place(page, names.path("cc")), ": error: ")
    page.line(mark("error_message", compose(names, "unknown type name '<camel>'")))
    page.line("ninja: build stopped: subcommand failed.")


def _build_ci(page: Page) -> None:
    """A continuous integration log: times, a failing step, an exit code."""
    names = page.names
    clock = times(names)
    page.fill(lambda: page.line(f"{next(clock)} {log_message(names)}"), 0, 1, 0.9)
    page.line(f"{next(clock)} Run ", mark("command", f"./{names.kebab()}.sh --{names.word()}"))
    page.line("##[error]", mark("error_message", failure(names)))
    status = page.rng.randint(1, 19)
    page.line("##[error]Process completed with exit code ", mark("exit_status", status), ".")


LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "build": (_build_docker, _build_image, _build_make, _build_cmake, _build_ninja, _build_ci),
}
