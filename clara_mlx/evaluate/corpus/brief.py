"""The narrow task that clara-nano is made for: the few lines in which a tool prints what matters.

There is one layout for each of eight tools, as the tool itself prints it. Names are pairs of
`BRIEF_WORDS`, and the pair as printed belongs to one split, not the word: a model of two million
parameters has seen both words of a held-out name, but never the name.
"""

from __future__ import annotations

from clara_mlx.evaluate.corpus.names import FIRST_NAMES, LAST_NAMES, WORDS, held_out
from clara_mlx.evaluate.corpus.page import Layout, Page, mark, place

BRIEF_WORDS = tuple(word for word in WORDS if 3 < len(word) < 7 and not held_out(word))[::12]
_FIRST = FIRST_NAMES[::14]
_LAST = LAST_NAMES[::14]
_FOLDERS = ("src", "lib")
_EXCEPTIONS = ("KeyError", "ValueError", "TypeError", "IndexError", "RuntimeError", "NameError")


def _pair(page: Page, between: str = "_") -> str:
    """A pair of words, such as ``copper_tide``, that only this split puts together."""
    rng = page.rng
    return page.names.draw_until_ours(lambda: between.join(rng.sample(BRIEF_WORDS, 2)))


def _path(page: Page, ending: str = "py") -> str:
    return f"{page.rng.choice(_FOLDERS)}/{_pair(page)}.{ending}"


def _pytest(page: Page) -> None:
    names, rng = page.names, page.rng
    page.line(
        *("FAILED ", mark("test_file", f"tests/test_{_pair(page)}.py")),
        *("::", mark("failed_test", f"test_{_pair(page)}")),
        *(" - ", mark("exception", rng.choice(_EXCEPTIONS))),
    )
    page.line(
        *(mark("failed", 1), " failed, ", mark("passed", names.count(600)), " passed in "),
        mark("duration", names.decimal(0.01, 9.9) + "s"),
    )


def _traceback(page: Page) -> None:
    exception = page.rng.choice(_EXCEPTIONS)
    page.line("Traceback (most recent call last):")
    page.line(
        *('  File "', mark("error_file", _path(page)), '", line '),
        *(mark("error_line", page.names.line()), ", in ", mark("function", _pair(page))),
    )
    page.line(f"    raise {exception}(name)")
    page.line(mark("exception", exception), ": ", mark("error_message", _pair(page)))


def _ruff(page: Page) -> None:
    code, before, after = page.rng.choice(
        (
            ("F401", "", "imported but unused"),
            ("F841", "Local variable ", "is assigned to but never used"),
            ("F811", "Redefinition of unused ", "from line 2"),
        )
    )
    page.line(
        *(*place(page, _path(page)), ": ", mark("error_code", code)),
        *(f" {before}`", mark("unused_name", _pair(page)), f"` {after}"),
    )
    page.line("Found ", mark("errors", 1), " error.")


def _gcc(page: Page) -> None:
    page.line(
        *(*place(page, _path(page, "c")), ": error: '"),
        *(mark("undefined_name", _pair(page)), "' undeclared (first use in this function)"),
    )


def _ripgrep(page: Page) -> None:
    name, path = _pair(page), _path(page)
    line = mark("defined_line", page.names.line(), name=name)
    page.line(
        *(mark("defined_file", path, name=name), ":", mark("match_line_in", line, path=path)),
        *(":def ", mark("match_name_in", name, path=path), "():"),
    )


def _git_status(page: Page) -> None:
    names, branch = page.names, _pair(page, "-")
    page.line(
        *("## ", mark("branch", branch), "...", mark("upstream", f"origin/{branch}")),
        *(" [ahead ", mark("ahead", names.count(60))),
        *(", behind ", mark("behind", names.count(60)), "]"),
    )
    page.line(" M ", mark("modified_file", _path(page)))


def _git_log(page: Page) -> None:
    rng = page.rng
    author = page.names.draw_until_ours(
        lambda: f"{rng.choice(_FIRST).capitalize()} {rng.choice(_LAST).capitalize()}"
    )
    verb = rng.choice(("add", "fix", "move", "drop", "test"))
    page.line("commit ", page.names.hex(7))
    page.line("Author: ", mark("author", author))
    page.line("Date: ", mark("date", page.names.date()))
    page.line()
    page.line("    ", mark("subject", f"{verb} {_pair(page)}"))


def _env(page: Page) -> None:
    names = page.names
    page.line("WORKERS=", mark("value", names.number(20, 99), key="WORKERS"))
    page.line("BUCKET=", mark("value", _pair(page, "-"), key="BUCKET"))
    page.line("TIMEOUT=", mark("value", names.number(100, 999), key="TIMEOUT"))


#: The layout of each tool of the narrow task.
BRIEF_LAYOUTS: dict[str, tuple[Layout, ...]] = {
    "pytest": (_pytest,),
    "traceback": (_traceback,),
    "ruff": (_ruff,),
    "gcc": (_gcc,),
    "ripgrep": (_ripgrep,),
    "git-status": (_git_status,),
    "git-log": (_git_log,),
    "env": (_env,),
}
