from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.tool_outputs.signs import first_trouble, signs

SAYS = {
    "verdict": [
        "3 failed, 12 passed in 0.40s",
        "Tests:       1 failed, 7 passed, 8 total",
        "Tests run: 12, Failures: 1, Errors: 0, Skipped: 2",
        "# fail 2",
        " 1 FAILED TEST",
        "[INFO] BUILD FAILURE",
        "BUILD SUCCESSFUL in 4s",
        "Plan: 2 to add, 0 to change, 1 to destroy.",
        "Apply complete! Resources: 2 added, 0 changed, 0 destroyed.",
        "shop-1 exited with code 137",
        "Process finished with exit code 3",
        "      Exit Code:    137",
        "    Restart Count:  19",
        "      Reason:       OOMKilled",
        "make: *** [Makefile:12: all] Error 2",
        "==77== ERROR SUMMARY: 3 errors from 3 contexts (suppressed: 0 from 0)",
        "==77==    definitely lost: 54 bytes in 2 blocks",
        "SUMMARY: AddressSanitizer: heap-use-after-free src/till.c:12 in close_till",
        "test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured",
        "error: aborting due to 2 previous errors",
        "✖ 7 problems (6 errors, 1 warning)",
        "Found 3 errors in 2 files (checked 9 source files)",
        "40 examples, 2 failures, 1 pending",
        "OK (12 tests, 31 assertions)",
        "67% tests passed, 1 tests failed out of 3",
        "till01 : ok=4 changed=1 unreachable=0 failed=1",
        "5 packets transmitted, 5 received, 0% packet loss, time 4005ms",
        "Your code has been rated at 7.50/10",
        "Automatic merge failed; fix conflicts and then commit the result.",
        " 2 files changed, 11 insertions(+), 3 deletions(-)",
        "0 vulnerabilities found",
        "FAILED (failures=1)",
        "OK",
    ],
    "failed": [
        "FAILED tests/test_till.py::test_open - assert 1 == 2",
        "FAIL src/till.test.ts",
        " FAIL  till.test.ts > opens > with a key",
        "FAIL: test_open (tests.TillTest.test_open)",
        "[  FAILED  ] TillTest.Opens (0 ms)",
        "--- FAIL: TestOpen (0.00s)",
        "not ok 3 - opens the till",
        "  ✕ opens with a key (3 ms)",
        "  ● Till \u203a opens with a key",
        " 3/12 Test  #3: till_open ...........***Failed    0.02 sec",
        "TillTest > opensWithAKey() FAILED",
        "  Failed Shop.Tests.TillTest.Opens [12 ms]",
        "rspec ./spec/till_spec.rb:12 # Till opens",
        "[ERROR] org.shop.TillTest.opens  Time elapsed: 0.02 s  <<< FAILURE!",
        "test till::opens ... FAILED",
    ],
    "error": [
        "src/till.rs:3:5: error[E0382]: borrow of moved value",
        "thread 'main' panicked at src/main.rs:7:9:",
        "till.c:12:5: runtime error: division by zero",
        "KeyError: 'coin'",
        "org.shop.NoCoinException: empty",
        "Caused by: java.io.IOException: closed",
        "web-1  | FATAL:  role \"till\" does not exist",
        "#12 2.41 npm ERR! code ERESOLVE",
        "Till.cs(10,5): error CS1002: ; expected",
        "[ERROR] Failed to execute goal",
        "ORA-00942: table or view does not exist",
        "SQLSTATE[42S02]: no such table",
        "E: Unable to locate package till",
        "BUG: KASAN: slab-out-of-bounds in till_open+0x10/0x20",
        "Segmentation fault (core dumped)",
        "bash: till: command not found",
        "./till: Assertion `coins > 0' failed.",
        "  6:18  error  Missing semicolon  semi",
        "< HTTP/1.1 503 Service Unavailable",
        "CONFLICT (content): Merge conflict in src/till.ts",
    ],
    "trouble": [
        "could not open the till",
        "sshd[12]: Failed password for coin from 10.0.0.1",
        "connection refused by till:5432",
        "undefined label: till",
    ],
    "warning": ["till.c:3:1: warning: unused variable 'coin'", "DeprecationWarning: use Till2"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "weight"), [(line, weight) for weight, lines in SAYS.items() for line in lines]
)
def test_what_a_line_says_by_itself_and_anywhere_in_a_text(line: str, weight: str) -> None:
    assert [sign.weight for sign in signs(line)] == [weight]
    text = f"opening the drawer\n{line}\nclosing the drawer"
    (sign,) = signs(text)
    assert text[sign.line :].startswith(line)
    assert sign.line <= sign.start < sign.line + len(line)


@pytest.mark.parametrize(
    "line",
    [
        "The drawer opens with a key.",
        "import till from './till'",
        "drwxr-xr-x  2 coin coin 4096 Jan  4 09:24 leaks",
        "12:30:01 INFO opened 3 drawers in 14 ms",
        "version 1.2.3 of the till, ratio 16:9",
        "00000000: 7f45 4c46 0201 0100 0000 0000 0000 0000  .ELF............",
        "--- PASS: TestOpen (0.10s)",
        "[2207 more lines in file. Use offset=255 to go on.]",
        "  ✓ opens with a key (3 ms)",
    ],
)
def test_what_says_nothing(line: str) -> None:
    assert signs(line) == ()


def test_lines_that_differ_in_digits_are_alike() -> None:
    text = "".join(f"error: drawer {i} is stuck\n" for i in range(5)) + "error: no key\n"
    found = signs(text)
    assert len(found) == 6 and len({sign.like for sign in found}) == 2


def test_where_trouble_begins() -> None:
    text = "opening\nwarning: dust\nerror: stuck\nerror: lost\n"
    assert first_trouble(text) == text.index("error: stuck")
    assert first_trouble("warning: dust\n") == 0
    assert first_trouble("all is well\n") is None


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.one_of(st.text(), st.sampled_from([one for lines in SAYS.values() for one in lines]))
    )
)
def test_signs_stand_in_lines(lines: list[str]) -> None:
    text = "\n".join(lines)
    for sign in signs(text):
        assert sign.line == 0 or text[sign.line - 1] == "\n"
        assert "\n" not in text[sign.line : sign.start]
