"""The doctor: what is well, what is wrong, and that it leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, Reply, Upstream, fails, gateway, says
from starlette.responses import JSONResponse, Response

from clara_mlx.agents import gateway_checks
from clara_mlx.agents.agent import Gateway as Connected
from clara_mlx.agents.agent import Machine
from clara_mlx.agents.connecting import connect
from clara_mlx.agents.doctor import examine
from clara_mlx.agents.finding import Finding
from clara_mlx.agents.gateway_checks import Patient, check_gateway
from clara_mlx.agents.known import agent_named
from clara_mlx.agents.machine_checks import check_agents, check_memory_file
from clara_mlx.agents.reasoner_checks import check_reasoner
from clara_mlx.context import Budget
from clara_mlx.memory import Memory


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_checks, "_FORGET_PAUSE", 0.05)


async def agent(body: dict[str, Any]) -> Response:
    """A reasoner that calls the tool it is given once, and else answers."""
    called = any(one["role"] == "tool" for one in body["messages"])
    if body.get("tools") and not called:
        return await says("", ("read_word", {"day": "Monday"}))(body)
    return await says("ready")(body)


def strict(body: dict[str, Any]) -> bool:
    """Whether a template would refuse what is sent: an instruction amid the conversation."""
    return any(one["role"] == "system" for one in body["messages"][1:])


async def refuses_late(body: dict[str, Any]) -> Response:
    if strict(body):
        return JSONResponse({"error": "only the first message may be a system message"}, 400)
    return await agent(body)


def by_level(findings: list[Finding]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"ok": [], "note": [], "wrong": []}
    for one in findings:
        found[one.level].append(one.check)
        assert one.found
        assert one.remedy or one.level != "wrong", one
    return found


def checked(
    reply: Reply, path: Path, *, full: bool = False, **settings: Any
) -> Iterator[tuple[Gateway, list[Finding]]]:
    settings.setdefault("budget", Budget(8192, 1024))
    with Upstream(reply).running() as url, gateway(path, url, **settings) as served:
        token = settings.get("token")
        yield served, list(check_gateway(Patient(served.url, token, full)))


def test_all_is_well_and_nothing_stays(tmp_path: Path) -> None:
    for served, findings in checked(agent, tmp_path, full=True):
        found = by_level(findings)
        assert not found["wrong"] and not found["note"], findings
        assert {"chat completions", "tool call", "compaction", "window", "MCP"} <= set(found["ok"])
        assert {"messages (Claude Code)", "responses (Codex)"} <= set(found["ok"])
        assert served.memory.status().memories == 0


def test_each_failure_is_named_with_what_to_do(tmp_path: Path) -> None:
    for _, findings in checked(refuses_late, tmp_path):
        assert set(by_level(findings)["wrong"]) <= {"template"}
    (tmp_path / "b").mkdir()
    for _, findings in checked(fails(500), tmp_path / "b"):
        found = by_level(findings)
        assert {"chat completions", "tool call"} <= set(found["wrong"])
        assert {"MCP", "compaction"} <= set(found["ok"])  # which need no reasoner
    (tmp_path / "c").mkdir()
    for served, _ in checked(says("ready"), tmp_path / "c", token="a-right-token-here"):
        (finding,) = check_gateway(Patient(served.url, "a-wrong-token-here"))
        assert finding.level == "wrong" and "token" in finding.found
    (finding,) = check_gateway(Patient("http://127.0.0.1:9"))
    assert finding.level == "wrong" and "clara-mlx serve" in finding.remedy


def test_the_memory_file(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    assert by_level(list(check_memory_file(file)))["wrong"] == []
    Memory.open(file).close()
    assert by_level(list(check_memory_file(file)))["ok"] == ["memory file", "disk"]
    file.chmod(0o644)
    first, *_ = check_memory_file(file)
    assert first.level == "wrong" and first.remedy == f"chmod 600 {file}"
    file.write_bytes(b"no memory" * 1000)
    assert "memory file" in by_level(list(check_memory_file(file)))["wrong"]


@pytest.mark.parametrize(
    ("model", "level"),
    [
        ({"max_model_len": 8192}, "wrong"),
        ({"meta": {"n_ctx": 262_144}}, "note"),
        ({"context_length": 32_768}, "ok"),
        ({"id": "mlx"}, "ok"),
        ("odd", "ok"),
    ],
)
def test_the_window_that_the_reasoner_states(
    model: Any, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = gateway_checks.Answered(200, {}, json.dumps({"data": [model]}))
    monkeypatch.setattr("clara_mlx.agents.reasoner_checks.ask", lambda url, path: answered)
    (finding,) = check_reasoner("http://127.0.0.1:8080/v1", 32_768)
    assert finding.level == level


def test_agents_that_are_connected_elsewhere(tmp_path: Path) -> None:
    machine = Machine(tmp_path, {}, tmp_path)
    here = Connected("http://127.0.0.1:1", "m", 32_768, mcp=False)
    connect(agent_named("codex"), here, machine)
    (tmp_path / ".claude").mkdir()

    def levels(url: str, gateway: Connected | None) -> dict[str, str]:
        return {one.check: one.level for one in check_agents(machine, url, gateway)}

    assert levels(here.url, None) == {"codex": "ok", "claude": "note"}
    assert levels(here.url, replace(here, mcp=True)) == {"codex": "ok", "claude": "note"}
    assert levels(here.url, replace(here, window=65_536)) == {"codex": "note", "claude": "note"}
    assert levels("http://127.0.0.1:2", None) == {"codex": "wrong", "claude": "note"}


def test_the_command(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ("--endpoint", "http://127.0.0.1:9/v1", "--db", tmp_path / "none.db")
    result = cli("doctor", *given, ok=False)
    assert result.exit_code == 1
    assert "wrong  gateway: http://127.0.0.1:9: no gateway answers" in result.stdout
    assert "things to put right: 1" in result.stderr
    found = json.loads(cli("doctor", *given, "--json", ok=False).stdout)
    assert {"check", "level", "found", "remedy"} == set(found[0])
    machine = Machine(tmp_path, {}, tmp_path)
    assert all(one.line for one in examine("http://127.0.0.1:9", None, "", tmp_path, machine))
