"""`clara-mlx ui` as a process: it shows a memory to who has its address, and ends when asked to."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clara_mlx.memory import Memory


@pytest.mark.alone
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_shows_a_memory_and_opens_a_browser(tmp_path: Path, how: signal.Signals) -> None:
    db, seen = tmp_path / "agent.db", tmp_path / "opened"
    with Memory.open(db) as memory:
        memory.remember("a treasure", source="tool")
    program = tmp_path / "browser"
    program.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    program.chmod(0o700)
    code = "from clara_mlx.cli.app import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "ui", "--db", str(db)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "BROWSER": f"{program} %s", "PYTHONPATH": ":".join(sys.path)},
    ) as process:
        assert process.stdout and process.stderr
        address = process.stdout.readline().strip()
        base, _, token = address.partition("/?token=")
        assert base.startswith("http://127.0.0.1:") and len(token) >= 32
        with httpx2.Client(base_url=base, trust_env=False, timeout=30) as client:
            assert client.get("/").status_code == 401
            assert client.get("/", params={"token": token}).status_code == 303
            page = client.get("/").text
            assert "a treasure" in page and "read only" in page
            # A memory that another process adds is on the page at the next look.
            with Memory.open(db) as memory:
                memory.remember("another treasure")
            assert "another treasure" in client.get("/").text
            assert client.get("/v1/memory/status").status_code in (401, 404)
        process.send_signal(how)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
    assert seen.read_text().strip() == address
    assert not Path(f"{db}-wal").exists()  # the file was closed


def test_there_must_be_a_memory(cli: Any, tmp_path: Path) -> None:
    result = cli("ui", "--db", tmp_path / "nowhere.db", "--no-open", ok=False)
    assert result.exit_code == 1 and "there is no memory file" in result.output
    assert not (tmp_path / "nowhere.db").exists()
