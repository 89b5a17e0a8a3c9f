"""`clara-mlx serve` as a process: it starts, serves, and ends with everything kept."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from foreign_bases import convert_fresh, make_base
from gateway import Upstream, says, wait_until
from served import serving
from sizes import sized
from typer.testing import CliRunner

from clara_mlx.cli.serve import commands
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory


@pytest.mark.alone
def test_it_serves_and_ends_gracefully(tmp_path: Path) -> None:
    db = tmp_path / "agent.db"
    upstream = Upstream(says("hello"))
    token = "a-token-of-some-length"
    options = ("--name", "qwen", "--window", "8000", "--fallback-endpoint", "http://127.0.0.1:9")
    with (
        upstream.running() as url,
        serving(
            db,
            *("--endpoint", url, "--fallback-model", "grok", "--reasoner-cache", "whole", *options),
            CLARA_MLX_TOKEN=token,
            CLARA_MLX_REASONER_KEY="the-key",
        ) as (base, process),
    ):
        client = httpx2.Client(
            headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30
        )
        assert client.get(f"{base}/models").json()["data"][0]["max_model_len"] == 8000
        body = {"messages": [{"role": "user", "content": "hi"}]}
        answer = client.post(f"{base}/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "hello"
        assert upstream.headers[0]["authorization"] == "Bearer the-key"
        client.post(f"{base}/memory/remember", json={"text": "kept"}).raise_for_status()
        status = client.get(f"{base}/memory/status").json()["gateway"]
        assert status["reasoner_cache"] == {"kind": "whole", "known_by": "setting"}
        assert httpx2.get(f"{base}/memory/status", trust_env=False).status_code == 401
        client.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        rest = process.stderr.read() if process.stderr else ""
        assert token not in rest and "the-key" not in rest and "Traceback" not in rest
        assert "nothing listens" not in rest
    with Memory.open(db) as memory:
        assert memory.recall("kept")[0].text == "kept" and not memory.verify().problems
    assert not Path(f"{db}-wal").exists()  # the file was closed


@pytest.mark.alone
def test_each_namespace_has_a_token_and_a_file(tmp_path: Path) -> None:
    tokens = {"red": "the-token-of-team-red", "blue": "the-token-of-team-blue"}
    (tmp_path / "blue.token").write_text(tokens["blue"] + "\n")
    options = ("--token", "red=$RED_TOKEN", "--token", f"blue=@{tmp_path}/blue.token")
    options += ("--endpoint", "http://user:secret@127.0.0.1:9/v1")
    db = tmp_path / "agent.db"
    with serving(db, *options, RED_TOKEN=tokens["red"], CLARA_MLX_TOKEN="") as (base, process):
        for name, token in tokens.items():
            with httpx2.Client(
                headers={"authorization": f"Bearer {token}"}, trust_env=False, timeout=30
            ) as client:
                body = {"text": f"kept by {name}"}
                client.post(f"{base}/memory/remember", json=body).raise_for_status()
        assert httpx2.get(f"{base}/memory/status", trust_env=False).status_code == 401
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        said = process.stderr.read() if process.stderr else ""
        assert "nothing listens at 127.0.0.1:9 yet" in said and "secret" not in said
    for name in tokens:
        with Memory.open(tmp_path / f"agent.{name}.db") as memory:
            (hit,) = memory.recall("kept")
            assert hit.text == f"kept by {name}"
    assert not list(tmp_path.glob("*-wal"))  # the files were closed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "CLARA_MLX_TOKEN"),
        (["--endpoint", "localhost:8080"], "not the URL"),
        (["--endpoint", "http://127.0.0.1:99999/v1"], "not the URL"),
        (["--endpoint", "http://[::1/v1"], "not the URL"),
        (["--fallback-endpoint", "https://api.x.ai/v1"], "--fallback-model"),
        (["--tools", "maybe"], "'always'"),
        (["--reasoner-cache", "maybe"], "'trimmable'"),
        (["--window", "2000", "--reserve", "2000"], "leaves no room"),
        (["--tokenizer", "/nowhere"], "/nowhere"),
        (["--tokenizer", "Qwen3-mistyped"], "there is no such folder"),
        (["--tokenizer", "/nowhere", "--template-args", "[]"], "not a JSON object"),
        (["--host", "203.0.113.7"], "can't listen on"),
        (["--token", "red"], "NAME=TOKEN"),
        (["--token", "=red"], "NAME=TOKEN"),
        (["--token", "red=tiny"], "too short"),
        (["--token", "red=$NOT_SET_ANYWHERE"], "too short"),
        (["--token", "red=@/nowhere"], "/nowhere"),
        (["--token", "Red=0123456789abcdef"], "can't name a namespace"),
    ],
)
def test_mistakes_are_reported_before_anything_runs(
    tmp_path: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLARA_MLX_TOKEN", raising=False)
    if "203.0.113.7" in options:
        monkeypatch.setenv("CLARA_MLX_TOKEN", "a-token-of-some-length")
    db = tmp_path / "agent.db"
    result = CliRunner().invoke(commands, ["serve", "--db", str(db), *options])
    assert result.exit_code
    assert message in result.output or (
        isinstance(result.exception, ClaraError) and message in str(result.exception)
    )
    assert not db.exists()


@pytest.mark.parametrize("kept", [0, 3])
def test_mcp_on_a_damaged_file_says_nothing_to_its_client(tmp_path: Path, kept: int) -> None:
    db = tmp_path / "agent.db"
    with Memory.open(db) as memory:
        memory.remember("kept")
    pages = db.read_bytes()
    db.write_bytes(pages[: kept * 4096].ljust(len(pages), b"\xa5"))
    code = "from clara_mlx.cli.app import main; main()"
    command = [sys.executable, "-c", code, "mcp", "--db", str(db)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    # An MCP client takes every line of standard output for a message.
    assert done.returncode == 1 and done.stdout == ""
    assert str(db) in done.stderr and "Traceback" not in done.stderr


@pytest.mark.alone
@pytest.mark.parametrize("family", sized(["llama3"], ["llama3", "smollm2"]))
def test_a_model_on_another_base_is_the_memory_of_a_gateway(tmp_path: Path, family: str) -> None:
    """ChatML and Llama prompts: what was remembered is compressed, found and answered from."""
    model = convert_fresh(make_base(family, tmp_path / "base"), tmp_path / "run")
    upstream = Upstream(says("hello"))
    options = ("--model", str(model.path), "--window", "8000")
    with (
        upstream.running() as url,
        serving(tmp_path / "agent.db", "--endpoint", url, *options) as (base, _),
        httpx2.Client(base_url=base, trust_env=False, timeout=60) as client,
    ):

        def post(path: str, **body: object) -> Any:
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        handle = post("/memory/remember", text="worker 3 failed: exit status 1")["handle"]
        wait_until(lambda: client.get("/memory/status").json()["memory"]["compressed"])
        (hit, *_) = post("/memory/recall", query="Which worker failed?")["hits"]
        assert hit["handle"] == handle and hit["cosine"] is not None
        answer = post("/memory/ask", question="Which worker failed?", max_tokens=4)
        assert answer["evidence"][0]["handle"] == handle and answer["tokens_read"] == 5
        asked = [{"role": "user", "content": "hi"}]
        said = post("/chat/completions", messages=asked)["choices"][0]["message"]["content"]
        assert said == "hello"
