"""What a block says of any tool's output: how it ended, and the names that matter."""

from __future__ import annotations

import pytest

from clara_mlx.tool_outputs import identifier_lines, outcomes

GTEST = """\
[ RUN      ] TillTest.Opens
[       OK ] TillTest.Opens (0 ms)
[ RUN      ] TillTest.Counts
/srv/shop/till_test.cc:21: Failure
Expected equality of these values:
  till.count()
[  FAILED  ] TillTest.Counts (1 ms)
[==========] 2 tests from 1 test suite ran. (1 ms total)
[  PASSED  ] 1 test.
[  FAILED  ] 1 test, listed below:
[  FAILED  ] TillTest.Counts

 1 FAILED TEST
 YOU HAVE 1 DISABLED TEST
"""
TERRAFORM = """\
  # aws_instance.till will be created
  + resource "aws_instance" "till" {
      + ami           = "ami-0c55b159"
    }

Plan: 1 to add, 0 to change, 0 to destroy.

Note: You didn't use the -out option to save this plan, so it can change
when "terraform apply" is subsequently run.
"""
RUST = """\
    Running `target/debug/till`
thread 'main' panicked at src/till.rs:21:9:
the drawer is stuck
stack backtrace:
   0: rust_begin_unwind
   1: till::open
==1==ABORTING
"""
COMPOSE = """\
db-1   | ready for start up.
web-1  | Traceback (most recent call last):
web-1  |   File "/app/till.py", line 40, in connect
web-1  |     raise ConnectionError(url)
web-1  | ConnectionError: no route to the drawer
db-1   | ready to accept connections
web-1 exited with code 3
db-1   | ready
"""
SANITIZER = """\
INFO: Seed: 3815075981
till.c:12:49: runtime error: division by zero
    #0 0x54bf8b in count_coins /srv/shop/till.c:12:49
SUMMARY: UndefinedBehaviorSanitizer: undefined-behavior till.c:12:49
\\x00\\x00\\x01\\xb3\\x00
"""
VITEST = """\
 FAIL  till.test.ts > opens > with a key
AssertionError: expected 1 to be 2
 \u276f till.test.ts:10:13

 Test Files  1 failed (1)
      Tests  1 failed | 3 passed (4)
   Duration  301ms
"""
KUBECTL = """\
Name:             till-7d4b9c6f5-x2x8q
Namespace:        shop
Containers:
  till:
    State:          Waiting
      Reason:       CrashLoopBackOff
    Last State:     Terminated
      Exit Code:    137
    Ready:          False
    Restart Count:  19
"""
STYLE = """\
style.css
  46:3   ✖  Unexpected value of a margin   no-such-value
 116:3   ✖  Unexpected value of a border   no-such-value
 182:1   ⚠  Expected an empty line         empty-line-before
"""


@pytest.mark.parametrize(
    ("text", "said", "unsaid"),
    [
        (GTEST, ["TillTest.Counts (1 ms)", "1 FAILED TEST", "till_test.cc:21: Failure"], ["OK"]),
        (TERRAFORM, ["Plan: 1 to add, 0 to change, 0 to destroy."], ["subsequently"]),
        (RUST, ["panicked at src/till.rs:21:9:", "the drawer is stuck"], ["ABORTING"]),
        (COMPOSE, ["ConnectionError: no route", "exited with code 3"], ["ready"]),
        (SANITIZER, ["12:49: runtime error: division by zero", "SUMMARY"], ["x00"]),
        (
            VITEST,
            ["FAIL till.test.ts > opens > with a key", "expected 1 to be 2", "Tests 1 failed"],
            ["Duration"],
        ),
        (
            KUBECTL,
            ["CrashLoopBackOff", "Exit Code: 137", "Restart Count: 19"],
            ["Namespace"],
        ),
        (STYLE, ["46:3 ✖ Unexpected value of a margin", "182:1"], []),
    ],
    ids=["gtest", "terraform", "rust", "compose", "sanitizer", "vitest", "kubectl", "stylelint"],
)
def test_how_a_run_ended(text: str, said: list[str], unsaid: list[str]) -> None:
    lines = "\n".join(outcomes.key_lines(text))
    assert all(one in lines for one in said), lines
    assert not any(one in lines for one in unsaid), lines


@pytest.mark.parametrize("prefix", ["2024-05-14T10:12:01.123Z ", "#12 2.465 ", "till-1  | "])
def test_what_stands_before_a_line_hides_nothing(prefix: str) -> None:
    lines = outcomes.key_lines("".join(prefix + line for line in RUST.splitlines(keepends=True)))
    assert "the drawer is stuck" in "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "    def open(self):\n        raise ValueError('error: 3 failed')\n\n"
        "    def close(self):\n        return self.visit_12(node)\n" * 5,
        "export class Till {\n  open(key: string) {\n    throw new Error('failed');\n  }\n"
        "}\n[2207 more lines in file. Use offset=155 to go on.]\n",
    ],
)
def test_a_listing_of_code_has_no_outcome(text: str) -> None:
    assert outcomes.key_lines(text, "cat src/till.py") == []
    numbered = "".join(f"{i:6}\t{line}\n" for i, line in enumerate(text.splitlines(), 300))
    assert outcomes.key_lines(numbered, "path=src/till.ts, offset=300") == []


def test_the_last_line_of_an_unknown_tool_is_no_outcome_unless_it_gives_a_result() -> None:
    prose = "The till has a drawer.\nThe drawer has coins.\nThe key is lost in the house.\n"
    assert outcomes.key_lines(prose) == []
    assert outcomes.key_lines(prose + "coins: 12\n") == ["coins: 12"]


def test_of_a_table_the_head_and_some_rows_are_shown() -> None:
    rows = [f"till{i}   {i} coins   open   /srv/till{i}" for i in range(30)]
    shown = outcomes.key_lines("\n".join(["NAME    COINS   STATE   PATH", *rows]))
    assert shown[0] == "NAME COINS STATE PATH" and "till29" in shown[-1] and len(shown) == 6


def test_what_is_rare_comes_before_what_is_said_again_and_again() -> None:
    log = [f"error: drawer {i} is stuck" for i in range(500)]
    log[251] = "error: the house burns"
    lines = outcomes.key_lines("\n".join(log))
    assert lines[0] == "error: drawer 0 is stuck" and "error: the house burns" in lines


def test_all_lines_together_have_their_room() -> None:
    text = "".join(f"error: {chr(97 + i) * 150}\n" for i in range(20))
    lines = outcomes.key_lines(text)
    assert 3 <= len(lines) <= 8 and sum(map(len, lines)) <= 640


def test_a_long_path_does_not_hide_what_a_line_says() -> None:
    path = "/srv/" + "very-long-name/" * 12 + "shop/Till.java"
    (line,) = outcomes.key_lines(f"[ERROR] {path}:[38,9] cannot find symbol\n")
    assert line == "[ERROR] .../shop/Till.java:[38,9] cannot find symbol"


def test_trouble_is_what_went_wrong() -> None:
    text = "opening\nmake: *** [Makefile:3: till] Error 2\n3 passed\nKeyError: 'coin'\n0 errors\n"
    assert outcomes.trouble_lines(text) == [
        "make: *** [Makefile:3: till] Error 2",
        "KeyError: 'coin'",
    ]


def lines_of(text: str, most: int = 480, shown: str = "") -> dict[str, str]:
    found = (line.partition(": ") for line in identifier_lines.identifier_lines(text, most, shown))
    return {kind: listed for kind, _, listed in found}


def test_code_is_named_by_what_it_defines_and_uses_most() -> None:
    text = "def open_till(key):\n    set_lock(get_lock(key))\n\ndef close():\n    open_till(1)\n"
    found = lines_of(text)
    assert found["defines"] == "open_till, close" and found["names"] == "set_lock, get_lock"
    numbered = "".join(f"{i:6}\t{line}\n" for i, line in enumerate(text.splitlines(), 120))
    assert lines_of(numbered)["defines"] == "open_till:120, close:123"


def test_tests_that_failed_come_before_those_that_passed() -> None:
    passed = "".join(f"test till::passes_{i} ... ok\n" for i in range(40))
    found = lines_of(f"{passed}test till::counts ... FAILED\n{passed.replace('passes', 'opens')}")
    assert found["test"].startswith("till::counts, ")


def test_what_is_near_the_trouble_comes_first_and_what_is_others_last() -> None:
    far = "".join(f"read src/far{i:02}.py\n" for i in range(99))
    wrong = "ValueError: no\n  /usr/lib/python3.12/json/decoder.py:3\n  src/till.py:12\n"
    shown = lines_of(far + "-\n" * 400 + wrong + "-\n" * 900 + far.replace("far", "end"))["path"]
    assert shown.startswith("src/till.py:12, ") and "/usr/lib" not in shown


def test_every_kind_has_its_share_and_a_long_path_its_end() -> None:
    paths = "".join(f"/srv/{'shop/' * 30}till{i}.py\n" for i in range(30))
    found = lines_of(f"{paths}KeyError: 1\nv1.2.3\ncommit 1234567\n")
    assert found["exception"] == "KeyError" and found["version"] == "v1.2.3"
    assert found["path"].startswith(".../shop/shop/") and found["path"].count(",") >= 2
    assert found["path"].endswith(")") and "(+" in found["path"]


@pytest.mark.parametrize("most", [0, 40, 120, 480])
def test_names_have_their_room(most: int) -> None:
    text = "".join(f"src/a{i}.py v1.{i}.0 Till{i}Error set_lock_{i}\n" for i in range(200))
    listed = identifier_lines.identifier_lines(text, most)
    # Beside the names, each line has its kind, and the number of those that are left out.
    assert sum(len(line) for line in listed) <= most + 20 * len(listed)
