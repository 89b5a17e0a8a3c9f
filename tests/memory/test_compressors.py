"""A memory with any compressor: what each makes, switching between them, and what never changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_files import GOLDEN
from memory_worker import Ledger
from sizes import sized

from clara_mlx.compressors import registry
from clara_mlx.compressors.compressor import Compressor
from clara_mlx.convert import Source, convert
from clara_mlx.errors import OtherModel, StoreError
from clara_mlx.memory import Memory
from clara_mlx.store import care

TEXTS = [
    "FAILED tests/test_io.py::test_load - FileNotFoundError\n1 failed, 41 passed\n" * 4,
    "commit 3f9a1c02be\n    store: flush every socket before the ledger is closed\n" * 5,
    "\n".join(f"-rw-r--r-- 1 root root {i * 37} file_{i}.py" for i in range(30)),
]
TEXTUAL = ("extractive", "bm25", "head-tail", "verbatim")
LATENT = ("clara", "pisco", "lclm")


@pytest.fixture(scope="module")
def compressor(
    clara: Callable[..., Any], lclm: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Compressor]:
    """A compressor by its name, on a golden checkpoint if it needs one."""
    made: dict[str, Compressor] = {}

    def open_compressor(name: str) -> Compressor:
        if name not in made:
            if name == "pisco":
                to = tmp_path_factory.mktemp("pisco") / "model"
                source = Source.open(GOLDEN / "pisco" / "checkpoint", base=GOLDEN / "tiny-base")
                convert(source, to, dtype="float32")
                made[name] = registry.load(to)
            elif name in LATENT:
                made[name] = clara("c16", "e2e") if name == "clara" else lclm("c4")
            else:
                made[name] = registry.open_compressor(name)
        return made[name]

    return open_compressor


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.db"


def fill(path: Path, compressor: Compressor | None) -> list[str]:
    with Memory.open(path, compressor) as memory:
        handles = [memory.remember(text) for text in TEXTS]
        if compressor:
            memory.flush(60)
    return handles


def check(memory: Memory, handles: list[str], made_by: set[str]) -> None:
    """All originals are there, all chunks have been compressed, and nothing is unsound."""
    assert [memory.original(handle) for handle in handles] == TEXTS
    status = memory.status()
    assert (status.pending, status.failed) == (0, 0)
    assert status.made_by == dict.fromkeys(made_by, status.chunks)
    assert care.verify(memory._store).problems == []  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*LATENT, *TEXTUAL])
def test_each_compresses_finds_and_keeps_the_originals(
    name: str, compressor: Callable[[str], Compressor], path: Path
) -> None:
    handles = fill(path, compressor(name))
    with Memory.open(path, compressor(name)) as memory:
        check(memory, handles, {name})
        assert memory.recall("which commit flushes the ledger", 1)[0].handle == handles[1]
        answer = memory.ask("which commit flushes the ledger?", max_tokens=3)
        assert {hit.handle for hit in answer.evidence} >= {handles[1]}
        assert memory.answers == answer.answered == (name in LATENT)
        if name in TEXTUAL:
            assert "before the ledger" in answer.text
            assert answer.tokens_saved > 0 or name == "verbatim"
            assert len(memory.shortened(handles[2])) < len(TEXTS[2]) or name == "verbatim"
            with pytest.raises(StoreError, match="this one is textual"):
                memory.recall("ledger", mode="latent")
        else:
            if memory.clara and memory.clara.searches:
                found = memory.recall(TEXTS[1][:60], 3, mode="latent")
                assert all(hit.found_by == ("latent",) for hit in found) and len(found) == 3
            else:
                with pytest.raises(StoreError, match="can't be searched"):
                    memory.recall("ledger", mode="latent")
            with pytest.raises(StoreError, match="latents are no text"):
                memory.shortened(handles[0])


def test_chunks_of_different_numbers_of_latents_are_stored_and_searched_by_their_mean(
    compressor: Callable[[str], Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lclm = compressor("lclm")
    monkeypatch.setattr(lclm, "searches", True)
    fill(path, lclm)
    with Memory.open(path, lclm, codec="fp16") as memory:
        hits = memory.recall("file", 99, mode="text")
        table = memory._compressing.work("a test").table  # type: ignore[union-attr]
        stored = table.latents([hit.chunk_id for hit in hits])
        exact = lclm.encode_chunks([hit.text for hit in hits])
        assert len({len(one) for one in exact}) > 1
        for one, other in zip(stored, exact, strict=True):
            np.testing.assert_allclose(one, other, atol=0.05 * np.abs(other).max())
        query = np.array(lclm.encode_query("file")).reshape(-1)
        best = memory.recall("file", 99, mode="latent", exact=True)
        means = [one.mean(axis=0) for one in lclm.encode_chunks([hit.text for hit in best])]
        cosines = [m @ query / np.linalg.norm(m) / np.linalg.norm(query) for m in means]
        np.testing.assert_allclose([hit.score for hit in best], cosines, atol=0.01)


@pytest.mark.parametrize("name", ["clara", "lclm"])
def test_a_text_that_grows_is_compressed_only_where_it_grows(
    name: str, compressor: Callable[[str], Any], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = compressor(name)
    encoded: list[str] = []
    encode = type(model).encode_chunks

    def counted(self: Any, texts: Any, /) -> Any:
        encoded.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(type(model), "encode_chunks", counted)
    lines = [f"2026-11-30 10:{n:02} worker {n * 7919:x} flushed socket {n}\n" for n in range(60)]
    with Memory.open(path, model) as memory:
        memory.remember("".join(lines[:50]))
        memory.flush(60)
        chunks = memory.status().chunks
        assert len(encoded) == chunks > 8
        memory.remember("".join(lines))
        memory.flush(60)
        assert memory.status().compressed == memory.status().chunks
        assert len(encoded) < chunks + 8  # the end of the first one, and what is new
        hits = memory.recall("worker", 999, mode="text")
        table = memory._compressing.work("a test").table  # type: ignore[union-attr]
        latents = table.latents([hit.chunk_id for hit in hits])
        exact = encode(model, [hit.text for hit in hits])
        for one, other in zip(latents, exact, strict=True):
            np.testing.assert_allclose(one, other, atol=0.05 * np.abs(other).max())
        assert memory.verify().problems == []


def test_shortened_texts_stand_beside_latents(
    compressor: Callable[[str], Compressor], path: Path
) -> None:
    handles = fill(path, compressor("clara"))
    with Memory.open(path, compressor("extractive")) as memory:
        memory.flush(60)
        check(memory, handles, {"clara", "extractive"})
        handles.append(memory.remember("one more"))
        memory.flush(60)
    with Memory.open(path, compressor("clara")) as memory:
        assert memory.status().pending == 1  # of the latents
        memory.flush(60)
        # The new text was cut without the model's tokenizer, and has been cut again.
        assert memory.status().made_by["clara"] == memory.status().chunks
    with Memory.open(path, compressor("head-tail")) as memory:
        with pytest.raises(OtherModel, match=r"by extractive.*not by head-tail.*recompress"):
            memory.flush()
        assert memory.recall("ledger", 1)[0].handle == handles[1]
        memory.recompress()
        TEXTS.append("one more")
        try:
            check(memory, handles, {"clara", "head-tail"})
        finally:
            TEXTS.pop()


def test_damaged_shortened_texts_are_found_and_made_again(
    compressor: Callable[[str], Compressor], path: Path
) -> None:
    handles = fill(path, compressor("head-tail"))
    with Memory.open(path, compressor("head-tail")) as memory:
        with memory.file.write() as connection:
            connection.execute("UPDATE shortened SET data = x'00' WHERE id = 2")
        with pytest.raises(StoreError, match="verify --repair"):
            for handle in handles:
                memory.shortened(handle)
        assert memory.verify(repair=True).damaged_chunks
        memory.flush(60)
        check(memory, handles, {"head-tail"})


@pytest.mark.parametrize(("old", "new"), [("clara", "lclm"), ("lclm", "clara")])
def test_recall_works_while_the_memory_moves(
    old: str, new: str, compressor: Callable[[str], Compressor], path: Path
) -> None:
    handles = fill(path, compressor(old))
    moved = threading.Event()
    found: list[str] = []
    errors: list[Exception] = []

    def read() -> None:
        with Memory.open(path, compressor(old), compress=False) as reader:
            while not moved.is_set() or len(found) < 3:
                try:
                    found.append(reader.recall("which commit flushes the ledger", 1)[0].handle)
                    assert [reader.original(handle) for handle in handles] == TEXTS
                except Exception as error:
                    errors.append(error)
                    return

    thread = threading.Thread(target=read)
    with Memory.open(path, compressor(new)) as memory:
        thread.start()
        memory.recompress()
        moved.set()
        thread.join()
        check(memory, handles, {new})
        assert memory.recall("which commit flushes the ledger", 1)[0].handle == handles[1]
    assert not errors and set(found) == {handles[1]}


@pytest.mark.alone
def test_killed_while_it_moves_between_compressors(
    compressor: Callable[[str], Compressor],
    folder: Callable[..., Path],
    lclm_folder: Callable[..., Path],
    path: Path,
) -> None:
    """SIGKILL in the middle of moves there and back: each is resumed, and nothing is lost."""
    ledger = Ledger(path)
    ledger.kill("compress", 0, 0.6, folder("c16", "e2e"))
    for seed, model in enumerate([lclm_folder("c4"), folder("c16", "e2e")] * sized(1, 4)):
        ledger.kill("move", seed, 0.5, model)
        with Memory.open(path) as memory:
            assert memory.recall("only0", 1, mode="text") is not None
            assert {m.handle for m in memory.list()} >= set(ledger.kept)
    with Memory.open(path, compressor("lclm")) as memory:
        memory.recompress()
        status = memory.status()
        assert (status.pending, status.failed) == (0, 0)
        assert status.made_by == {"lclm": status.chunks} and status.chunks > 0
    ledger.check()
