"""Probes of real tool outputs, by rules: which tool printed a text, and which facts it states.

Only what a text states once, and in a form that the rules know, becomes a probe; in doubt there is
none. Questions are worded as the generator words them.
"""

from __future__ import annotations

from collections.abc import Callable

from clara_mlx.evaluate.probes.probe import Probe
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
from clara_mlx.tool_outputs.facts import Facts, Line, lines

__all__ = ["RULES", "classify", "probes"]

RULES: dict[str, Callable[[Facts, list[Line]], None]] = {
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
"""The rules of each tool: the generator's tools, and ``find`` and ``pip``, which it has not."""


def probes(text: str, tool: str | None = None) -> tuple[Probe, ...]:
    """The facts that ``text`` states without ambiguity, in their order.

    Args:
        text: a tool's output.
        tool: one of `RULES`; found by `classify` if not given. No probes for any other.
    """
    rule = RULES.get(tool or classify(text) or "")
    if rule is None:
        return ()
    facts = Facts()
    rule(facts, lines(text))
    return facts.probes()
