"""Outputs that come inside JSON are read as the lines that they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.tool_outputs.undress import undress

OUTPUT = 'first line\n\x1b[31mtests/test_a.py:3\x1b[0m: "no" C:\\tmp é 😀\nlast line\n'
LINES = ["first line", 'tests/test_a.py:3: "no" C:\\tmp é 😀', "last line"]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [
        {"returncode": 0, "output": OUTPUT},
        {"output": OUTPUT, "exception": ""},
        [{"type": "text", "text": "one\ntwo"}, {"type": "text", "text": OUTPUT}],
        {"content": [{"type": "text", "text": OUTPUT}], "isError": False},
        {"content": [{"type": "text", "text": json.dumps({"output": OUTPUT, "code": 1})}]},
        OUTPUT,
    ],
)
def test_the_lines_of_a_string_are_lines(wrapped: object, ascii_only: bool) -> None:
    for text in (
        json.dumps(wrapped, ensure_ascii=ascii_only),
        json.dumps(wrapped, ensure_ascii=ascii_only, separators=(",", ":")),
        "Result: " + json.dumps(wrapped) if not isinstance(wrapped, str) else json.dumps(wrapped),
    ):
        view = undress(text)
        seen = view.text.split("\n")
        assert [line for line in seen if line in LINES] == LINES
        at = view.text.index("tests/test_a.py:3")
        start, end = view.original_span(at, at + len("tests/test_a.py:3"))
        assert text[start:end].replace("\\", "") == "tests/test_a.py:3"
        assert undress(view.text).text == view.text


@pytest.mark.parametrize(
    "text",
    [
        str({"output": OUTPUT, "code": 1}),
        str({"stdout": OUTPUT.replace('"', "'"), "stderr": ""}),
        str([{"type": "text", "text": json.dumps({"output": OUTPUT})}]),
        f"INFO response from tool: {json.dumps({'output': OUTPUT})}",
        f"Observation: { ({'output': OUTPUT}) }",
    ],
)
def test_dictionaries_of_python_and_words_before_json_are_no_matter(text: str) -> None:
    seen = undress(text).text.replace("'", '"').split("\n")
    assert [line for line in seen if line in LINES] == LINES


def test_a_string_that_is_cut_off_is_read_too() -> None:
    whole = json.dumps({"output": "begin\n" + "line of words\n" * 200, "returncode": 1})
    assert undress(whole[:1000]).text.count("\nline of words") > 50
    cut = whole[:1000] + "\n[... 1234 characters left out ...]\n" + whole[-500:]
    assert undress(cut).text.split("\n").count("line of words") > 80


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({"name": "a", "scripts": {"test": 'jest "a\\b"'}, "note": "ends\n"}, indent=2),
        json.dumps({"name": "a", "description": "two\nlines"}, indent=2),
        json.dumps([[1, "a\\nb"], [2, 'c "d"']]),
        'print({"a": f("b\\nc")})\n    "usage:\\n  tool\\n"\n',
    ],
)
def test_data_and_code_stay_as_they_are(data: str) -> None:
    assert undress(data).text == data


def test_the_bare_view_is_without_what_says_nothing_around_a_text() -> None:
    for wrapped in ({"returncode": 0, "output": OUTPUT}, [{"type": "text", "text": OUTPUT}]):
        for text in (json.dumps(wrapped), str(wrapped)):
            assert undress(text).bare.text.startswith("first line\n")
    failed = undress(json.dumps({"returncode": 1, "output": OUTPUT})).bare.text
    assert failed.startswith('{"returncode": 1, "output":')
    data = json.dumps({"a": {"b": [1]}, "c": "d"}, indent=1)
    assert undress(data).bare.text == data


def test_records_of_lines_are_the_lines_in_the_bare_view() -> None:
    records = [
        {"Time": "2031-05-06T04:58:15Z", "Action": "run", "Test": "TestA"},
        {"Action": "output", "Test": "TestA", "Output": "=== RUN   TestA\n"},
        {"Action": "output", "Test": "TestA", "Output": '    a_test.go:12: want "x"\n'},
        {"log": "Traceback (most recent call last):\n", "stream": "stderr"},
        {"path": "C:\\n", "n": 1},
    ]
    text = "\n".join(map(json.dumps, records))
    view = undress(text)
    assert view.text == text
    lines = ["=== RUN   TestA", '    a_test.go:12: want "x"', "Traceback (most recent call last):"]
    given = text.split("\n")
    assert view.bare.text.split("\n") == [given[0], *lines, given[-1]]
    start, end = view.bare.original_span(
        view.bare.text.index("want"), view.bare.text.index('"x"') + 3
    )
    assert text[start:end] == 'want \\"x\\"'


@given(st.text(max_size=300), st.integers(1, 3), st.data())
def test_what_json_says_is_what_is_seen(text: str, depth: int, data: st.DataObject) -> None:
    body = f"one\n{text}\ntwo"
    wrapped = body
    for _ in range(depth):
        wrapped = json.dumps({"output": wrapped, "code": 0})
    view = undress(wrapped)
    assert undress(body).text in view.text
    cut = data.draw(st.integers(0, len(wrapped)))
    assert view.seen(0, cut) + view.seen(cut, len(wrapped)) == view.text
