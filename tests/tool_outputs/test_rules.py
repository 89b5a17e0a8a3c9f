from __future__ import annotations

import random
import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from real_outputs import (
    CARGO,
    CHAINED,
    DIFF,
    ENV,
    GCC,
    GO,
    GREP,
    HTTP,
    LOG,
    LS,
    MYPY,
    NPM,
    PIP,
    PYTEST,
    RUFF,
    STATUS,
    TOML,
    TRACEBACK,
    TREE,
    UNITTEST,
    YAML,
)

from clara_mlx.evaluate.corpus import TOOLS, generate
from clara_mlx.evaluate.probes.from_facts import probes, unambiguous
from clara_mlx.evaluate.probes.questions import FORMS, question
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.lines import LINE_CHARACTERS, split_lines
from clara_mlx.tool_outputs.rules import RULES, collect


@pytest.mark.parametrize(
    ("tool", "text", "expected"),
    [
        (
            "pytest",
            PYTEST,
            {
                question("failed_test"): "test_parse_price[12-1200]",
                question("test_file_of", name="the failing test"): "tests/test_price.py",
                question("error_file"): "inventory/price.py",
                question("error_line"): "10",
                question("exception"): "ValueError",
                question("error_message"): "not enough values to unpack (expected 2, got 1)",
                question("passed"): "3",
                question("failed"): "1",
                question("skipped"): "1",
                question("package_duration", name="it"): "0.62s",
            },
        ),
        (
            "traceback",
            TRACEBACK,
            {
                question("exception"): "KeyError",
                question("error_message"): "'bolt'",
                question("error_file"): "/project/store.py",
                question("error_line"): "16",
                question("function"): "take",
                question("caller_file"): "/project/load.py",
                question("caller_line"): "6",
            },
        ),
        ("traceback", CHAINED, {question("exception"): "ValueError", question("error_line"): "5"}),
        (
            "ruff",
            RUFF,
            {
                question("error_code"): "F401",
                question("error_line"): "3",
                question("error_column"): "8",
                question("unused_name"): "os",
                question("errors"): "1",
                question("fixable"): "1",
            },
        ),
        (
            "mypy",
            MYPY,
            {
                question("error_code"): "return-value",
                question("actual_type"): "int",
                question("expected_type"): "str",
                question("checked_files"): "3",
            },
        ),
        (
            "cargo",
            CARGO,
            {
                question("error_code"): "E0308",
                question("error_file"): "src/bin/types.rs",
                question("expected_type"): "i32",
                question("actual_type"): "&str",
                question("failed_package"): "stock",
            },
        ),
        (
            "gcc",
            GCC,
            {
                question("error_line"): "4",
                question(
                    "error_message"
                ): "\u2018struct item\u2019 has no member named \u2018size\u2019",
                question("warning_line"): "5",
                question("target"): "native/types.o",
                question("exit_status"): "1",
            },
        ),
        (
            "unittest",
            UNITTEST,
            {
                question("failed_test"): "test_total",
                question("expected"): "5",
                question("actual"): "4",
                question("ran"): "3",
                question("failed"): "1",
            },
        ),
        (
            "git-status",
            STATUS,
            {
                question("branch"): "main",
                question("ahead"): "2",
                question("modified_file"): "settings/app.env",
                question("untracked_file"): "notes.md",
            },
        ),
        (
            "git-diff",
            DIFF,
            {
                question("file_in", path="the diff"): "settings/app.env",
                question("old_value", key="STOCK_PORT"): "8443",
                question("new_value", key="STOCK_PORT"): "9443",
                question("hunk_line"): "1",
            },
        ),
        (
            "git-log",
            LOG,
            {
                question("commit"): "1ea647bb49a5d795353e7ad85e7be4346e633cc2",
                "Who is the author?": "Mira Osei",
                question("subject"): "Port stock counting to Rust",
                question("changes_in", path="crate/src/lib.rs"): "12",
                question("insertions"): "8",
            },
        ),
        (
            "ripgrep",
            GREP,
            {
                question("defined_file", name="with_tax"): "inventory/price.py",
                question("defined_line", name="__init__"): "12",
                question("matches"): "2",
            },
        ),
        ("ls", LS, {question("total"): "44", question("file_size", file="CMakeLists.txt"): "85"}),
        (
            "tree",
            TREE,
            {
                question("parent", file="a.py"): "src",
                question("file_in", path="docs"): "intro.md",
                question("files"): "3",
            },
        ),
        (
            "yaml",
            YAML,
            {
                question("value_in", key="host", section="server"): "stock.internal",
                question("value", key="port"): "8443",
            },
        ),
        (
            "toml",
            TOML,
            {
                question("value_in", key="port", section="server"): "8443",
                question("value_in", key="port", section="cache"): "1",
            },
        ),
        (
            "json",
            '{"server": {"host": "h1"}, "list": ["a", "b"], "retries": 4}',
            {
                question("value_in", key="host", section="server"): "h1",
                question("value", key="retries"): "4",
            },
        ),
        (
            "env",
            ENV,
            {question("value", key="LEVEL"): "debug", question("value", key="STOCK_PORT"): "8443"},
        ),
        ("http", HTTP, {question("http_status"): "404", question("value", key="id"): "7"}),
        ("npm", NPM, {question("error_code"): "ERESOLVE", question("log_file"): "/home/u/x.log"}),
        (
            "go",
            GO,
            {
                question("failed_test"): "TestAdd",
                question("expected"): "4",
                question("failed_package"): "example.com/add",
            },
        ),
        ("pip", PIP, {question("version", name="click"): "8.5.1"}),
        (
            "build",
            "make: *** No rule to make target 'a.c', needed by 'a.o'.  Stop.",
            {question("missing_file"): "a.c"},
        ),
    ],
)
def test_real_outputs(tool: str, text: str, expected: dict[str, str]) -> None:
    assert classify(text) == tool
    found = {probe.question: probe for probe in probes(text)}
    assert {asked: found[asked].answer for asked in expected} == expected
    for probe in found.values():
        assert probe.answer in text[probe.start : probe.end] or probe.question.startswith(
            ("How many matches", "Which directory has")
        )


@pytest.mark.parametrize(
    ("tool", "text", "unasked"),
    [
        (
            "pytest",
            PYTEST + "FAILED tests/test_b.py::test_b - KeyError: 'a'\n",
            question("failed_test"),
        ),
        ("pytest", PYTEST + "FAILED tests/test_b.py::test_b[x y] - no\n", question("failed_test")),
        (
            "pytest",
            "FAILED a_test.py::test_b - ValueError: a long messa...\n1 failed in 1.0s",
            question("error_message"),
        ),
        (
            "pytest",
            "collected 9 items\nFAILED t.py::test_b - ValueError\n1 failed in 1.0s",
            question("ran"),
        ),
        ("traceback", TRACEBACK + "and a second line of the message", question("error_message")),
        ("traceback", TRACEBACK + "\n" + TRACEBACK.replace("16", "17"), question("error_line")),
        ("toml", TOML, question("value", key="port")),
        ("git-diff", DIFF + "@@ -30 +30 @@\n-LEVEL=1\n+LEVEL=2\n", question("hunk_line")),
        ("gcc", GCC, question("function")),
        ("env", ENV, question("value", key="EMPTY")),
    ],
)
def test_what_is_ambiguous_is_not_asked(tool: str, text: str, unasked: str) -> None:
    assert unasked not in {probe.question for probe in probes(text, tool)}


@pytest.mark.parametrize("tool", TOOLS)
def test_rules_and_generator_agree(tool: str) -> None:
    """Both may leave questions out; where both ask, both have the same answer."""
    rng = random.Random(f"rules {tool}")
    asked = agreed = classified = 0
    for number in range(60):
        output = generate(rng, tool, "train", "long" if number % 4 == 0 else "short")
        classified += classify(output.text) == tool
        known = {}
        for fact in unambiguous(collect(output.text, tool)):
            for wording in FORMS[fact.name].wordings:
                known[wording.format(**dict(fact.about))] = fact.text
        for probe in output.probes:
            asked += 1
            if probe.question in known:
                assert known[probe.question] == probe.answer, (probe, output.text)
                agreed += 1
    assert agreed > asked / 2
    assert classified >= (40 if tool == "build" else 54)  # builds run compilers, and look like them


PIECES = st.sampled_from(
    [
        PYTEST,
        TRACEBACK,
        RUFF,
        CARGO,
        GCC,
        DIFF,
        TREE,
        YAML,
        TOML,
        HTTP,
        "\n",
        "  ",
        ": ",
        "├── ",
        "[",
        '"',
        "\r\n",
    ]
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(PIECES, st.text(max_size=20)), max_size=6).map("".join))
def test_any_text_is_safe(text: str) -> None:
    classify(text)
    for tool in RULES:
        for probe in probes(text, tool):
            assert probe.end <= len(text)
            assert probe.answer.isprintable()


@pytest.mark.parametrize("tool", sorted(RULES))
def test_a_long_line_costs_no_more_than_its_start(tool: str) -> None:
    for piece in (":", " ", "a/", "=", "[", "1 a, ", "├", '"a": ', "x.py:1: "):
        probes(piece * (2_000_000 // len(piece)), tool)
    assert max(len(line.text) for line in split_lines("x" * 99_999)) == LINE_CHARACTERS


# Seconds of the processor for 100 kB; a rule that tries each place of a line from each other one
# took 0.14 to 5.7.
LIMIT = 0.1


@pytest.mark.alone
@pytest.mark.parametrize(
    ("tool", "above", "begin", "unit", "end"),
    [
        ("git-log", "commit 1234567", "Author:", " ", "<"),
        ("http", "", "HTTP/1.1 200 a", " ", "\x00a"),
        ("http", "HTTP/1.1 200 OK", "A: a", " ", "a"),
        ("json", "", "", '\\"', ""),
        ("pip", "", "Name: a", " ", "a"),
        ("pytest", "", "FAILED a", ".py::a", " "),
        ("pytest", "", "a", ".py::a", " "),
        ("pytest", "", "1s call a", ".py::a", " "),
        ("pytest", "", "platform a -- Python 3", ".", " a"),
        ("ripgrep", "", "", "../", "!"),
        ("ripgrep", "", "a.py:1:a", " ", "a"),
        ("yaml", "", "a: b", " ", "a#"),
    ],
)
def test_a_line_of_one_unit_is_read_in_one_pass(
    tool: str, above: str, begin: str, unit: str, end: str
) -> None:
    room = LINE_CHARACTERS - 1 - len(begin) - len(end)
    line = begin + unit * (room // len(unit)) + end + "\n"
    text = f"{above}\n" + line * (100_000 // len(line))
    assert min(_seconds(tool, text) for _ in range(3)) < LIMIT


def _seconds(tool: str, text: str) -> float:
    begun = time.thread_time()
    collect(text, tool)
    return time.thread_time() - begun


def test_a_string_without_an_end_hides_nothing_behind_it() -> None:
    facts = collect(r'{"a": 1, "b": "x\", 2: 3, c\" :4, e: 5}', "json").in_order_found()
    assert [(*fact.about, fact.text) for fact in facts] == [
        (("key", "a"), "1"),
        (("key", "2"), "3"),
        (("key", "e"), "5"),
    ]


def test_a_package_may_begin_with_a_digit() -> None:
    facts = collect("Successfully installed 2to3-1.0 typing-extensions-4.9.0", "pip")
    assert [(*fact.about, fact.text) for fact in facts.in_order_found()] == [
        (("name", "2to3"), "1.0"),
        (("name", "typing-extensions"), "4.9.0"),
    ]


def test_lines_that_are_passed_over_state_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(14)
    texts = [generate(rng, tool, "train", "long").text for tool in TOOLS for _ in range(2)]
    passed_over = [_stated(text) for text in texts]
    for module in {sys.modules[rule.__module__] for rule in RULES.values()}:
        for name, pattern in vars(module).items():
            if name.endswith("_LINE") and not pattern.groups:
                monkeypatch.setattr(module, name, re.compile(""))
    assert [_stated(text) for text in texts] == passed_over


def _stated(text: str) -> list[tuple[object, ...]]:
    found = (collect(text, tool) for tool in RULES)
    return [(one.in_order_found(), one.implied, one.unread) for one in found]
