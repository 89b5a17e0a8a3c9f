"""Gateways on a team's database: all is as with a file, and each sees what the others do."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import anyio
import pytest
from gateway import Gateway, Upstream, gateway, says, wait_until
from heavy_conversations import long_output, turn
from mcp import StdioServerParameters
from mcp.client.client import Client
from mcp.client.stdio import stdio_client
from postgres import new_database, run
from replayed_agent import LoggingReasoner, captured_run, metrics, replay, tools_of
from sizes import sized

from clara_mlx.context import Budget
from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.entry import PREFIX
from clara_mlx.store.opening import short_name
from clara_mlx.store.postgres import database
from clara_mlx.store.sums import Sums

SMALL = Budget(window=5_000, reserve=500, trigger=0.7, target=0.4)
AGENT = {"user-agent": "claude-cli/2.1.0 (external, cli)", "x-clara-session": "work"}
TOOL = {"type": "function", "function": {"name": "run", "parameters": {"type": "object"}}}


@pytest.fixture
def url() -> Iterator[str]:
    with new_database() as made:
        yield made


def kept(memory: Memory) -> list[Any]:
    """What a memory keeps, but for ids and times, the same for all databases."""
    queries = (
        "SELECT handle, source, session, metadata FROM memories ORDER BY handle",
        "SELECT digest, kind, text, handle, body FROM blocks ORDER BY digest",
        "SELECT handle, block FROM mentions ORDER BY handle, block",
        "SELECT chain, part, block, explains FROM edits ORDER BY chain, part",
        "SELECT sha256, kind, length, data FROM contents ORDER BY sha256",
        'SELECT c.sha256, k.start, k."end", k.tokens FROM chunks k '
        "JOIN contents c ON c.id = k.content_id ORDER BY c.sha256, k.start",
        "SELECT handle, how, count(*) FROM uses GROUP BY handle, how ORDER BY handle, how",
    )
    return [[tuple(row) for row in memory.file.read(query)] for query in queries]


def figures(memory: Memory) -> list[Any]:
    """All sums of the ledger, and its rounds, but for times and ids."""
    ledger = memory.ledger
    rows = [
        asdict(row) | {"first_at": 0, "last_at": 0, "day": row.day is not None}
        for by in ((), ("day",), ("session",), ("project", "agent", "model"))
        for where in (None, {"after": 0})
        for row in ledger.sums(by, where, sort="tokens_in")
    ]
    rounds = [
        asdict(one) | {"at": 0, "seconds": 0, "id": 0, "compacted": sorted(one.compacted)}
        for one in ledger.rounds(most=1_000)
    ]
    return [rows, rounds]


def work(place: Path | str) -> list[Any]:
    """A recorded agent's work with all that a gateway does; what was sent, kept and counted."""
    reasoner = LoggingReasoner()
    upstream = Upstream(reasoner.replies)
    messages = captured_run(8)
    tools = tools_of(messages)
    seen: list[Any] = []

    def send(sent: list[dict[str, Any]]) -> None:
        answer = gate.chat(sent, tools=tools, extra_headers=AGENT)
        headers = {k: v for k, v in answer.headers.items() if k.startswith("x-clara")}
        seen.append([headers, answer.choices[0].message.model_dump()])

    with upstream.running() as reasoners:
        with gateway(place, reasoners, budget=SMALL) as gate:
            replay(messages, reasoner, send)
            totals = metrics(gate.http).items()
            timed = ("seconds", "_created", "_pending")
            seen.append({k: v for k, v in totals if not any(one in k for one in timed)})
        with gateway(place, reasoners, budget=SMALL, edit=True) as gate:
            send(messages)  # after a restart, the same bytes
            first = gate.memory.page(order="largest", most=1)[0].handle
            page = gate.http.get(f"{PREFIX}memory", params={"handle": first})
            assert page.status_code == 200 and first in page.text
            for address in ("/", f"{PREFIX}conversations", f"{PREFIX}savings"):
                assert gate.http.get(address).status_code == 200
            assert gate.http.get(f"/v1/memory/original/{first}").text == gate.memory.original(first)
            assert gate.http.post("/v1/memory/forget", json={"handle": first}).is_success
            send(messages)  # and what was forgotten is quoted by nothing any more
            assert gate.http.get(f"/v1/memory/original/{first}").status_code == 404
    with Memory.open(place / "agent.db" if isinstance(place, Path) else place) as memory:
        assert memory.verify().problems == []
        return [upstream.requests, seen, kept(memory), figures(memory)]


def test_all_is_as_with_a_file(tmp_path: Path, url: str) -> None:
    with_file, with_database = work(tmp_path), work(url)
    for one, other in zip(with_file, with_database, strict=True):
        assert one == other


def test_two_gateways_share_a_conversation_and_what_is_forgotten(url: str) -> None:
    upstream = Upstream(says("ok"))
    messages = [{"role": "user", "content": "Please fix the build."}]
    budget = Budget(window=16_000, reserve=1_000, trigger=0.7, target=0.4)
    with (
        upstream.running() as reasoner,
        gateway(url, reasoner, budget=budget) as one,
        gateway(url, reasoner, budget=budget) as other,
    ):
        for number in range(8):
            messages += turn(number, long_output(number, 120))
            for gate in (one, other):  # each prompt is the same, whoever made the blocks
                gate.chat(messages, tools=[TOOL], extra_headers=AGENT)
        pairs = zip(upstream.requests[::2], upstream.requests[1::2], strict=True)
        assert all(first["messages"] == second["messages"] for first, second in pairs)
        sent = str(upstream.requests[-1]["messages"])
        handles = [one.handle for one in other.memory.list() if f"[clara {one.handle}" in sent]
        assert handles
        one.memory.forget(handles[0])
        other.chat(messages, tools=[TOOL], extra_headers=AGENT)
        assert handles[0] not in str(upstream.requests[-1]["messages"])

        # Whoever asks, there is one ledger, and one memory.
        def counted(gate: Gateway) -> list[Sums]:
            return gate.memory.ledger.sums(("session",))

        wait_until(lambda: sum(row.requests for row in counted(one)) == 17)  # in a second
        assert counted(one) == counted(other)


def test_a_namespace_is_a_schema_of_its_own(url: str) -> None:
    names = {"ann": "a" * 20, "bob": "b" * 20}
    with (
        Upstream(says("ok")).running() as reasoner,
        gateway(url, reasoner, namespaces=names, token="t" * 20) as gate,
    ):
        by = {name: {"authorization": f"Bearer {token}"} for name, token in names.items()}
        kept = gate.http.post("/v1/memory/remember", json={"text": "of ann"}, headers=by["ann"])
        address = f"/v1/memory/original/{kept.json()['handle']}"
        assert gate.http.get(address, headers=by["ann"]).text == "of ann"
        assert gate.http.get(address, headers=by["bob"]).status_code == 404


def test_mcp_and_the_command_line_take_its_url(url: str, cli: Any) -> None:
    code = "from clara_mlx.cli.serve import commands; commands()"
    command = StdioServerParameters(
        command=sys.executable, args=["-c", code, "mcp", "--db", url], env=dict(os.environ)
    )

    async def remember() -> str:
        async with Client(stdio_client(command)) as client:
            text = "step 7: the gadget failed"
            kept = await client.call_tool("remember", {"text": text, "source": "log"})
            found = await client.call_tool("recall", {"query": "gadget"})
            assert "step 7" in str(found.content[0])
            (content,) = kept.content
            assert content.type == "text"
            return content.text

    handle = anyio.run(remember)
    assert cli("original", handle, "--db", url).output == "step 7: the gadget failed"
    for name in ("status", "list", "stats", "verify", "vacuum", "flush --compressor extractive"):
        cli(*name.split(), "--db", url)
    assert handle in cli("search", "gadget", "--db", url, "--all").output
    assert handle in cli("export", "--db", url).output
    cli("forget", handle, "--yes", "--db", url)
    assert "no memory" in cli("show", handle, "--db", url, ok=False).output


def test_an_agent_goes_on_while_the_database_is_away(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_POOL_SECONDS", sized(0.5, 15))  # of an outage that is new
    with (
        Upstream(says("ok")).running() as reasoner,
        gateway(url, reasoner) as gate,
    ):
        gate.breaks = True
        assert gate.status()["memory"]["path"] == short_name(url)
        told = gate.http.get("/v1/memory/original/m-0000000000").text
        assert "no memory" in told and "pg-" not in told and short_name(url) not in told
        name = short_name(url)
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{name}' AND pid <> pg_backend_pid()"
        )
        begun = time.monotonic()
        told = gate.http.get("/v1/memory/original/m-0000000000").text
        # An agent goes on without its memory, and does not wait for it at every step.
        for _ in range(3):
            assert gate.chat("hi").choices[0].message.content == "ok"
        assert time.monotonic() < begun + 30
        assert "the team's database" in told and "pg-" not in told and name not in told
        run(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        wait_until(lambda: gate.http.get("/v1/memory/status").status_code == 200)
