"""Captures outputs of real commands, run on a sample project, this repository and packages.

They are for evaluation only. Any machine can make its own set; one is committed as
clara_mlx/evaluate/captured.jsonl. Commands whose programs a machine lacks are left out.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import cast

from capture_commands import Command, prepare_commands

from clara_mlx.evaluate.probes.from_facts import probes
from clara_mlx.evaluate.probes.probe import Probe
from clara_mlx.evaluate.sets import Captured, read_captured
from clara_mlx.store.atomic import write_text
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.secrets import mask

_REPOSITORY = Path(__file__).parents[2]
_SNAPSHOT = _REPOSITORY / "clara_mlx" / "evaluate" / "captured.jsonl"

LEAST_CHARACTERS = 20  # shorter outputs state nothing
MOST_CHARACTERS = 4_000  # longer outputs are left out, never cut
MOST_PROBES = 12  # of one output
_TIMEOUT_S = 120.0  # for a first cargo build on a busy machine


def capture(repository: Path, tools: Collection[str] | None = None) -> list[Captured]:
    """Run the commands and keep the outputs that the rules have questions about.

    Args:
        repository: This project's checkout; without its ``.git``, commands on it are left out.
        tools: Keep only outputs of these tools, and run only commands that could be theirs.

    Raises:
        CaptureError: The sample project can't be set up.
    """
    with tempfile.TemporaryDirectory(prefix="capture-") as folder:
        root = Path(folder).resolve()
        neutral = {
            f"{root}/project": "/project",
            f"{root}/clara-mlx": "/clara-mlx",
            str(root): "/capture",
            str(repository.resolve()): "/clara-mlx",
            sysconfig.get_path("purelib"): "/site-packages",
            sysconfig.get_path("stdlib"): "/usr/lib/python",
            sys.prefix: "/venv",
            sys.base_prefix: "/usr",
            str(Path.home()): "/home/user",
        }
        runner = _Runner(root, neutral, tools)
        for command in prepare_commands(root, repository.resolve()):
            runner.run(command)
        if tools is None or "http" in tools:
            _capture_http(runner, root / "project" / "settings")
    return runner.captured


class _Runner:
    """Runs commands and collects their outputs.

    Attributes:
        captured: The outputs so far.
    """

    def __init__(self, root: Path, neutral: dict[str, str], tools: Collection[str] | None) -> None:
        self._root = root
        self._neutral = neutral
        self._tools = tools
        self._environment = {
            # Nothing else of the user's environment, because outputs are published.
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "HOME": str(Path.home()),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "80",
            "NO_COLOR": "1",
            "PYTHONPATH": ".",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_PAGER": "cat",
            "RUFF_NO_CACHE": "true",
            "MYPY_CACHE_DIR": str(root / "mypy"),
            "CARGO_NET_OFFLINE": "true",
            "CARGO_TERM_COLOR": "never",
            "npm_config_cache": str(root / "npm"),
            "npm_config_offline": "true",
            "npm_config_userconfig": os.devnull,
            "npm_config_update_notifier": "false",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        self._seen: set[str] = set()
        self.captured: list[Captured] = []

    def run(self, command: Command) -> None:
        """Run one command, if its program and its folder exist, and keep its output."""
        words = shlex.split(command.line)
        where = self._root / command.where
        if words[0] == "python":
            words[0] = sys.executable
        tool = command.tool or classify("", command.line)
        unwanted = self._tools is not None and tool not in (*self._tools, None)
        if unwanted or not where.is_dir() or not shutil.which(words[0], path=self.path):
            return
        try:
            done = subprocess.run(
                words,
                cwd=where,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return
        self.keep(command.line, done.stdout.decode(errors="replace"))

    @property
    def path(self) -> str:
        """The folders in which programs are searched."""
        return self._environment["PATH"]

    def keep(self, command: str, printed: str) -> None:
        """Keep an output, with neutral folders and without secrets, if it answers a question."""
        rewritten = []
        text = printed.strip("\n")
        for own, neutral in sorted(self._neutral.items(), key=lambda pair: -len(pair[0])):
            if own in text and len(own) > 1:
                text = text.replace(own, neutral)
                rewritten.append(neutral)
        if command.startswith("ls ") and getpass.getuser() != "root":
            text = re.sub(rf"(?<= ){re.escape(getpass.getuser())}(?= )", "user", text)
        text, _ = mask(text)
        tool = classify(text, command)
        wanted = self._tools is None or tool in self._tools
        if not tool or not wanted or text in self._seen:
            return
        if not LEAST_CHARACTERS <= len(text) <= MOST_CHARACTERS or "\ufffd" in text:
            return
        self._seen.add(text)
        chosen = _choose_probes(tool, text)
        if chosen:
            self.captured.append(Captured(tool, text, chosen, command, tuple(rewritten)))


def _choose_probes(tool: str, text: str) -> tuple[Probe, ...]:
    """The probes of an output; `MOST_PROBES` of them, spread over the text, if it has more."""
    asked = probes(text, tool)
    step = max(len(asked) / MOST_PROBES, 1)
    return tuple(asked[int(number * step)] for number in range(min(len(asked), MOST_PROBES)))


def ask_again(captured: list[Captured]) -> list[Captured]:
    """The same outputs with probes by the rules and wordings of today."""
    return [replace(one, probes=_choose_probes(one.tool, one.text)) for one in captured]


class _Server(ThreadingHTTPServer):
    """Serves the files of a folder and keeps a log of the requests."""

    def __init__(self, folder: Path) -> None:
        self.log: list[str] = []
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        line = f"{self.address_string()} - - [{self.log_date_time_string()}] {format % args}"
        cast(_Server, self.server).log.append(line)


@contextmanager
def _running_server(folder: Path) -> Iterator[_Server]:
    with _Server(folder) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def _capture_http(runner: _Runner, served: Path) -> None:
    """Capture curl on a server of the standard library, and the log of that server."""
    with _running_server(served) as server:
        base = f"http://127.0.0.1:{server.server_address[1]}"
        for options in (
            "-i -s {}/app.json",
            "-i -s {}/reply.json",
            "-i -s {}/missing.json",
            "-I -s {}/app.toml",
            "-i -s -X POST {}/app.json",
            "-v -s -o out {}/app.env",
            "-v -s -o out {}/nothing",
            "-v -s -o out -X DELETE {}/app.yaml",
        ):
            runner.run(Command("http", "project", "curl " + options.format(base)))
        runner.run(Command("http", "project", "curl -sS http://127.0.0.1:9/stock"))
        runner.run(Command("http", "project", "curl -sS http://stock.invalid/"))
        runner.keep("python -m http.server", "\n".join(server.log))


def write(captured: list[Captured], file: Path) -> None:
    """Write captured outputs as JSON lines."""
    write_text(
        file, "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in captured)
    )


def main() -> None:
    """Capture outputs, or make the probes of captured outputs again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--to",
        type=Path,
        default=_SNAPSHOT,
        help="file to write, JSON lines with one output each (default: the committed set)",
    )
    parser.add_argument("--tools", nargs="*", help="capture only outputs of these tools")
    parser.add_argument(
        "--questions-only",
        action="store_true",
        help="keep the outputs in the file, and make only their probes again",
    )
    options = parser.parse_args()
    if options.questions_only:
        captured = ask_again(read_captured(options.to))
    else:
        captured = capture(_REPOSITORY, options.tools)
    write(captured, options.to)
    print(f"{options.to}: {len(captured)} outputs, {sum(len(c.probes) for c in captured)} probes")


if __name__ == "__main__":
    main()
