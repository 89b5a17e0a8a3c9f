from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.spans import MAX_LENGTH


def found(text: str) -> list[tuple[str, str]]:
    return [(one.kind, one.text) for one in identifiers(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "FAILED tests/test_io.py::TestA::test_load[a b-c[0]] - AssertionError: no",
            [
                ("test", "tests/test_io.py::TestA::test_load[a b-c[0]]"),
                ("exception", "AssertionError"),
            ],
        ),
        (
            "tests/test_io.py:12: ValueError",
            [("path", "tests/test_io.py:12"), ("exception", "ValueError")],
        ),
        (
            '  File "/opt/my app/load.py", line 42, in load',
            [("path", "/opt/my app/load.py"), ("line", "line 42")],
        ),
        ("FAIL: test_x (tests.m.Case.test_x)", [("test", "tests.m.Case.test_x")]),
        ("test_x (tests.m.Case) ... ok", [("test", "test_x (tests.m.Case)")]),
        ("test parser::tests::reads ... FAILED", [("test", "parser::tests::reads")]),
        ("---- tests::adds stdout ----", [("test", "tests::adds")]),
        ("--- FAIL: TestAdd/zero (0.00s)", [("test", "TestAdd/zero")]),
        (
            "error[E0382]: moved\n --> src/main.rs:10:5",
            [("code", "E0382"), ("path", "src/main.rs:10:5")],
        ),
        ("src/app.ts(3,7): error TS2322: no", [("path", "src/app.ts(3,7)"), ("code", "TS2322")]),
        ("a.py:3:8: F401 [*] unused", [("path", "a.py:3:8"), ("code", "F401")]),
        ("a.py:5: error: no  [assignment]", [("path", "a.py:5"), ("code", "assignment")]),
        (
            "main.c:3:9: warning: unused [-Wunused-variable]",
            [("path", "main.c:3:9"), ("code", "-Wunused-variable")],
        ),
        ("make: *** [Makefile:9: all] Error 2", [("path", "Makefile:9"), ("code", "Error 2")]),
        (
            "[Errno 2] ENOENT, exit code 101",
            [("code", "Errno 2"), ("code", "ENOENT"), ("code", "exit code 101")],
        ),
        (
            "diff --git a/src/x.py b/src/x.py\nindex 83db48f..bf269f4 100644\n@@ -1,3 +4,5 @@",
            [
                ("path", "src/x.py"),
                ("hash", "83db48f"),
                ("hash", "bf269f4"),
                ("line", "@@ -1,3 +4,5 @@"),
            ],
        ),
        ("commit 1234567", [("hash", "1234567")]),
        (
            "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
            [("uuid", "3f2504e0-4f89-11d3-9a0c-0305e82c3301")],
        ),
        (
            "see (https://example.com/a_(b)?q=1#top).",
            [("url", "https://example.com/a_(b)?q=1#top")],
        ),
        (
            "numpy==2.4, Python 3.11.7, v2.1, 1.0rc1",
            [("version", "2.4"), ("version", "3.11.7"), ("version", "v2.1"), ("version", "1.0rc1")],
        ),
        (
            "calver==14.05.2024, v14.05.2024",
            [("version", "14.05.2024"), ("version", "v14.05.2024")],
        ),
        ("2024.05.14, 14.13.2024", [("version", "2024.05.14"), ("version", "14.13.2024")]),
        (r"C:\work\a.py:3", [("path", r"C:\work\a.py:3")]),
        ("wrote </etc/hosts> </tool-result>", [("path", "/etc/hosts")]),
        ("json.decoder.JSONDecodeError: x", [("exception", "json.decoder.JSONDecodeError")]),
        ("on line 12 or lines 3-9", [("line", "line 12"), ("line", "lines 3-9")]),
    ],
)
def test_what_is_found(text: str, expected: list[tuple[str, str]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "and/or, I/O, n/a, 3/4",
        "it took 0.05s, 12.5 % of 3.14",
        "127.0.0.1",
        "on 14.05.2024 and 1.2.1999",
        "an Error occurred; Exception",
        "data.json() and self.h or obj.c = 3",
        "1234567 and deadbeef and 1e1000000",
        "std::vector<int> and foo::bar",
        "Node.js",
    ],
)
def test_what_is_left_alone(text: str) -> None:
    assert found(text) == []


def test_each_once_in_order_up_to_a_limit() -> None:
    text = "b.py:2 a.py:1 b.py:2 c.py:3"
    assert [one.text for one in identifiers(text)] == ["b.py:2", "a.py:1", "c.py:3"]
    assert identifiers(text, limit=2) == identifiers(text)[:2]
    assert identifiers(text, limit=0) == ()


def test_what_is_too_long_is_left_out_not_cut() -> None:
    assert identifiers("x" * MAX_LENGTH + ".py") == ()
    assert identifiers("http://a/" + "x" * MAX_LENGTH) == ()


PIECES = st.one_of(
    st.sampled_from(' \n"()/.:é\ud800'),
    st.sampled_from(["a/b.py", ":12", "::test_x", "[a]", "https://h/p", "Error", "E401", "File "]),
    st.sampled_from(["line 3", "0f3a9bc", "v1.2.3", "make: *** ", "@@ -1 +2 @@", "Makefile"]),
)


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join)))
def test_verbatim_ordered_apart_and_distinct(text: str) -> None:
    ids = identifiers(text)
    for one in ids:
        assert text[one.start : one.end] == one.text != ""
    for one, following in pairwise(ids):
        assert one.end <= following.start
    assert len({(one.kind, one.text) for one in ids}) == len(ids)


HOSTILE = [
    "a",
    "./",
    "a.py::b[",
    "ab://",
    "http://a)",
    "http://" + ")" * 990 + " ",
    "1a://",
    "Error.",
    "deadbeef1 ",
    "1.",
    "(",
    "\n",
    "make: *** [",
    "test ",
    'File "',
    "line 1 ",
    "C:\\",
    "--- FAIL: ",
    "E1234 ",
    "a-",
    "  [a-",
    "]",
    "aError.",
    "@@ -1,",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_work_grows_with_the_text_not_faster(piece: str) -> None:
    def seconds(characters: int) -> float:
        text = piece * (characters // len(piece))
        start = time.process_time()
        identifiers(text)
        return time.process_time() - start

    # The least of three, because Python may collect garbage of other tests in between.
    small, large = (min(seconds(size) for _ in range(3)) for size in (20_000, 160_000))
    assert large < 24 * max(small, 0.005)  # 8 times the text; quadratic would be 64


def test_five_megabytes_of_garbage() -> None:
    rng = random.Random(5)
    text = "".join(rng.choice(HOSTILE) * rng.randint(1, 9_999) for _ in range(200))
    text = (text * 5)[:4_000_000]
    text += "".join(rng.choices([chr(code) for code in range(1, 400)], k=1_000_000))
    start = time.process_time()
    identifiers(text)
    assert time.process_time() - start < 60  # about 3 on an idle core
