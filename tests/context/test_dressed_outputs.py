"""A block says the same of an output, whatever the output wears."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from clara_mlx.context.messages import Piece
from clara_mlx.context.wording import describe

OUTPUTS = {
    "pytest -q": (
        "..F.                                                            [100%]\n"
        "=================================== FAILURES ===================================\n"
        "_________________________________ test_rate[USD] _________________________________\n"
        ">       assert rate('USD') == 1.09\n"
        "E       assert 1.08 == 1.09\n\n"
        "tests/test_rates.py:14: AssertionError\n"
        "FAILED tests/test_rates.py::test_rate[USD] - assert 1.08 == 1.09\n"
        "1 failed, 3 passed in 0.31s\n"
    ),
    "go test ./...": (
        "--- FAIL: TestClose (0.00s)\n"
        "    account_test.go:12: want 3, got 4\n"
        "FAIL\nFAIL\texample.org/account\t0.012s\n"
    ),
    "./serve.sh": (
        "listening on 127.0.0.1:8080\n"
        "Traceback (most recent call last):\n"
        '  File "app/run.py", line 3, in <module>\n'
        "    main()\n"
        "KeyError: 'DSN'\n"
    ),
}


def _each_line(prefix: str) -> Callable[[str], str]:
    return lambda text: re.sub("(?m)^", prefix, text.removesuffix("\n")) + "\n"


def _records(text: str) -> str:
    lines = text.removesuffix("\n").split("\n")
    return "".join(json.dumps({"log": line + "\n", "stream": "out"}) + "\n" for line in lines)


CLOTHES: dict[str, Callable[[str], str]] = {
    "colours": lambda text: re.sub(r"(\w+)", "\x1b[1m\x1b[31m\\1\x1b[0m", text),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "progress": lambda text: "Working 1% \rWorking 99% \r" * 30 + "\n" + text,
    "JSON": lambda text: json.dumps({"returncode": 0, "output": text}),
    "content": lambda text: json.dumps([{"type": "text", "text": text}]),
    "JSON in JSON": lambda text: json.dumps({"content": json.dumps({"output": text})}),
    "a dictionary": lambda text: str({"output": text}),
    "a container": _each_line("app-1  | "),
    "times": _each_line("2031-05-06T04:58:15.2481291Z "),
    "a step": _each_line("#12 2.465 "),
    "records": _records,
    "NULs": "\0".join,
}


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize("command", OUTPUTS)
def test_a_block_says_the_same(command: str, clothes: str) -> None:
    def lines(text: str) -> list[str]:
        piece = Piece("tool", "content", text, "bash", json.dumps({"command": command}))
        return describe(piece, "m-0123456789").split("\n")[2:]

    plain, dressed = lines(OUTPUTS[command]), lines(CLOTHES[clothes](OUTPUTS[command]))
    assert [line for line in plain if line not in dressed] == []
    assert not any("\x1b" in line or "\\n" in line for line in dressed)
