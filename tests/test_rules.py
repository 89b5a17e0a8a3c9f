from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.outputs.generate import TOOLS, generate
from clara_mlx.outputs.questions import FACTS, question
from clara_mlx.outputs.rules import RULES, classify, probes
from clara_mlx.outputs.rules.facts import LINE_CHARACTERS, Facts, lines

PYTEST = """\
..F.s                                                                    [100%]
=================================== FAILURES ===================================
__________________________ test_parse_price[12-1200] ___________________________

>       assert parse_price(text) == cents

tests/test_price.py:7:
_ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _ _

>       euros, cents = text.split(".")
E       ValueError: not enough values to unpack (expected 2, got 1)

inventory/price.py:10: ValueError
=========================== short test summary info ============================
FAILED tests/test_price.py::test_parse_price[12-1200] - ValueError: not enough values to ...
1 failed, 3 passed, 1 skipped in 0.62s
"""
TRACEBACK = """\
Traceback (most recent call last):
  File "/project/load.py", line 6, in <module>
    load()
  File "/project/store.py", line 16, in take
    if self.items[name] < count:
       ~~~~~~~~~~^^^^^^
KeyError: 'bolt'
"""
CHAINED = """\
Traceback (most recent call last):
  File "/project/a.py", line 3, in port
    return settings['port']
KeyError: 'port'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/project/a.py", line 7, in <module>
    port({})
  File "/project/a.py", line 5, in port
    raise ValueError('no port') from error
ValueError: no port
"""
RUFF = """\
F401 [*] `os` imported but unused
 --> inventory/store.py:3:8
  |
3 | import os
  |        ^^
  |

Found 1 error.
[*] 1 fixable with the `--fix` option.
"""
MYPY = """\
price.py:15: error: Incompatible return value type (got "int", expected "str")  [return-value]
Found 1 error in 1 file (checked 3 source files)
"""
CARGO = """\
error[E0308]: mismatched types
 --> src/bin/types.rs:2:22
  |
2 |     let count: i32 = "four";
  |                ---   ^^^^^^ expected `i32`, found `&str`
  |                |
  |                expected due to this

error: could not compile `stock` (bin "types") due to 1 previous error
"""
GCC = """\
native/types.c: In function \u2018left\u2019:
native/types.c:4:16: error: \u2018struct item\u2019 has no member named \u2018size\u2019
native/types.c:5:1: warning: control reaches end of non-void function [-Wreturn-type]
make: *** [Makefile:4: native/types.o] Error 1
"""
UNITTEST = """\
FAIL: test_total (checks.test_stock.StockTest.test_total)
----------------------------------------------------------------------
Traceback (most recent call last):
  File "/project/checks/test_stock.py", line 9, in test_total
    self.assertEqual(Store({"nail": 4}).total(), 5)
AssertionError: 4 != 5

----------------------------------------------------------------------
Ran 3 tests in 0.001s

FAILED (failures=1, skipped=1)
"""
STATUS = """\
On branch main
Your branch is ahead of 'origin/main' by 2 commits.
  (use "git push" to publish your local commits)

Changes not staged for commit:
\tmodified:   settings/app.env

Untracked files:
\tnotes.md
"""
DIFF = """\
diff --git a/settings/app.env b/settings/app.env
index a818278..d227c88 100644
--- a/settings/app.env
+++ b/settings/app.env
@@ -1,5 +1,5 @@
 STOCK_HOST=stock.internal
-STOCK_PORT=8443
+STOCK_PORT=9443
 LOG_LEVEL=warning
"""
LOG = """\
commit 1ea647bb49a5d795353e7ad85e7be4346e633cc2 (HEAD -> main)
Author: Mira Osei <mira@example.org>
Date:   Sat Feb 14 21:26:30 2026 +0000

    Port stock counting to Rust

 crate/src/lib.rs | 12 ++++++++----
 1 file changed, 8 insertions(+), 4 deletions(-)
"""
GREP = """\
inventory/store.py:12:    def __init__(self, items=None):
inventory/price.py:5:def with_tax(cents: int, rate: str) -> int:
"""
LS = """\
total 44
-rw-r--r-- 1 root root   85 Nov 23 06:13 CMakeLists.txt
drwxr-xr-x 2 root root 4096 Nov 23 06:13 checks
"""
TREE = """\
stock
├── docs
│   └── intro.md
└── src
    ├── a.py
    └── b.py

2 directories, 3 files
"""
YAML = "server:\n  host: stock.internal\n  port: 8443 # TLS\nports:\n  - 3\nretries: 4\n"
TOML = """\
[server]
host = "stock.internal"
port = 8443
members = [
  "a = 1",
]
[cache]
port = 1
"""
HTTP = 'HTTP/1.0 404 Not Found\nContent-Length: 42\n\n{"error": "no such item", "id": 7}\n'
NPM = (
    "npm error code ERESOLVE\nnpm error A complete log of this run can be found in: /home/u/x.log\n"
)
GO = """\
--- FAIL: TestAdd (0.00s)
    add_test.go:10: got 3, want 4
FAIL
FAIL\texample.com/add\t0.003s
"""
PIP = "Package           Version\n----------------- ---------\nclick             8.5.1\n"
ENV = "STOCK_HOST=stock.internal\nSTOCK_PORT=8443\nexport LEVEL='debug'\nEMPTY=\n"


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
                question("only_file", path="the diff"): "settings/app.env",
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
                question("only_file", path="docs"): "intro.md",
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
        facts = Facts()
        RULES[tool](facts, lines(output.text))
        for fact, slots, answer in facts.answers():
            for wording in FACTS[fact].wordings:
                known[wording.format(**slots)] = answer
        for probe in output.probes:
            asked += 1
            if probe.question in known:
                assert known[probe.question] == probe.answer, (probe, output.text)
                agreed += 1
    assert agreed > asked / 2
    assert classified >= (40 if tool == "build" else 54)  # builds run compilers, and look like them


@pytest.mark.parametrize(
    ("command", "tool"),
    [
        ("cd repo && python -m pytest -q tests 2>&1 | tail -20", "pytest"),
        ("FOO=1 timeout 60 pytest", "pytest"),
        ("uv run ruff check .", "ruff"),
        ("git -C repo diff --stat", "git-diff"),
        ("git log --oneline | head", "git-log"),
        ("grep -rn foo src", "ripgrep"),
        ("cat config/app.toml", "toml"),
        ("head -20 .env", "env"),
        ("/usr/bin/ls -l", "ls"),
        ("python script.py", None),
        ("", None),
        ("echo 'unbalanced", None),
    ],
)
def test_classify_by_command(command: str, tool: str | None) -> None:
    assert classify("nothing that says more", command) == tool


def test_make_is_what_it_ran() -> None:
    assert classify(GCC, "make") == "gcc"
    assert classify("make: *** [Makefile:4: all] Error 1", "make") == "build"
    assert probes("nothing that says more") == probes("x", "no such tool") == ()


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
    assert max(len(line.text) for line in lines("x" * 99_999)) == LINE_CHARACTERS
