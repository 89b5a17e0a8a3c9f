"""The facts that a tool's output states, found by rules: regular expressions for each tool."""

from __future__ import annotations

from collections.abc import Callable

from clara_mlx.tool_outputs import (
    compilers,
    configs,
    git,
    listings,
    python_tools,
    services,
    test_runners,
)
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.facts import Fact, Facts
from clara_mlx.tool_outputs.lines import Lines, split_lines
from clara_mlx.tool_outputs.undress import undress

RULES: dict[str, Callable[[Facts, Lines], None]] = {
    "pytest": test_runners.pytest,
    "unittest": test_runners.unittest,
    "traceback": python_tools.traceback,
    "ruff": python_tools.ruff,
    "mypy": python_tools.mypy,
    "cargo": compilers.cargo,
    "go": compilers.go,
    "gcc": compilers.gcc,
    "npm": services.npm,
    "http": services.http,
    "build": services.build,
    "ripgrep": listings.ripgrep,
    "ls": listings.ls,
    "find": listings.find,
    "tree": listings.tree,
    "git-status": git.status,
    "git-log": git.log,
    "git-diff": git.diff,
    "toml": configs.toml,
    "yaml": configs.yaml,
    "json": configs.json,
    "env": configs.env,
    "pip": configs.pip,
}
"""The rule of each tool: a function that adds the facts of an output's lines."""


def facts(text: str, tool: str | None = None) -> tuple[Fact, ...]:
    """The facts that ``text`` states, each once, in the order of the text.

    Args:
        text: A tool's output.
        tool: One of `RULES`, or None to let `classify` find it. Other tools give no facts.
    """
    found = collect(text, tool).in_order_found()
    return tuple(sorted(found, key=lambda fact: (fact.start, fact.end)))


def collect(text: str, tool: str | None = None) -> Facts:
    """As `facts`, with what else the rules know: values not printed, and facts not read."""
    found = Facts()
    rule = RULES.get(tool or classify(text) or "")
    if rule is not None:
        view = undress(text).bare
        rule(found, split_lines(view.text))
        if view.text != text:
            found.move(view.original_span)
    return found
