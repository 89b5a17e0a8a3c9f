"""The knowledge store, the compressor and the installation, without CompyMac."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from compymac_types import Loop, Message, conversation
from trajectories import report

from clara_mlx.compymac import (
    ClaraCompressor,
    ClaraKnowledgeStore,
    MemoryUnit,
    Settings,
    install,
)
from clara_mlx.context.freezer import HANDLE
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory

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


def test_knowledge_is_stored_found_and_removed(compymac_settings: Settings) -> None:
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


def test_many_chunks_are_one_unit(compymac_settings: Settings) -> None:
    store = ClaraKnowledgeStore()
    store.store(unit(0, "kernel " * 4000))
    store.store_batch([unit(n) for n in range(1, 4)])
    assert {u.memory_unit.id for u in store.retrieve("kernel", limit=4)} == {"u0", "u1", "u2", "u3"}


def test_a_backend_has_a_memory_beside_it(compymac_settings: Settings, tmp_path: Path) -> None:
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
    assert store.memory.path == tmp_path / "knowledge.clara.db"
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


def test_a_compressor_without_a_model(compymac_settings: Settings) -> None:
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
    # A memory that is open may use the model at any time, and one thread at a time may.
    expected = model.compress(report(0, 60))
    expected_query = np.array(model.encode_query("which test failed?"))
    with Memory.open(tmp_path / "memory.db", model) as memory:
        compressor = ClaraCompressor(memory, Settings())
        made = compressor.compress(report(0, 60), "bash", {"command": "pytest"})
        assert made.latents is not None and made.latents.dtype == np.float32
        np.testing.assert_allclose(made.latents, np.array(expected.latents), atol=1e-5)
        assert made.source_tokens == expected.source_tokens
        assert "command: pytest" in made.text
        encoded = compressor.encode_query("which test failed?")
        np.testing.assert_allclose(encoded, expected_query, atol=1e-5)


# -- installing ----------------------------------------------------------------------------------


def test_installing_and_taking_out_again(compymac_settings: Settings) -> None:
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
    assert loop.harness.tools == {}


def test_a_shortened_output_has_one_handle_for_good(compymac_settings: Settings) -> None:
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
