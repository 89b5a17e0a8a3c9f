"""Agents that people use: how each is installed, connected and given a task.

Used by agents.py. It measures nothing by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

# The name under which they know the model.
_MODEL = "reasoner"

# None of them is asked for a key; most do not start without one.
_KEY = "none"

_CONNECT = (sys.executable, "-m", "clara_mlx.cli", "connect")

#: The call of a shell that runs a command: the tool's name, its arguments.
Shell = Callable[[str], tuple[str, dict[str, Any]]]

#: The variables of an agent that `clara-mlx connect` does not know, given its home and the
#: gateway's URL without a version.
Variables = Callable[[Path, str], Mapping[str, str]]


@dataclass(frozen=True)
class Program:
    """One agent.

    Attributes:
        name: Its name here.
        registry: Where it comes from.
        package: Its name there.
        executable: The program.
        api: The path that it asks.
        shell: Makes the call of its shell; None if it has none.
        start: Its arguments before a task.
        resume: Its arguments before what it is told when it continues its last session; empty if it
            can't.
        window: Tokens that the gateway is told the reasoner has.
        unattended: The variables of its environment that let it run without anybody.
        by_hand: For an agent that is not connected by `clara-mlx connect`.
        plan: For an agent that has no shell of its own, writes a file of what its user does: the
            commands of the steps. Its arguments then end with that file in place of the task.
    """

    name: str
    registry: Literal["npm", "pypi"]
    package: str
    executable: str
    api: str
    shell: Shell | None
    start: Sequence[str]
    resume: Sequence[str] = ()
    window: int = 32_768
    unattended: Mapping[str, str] = field(default_factory=dict)
    by_hand: Variables | None = None
    plan: Callable[[Path, Sequence[str]], None] | None = None

    def path(self, folder: Path) -> Path:
        """The program's file in the folder where it is installed."""
        if self.registry == "npm":
            return folder / self.name / "node_modules" / ".bin" / self.executable
        return folder / self.name / "bin" / self.executable

    def install(self, folder: Path) -> None:
        """Install it into a folder of its own, unless it is there.

        Raises:
            subprocess.CalledProcessError: It can't be installed.
        """
        if self.path(folder).exists():
            return
        home = folder / self.name
        if self.registry == "npm":
            home.mkdir(parents=True, exist_ok=True)
            quiet = ("--no-audit", "--no-fund", "--loglevel=error")
            _run("npm", "install", "--prefix", str(home), *quiet, self.package)
            # Newer npms leave this to the one who installs; it fetches or links the binary.
            script = home / "node_modules" / self.package / "postinstall.mjs"
            if script.exists():
                _run("node", str(script), folder=script.parent)
        else:
            _run(sys.executable, "-m", "venv", str(home))
            _run(str(home / "bin" / "pip"), "install", "--quiet", self.package)

    def version(self, folder: Path) -> str:
        """The version that is installed."""
        if self.registry == "npm":
            file = folder / self.name / "node_modules" / self.package / "package.json"
            return str(json.loads(file.read_text(encoding="utf-8"))["version"])
        shown = _run(str(folder / self.name / "bin" / "pip"), "show", self.package)
        return next(line for line in shown.splitlines() if line.startswith("Version:"))[9:]


def _run(
    *command: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    done = subprocess.run(
        command, check=True, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def connect(program: Program, home: Path, url: str) -> dict[str, str]:
    """Connect an agent to a gateway; gives the variables of its environment.

    Args:
        program: The agent.
        home: The folder of its settings, which knows nothing of the user's own.
        url: The gateway's, without a version.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    variables = {**kept, "HOME": str(home), **program.unattended}
    if program.by_hand:
        return {**variables, **program.by_hand(home, url)}
    _run(*_CONNECT, program.name, "--endpoint", url, variables=variables)
    return variables


def disconnect(program: Program, variables: Mapping[str, str]) -> None:
    """Put an agent's settings back as they were."""
    if not program.by_hand:
        _run(*_CONNECT, program.name, "--remove", variables=variables)


def _mini(home: Path, url: str) -> Mapping[str, str]:
    return {
        "OPENAI_API_BASE": f"{url}/v1",
        "OPENAI_API_KEY": _KEY,
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_GLOBAL_CONFIG_DIR": str(home / "mini"),
        "MSWEA_SILENT_STARTUP": "1",
    }


def _plan_of_aider(file: Path, commands: Sequence[str]) -> None:
    lines = (
        f"/run {command}\n/ask That was step {n}. Go on.\n" for n, command in enumerate(commands, 1)
    )
    file.write_text("".join(lines), encoding="utf-8")


#: The agents, by name.
PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "claude",
            "npm",
            "@anthropic-ai/claude-code",
            "claude",
            "/v1/messages",
            lambda command: ("Bash", {"command": command, "description": "Run the step"}),
            ("-p", "--dangerously-skip-permissions", "--output-format", "json"),
            ("-p", "--continue", "--dangerously-skip-permissions", "--output-format", "json"),
            window=49_152,
            unattended={
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "DISABLE_AUTOUPDATER": "1",
                "IS_SANDBOX": "1",  # else it runs nothing unasked for an administrator
            },
        ),
        Program(
            "codex",
            "npm",
            "@openai/codex",
            "codex",
            "/v1/responses",
            lambda command: ("exec_command", {"cmd": command}),
            ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
            (
                *("exec", "resume", "--last", "--skip-git-repo-check"),
                "--dangerously-bypass-approvals-and-sandbox",
            ),
        ),
        Program(
            "opencode",
            "npm",
            "opencode-ai",
            "opencode",
            "/v1/chat/completions",
            lambda command: ("bash", {"command": command, "description": "Run the step"}),
            ("run",),
            ("run", "--continue"),
        ),
        Program(
            "qwen-code",
            "npm",
            "@qwen-code/qwen-code",
            "qwen",
            "/v1/chat/completions",
            lambda command: ("run_shell_command", {"command": command, "is_background": False}),
            ("--yolo", "-p"),
            ("--yolo", "--continue", "-p"),
            window=49_152,
        ),
        Program(
            "mini-swe-agent",
            "pypi",
            "mini-swe-agent",
            "mini",
            "/v1/chat/completions",
            lambda command: ("bash", {"command": command}),
            ("--yolo", "--exit-immediately", "--model", f"openai/{_MODEL}", "--task"),
            by_hand=_mini,
        ),
        Program(
            "aider",
            "pypi",
            "aider-chat",
            "aider",
            "/v1/chat/completions",
            None,
            (
                *("--yes-always", "--no-git", "--no-gitignore"),
                *("--no-show-model-warnings", "--no-check-update", "--analytics-disable"),
                *("--no-stream", "--no-pretty", "--max-chat-history-tokens", "1000000", "--load"),
            ),
            plan=_plan_of_aider,
        ),
    )
}
