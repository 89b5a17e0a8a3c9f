"""The gateway beside a chat template that never ends for conversations of some length."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from counting_folders import ENDLESS, tokenizer_folder, with_template
from gateway import Upstream, says
from trajectories import trajectory


@pytest.mark.alone
def test_an_endless_template_stops_nothing(tmp_path: Path) -> None:
    """Chats are answered, the health check within a second, and a signal ends all of it."""
    (tmp_path / "whole").mkdir()
    folder = with_template(tokenizer_folder(tmp_path / "whole"), tmp_path / "endless", ENDLESS)
    messages = [message for added in trajectory(20) for message in added]
    messages.append({"role": "user", "content": "Go on."})
    upstream = Upstream(says("ok"))
    with upstream.running() as url:
        code = "from clara_mlx.cli.serve import commands; commands()"
        options = ["--endpoint", url, "--tokenizer", str(folder), "--window", "16384"]
        command = [sys.executable, "-c", code, "serve", "--port", "0", *options]
        command += ["--db", str(tmp_path / "agent.db")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if "serves at" in line)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            found = re.search(r"http://[^/]+", line)
            assert found
            with httpx2.Client(base_url=found[0], timeout=60, trust_env=False) as client:
                answers: list[int] = []

                def chat(number: int) -> None:
                    first = {"role": "user", "content": f"Task {number}."}
                    body = {"model": "x", "messages": [first, *messages[2:]]}
                    answers.append(client.post("/v1/chat/completions", json=body).status_code)

                threads = [threading.Thread(target=chat, args=(n,)) for n in range(3)]
                began = time.monotonic()
                for thread in threads:
                    thread.start()
                slowest = 0.0
                while any(thread.is_alive() for thread in threads):
                    asked = time.monotonic()
                    assert client.get("/health").status_code == 200
                    slowest = max(slowest, time.monotonic() - asked)
                    time.sleep(0.1)
                assert answers == [200, 200, 200] and slowest < 1
                assert time.monotonic() - began < 30
                chat(9)  # waits for nothing
                assert time.monotonic() - began < 40
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
        finally:
            process.kill()
    command = ["pgrep", "-P", str(process.pid)]
    assert not subprocess.run(command, capture_output=True, check=False).stdout
