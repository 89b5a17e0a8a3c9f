from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateway import Upstream, fails, gateway, says, text_of

from clara_mlx.serve import upstream
from clara_mlx.serve.masking import Masking, is_this_machine

# Put together here, so that no scanner takes this file for a leak.
TOKEN = "gh" + "p_" + "a1B2c3D4e5F6g7H8i9J0" * 2
PASSWORD = "Tr0ub4dor" + "-and-3"

CALL = {
    "id": "c1",
    "type": "function",
    "function": {
        "name": "bash",
        "arguments": json.dumps({"command": f'mysql -u "bob" -p\'{PASSWORD}\' -e "select 1"'}),
    },
}
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "You work in a shell."},
    {"role": "user", "content": [{"type": "text", "text": f"Use the token {TOKEN}, please."}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {
        "role": "tool",
        "tool_call_id": "c1",
        "content": f"ok\nDB_PASSWORD={PASSWORD}\n" + "row\n" * 90,
    },
    {"role": "user", "content": "Go on."},
]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoints of a test count as other machines, though they can't be."""
    monkeypatch.setattr(upstream, "is_this_machine", lambda host: False)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("stream", [False, True])
def test_what_leaves_the_machine_is_masked(tmp_path: Path, stream: bool) -> None:
    reasoner = Upstream(says(f"I see {TOKEN}."))
    with reasoner.running() as url, gateway(tmp_path, url, mask=True) as gate:
        for _ in range(2):
            if stream:
                answer = text_of(gate.streamed(CONVERSATION))
            else:
                answer = gate.chat(CONVERSATION).choices[0].message.content
            assert answer == f"I see {TOKEN}."  # what an endpoint says is passed on as it is
        first, second = (request["messages"] for request in reasoner.requests)
        sent = json.dumps(first)
        assert TOKEN not in sent and PASSWORD not in sent
        assert "[masked: github token]" in sent and sent.count("[masked: password]") >= 2
        assert first == second
        call = next(message for message in first if message.get("tool_calls"))
        arguments = json.loads(call["tool_calls"][0]["function"]["arguments"])
        assert arguments["command"] == 'mysql -u "bob" -p\'[masked: password]\' -e "select 1"'
        gate.memory.remember(CONVERSATION[3]["content"], handle="m-kept")
        assert PASSWORD in str(gate.memory.original("m-kept"))


@pytest.mark.usefixtures("elsewhere")
def test_the_fallback_is_masked_too(tmp_path: Path) -> None:
    local, cloud = Upstream(fails(500)), Upstream(says("cloud"))
    with (
        local.running() as one,
        cloud.running() as two,
        gateway(tmp_path, one, fallback=two, mask=True) as gate,
    ):
        gate.chat(CONVERSATION)
    assert TOKEN not in json.dumps(cloud.requests) and PASSWORD not in json.dumps(cloud.requests)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("api", ["messages", "responses"])
def test_whatever_the_endpoint_speaks(tmp_path: Path, api: str) -> None:
    reasoner = Upstream(fails(400))
    with reasoner.running() as url, gateway(tmp_path, url, mask=True, remote={"api": api}) as gate:
        gate.http.post("/v1/chat/completions", json={"messages": CONVERSATION})
    sent = json.dumps(reasoner.requests)
    assert TOKEN not in sent and PASSWORD not in sent and "Go on." in sent
    assert "[masked: github token]" in sent and sent.count("[masked: password]") >= 2


@pytest.mark.parametrize("mask", [False, True])
def test_this_machine_gets_everything(tmp_path: Path, mask: bool) -> None:
    reasoner = Upstream(says("ok"))
    with reasoner.running() as url, gateway(tmp_path, url, mask=mask) as gate:
        gate.chat(CONVERSATION)
    assert TOKEN in json.dumps(reasoner.requests) and PASSWORD in json.dumps(reasoner.requests)


@pytest.mark.usefixtures("elsewhere")
def test_nothing_is_masked_unless_asked(tmp_path: Path) -> None:
    reasoner = Upstream(says("ok"))
    with reasoner.running() as url, gateway(tmp_path, url) as gate:
        gate.chat(CONVERSATION)
    assert TOKEN in json.dumps(reasoner.requests)


def leads_to(*addresses: str) -> Callable[..., Any]:
    return lambda host, port: [(None, None, None, "", (address, 0)) for address in addresses]


def test_only_loopback_addresses_are_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "127.8.8.8", "::1"):
        assert is_this_machine(host)
    monkeypatch.setattr(socket, "getaddrinfo", leads_to("127.0.0.1", "::1"))
    assert is_this_machine("localhost")
    for host in ("mac.local", "api.x.ai", "10.0.0.1", "0.0.0.0", "localhost.example.com"):
        assert not is_this_machine(host)
    monkeypatch.setattr(socket, "getaddrinfo", leads_to("127.0.0.1", "10.0.0.7"))
    assert not is_this_machine("localhost")


def test_arguments_stay_json() -> None:
    masking = Masking()
    odd = json.dumps({"a": f"password: {PASSWORD}", "b": {"token": TOKEN, "n": 1}})
    sent = masking.masked({"messages": [{"tool_calls": [{"function": {"arguments": odd}}]}]})
    arguments = json.loads(sent["messages"][0]["tool_calls"][0]["function"]["arguments"])
    assert arguments["b"]["n"] == 1
    assert PASSWORD not in json.dumps(sent) and TOKEN not in json.dumps(sent)


def test_options_and_names_are_not_looked_at() -> None:
    image = {"type": "image_url", "image_url": {"url": f"https://x.org/?token={TOKEN}"}}
    payload = {
        "model": "sk-" + "a1" * 20,
        "messages": [{"role": "user", "content": [image]}],
        "stop": ["password: x1y2z3"],
    }
    assert Masking().masked(payload) == payload
