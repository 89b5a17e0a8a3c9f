"""What stands before the lines of others is set aside, and a line's number is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.tool_outputs.undress import undress

TRACE = [
    "Traceback (most recent call last):",
    '  File "app/run.py", line 3, in <module>',
    "    main()",
    "",
    "ValueError: no such account",
]


@pytest.mark.parametrize(
    "prefix",
    [
        *("2031-05-06T04:58:15.2481291Z ", "2031-05-06 04:58:15,123 ", "[04:58:15] "),
        *("May  6 04:58:15 host-a app[241]: ", "2031-05-06T04:58:15+00:00 app[web.1]: "),
        *("[    3.141592] ", "#12 2.465 ", "==13328== ", "web-1  | ", "worker  | "),
        *("[pod/web-5d/app] ", "web-1  | 2031-05-06T04:58:15Z ", "2031-05-06 04:58:15 | "),
        *("2031-05-06 04:58:15.123 UTC [1234] ", "17:M 06 May 2031 04:58:15.123 ", "[pid  4711] "),
        *("05-06 04:58:15.123  1234  5678 ", "0|app  | ", "web:build: ", "04:58:15 PM "),
        *("2031-05-06T04:58:15.123456Z 01O ", "2031-05-06 04:58:15.123 | ", "api.1.x2@node | "),
        "test\tRun the tests\t2031-05-06T04:58:15.2481291Z ",
        "2031-05-06 04:58:15,123 INFO [main] org.example.Main: ",
    ],
)
def test_lines_begin_where_the_program_began_them(prefix: str) -> None:
    text = "\n".join(prefix + line for line in TRACE)
    view = undress(text)
    assert view.text == text
    assert view.bare.text.split("\n") == TRACE
    at = view.bare.text.index("ValueError")
    assert text[slice(*view.bare.original_span(at, at + 10))] == "ValueError"


@pytest.mark.parametrize(
    "text",
    [
        " id | name\n----+------\n  1 | Ada\n  2 | Bob\n  9 | Eve\n",
        "12\tsrc/a.py\n640\tsrc/b.py\n4\tsrc\n",
        "[INFO] one\n[ERROR] two\n[ERROR] three\n[INFO] four\n",
        "[error] a.scala:3: no\n[error] a.scala:4: no\n[info] b\n[error] c\n",
        "ERROR | one\nERROR | two\nERROR | three\nINFO | four\n",
        "FAIL:a: one\nFAIL:a: two\nFAIL:a: three\n",
        "alice | 3\nbob | 4\ncarol | 5\ndave | 6\n",
        "- one\n- two\n> said\n",
        "src/a.py:12: error\nsrc/a.py:13: error\nsrc/a.py:14: error\n",
    ],
)
def test_what_is_no_prefix_stays(text: str) -> None:
    assert undress(text).bare.text == text


@pytest.mark.parametrize(
    "numbered",
    [
        "{:6}\t{}",
        "{:>6}\u2192{}",
        "{}:{}",
        "{}-{}",
        "{:4} | {}",
        "lib/a-b.py:{}:{}",
        "lib/a-b.py-{}-{}",
        "+{} {}",
        "- {} {}",
    ],
)
def test_the_number_of_a_line_is_set_aside_and_kept(numbered: str) -> None:
    code = ["class Account:", "", "    def close(self):", "        return 1"]
    text = "\n".join(numbered.format(number, line) for number, line in enumerate(code, 98))
    view = undress(text).code
    assert [line.strip() for line in view.text.split("\n")] == [line.strip() for line in code]
    assert view.line_number(0) == 98
    assert view.line_number(view.text.index("close")) == 100
    assert view.line_number(view.text.index("return")) == 101
    assert undress("class A:\n    pass").code.line_number(3) is None


def test_signs_of_diffs_and_quotations_are_set_aside() -> None:
    diff = "--- a/b.py\n+++ b/b.py\n@@ -1 +1 @@\n-def old():\n+def new():\n> def said():\n"
    assert undress(diff).bare.text == diff
    assert "\ndef old():\ndef new():\ndef said():\n" in undress(diff).code.text
    assert undress(diff).code.text.startswith("--- a/b.py\n+++ b/b.py\n")


_LINES = st.lists(
    st.sampled_from(
        [
            "12\t",
            "13\t",
            "14\t",
            "web-1 | ",
            "a\n",
            "\n",
            "2031-05-06 04:58:15 ",
            "a.py:3:",
            "+",
            "> ",
        ]
    )
    | st.text(max_size=4),
    max_size=40,
).map("".join)


@given(_LINES)
def test_the_map_holds_without_prefixes(text: str) -> None:
    for view in (undress(text).bare, undress(text).code):
        spans = [view.original_span(i, i + 1) for i in range(len(view.text))]
        assert all(view.seen(*span) == view.text[i] for i, span in enumerate(spans))
        assert spans == sorted(spans)
        for i in range(len(view.text)):
            view.line_number(i)
