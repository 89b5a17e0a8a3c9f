"""The real CompyMac, where CLARA_MLX_COMPYMAC names a checkout (scripts/compymac makes one)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compymac_checkout import CHECKOUT, needs_checkout
from trajectories import report

from clara_mlx.compymac import ClaraKnowledgeStore, install
from clara_mlx.context.freezer import HANDLE

pytestmark = needs_checkout

# Its memory's classes become ours before its own tests import them.
SWAP = """
import sys, pytest
import compymac.memory as theirs, clara_mlx.compymac as ours
for name, mine in (
    ("MemoryManager", "ClaraMemoryManager"),
    ("MemoryFacts", "MemoryFacts"),
    ("MemoryState", "MemoryState"),
):
    assert hasattr(theirs, name)
    setattr(theirs, name, getattr(ours, mine))
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-o", "addopts=", sys.argv[1]]))
"""


def test_its_own_memory_tests_pass_with_our_classes(tmp_path: Path) -> None:
    pytest.importorskip("httpx")
    root = Path(__file__).parents[2]
    given = os.environ.get("PYTHONPATH", "")  # where httpx may be
    path = os.pathsep.join([str(CHECKOUT / "src"), str(root), given])
    done = subprocess.run(
        [sys.executable, "-c", SWAP, str(CHECKOUT / "tests/test_memory.py")],
        env={**os.environ, "PYTHONPATH": path, "CLARA_MLX_MEMORY": str(tmp_path / "memory.db")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "18 passed" in done.stdout


class Client:
    """A scripted LLM: reads reports one after another, asks the memory once, then answers."""

    def __init__(self, tool_call: Any, steps: int) -> None:
        self._tool_call, self._steps = tool_call, steps
        self.sent: list[list[dict[str, Any]]] = []
        self.tools: list[Any] = []

    def chat(
        self, messages: list[dict[str, Any]], tools: Any = None, tool_choice: Any = None
    ) -> Any:
        self.sent.append(json.loads(json.dumps(messages)))
        self.tools = tools
        number = len(self.sent)
        if number > self._steps:
            return self._said("done", [])
        if number == self._steps:
            handle = HANDLE.findall(json.dumps(messages))[-1]
            return self._said("", [self._tool_call("expand", "expand", {"handle": handle})])
        call = self._tool_call(f"c{number}", "read", {"number": number})
        return self._said(f"reading {number}", [call])

    def _said(self, content: str, calls: list[Any]) -> Any:
        usage = SimpleNamespace(to_dict=dict)
        reason = "tool_calls" if calls else "stop"
        return SimpleNamespace(content=content, tool_calls=calls, usage=usage, finish_reason=reason)


def harness_of(compymac: Any) -> Any:
    """A harness with one tool, on CompyMac's own interface."""
    harness, types = compymac("harness"), compymac("types")

    class Reports(harness.Harness):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.log, self.known = harness.EventLog(), {}

        def execute(self, tool_call: Any) -> Any:
            content = self.known[tool_call.name][1](**tool_call.arguments)
            return types.ToolResult(tool_call.id, content)

        def execute_parallel(self, tool_calls: list[Any]) -> list[Any]:
            return [self.execute(call) for call in tool_calls]

        def validate_schema(self, tool_name: str, arguments: Any) -> tuple[bool, str | None]:
            return tool_name in self.known, None

        def get_event_log(self) -> Any:
            return self.log

        def clear_event_log(self) -> None:
            self.log.clear()

        def register_tool(self, name: str, schema: Any, handler: Any) -> None:
            self.known[name] = schema, handler

        def get_tool_schemas(self) -> list[Any]:
            return [{"type": "function", "function": {"name": name}} for name in self.known]

    Reports.__module__ = harness.__name__
    made = Reports()
    schema = harness.ToolSchema("read", "Read a report.", ["number"], [], {"number": "integer"})
    made.register_tool("read", schema, lambda number: report(number, 60))
    return made


def test_its_agent_loop_runs_on_our_memory(compymac: Any) -> None:
    loops = compymac("agent_loop")
    client = Client(compymac("types").ToolCall, steps=40)
    config = loops.AgentConfig(max_steps=60, system_prompt="Be exact.", use_memory=True)
    loop = loops.AgentLoop(harness_of(compymac), client, config)
    installed = install(loop)
    assert loop.run("Read all reports.") == "done"

    budget = installed.manager.config.available_budget
    assert type(installed.manager.config).__module__ == "compymac.config"
    assert {t["function"]["name"] for t in client.tools} == {"read", "expand", "ask_memory"}
    assert installed.manager.state.compression_count >= 2
    changes = 0
    for before, sent in zip([[], *client.sent], client.sent, strict=False):
        assert installed.manager.context.counter.prompt(sent, client.tools) <= budget
        assert sent[:2] == client.sent[0][:2]
        called = {call["id"] for message in sent for call in message.get("tool_calls") or ()}
        assert all(m["tool_call_id"] in called for m in sent if m["role"] == "tool")
        summaries = [m for m in sent if m["content"].startswith("[MEMORY SUMMARY")]
        assert len(summaries) <= 1
        changes += sent[: len(before)] != before
    assert changes == installed.manager.state.compression_count
    # The handle it asked for, in its own words, is a whole report.
    expanded = next(m.content for m in loop.state.messages if m.tool_call_id == "expand")
    assert "passed in" in expanded
    full = installed.manager.full_history(loop.state.messages)
    assert [m.content for m in full if m.tool_call_id and m.tool_call_id != "expand"] == [
        report(number, 60) for number in range(1, 40)
    ]
    assert type(full[0]).__module__ == "compymac.types"


def test_its_loop_constructs_our_manager_in_place_of_its_own(
    compymac: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clara_mlx.compymac import ClaraMemoryManager

    loops = compymac("agent_loop")
    monkeypatch.setattr(compymac("memory"), "MemoryManager", ClaraMemoryManager)
    config = loops.AgentConfig(max_steps=60, use_memory=True, summarize_tool_output=False)
    loop = loops.AgentLoop(harness_of(compymac), Client(compymac("types").ToolCall, 30), config)
    loop.harness.register_tool("expand", None, lambda handle: f"{handle} passed in")
    assert loop.run("Read all reports.") == "done"
    assert isinstance(loop._memory_manager, ClaraMemoryManager)
    assert loop._memory_manager.state.compression_count >= 1


def test_its_retriever_and_pipeline_use_our_store(compymac: Any, tmp_path: Path) -> None:
    compymac("knowledge_store")
    backend = compymac("storage.sqlite_backend").SQLiteBackend(tmp_path / "knowledge.db")
    theirs = compymac("knowledge_store").KnowledgeStore(backend)
    unit_class = compymac("knowledge_store").MemoryUnit
    theirs.store(
        unit_class("old", "the quota of the ledger", [0.1], "document", "d", {"p": 1}, 1.0)
    )
    store = ClaraKnowledgeStore(backend)
    assert store.take_over(backend) == 1
    store.store(unit_class("new", "the mirror of the shard", None, "document", "e", {}, 2.0))
    retriever = compymac("retrieval.hybrid").HybridRetriever(store)
    (found,) = retriever.retrieve("mirror shard", limit=1)
    assert isinstance(found.memory_unit, unit_class) and found.memory_unit.id == "new"
    assert store.get("old") == unit_class(
        "old", "the quota of the ledger", None, "document", "d", {"p": 1}, 1.0
    )
