"""CompyMac's interfaces without CompyMac: manager, knowledge store, compressor, tool outputs.

`Message` and `Loop` are that program's types in our own words; test_compymac_real.py runs the real
ones where a checkout is present.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from trajectories import report, start, step

from clara_mlx.compymac import (
    ClaraCompressor,
    ClaraKnowledgeStore,
    ClaraMemoryManager,
    MemoryUnit,
    Settings,
    install,
)
from clara_mlx.compymac.messages import ContextConfig
from clara_mlx.compymac.settings import close_shared
from clara_mlx.context.blocks import HANDLE
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.store.driver import StoreError


class Role(str, Enum):  # noqa: UP042 (as CompyMac has it)
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass
class Message:
    role: Any
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An environment of our own; the memory that it names is closed afterwards."""
    for name in ("MODEL", "REASONER", "SESSION", "TOOL_OUTPUT_TOKENS"):
        monkeypatch.delenv(f"CLARA_MLX_{name}", raising=False)
    monkeypatch.setenv("CLARA_MLX_MEMORY", str(tmp_path / "memory.db"))
    yield Settings.from_env()
    close_shared()


def conversation(steps: int, lines: int = 60) -> list[Any]:
    messages = start()
    for number in range(steps):
        messages += step(number, [report(number, lines)])
    return [Message(**message) for message in messages]


SMALL = ContextConfig(token_budget=16_000, reserved_for_response=1_000)


def test_the_environment_names_everything(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert settings == Settings(memory=tmp_path / "memory.db")
    monkeypatch.setenv("CLARA_MLX_SESSION", "mine")
    monkeypatch.setenv("CLARA_MLX_TOOL_OUTPUT_TOKENS", "77")
    monkeypatch.setenv("CLARA_MLX_REASONER", "/models/reasoner")
    monkeypatch.setenv("CLARA_MLX_MODEL", "folder")
    found = Settings.from_env()
    assert (found.session, found.tool_output_tokens) == ("mine", 77)
    assert (found.reasoner, found.model) == (Path("/models/reasoner"), "folder")
    monkeypatch.setenv("CLARA_MLX_TOOL_OUTPUT_TOKENS", "many")
    with pytest.raises(ClaraError, match="must be a whole number, not 'many'"):
        Settings.from_env()


def test_the_manager_needs_no_argument_and_says_what_is_missing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        manager = ClaraMemoryManager()
        manager.compress_messages(conversation(12))
    assert "originals, handles and text search" in caplog.text
    assert (manager.keep_recent_turns, manager.compression_threshold) == (4, 0.80)
    assert settings.memory.is_file()


def test_compressing_keeps_the_contract_and_every_original(settings: Settings) -> None:
    manager = ClaraMemoryManager(SMALL, keep_recent_turns=2)
    messages = conversation(30)
    before = [Message(**vars(message)) for message in messages]
    result = manager.compress_messages(messages)
    assert messages == before
    assert result[:2] == messages[:2] and result[-4:] == messages[-4:]
    assert len(result) == 2 + 1 + 4
    summary = result[2]
    assert isinstance(summary, Message) and summary.role == "assistant"
    assert summary.content.startswith("[MEMORY SUMMARY")
    assert "(Compressed 56 earlier messages)" in summary.content
    assert "FAILED tests/test_" in summary.content  # frozen blocks, the newest in full
    assert manager.estimate_tokens(summary.content) <= 2000
    handles = HANDLE.findall(summary.content)
    assert len(handles) > 10
    originals = {message.content for message in messages if message.role == "tool"}
    assert {manager.context.memory.original(handle) for handle in handles[1:]} <= originals
    assert manager.full_history(result) == messages
    state = manager.get_memory_state()
    assert (state.compression_count, state.total_messages_compressed) == (1, 56)


def test_a_second_compression_builds_on_the_first(settings: Settings) -> None:
    manager = ClaraMemoryManager(SMALL, keep_recent_turns=2)
    every = conversation(40)
    once = manager.compress_messages(every[:42])
    twice = manager.compress_messages(once + every[42:])
    assert [m.content.startswith("[MEMORY SUMMARY") for m in twice].count(True) == 1
    assert manager.state.total_messages_compressed == 82 - 2 - 4
    assert manager.full_history(twice) == every
    assert manager.compress_messages(twice) is twice


def test_between_compressions_nothing_changes(settings: Settings) -> None:
    manager = ClaraMemoryManager(SMALL, keep_recent_turns=2)
    every, state = conversation(60), []
    sent: list[list[Message]] = []
    for message in every:
        state.append(message)
        if message.role != "assistant":
            shorter = manager.process_messages(state)
            state = list(shorter) if len(shorter) < len(state) else state
            sent.append(list(shorter))
            assert manager.calculate_utilization(shorter) <= 1
    count = manager.state.compression_count
    assert 2 <= count <= 8
    changes = sum(after[: len(before)] != before for before, after in pairwise(sent))
    assert changes == count
    assert manager.full_history(state) == every


def test_a_call_is_never_separated_from_its_results(settings: Settings) -> None:
    manager = ClaraMemoryManager(SMALL, keep_recent_turns=1)
    messages = [Message(**m) for m in start() + step(0, [report(0, 9)]) + step(1, ["a", "b", "c"])]
    for end in range(4, len(messages) + 1):
        result = manager.compress_messages(messages[:end])
        calls = {c["id"] for m in result for c in m.tool_calls or ()}
        assert all(m.tool_call_id in calls for m in result if m.role == "tool")
        assert len(result) <= end


def test_short_messages_become_lines(settings: Settings) -> None:
    manager = ClaraMemoryManager(keep_recent_turns=2)
    messages = [Message("system", "Rules.")]
    for number in range(10):
        messages += [Message("user", f"Do {number}."), Message("assistant", f"Did {number}.")]
    result = manager.process_messages(messages, force_compress=True)
    assert len(result) == 7 and result[:2] == messages[:2]
    assert "user: Do 5." in result[2].content and "assistant: Did 5." in result[2].content
    assert manager.full_history(result) == messages


def test_other_types_go_in_and_come_out(settings: Settings) -> None:
    manager = ClaraMemoryManager(keep_recent_turns=2)
    for make in (
        lambda role, content: {"role": role, "content": content},
        lambda role, content: Message(Role(role), content),
    ):
        messages = [make("user", f"{n}") for n in range(2)]
        messages += [make("assistant", f"{n}") for n in range(9)]
        result = manager.compress_messages(messages)
        assert [type(m) for m in result] == [type(messages[0])] * 7
        assert getattr(result[2], "role", Role.ASSISTANT) is Role.ASSISTANT
        assert manager.full_history(result) == messages


def test_what_does_not_fit_goes_as_blocks_and_stays_so(settings: Settings) -> None:
    config = ContextConfig(token_budget=6_000, reserved_for_response=500)
    manager = ClaraMemoryManager(config, keep_recent_turns=6)
    messages = conversation(6, lines=90)
    assert manager.calculate_utilization(messages) > 1
    first = manager.process_messages(messages)
    assert [m.role for m in first] == [m.role for m in messages]
    assert manager.calculate_utilization(first) <= 1
    assert first[-1] == messages[-1] and first[0] == messages[0]
    messages.append(Message("user", "go on"))
    assert manager.process_messages(messages)[: len(first)] == first


def test_facts_by_rules(settings: Settings) -> None:
    manager = ClaraMemoryManager()
    manager.extract_facts_from_message(Message("user", "Fix the parser.\n" + "x" * 900))
    manager.extract_facts_from_message(Message("assistant", "Created src/new.py, edits follow."))
    manager.extract_facts_from_message(Message("assistant", "Now modifying `src/old.py:12`"))
    manager.extract_facts_from_message(
        Message("tool", "The command `make test` (started 1.00s ago)\nmake: *** [test] Error 2")
    )
    manager.extract_facts_from_message(Message(**step(0, ["x"])[0]))
    facts = manager.state.facts
    assert facts.files_created == ["src/new.py"] and facts.files_modified == ["src/old.py"]
    assert facts.commands_executed == ["make test", "pytest -x -k case_0_0"]
    assert facts.errors_encountered == ["make: *** [test] Error 2"]
    assert facts.user_requirements[0].startswith("Fix the parser.")
    manager.set_contract_goal("a parser")
    manager.set_current_plan(["read", "write"])
    manager.add_plan_step("test")
    manager.complete_plan_step(0)
    manager.complete_plan_step(9)
    manager.set_repo_facts({"lint": "ruff"})
    manager.add_repo_fact("test", "pytest")
    manager.add_open_question("why?")
    manager.add_open_question("who?")
    manager.resolve_question(0)
    manager.resolve_question(-1)
    told = facts.to_string()
    for line in ("Goal: a parser", "Plan: write -> test", "Open questions: who?"):
        assert line in told
    assert "Repo: lint: ruff, test: pytest" in told
    assert facts.to_dict()["repo_facts"] == {"lint": "ruff", "test": "pytest"}
    manager.reset()
    assert manager.state.facts.to_string() == "No facts recorded yet."


def test_summaries(settings: Settings) -> None:
    chat = SimpleNamespace(chat=lambda messages, tools=None: SimpleNamespace(content="all well"))
    broken = SimpleNamespace(chat=lambda **_: 1 / 0)
    messages = conversation(3)
    by_rules = ClaraMemoryManager().generate_summary_heuristic(messages)
    assert "3 tool results and 1 user messages" in by_rules
    for client, expected in ((None, by_rules), (chat, "all well"), (broken, by_rules)):
        manager = ClaraMemoryManager(llm_client=client)
        assert asyncio.run(manager.generate_summary_llm(messages)) == expected


# -- knowledge -----------------------------------------------------------------------------------


def unit(number: int, content: str = "", **kwargs: Any) -> MemoryUnit:
    given = {
        "source_type": "document",
        "source_id": f"doc-{number % 2}",
        "created_at": 100.0 + number,
    }
    return MemoryUnit(
        f"u{number}", content or f"the kernel of part {number}", **{**given, **kwargs}
    )


def test_knowledge_is_stored_found_and_removed(settings: Settings) -> None:
    store = ClaraKnowledgeStore()
    store.store_batch([unit(n, metadata={"page": n}) for n in range(6)])
    store.memory.remember("the kernel of another matter")  # not a unit
    assert store.count() == 6
    assert store.get("u3") == unit(3, metadata={"page": 3}) and store.get("u9") is None
    found = store.retrieve("kernel part 4", limit=3)
    assert len(found) == 3 and found[0].memory_unit.id == "u4"
    assert {one.match_type for one in found} == {"keyword"}
    assert {u.memory_unit.source_id for u in store.retrieve("kernel", source_id="doc-1")} == {
        "doc-1"
    }
    assert store.retrieve("kernel", source_type="book") == []
    assert [u.id for u in store.retrieve_by_source("document", "doc-0")] == ["u4", "u2", "u0"]
    assert [u.memory_unit.id for u in store.retrieve("", limit=2)] == ["u5", "u4"]
    store.store(unit(3, "something new"))
    assert store.count() == 6 and store.get("u3").content == "something new"
    assert store.delete("u3") and not store.delete("u3")
    retriever = ClaraKnowledgeStore(store, None, rrf_k=60, sparse_weight=0.5)
    assert retriever.retrieve("part 4", use_dense=False)[0].memory_unit.id == "u4"
    store.clear()
    assert store.count() == 0 and store.memory.status().memories == 1


def test_many_chunks_are_one_unit(settings: Settings) -> None:
    store = ClaraKnowledgeStore()
    store.store(unit(0, "kernel " * 4000))
    store.store_batch([unit(n) for n in range(1, 4)])
    assert {u.memory_unit.id for u in store.retrieve("kernel", limit=4)} == {"u0", "u1", "u2", "u3"}


def test_a_backend_has_a_memory_beside_it(settings: Settings, tmp_path: Path) -> None:
    rows = [
        {
            "id": "old",
            "content": "kept before",
            "embedding": None,
            "source_type": "document",
            "source_id": "d",
            "metadata": '{"page": 1}',
            "created_at": 5.0,
        }
    ]
    backend = SimpleNamespace(db_path=tmp_path / "knowledge.db", fetch_all=lambda sql: rows)
    store = ClaraKnowledgeStore(backend)
    assert store.memory.store.path == tmp_path / "knowledge.clara.db"
    assert (store.take_over(backend), store.take_over(backend), store.count()) == (1, 0, 1)
    assert store.get("old").metadata == {"page": 1}


def test_with_a_model_knowledge_is_found_by_latents(tmp_path: Path, clara: Any) -> None:
    with Memory.open(tmp_path / "memory.db", clara("c16", "e2e")) as memory:
        store = ClaraKnowledgeStore(memory=memory)
        store.store_batch([unit(n) for n in range(4)])
        memory.flush(60)
        types = {one.match_type for one in store.retrieve("quite different words", limit=4)}
        assert types == {"vector"}
        assert len(store.retrieve("kernel", limit=4)) == 4


# -- compressing ---------------------------------------------------------------------------------


def test_a_compressor_without_a_model(settings: Settings) -> None:
    compressor = ClaraCompressor()
    long, short = compressor.compress_batch([report(0, 60), Message("tool", "ok")])
    assert compressor.memory.original(long.handle) == report(0, 60)
    assert len(long.text) < len(report(0, 60)) / 2 and long.handle in long.text
    assert short.text == "ok" and compressor.memory.original(short.handle) == "ok"
    assert (long.latents, short.latents) == (None, None)
    assert long.block_tokens < long.source_tokens
    with pytest.raises(StoreError, match="needs a model"):
        compressor.encode_query("which?")


def test_a_compressor_with_a_model(tmp_path: Path, clara: Any) -> None:
    model = clara("c16", "e2e")
    with Memory.open(tmp_path / "memory.db", model) as memory:
        compressor = ClaraCompressor(memory, Settings())
        made = compressor.compress(report(0, 60), "bash", {"command": "pytest"})
        expected = model.compress(report(0, 60))
        assert made.latents is not None and made.latents.dtype == np.float32
        np.testing.assert_allclose(made.latents, np.array(expected.latents), atol=1e-5)
        assert made.source_tokens == expected.source_tokens
        assert "command: pytest" in made.text
        encoded = compressor.encode_query("which test failed?")
        np.testing.assert_allclose(
            encoded, np.array(model.encode_query("which test failed?")), atol=1e-5
        )


# -- installing ----------------------------------------------------------------------------------


@dataclass
class ToolSchema:
    name: str
    required_params: list[str]
    optional_params: list[str]
    param_types: dict[str, str]


@dataclass
class Result:
    tool_call_id: str
    content: str
    success: bool = True


class Harness:
    def __init__(self) -> None:
        self.tools: dict[str, tuple[ToolSchema, Any]] = {}

    def register_tool(self, name: str, schema: ToolSchema, handler: Any) -> None:
        self.tools[name] = schema, handler

    def execute(self, call: Any) -> Result:
        if call.name in self.tools:
            return Result(call.id, self.tools[call.name][1](**call.arguments))
        return Result(call.id, report(int(call.arguments["n"]), 300 if call.name == "long" else 3))


@dataclass
class Loop:
    harness: Harness = field(default_factory=Harness)
    llm_client: Any = None
    config: Any = field(
        default_factory=lambda: SimpleNamespace(
            memory_keep_recent_turns=3, memory_compression_threshold=0.6, summarize_tool_output=True
        )
    )


def test_installing_and_taking_out_again(settings: Settings) -> None:
    loop = Loop()
    installed = install(loop)
    manager = loop._memory_manager  # type: ignore[attr-defined]
    assert manager is installed.manager
    assert (manager.keep_recent_turns, manager.compression_threshold) == (3, 0.6)
    assert loop.config.summarize_tool_output is False

    def run(name: str, **arguments: Any) -> str:
        return loop.harness.execute(SimpleNamespace(id="1", name=name, arguments=arguments)).content

    assert run("short", n=1) == report(1, 3)
    shortened = run("long", n=2)
    (handle,) = set(HANDLE.findall(shortened))
    assert installed.memory.original(handle) == report(2, 300)
    assert len(shortened) < 8000 and shortened.endswith(report(2, 300)[-200:])
    assert report(2, 300).splitlines()[40] in run("expand", handle=handle)
    schema = loop.harness.tools["expand"][0]
    assert schema.required_params == ["handle"] and schema.param_types["lines"] == "integer"
    assert "lines" in run("ask_memory", question=report(2, 300).splitlines()[-3])
    count = installed.memory.status().memories
    run("expand", handle=handle)
    assert installed.memory.status().memories == count

    installed.uninstall()
    assert not hasattr(loop, "_memory_manager") and loop.config.summarize_tool_output is True
    assert run("long", n=2) == report(2, 300)


def test_a_shortened_output_has_one_handle_for_good(settings: Settings) -> None:
    """The hook's excerpt and the manager's block stand for the same original."""
    loop = Loop()
    installed = install(loop)
    messages = conversation(1)[:2]
    for number in range(12):
        arguments = {"n": number}
        call = SimpleNamespace(id=f"c{number}", name="long", arguments=arguments)
        content = loop.harness.execute(call).content
        function = {"name": "long", "arguments": json.dumps(arguments)}
        messages.append(
            Message(
                "assistant",
                "",
                tool_calls=[{"id": call.id, "type": "function", "function": function}],
            )
        )
        messages.append(Message("tool", content, tool_call_id=call.id))
    before = installed.memory.status().memories
    result = installed.manager.compress_messages(messages)
    assert len(result) < len(messages)
    assert installed.memory.status().memories == before + 1  # the transcript
    first = HANDLE.findall(messages[3].content)[0]
    assert any(first in message.content for message in result)
    assert installed.memory.original(first) == report(0, 300)


def test_what_went_as_blocks_in_place_is_folded_by_its_originals(settings: Settings) -> None:
    config = ContextConfig(token_budget=6_000, reserved_for_response=500)
    manager = ClaraMemoryManager(config, keep_recent_turns=6)
    messages = conversation(6, lines=90)
    in_place = manager.process_messages(messages)
    assert in_place != messages
    manager.keep_recent_turns = 1
    shorter = manager.compress_messages(in_place)
    assert len(shorter) < len(messages)
    assert manager.full_history(shorter) == messages


def test_a_compression_that_is_not_worth_it_keeps_nothing(settings: Settings) -> None:
    messages = [Message("user", "go"), Message("assistant", "yes"), Message("user", "on")]
    messages += [Message("assistant", f"{n} {report(n, 300)}") for n in range(2)]
    manager = ClaraMemoryManager(SMALL, None, keep_recent_turns=1, compression_threshold=0.1)
    assert manager.should_compress(messages) and manager.calculate_utilization(messages) < 1
    assert manager.process_messages(messages) is messages
    assert manager.state.compression_count == 0
    assert manager.context.memory.status().memories == 0


def test_the_one_message_leaves_room_in_a_small_window(settings: Settings) -> None:
    small = ContextConfig(token_budget=2400, reserved_for_response=400)
    manager = ClaraMemoryManager(small, keep_recent_turns=1)
    compressed = manager.compress_messages(conversation(30, lines=4))
    (summary,) = (m for m in compressed if m.content.startswith("[MEMORY SUMMARY"))
    assert manager.estimate_message_tokens(summary) <= 500 + 20
