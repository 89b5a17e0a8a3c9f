"""Every regular expression of the source has been checked, and what checks them finds slow ones.

Nothing here needs node or a network: tests/scripts/patterns.json has recheck's verdicts.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pattern_check import collect, growth, javascript
from pattern_check.collect import ROOT, Pattern, Unreadable


def run(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run scripts/patterns.py, as a process because it imports the whole source."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "patterns.py"), *arguments],
        env={"PATH": path, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
    )


def test_every_pattern_of_the_source_was_checked_and_is_linear() -> None:
    done = run("--recorded")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[0]) > 300


def test_without_node_the_command_says_so_and_relies_on_the_file() -> None:
    done = run("clara_mlx/context/freezer.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "node and npm are not installed: relying on tests/scripts/patterns.json" in done.stdout


def test_a_new_pattern_is_a_finding_until_it_was_checked(tmp_path: Path) -> None:
    file = tmp_path / "new.py"
    file.write_text("import re\nNEW = re.compile('never seen[ab]+')\n")
    done = run("--recorded", str(file))
    assert done.returncode == 1
    assert "new.py:2" in done.stdout
    assert "scripts/patterns.py --write" in done.stdout


def patterns_in(tmp_path: Path, code: str) -> set[tuple[str, str]]:
    file = tmp_path / "code.py"
    file.write_text(f"import re\n{code}")
    return {(one.text, one.use) for one in collect.collect([file])}


@pytest.mark.parametrize(
    "code, found",
    [
        ("A = re.compile('a')\ndef f(t): return A.match(t)", {("a", "match")}),
        (
            "A = re.compile('a')\ndef f(t): return A.search(t), A.sub('', t)",
            {("a", "search"), ("a", "scan")},
        ),
        ("def f(t): return re.findall(r'a' 'b', t)", {("ab", "scan")}),
        ("B = 'x|y'\ndef f(t): return re.search(f'(?:{B})z', t)", {("(?:x|y)z", "search")}),
        ("def f(t, u): return re.search('a' + re.escape(u), t)", {("aName", "search")}),
        (
            "def f(t, u): return re.search('|'.join(map(re.escape, u)), t)",
            {("Name|emaN", "search")},
        ),
        ("A = {k: re.compile(k) for k in 'ab'}", {("a", "search"), ("b", "search")}),
        (
            "A = tuple((re.compile(p), 1) for p in ('a',))\n"
            "def f(t): return [p.fullmatch(t) for p, _ in A]",
            {("a", "fullmatch")},
        ),
        (
            "A = (re.compile('a'),)\n"
            "def first(t, given: tuple[re.Pattern[str], ...]):\n"
            "    return [one.match(t) for one in given]\n"
            "def f(t): return first(t, A)",
            {("a", "match")},
        ),
        ("A = [re.compile('a').finditer]", {("a", "scan")}),
        (
            "A = re.compile('a')\nB = re.compile('b' + A.pattern)\ndef f(t): return B.match(t)",
            {("a", "search"), ("ba", "match")},
        ),
    ],
)
def test_patterns_are_found_with_their_use(
    tmp_path: Path, code: str, found: set[tuple[str, str]]
) -> None:
    assert patterns_in(tmp_path, code) == found


@pytest.mark.parametrize(
    "code",
    [
        "def f(t, p): return re.search(p, t)",
        "def f(t, p): return re.compile('a' + p)",
        "print(re.compile('a'))",
        "from re import compile",
        "import regex",
    ],
)
def test_a_pattern_that_cannot_be_read_is_an_error(tmp_path: Path, code: str) -> None:
    with pytest.raises(Unreadable, match=r"code.py:\d"):
        patterns_in(tmp_path, code)


@pytest.mark.alone
@pytest.mark.parametrize(
    "text, use",
    [
        (r"\d+\.\d+", "search"),
        (r"(?:#.*\n|\s*\n)*x", "match"),
        (r"(?:a|a)*b", "match"),
        (r"\s*(\S.*?)\s*$", "match"),
        (r"a(?:.*b)?", "scan"),
        (r"^(?:FAILED|ERROR) .*x.*y", "search"),
        (r"eyJ[\w-]{20,4000}\.x", "scan"),
    ],
)
def test_slow_patterns_are_measured_to_be_slow(text: str, use: str) -> None:
    assert growth.slowest(Pattern(text, 0, use)).is_finding


@pytest.mark.alone
@pytest.mark.parametrize(
    "text, use",
    [
        (r"(?<!\d)\d+\.\d+", "search"),
        (r"(?:#.*\n|[^\S\n]*+\n)*+x", "match"),
        (r"a(?:[^a]*b)?", "scan"),
        (r"\w+|[^\w\s]", "scan"),
    ],
)
def test_linear_patterns_are_measured_to_be_linear(text: str, use: str) -> None:
    assert not growth.slowest(Pattern(text, 0, use)).is_finding


@pytest.mark.parametrize(
    "text, flags, use, written",
    [
        ("a+", 0, "search", "(?:(?:[a])+)"),
        ("a", 0, "fullmatch", "^(?:[a])$"),
        ("(?P<x>a)b{2,900}?", 0, "match", "^(?:(?:[a])(?:[b]){2,}?)"),
        (r"(?<![a-z])b(?!\d)", re.ASCII, "search", None),
        ("a++", 0, "search", r"(?:(?:(?=(?<a1>(?:[a])+))\k<a1>))"),
        ("(?P<q>a)(?P=q)", 0, "search", r"(?:(?<g1>[a])\k<g1>)"),
        ("(?i:a)b", 0, "search", "(?:(?:[Aa])[b])"),
        ("^a$", re.MULTILINE, "search", r"(?:(?:^|[\u000a])[a](?:$|[\u000a]))"),
        (r"\Aa\Z", re.MULTILINE, "search", "(?:^[a]$)"),
        ("[\U0001f000-\U0001faff]+", 0, "search", r"(?:(?:[\ue001-\ue002])+)"),
    ],
)
def test_python_becomes_javascript(text: str, flags: int, use: str, written: str | None) -> None:
    form = javascript.exact_form(text, flags, use)
    if written is None:
        # What must not be there is written as a character of the text, or as its begin or end.
        assert form.startswith("(?:(?:^|[") and form.endswith("]))")
        assert "(?<" not in form and "(?!" not in form
    else:
        assert form == written


def test_where_all_attempts_fail_each_way_is_looked_at_alone() -> None:
    forms = javascript.failing_forms(r"a(?:b|c++)(?=d)", 0, "match")
    assert forms == [
        "^(?:[a][b][d])\ue000",
        "^(?:[a](?:(?:[c])+)[d])\ue000",
    ]
