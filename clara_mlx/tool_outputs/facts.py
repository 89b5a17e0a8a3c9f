"""Collects the facts that a tool's output states, each with its place.

A rule is a function with the name of its tool, such as ``pytest(facts, lines)``: it reads the lines
of an output and adds what it finds to ``facts``. In the files of rules, the comment above a regular
expression is a line that it matches. A tuple of expressions is for `Facts.add_first`: each of their
groups has the name of the fact that it states.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from clara_mlx.tool_outputs.lines import Line

OPEN_VALUES = frozenset(
    {"value", "value_in", "old_value", "new_value", "expected", "actual", "left", "right"}
)
"""Names of facts whose text can be of any kind: a number, a path, a name or a sentence."""

OUTCOMES = frozenset(
    {
        # Tests.
        *("failed_test", "failed_test_in", "test_file", "passed", "failed", "errors", "duration"),
        *("expected", "actual", "left", "right", "coverage"),
        # Errors and what they are about.
        *("error_file", "error_line", "error_line_in", "error_column", "error_column_in"),
        *("error_message", "error_message_in", "error_message_of", "error_code", "error_code_in"),
        *("exception", "exception_of", "cause", "log_message", "expected_type", "actual_type"),
        *("undefined_name", "unused_name", "missing_module", "missing_file", "conflict_file"),
        # Checkers.
        *("warnings", "fixable", "checked_files", "error_files"),
        *("reformatted_file", "reformatted", "formatted"),
        # How a command, a request or a build ended.
        *("exit_status", "http_status", "http_reason", "failed_package", "target", "script"),
        *("built_target", "image", "image_id", "added_packages", "audited_packages"),
        "vulnerabilities",
        # Totals on a last line.
        *("matches", "matched_files", "changed_files", "insertions", "deletions"),
        *("files", "directories"),
    }
)
"""Names of facts that say how a run ended: what failed, why, and the counts of a last line.

A header, a setting, a passing test's file and a version are facts, too, but not about the outcome.
"""


Key = tuple[str, tuple[tuple[str, str], ...]]
"""A fact's name and what it is about."""


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a tool's output states.

    Attributes:
        name: What is stated, such as ``failed_test`` or ``error_line_in``.
        about: What it is stated of, sorted by role, such as ``(("path", "src/a.py"),)``; empty for
            the output as a whole.
        text: The stated value as it is printed; a few values are counted, such as ``matches``.
        start: First character, in the output, of the value or of the lines that it follows from.
        end: One past the last character.
    """

    name: str
    about: tuple[tuple[str, str], ...]
    text: str
    start: int
    end: int

    @property
    def key(self) -> Key:
        """The name and what it is about: two facts with one key are two answers to one question."""
        return self.name, self.about

    @property
    def tells_outcome(self) -> bool:
        """Whether the fact says how the run ended, as a failing test or a summary's count does."""
        return self.name in OUTCOMES


class Facts:
    """The facts found so far, each with the first place that states it.

    Attributes:
        implied: Values that are true but not printed, by the key of their fact.
        unread: Keys of facts that the output states in a form that no rule can read.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Key, str], Fact] = {}
        self.implied: dict[Key, set[str]] = {}
        self.unread: set[Key] = set()

    def in_order_found(self) -> tuple[Fact, ...]:
        """All facts, in the order in which the rule found them."""
        return tuple(self._found.values())

    def move(self, to: Callable[[int, int], tuple[int, int]]) -> None:
        """Give each fact the span that a function makes of its own."""
        for key, fact in self._found.items():
            start, end = to(fact.start, fact.end)
            self._found[key] = replace(fact, start=start, end=end)

    def add(
        self, name: str, line: Line, match: re.Match[str], group: str | int, /, **about: str
    ) -> None:
        """Add what a group matched in a line; nothing if the group took no part in the match."""
        text = match[group]
        if text is None:
            return
        of = tuple(about.items() if len(about) < 2 else sorted(about.items()))
        key = (name, of), text
        if key not in self._found:
            begin, end = match.span(group)
            self._found[key] = Fact(name, of, text, line.start + begin, line.start + end)

    def add_all(self, line: Line, match: re.Match[str], /, **groups: str) -> None:
        """Add several facts of one match, each given as ``fact="group"``."""
        for name, group in groups.items():
            self.add(name, line, match, group)

    def add_groups(self, line: Line, match: re.Match[str]) -> None:
        """Add what a match states whose groups have the names of their facts."""
        for name in match.re.groupindex:
            self.add(name, line, match, name)

    def add_first(self, line: Line, patterns: Iterable[re.Pattern[str]]) -> bool:
        """Add what the first pattern that matches a line states; returns whether one matches."""
        for pattern in patterns:
            if match := pattern.match(line.text):
                self.add_groups(line, match)
                return True
        return False

    def add_at(self, span: tuple[int, int], name: str, text: str, /, **about: str) -> None:
        """Add a fact that follows from the characters of ``span``, printed there or not."""
        of = tuple(sorted(about.items()))
        key = (name, of), text
        if key not in self._found:
            self._found[key] = Fact(name, of, text, *span)

    def add_message(self, line: Line, match: re.Match[str]) -> None:
        """Add the error in group ``message``, and what it names if its wording is well known."""
        self.add("error_message", line, match, "message")
        offset = line.start + match.start("message")
        for name, pattern in _NAMED_IN_MESSAGE:
            if named := pattern.search(match["message"] or ""):
                begin, end = named.span(1)
                self.add_at((offset + begin, offset + end), name, named[1])

    def imply(self, name: str, text: str, /, **about: str) -> None:
        """Note a value that is true although it is not printed."""
        self.implied.setdefault((name, tuple(sorted(about.items()))), set()).add(text)

    def mark_unread(self, name: str, /, **about: str) -> None:
        """Note that the output states a value for this fact that no rule can read."""
        self.unread.add((name, tuple(sorted(about.items()))))


# The well-known wordings of messages, each with the name of the fact that its group states.
_NAMED_IN_MESSAGE = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("missing_module", r"^No module named '([\w.]+)'"),
        ("missing_module", r'implementation or library stub for module named "([\w.]+)"'),
        ("missing_file", r"^\[Errno 2\] No such file or directory: '([^']+)'$"),
        ("missing_file", r"^(\S+): No such file or directory$"),
        ("undefined_name", r"^name '(\w+)' is not defined"),
        ("undefined_name", r'^Name "(\w+)" is not defined$'),
        ("undefined_name", r"^Undefined name `(\w+)`$"),
        ("undefined_name", r"undefined reference to [`'\u2018](\w+)['\u2019]$"),
        ("undefined_name", r"^undefined: (\w+)$"),
        ("undefined_name", r"^['\u2018](\w+)['\u2019] undeclared"),
        ("undefined_name", r"^cannot find (?:value|function|type|macro) `(\w+)` in this scope$"),
        ("unused_name", r"^`([\w.]+)` imported but unused$"),
        ("unused_name", r"^Local variable `(\w+)` is assigned to but never used$"),
        ("unused_name", r"^unused (?:variable|parameter):? [`'\u2018](\w+)['\u2019`]$"),
        ("unused_name", r"^declared and not used: (\w+)$"),
        ("actual_type", r'\(got "([^"]+)", expected "[^"]+"\)$'),
        ("expected_type", r'\(got "[^"]+", expected "([^"]+)"\)$'),
        ("actual_type", r'has incompatible type "([^"]+)"; expected "[^"]+"$'),
        ("expected_type", r'has incompatible type "[^"]+"; expected "([^"]+)"$'),
        ("actual_type", r'\(expression has type "([^"]+)", variable has type "[^"]+"\)$'),
        ("expected_type", r'\(expression has type "[^"]+", variable has type "([^"]+)"\)$'),
        ("callee", r'^Argument \S+ to "(\w+)" has incompatible type'),
    )
)
