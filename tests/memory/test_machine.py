"""A memory against a plain Python model of it, through any order of what one can do to it."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

ANIMALS = ("lynx", "otter", "heron", "newt", "snake_case_name", "CamelCaseName")
texts = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(), max_size=40),  # lone surrogates, controls, anything
    st.lists(st.sampled_from(ANIMALS), min_size=1, max_size=6).map(" ".join),
    st.sampled_from(["", "\x00", "a\r\nb", "\ud800", "<MEM0>", '" OR *', "x" * 3000, "é" * 900]),
)
originals = st.one_of(texts, st.binary(max_size=60), st.just(b"\xff\xfe" * 500))
sources = st.sampled_from([None, "pytest", "git", "make\n"])
metadata = st.dictionaries(
    st.sampled_from(["run", "ok", "näme", "a.b"]),
    st.one_of(st.integers(0, 3), st.sampled_from(["x", "'", None, 1.5])),
    max_size=2,
)


class MemoryMachine(RuleBasedStateMachine):
    """``self.model`` keeps a copy of all memories: handle -> (original, source, metadata)."""

    clara: Any = None
    handles = Bundle("handles")

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "m.db"
        self.memory = Memory.open(self.path, self.clara)
        self.model: dict[str, tuple[str | bytes, str | None, dict[str, Any]]] = {}

    def teardown(self) -> None:
        if hasattr(self, "memory"):
            if self.clara:
                self.memory.flush(30)
                assert self.memory.status().failed == 0
            assert self.memory.verify().problems == []
            self.memory.close()
            shutil.rmtree(self.folder)

    @rule(target=handles, original=originals, source=sources, metadata=metadata)
    def remember(self, original: str | bytes, source: str | None, metadata: dict[str, Any]) -> str:
        handle = self.memory.remember(original, source=source, metadata=metadata)
        assert handle not in self.model
        self.model[handle] = original, source, metadata
        return handle

    @rule(target=handles, handle=handles, source=sources)
    def remember_again(self, handle: str, source: str | None) -> str:
        original = self.model[handle][0] if handle in self.model else "forgotten"
        return self.remember(original, source, {})

    @rule(handle=consumes(handles))
    def forget(self, handle: str) -> None:
        if handle in self.model:
            assert self.memory.forget(handle) == 1
            del self.model[handle]
        with pytest.raises(ClaraError):
            self.memory.original(handle)
        with pytest.raises(ClaraError):
            self.memory.forget(handle)

    @rule(source=sources, run=st.integers(0, 3))
    def forget_where(self, source: str | None, run: int) -> None:
        gone = [
            handle
            for handle, (_, of, metadata) in self.model.items()
            if of == source and metadata.get("run") == run
        ]
        assert self.memory.forget(where={"source": source, "run": run}) == len(gone)
        for handle in gone:
            del self.model[handle]

    @rule(animal=st.sampled_from(ANIMALS), source=st.one_of(st.none(), sources))
    def recall_words(self, animal: str, source: str | None) -> None:
        where = None if source is None else {"source": source}
        hits = self.memory.recall(animal, 200, where, mode="text")
        held = {  # each content is found once, by the latest of its memories
            (type(original), original)
            for original, of, _ in self.model.values()
            if isinstance(original, str)
            and animal in original.split()
            and (source is None or of == source)
        }
        found = [self.model[hit.handle][0] for hit in hits]
        assert {(type(f), f) for f in found if isinstance(f, str) and animal in f.split()} == held
        for hit in hits:
            original, of, metadata = self.model[hit.handle]
            if isinstance(original, bytes):
                original = original.decode("utf-8", "surrogateescape")
            assert hit.text == original[hit.start : hit.end]
            assert (hit.source, hit.metadata) == (of, metadata)
            assert source is None or of == source

    @rule(query=texts)
    def recall_anything(self, query: str) -> None:
        for hit in self.memory.recall(query, 3):
            assert hit.handle in self.model

    @rule(query=st.sampled_from(ANIMALS), k=st.integers(1, 8))
    def recall_latents(self, query: str, k: int) -> None:
        if not self.clara:
            return
        self.memory.flush(30)
        exact = self.memory.recall(query, k, mode="latent", exact=True)
        quick = self.memory.recall(query, k, mode="latent")
        assert len(exact) == len(quick) == min(k, self.memory.status().chunks)
        # So few are all scored exactly; only equal cosines may change places.
        assert [h.score for h in quick] == pytest.approx([h.score for h in exact], abs=1e-5)

    @rule()
    def reopen(self) -> None:
        self.memory.close()
        self.memory = Memory.open(self.path, self.clara)

    @rule()
    def vacuum(self) -> None:
        self.memory.vacuum()

    @rule()
    def move_to_another_file(self) -> None:
        """Export all, and go on in a new file that everything was imported into."""
        lines = io.StringIO()
        assert self.memory.export(lines) == len(self.model)
        exported = lines.getvalue()
        assert all(json.loads(line) for line in exported.splitlines())
        self.memory.close()
        self.path = self.folder / f"{self.path.stem}m.db"
        self.memory = Memory.open(self.path, self.clara)
        assert self.memory.import_(exported.splitlines()) == len(self.model)

    @invariant()
    def all_is_there(self) -> None:
        if not hasattr(self, "memory"):
            return
        there = {memory.handle: memory for memory in self.memory.list()}
        assert there.keys() == self.model.keys()
        for handle, (original, source, metadata) in self.model.items():
            assert self.memory.original(handle) == original
            assert (there[handle].source, there[handle].metadata) == (source, metadata)
        contents = {(type(original), original) for original, _, _ in self.model.values()}
        assert self.memory.status().contents == len(contents)


def run(machine: type[MemoryMachine], examples: int, steps: int) -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_a_memory_without_a_model() -> None:
    run(MemoryMachine, 40, 25)


def test_a_memory_with_a_model(clara: Callable[..., Any]) -> None:
    class WithModel(MemoryMachine):
        pass

    WithModel.clara = clara("c16", "e2e")
    run(WithModel, 15, 20)
