"""The lines of an output that its block shows: how it went, before headers and settings."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time

import pytest

from clara_mlx.context import wording
from clara_mlx.context.messages import Piece
from clara_mlx.tool_outputs import identifier_lines, outcomes

PYTEST = """\
============================= test session starts ==============================
platform linux -- Python 3.12.3, pytest-8.3.2, pluggy-1.5.0
rootdir: /work/app
collected 9 items

tests/test_a.py F.F..F...                                                [100%]

=================================== FAILURES ===================================
___________________________________ test_one ___________________________________
>       assert f(1) == 2
E       assert 1 == 2

tests/test_a.py:5: AssertionError
=========================== short test summary info ============================
FAILED tests/test_a.py::test_one - assert 1 == 2
FAILED tests/test_a.py::test_two - ValueError: boo
FAILED tests/test_a.py::test_three - KeyError: 'x'
========================= 3 failed, 6 passed in 0.12s ==========================
"""


def test_failures_and_the_summary_come_before_headers() -> None:
    lines = PYTEST.splitlines()
    assert outcomes.key_lines(PYTEST, "pytest") == [
        "tests/test_a.py:5: AssertionError",
        *(line for line in lines if line.startswith("FAILED ")),
        lines[-1],
    ]


def test_headers_are_shown_where_there_is_room() -> None:
    passed = "\n".join([*PYTEST.splitlines()[:4], "", "=== 9 passed in 0.12s ==="])
    lines = outcomes.key_lines(passed, "pytest")
    assert lines[-1] == "=== 9 passed in 0.12s ===" and "collected 9 items" in lines


def test_what_an_exam_could_not_ask_is_shown_all_the_same() -> None:
    """An answer of more than 60 characters, and one of which there are two."""
    message = "Incompatible types in assignment of a very long name to a name that is longer still"
    text = "\n".join(
        [
            f"src/a.py:3: error: {message} [assignment]",
            'src/a.py:3: error: Name "x" is not defined [name-defined]',
            "Found 2 errors in 1 file (checked 2 source files)",
        ]
    )
    assert outcomes.key_lines(text, "mypy") == text.splitlines()


@pytest.mark.parametrize("text", ["", "\n", "?", "a b", "ok\n" * 50_000])
def test_output_of_an_unknown_tool_has_its_last_line(text: str) -> None:
    assert len(outcomes.key_lines(text)) <= 1


@pytest.mark.alone
@pytest.mark.parametrize(
    "make",
    [
        lambda n: '{"a": "src/x.py", "b": 1}, ' * (n // 26),  # one line with many facts
        lambda n: "".join(f"src/a{i:05}.py " for i in range(n // 14)),  # many names of one length
        lambda n: "".join(f"{'x' * (i % 90)}/y.py " for i in range(n // 50)),  # and of many
        lambda n: "E   x\n" * (n // 6),
        lambda n: "x.py:1: error: a [b]\n" * (n // 21),
        lambda n: "\n" * n,
    ],
)
def test_a_blocks_text_takes_no_longer_for_a_hostile_output(make: Callable[[int], str]) -> None:
    """Only the ends of a long text are looked at, and no line is read once for each fact."""

    def seconds(text: str) -> float:
        piece = Piece("tool", "content", text, "bash", '{"command": "cat x.json"}')
        started = thread_time()
        wording.describe(piece, "m-0123456789ab", 2_000)
        return thread_time() - started

    assert min(seconds(make(4_000_000)) for _ in range(3)) < 0.3


def test_names_that_are_shown_anyway_are_left_out_however_many_there_are() -> None:
    paths = [f"src/a{i:03}.py" for i in range(400)]
    text = " ".join([*paths, "lib/other.py"])
    (line,) = identifier_lines.identifier_lines(text, shown=" ".join(paths[:-1]))
    assert line == "path: lib/other.py, src/a399.py"
