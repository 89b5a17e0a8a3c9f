"""Everything that analyses a text sees it without its terminal codes, and finds the original."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.tool_outputs.decoding import decode
from clara_mlx.tool_outputs.undress import undress

_PARTS = st.sampled_from(
    [
        *("\x1b[31m", "\x1b[0m", "\x1b[2K", "\x1b[G", "\x1b[3C", "\x1b]8;;http://a.b/\x1b\\"),
        *("\x1b", "\x1b[", "\x1b]0;title\x07", "\x9b1m", "\x1bM", "\r", "\r\n", "\n", "\x08"),
        *(
            "\u200b",
            "\ufeff",
            "\x00",
            "\x07",
            "a",
            "é",
            "word ",
            "50%",
            "[==> ]",
            "error: no",
            "\ud800",
        ),
    ]
)
_DRESSED = st.lists(_PARTS | st.text(max_size=3), max_size=40).map("".join)


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[1m\x1b[31mtests/test_a.py\x1b[0m:4: boom", "tests/test_a.py:4: boom"),
        ("\x1b]8;;https://a.org\x1b\\the link\x1b]8;;\x1b\\ here", "the link here"),
        ("\x1b]0;a title\x07made", "made"),
        ("\x1b]0;a title that is cut off", ""),
        ("[31mtests/test_a.py[0m:4: boom rate(x[5m])", "tests/test_a.py:4: boom rate(x[5m])"),
        ("^[[1;31mFAILED^[[0m a.py", "FAILED a.py"),
        ('RED = "\\033[31m", "\\x1b[0m"', 'RED = "\\033[31m", "\\x1b[0m"'),
        ("F\x00A\x00I\x00L\x00", "FAIL"),
        ("\x1b(B\x1b[mdone \x1b_bk;t=17\x07here", "done here"),
        ("name\x1b[20Gstate\x1b[40Gage", "name state age"),
        ("one\x1b[5Ctwo", "one two"),
        ("a b\r\nc\r\r\n", "a b\nc\n"),
        ("Fetching 3%\rFetching 50%\rFetching 100%\nok\n", "Fetching 100%\nok\n"),
        (
            "Fetching 3% ...\r" * 9 + "error: no space left\n",
            "Fetching 3% ...\nerror: no space left\n",
        ),
        ("\x1b[2K\x1b[1Gstep 1/2\x1b[2K\x1b[1Gstep 2/2\n", "step 2/2\n"),
        ("first line\rsecond line\r", "first line\nsecond line"),
        (
            "".join(f"web 1/{n}\n db {n}%\n\x1b[2A\x1b[2K" for n in range(9)) + "\x1b[2Bdone\n",
            "web 1/8\n db 8%\ndone\n",
        ),
        (
            "\x1b[?25la Waiting ...\n\x1b[1A\x1b[2Ka Waiting ...\n\x1b[1A\x1b[2KError: no image\n",
            "a Waiting ...\nError: no image\n",
        ),
        (
            "one 1%\ntwo 0%\r\x1b[2K\x1b[1A\x1b[2K"
            "one 2%\ntwo 1%\r\x1b[2K\x1b[1A\x1b[2Kone 3%\ntwo 2%\n",
            "one 3%\ntwo 2%\n",
        ),
        ("|\x08/\x08-\x08done", "done"),
        ("N\x08NA\x08AM\x08ME and _\x08x", "NAME and x"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
    ],
)
def test_what_a_reader_sees(text: str, seen: str) -> None:
    assert undress(text).text == seen


def test_a_span_leads_back_to_the_original() -> None:
    text = "\x1b[1m\x1b[31ma.py\x1b[0m:4: \x1b[1mboom\x1b[0m\r\nend"
    view = undress(text)
    at = view.text.index("boom")
    assert text[slice(*view.original_span(at, at + 4))] == "boom"
    start, end = view.original_span(0, len("a.py:4"))
    assert text[start:end] == "a.py\x1b[0m:4"


@given(st.text(st.characters(categories=["L", "N", "P", "Zs"], include_characters="\n\t")))
def test_plain_text_stays_the_same_object(text: str) -> None:
    view = undress(text)
    assert view.text is text or view.text == text
    assert view.original_span(0, len(text)) == (0, len(text))
    assert view.seen(0, len(text)) == text


@given(_DRESSED, st.data())
def test_the_map_is_monotone_and_inside_the_text(text: str, data: st.DataObject) -> None:
    view = undress(text)
    assert not set(view.text) & set("\x1b\x9b\r\x08\u200b")
    assert undress(view.text).text == view.text
    spans = [view.original_span(i, i + 1) for i in range(len(view.text))]
    assert all(start < end for start, end in spans)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))
    assert not spans or (spans[0][0] >= 0 and spans[-1][1] <= len(text))
    for (start, end), seen in zip(spans, view.text, strict=True):
        assert view.seen(start, end) == seen
    cut = data.draw(st.integers(0, len(text)))
    assert view.seen(0, cut) + view.seen(cut, len(text)) == view.text


def test_bytes_of_utf_16_are_known() -> None:
    text = "Ausnahme: DivideByZero in Zeile 12 — größer\r\n"
    assert decode(text.encode("utf-16")) == "\ufeff" + text or decode(text.encode("utf-16")) == text
    for encoding in ("utf-16-le", "utf-16-be", "utf-8", "utf-8-sig"):
        assert undress(decode(text.encode(encoding))).text == text.replace("\r\n", "\n")
    assert decode(b"\xff\x00abc\x00").encode("utf-8", "surrogateescape") == b"\xff\x00abc\x00"
