"""The ledger of a gateway: its sums are those of the metrics and of the reasoner's own log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from gateway import Upstream, fails, gateway, says, wait_until
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from replayed_agent import LoggingReasoner, captured_run, metrics, replay, tools_of

from clara_mlx.context import Budget
from clara_mlx.errors import StorageFailed
from clara_mlx.memory import Memory
from clara_mlx.serve import bookkeeping
from clara_mlx.serve.bookkeeping import Bookkeeper
from clara_mlx.serve.pools import Pools
from clara_mlx.store.ledger import Round
from clara_mlx.store.sums import Sums

SMALL = Budget(window=5_000, reserve=500, trigger=0.7, target=0.4)
AGENT = {"user-agent": "claude-cli/2.1.0 (external, cli)"}


def sums_of(path: Path) -> Sums:
    """All of the ledger, read when the gateway has ended."""
    with Memory.open(path / "agent.db") as memory:
        (found,) = memory.ledger.sums()
    return found


def check_metrics(found: Sums, counted: dict[str, float]) -> None:
    """The sums of the ledger are the totals of the metrics."""
    whats = ("in", "sent", "cached_expected", "cached_reported")
    totals = {w: counted.get(f'clara_prompt_tokens_total{{what="{w}"}}', 0) for w in whats}
    assert found.tokens_in == totals["in"]
    assert found.tokens_sent == totals["sent"]
    assert found.cached_expected == totals["cached_expected"]
    assert found.cached_reported == totals["cached_reported"]
    assert found.completion_tokens == counted["clara_completion_tokens_total"]
    assert found.compactions == counted["clara_compactions_total"]
    asked = [n for name, n in counted.items() if name.startswith("clara_memory_calls_total{")]
    assert found.memory_calls == sum(asked)
    fallbacks = [n for name, n in counted.items() if name.startswith("clara_fallbacks_total{")]
    assert found.fallbacks == sum(fallbacks)


def work(
    path: Path, reasoner: LoggingReasoner, steps: int = 12, **settings: Any
) -> tuple[int, dict[str, float]]:
    """A recorded agent's work; returns its requests, and the metrics at its end."""
    messages = captured_run(steps)
    tools = tools_of(messages)
    with (
        Upstream(reasoner.replies).running() as url,
        gateway(path, url, budget=SMALL, **settings) as gate,
    ):
        requests = replay(
            messages, reasoner, lambda sent: gate.chat(sent, tools=tools, extra_headers=AGENT)
        )
        return requests, metrics(gate.http)


def test_sums_are_those_of_the_metrics_and_of_the_reasoners_log(tmp_path: Path) -> None:
    reasoner = LoggingReasoner()
    requests, counted = work(tmp_path, reasoner)
    found = sums_of(tmp_path)
    check_metrics(found, counted)
    log = reasoner.log
    assert (found.requests, found.rounds) == (requests, len(log))
    assert found.tokens_sent == sum(line.prompt_tokens for line in log)
    assert found.cached_reported == found.cached == sum(line.cached_tokens for line in log)
    assert found.prefilled == sum(line.prompt_tokens - line.cached_tokens for line in log)
    assert found.completion_tokens == sum(line.completion_tokens for line in log)
    assert found.memory_calls == sum(line.asks for line in log) > 1
    assert found.compactions > 1 and found.saved > 0 and found.estimated == 0
    with Memory.open(tmp_path / "agent.db") as memory:
        ledger = memory.ledger
        for key in ("day", "session", "project", "agent", "model"):
            rows = ledger.sums([key])
            assert sum(row.tokens_sent for row in rows) == found.tokens_sent
        assert [(row.project, row.agent) for row in ledger.sums(["project", "agent"])] == [
            ("/work/inventory", "claude-cli")
        ]
        rounds = ledger.rounds(most=1000)
        assert sum(one.tokens_sent for one in rounds) == found.tokens_sent
        # Each compaction says why, what it freed and cost, and what the prefix cache made of it.
        compacted = [one for one in rounds if one.compacted]
        for one in compacted:
            assert one.reason and one.before and one.after and one.before > one.after
            assert "a compaction changed the prompt" in one.why and one.cache != "hit"
        # What was asked back says so, and all that is named is there.
        asked = [one for one in rounds if one.asked]
        assert len(asked) == found.memory_calls
        for one in (*asked, *compacted):
            for handle in (*one.compacted, *(handle for handle, _ in one.asked)):
                assert memory.has(handle)
                assert one.id in [use.round for use in ledger.uses(handle)]
        # What it remembers belongs to the project that the agent named.
        assert {one.metadata.get("project") for one in memory.list()} == {"/work/inventory"}


@pytest.mark.parametrize("whole", [False, True])
def test_what_a_server_does_not_report_is_estimated_and_marked(tmp_path: Path, whole: bool) -> None:
    budget = Budget(**{**vars(SMALL), "cache": "whole" if whole else "trimmable"})
    reasoner = LoggingReasoner(states_cached=False, whole=whole)
    messages = captured_run(8)
    with (
        Upstream(reasoner.replies).running() as url,
        gateway(tmp_path, url, budget=budget, cache_known_by="setting") as gate,
    ):
        replay(messages, reasoner, lambda sent: gate.chat(sent, tools=tools_of(messages)))
        counted = metrics(gate.http)
    found = sums_of(tmp_path)
    check_metrics(found, counted)
    assert found.estimated == found.rounds and found.cached_reported == 0
    assert 0 < found.cached <= found.cached_expected  # which is about, and sent is not
    with Memory.open(tmp_path / "agent.db") as memory:
        changed = [one for one in memory.ledger.rounds(most=1000) if one.compacted]
    assert changed and {one.cache for one in changed} == {"miss" if whole else "partial"}


def test_a_failure_and_the_fallback_are_in_the_ledger(tmp_path: Path) -> None:
    reasoner = Upstream(says("one"), fails(400, "no such thing"), fails(500))
    other = Upstream(says("two", usage={"prompt_tokens": 70, "completion_tokens": 3}))
    with (
        reasoner.running() as url,
        other.running() as second,
        gateway(tmp_path, url, fallback=second) as gate,
    ):
        gate.chat("a")
        answer = gate.http.post(
            "/v1/chat/completions", json={"messages": [{"role": "user", "content": "b"}]}
        )
        gate.chat("c")
        counted = metrics(gate.http)
    check_metrics(sums_of(tmp_path), counted)
    with Memory.open(tmp_path / "agent.db") as memory:
        last, failed, first = memory.ledger.rounds()
    assert (first.served_by, first.tokens_sent, first.cache) == ("reasoner", 100, "first")
    assert answer.status_code == 400
    assert "no such thing" in failed.error and failed.tokens_sent == failed.tokens_in == 0
    assert (last.served_by, last.model, last.tokens_sent) == ("fallback", "other-model", 70)


def test_a_client_that_has_its_conversation_compacted_is_in_the_ledger(tmp_path: Path) -> None:
    items: list[Any] = [
        {"role": "user", "content": "Mend it."},
        {"role": "assistant", "content": "I looked at all of the files. " * 50},
        {"role": "user", "content": "Go on."},
    ]
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        gate.client.responses.compact(model="any", input=items, instructions="Be brief.")
        counted = metrics(gate.http)
        (status,) = gate.status()["conversations"]
    found = sums_of(tmp_path)
    check_metrics(found, counted)
    assert (found.requests, found.compactions, status["requests"]) == (1, 1, 1)
    with Memory.open(tmp_path / "agent.db") as memory:
        (one,) = memory.ledger.rounds()
    assert (one.served_by, one.api, one.reason) == (
        "memory",
        "responses-compact",
        "its client asked for it",
    )


def test_what_is_asked_by_mcp_is_in_the_ledger_and_is_no_prompt(tmp_path: Path) -> None:
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        gate.chat("hello")
        handle = gate.memory.remember("a text", session="s")

        async def ask() -> None:
            async with Client(streamable_http_client(f"{gate.url}/mcp")) as client:
                await client.call_tool("expand", {"handle": handle})
                await client.call_tool("recall", {"query": "text", "session": "s"})
                await client.call_tool("expand", {"handle": "m-0000000000"})  # there is none
                await client.call_tool("remember", {"text": "another"})

        anyio.run(ask)
        counted = metrics(gate.http)
    found = sums_of(tmp_path)
    check_metrics(found, counted)
    assert (found.requests, found.rounds, found.memory_calls) == (1, 1, 2)
    with Memory.open(tmp_path / "agent.db") as memory:
        assert [use.how for use in memory.ledger.uses(handle)] == ["expand"]
        (of_session,) = memory.ledger.sums((), {"session": "s"})
    assert (of_session.requests, of_session.memory_calls) == (0, 1)


def test_what_can_not_be_written_waits_and_no_request_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookkeeping, "_COLLECT_SECONDS", 0.01)
    monkeypatch.setattr(bookkeeping, "_PAUSE_SECONDS", 0.01)
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        ledger = gate.memory.ledger
        write, tries = ledger.write, []

        def fail_first(rounds: Any) -> None:
            tries.append(len(rounds))
            if len(tries) < 4:
                raise StorageFailed("the disk is full", transient=True)
            write(rounds)

        monkeypatch.setattr(ledger, "write", fail_first)
        for text in "abc":
            gate.chat(text)
        wait_until(lambda: [one.rounds for one in gate.memory.ledger.sums()] == [3])
    assert len(tries) >= 4 and sums_of(tmp_path).rounds == 3


def test_names_that_clients_choose_harm_nothing(tmp_path: Path) -> None:
    with Upstream(says("ok")).running() as url, gateway(tmp_path, url) as gate:
        for model in ("\ud800", "x" * 100_000, "usual"):
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            answer = gate.http.post(
                "/v1/chat/completions",
                content=json.dumps(body),
                headers={
                    "content-type": "application/json",
                    "user-agent": "y" * 5_000,
                    "x-clara-project": "z" * 5_000,
                },
            )
            assert answer.is_success
    with Memory.open(tmp_path / "agent.db") as memory:
        rounds = memory.ledger.rounds()
    assert len(rounds) == 3
    assert all(len(one.model) <= 300 and len(one.agent) <= 64 for one in rounds)


def test_one_round_that_can_not_be_written_takes_no_other_with_it(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db") as memory:

        async def keep() -> None:
            pools = Pools()
            books = Bookkeeper(memory, pools)
            for session in ("a", "\ud800", "b"):
                books.add(Round(at=1.0, session=session))
            await books.close()
            pools.close()

        anyio.run(keep)
        assert {one.session for one in memory.ledger.rounds()} == {"a", "b"}
