"""Memory with a model: what is remembered is compressed, found, asked about and given back."""

from __future__ import annotations

import io
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clara_mlx.errors import ClaraError, OtherModel, StoreError
from clara_mlx.memory import Memory
from clara_mlx.memory.asking import NOTHING_FOUND
from clara_mlx.memory.worker import CHUNKS

TEXTS = {
    "pytest": "FAILED tests/test_io.py::test_load - FileNotFoundError\n1 failed, 41 passed\n" * 4,
    "git": "commit 3f9a1c02be\n    store: flush every socket before the ledger is closed\n" * 5,
    "ls": "\n".join(f"-rw-r--r-- 1 root root {i * 37} file_{i}.py" for i in range(30)),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def memory(path: Path, clara: Any) -> Iterator[Memory]:
    with Memory.open(path, clara("c16", "e2e"), floor=-1.0) as opened:
        for source, text in TEXTS.items():
            opened.remember(text, source=source, metadata={"of": source})
        opened.flush(60)
        yield opened


def test_everything_is_compressed_and_the_latents_are_the_models(memory: Memory) -> None:
    status = memory.status()
    assert (status.pending, status.failed, status.memories) == (0, 0, 3)
    assert status.compressed == status.chunks > 10
    clara = memory.clara
    assert clara is not None and memory._compressing is not None
    hits = memory.recall("which file", 5, mode="latent")
    kept = memory._compressing.work("a test").table.latents([hit.chunk_id for hit in hits])
    exact = np.array(clara.encode([hit.text for hit in hits]))
    cosines = [float(clara.rank(a, b)[0]) for a, b in zip(kept, exact, strict=True)]
    assert min(cosines) > 0.999


@pytest.mark.parametrize("mode", ["latent", "text", "hybrid"])
def test_recall_gives_exact_spans(memory: Memory, mode: Any) -> None:
    hits = memory.recall("flush every socket, test_load, file_7.py", 6, mode=mode)
    assert len(hits) == 6
    for hit in hits:
        original = memory.original(hit.handle)
        assert isinstance(original, str)
        assert original[hit.start : hit.end] == hit.text
        assert original[: hit.start].count("\n") + 1 == hit.line
        assert set(hit.found_by) <= {"latent", "text"} and hit.found_by
        assert TEXTS[hit.source or ""] == original
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("k", [1, 3, 50])
def test_candidates_find_what_exact_search_finds(memory: Memory, k: int) -> None:
    for query in ("which test failed", "ledger", "root root 370"):
        fast = memory.recall(query, k, mode="latent")
        exact = memory.recall(query, k, mode="latent", exact=True)
        assert [h.chunk_id for h in fast] == [h.chunk_id for h in exact]


def test_filters_come_before_the_top_k_of_latents(memory: Memory) -> None:
    for where in ({"source": "git"}, {"of": "git"}):
        hits = memory.recall("anything at all", 4, where=where, mode="latent")
        assert len(hits) == 4
        assert {hit.source for hit in hits} == {"git"}


def test_hybrid_fuses_both(memory: Memory) -> None:
    hits = memory.recall("3f9a1c02be", 10)
    assert hits[0].source == "git"
    assert any("text" in hit.found_by for hit in hits)
    assert any("latent" in hit.found_by for hit in hits)


def test_a_pending_memory_is_found_by_text(path: Path, clara: Any) -> None:
    with Memory.open(path, clara("c16", "e2e"), compress=False) as memory:
        memory.remember("an unusual wordlet", source="x")
        assert memory.status().pending == 1
        assert memory.recall("wordlet")[0].found_by == ("text",)
        with pytest.raises(StoreError, match="open it with a model"):
            memory.flush()
    with Memory.open(path, clara("c16", "e2e")) as memory:  # the next open continues
        memory.flush(60)
        assert memory.status().compressed == 1
        assert "latent" in memory.recall("wordlet")[0].found_by


def test_text_and_bytes_come_back_as_they_were(path: Path, clara: Any) -> None:
    originals: list[str | bytes] = [
        "",
        " \n",
        "a\x00b\ud800",
        b"",
        b"\xff\xfe\x00",
        "é" * 300,
        b"abc",
    ]
    with Memory.open(path, clara("c16", "e2e")) as memory:
        handles = [memory.remember(original) for original in originals]
        memory.flush(60)
    with Memory.open(path) as memory:
        assert [memory.original(handle) for handle in handles] == originals
        assert memory.verify().problems == []


def test_asking_gives_the_models_answer_and_its_evidence(memory: Memory) -> None:
    question = "Which test failed?"
    answer = memory.ask(question, k=3, max_tokens=8)
    assert memory.clara is not None and memory._compressing is not None
    latents = memory._compressing.work("a test").table.latents(
        [hit.chunk_id for hit in answer.evidence]
    )
    assert answer.text == memory.clara.answer(question, latents, 8).strip()
    assert answer.passes == 1
    assert answer.tokens_read == 3 * 5
    assert len(answer.evidence) == 3
    assert (
        answer.tokens_saved
        == sum(len(memory.clara.tokenizer.encode(hit.text)) for hit in answer.evidence)
        - answer.tokens_read
    )


def test_more_than_the_window_holds_is_read_in_passes(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.clara is not None
    monkeypatch.setattr(type(memory.clara), "documents_that_fit", lambda *_: 2)
    answer = memory.ask("Which test failed?", k=5, max_tokens=4)
    assert answer.passes == 3
    assert len(answer.evidence) == 5
    monkeypatch.setattr(type(memory.clara), "documents_that_fit", lambda *_: 0)
    with pytest.raises(ClaraError, match="no room"):
        memory.ask("Which test failed?")


def test_asking_about_what_is_not_compressed_yet(path: Path, clara: Any) -> None:
    with Memory.open(path) as memory:  # without a model: cut by characters, not by tokens
        memory.remember("the unusual wordlet " * 40)
    with Memory.open(path, clara("c16", "e2e"), compress=False) as memory:
        answer = memory.ask("wordlet?", max_tokens=4)
        assert [hit.found_by for hit in answer.evidence] == [("text",)] * 2
        assert answer.tokens_read > 2 * 5  # longer than two chunks of this model
        assert answer.passes == 1


def test_nothing_relevant_is_said_and_not_invented(memory: Memory) -> None:
    memory.floor = 1.1
    answer = memory.ask("Which test failed?")
    assert (answer.text, answer.evidence, answer.passes) == (NOTHING_FOUND, [], 0)


def test_the_same_content_is_compressed_once(memory: Memory) -> None:
    before = memory.status().compressed
    handle = memory.remember(TEXTS["git"], source="again")
    memory.flush(60)
    assert memory.status().compressed == before
    assert memory.status().memories == 4
    hits = memory.recall("flush every socket", 3, where={"source": "again"})
    assert hits and {hit.handle for hit in hits} == {handle}


def test_forgetting(memory: Memory) -> None:
    handle = memory.recall("ledger", 1, where={"source": "git"})[0].handle
    assert memory.forget(handle) == 1
    assert memory.recall("ledger", 5, mode="text") == []
    assert all(hit.source != "git" for hit in memory.recall("ledger", 50, mode="latent"))
    with pytest.raises(StoreError, match="no memory"):
        memory.original(handle)
    assert memory.forget(where={"source": ["ls", "pytest"]}) == 2
    assert memory.status().chunks == 0
    assert memory.verify().problems == []
    for arguments in ((), ("x",)):
        with pytest.raises(StoreError):
            memory.forget(*arguments)
    with pytest.raises(StoreError, match="condition"):
        memory.forget(where={})


def test_another_models_latents_are_never_mixed(
    memory: Memory, clara: Any, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compressed = memory.status().compressed
    with Memory.open(path, clara("c16", "instruct")) as other:
        assert other.recall("ledger", 3)[0].found_by == ("text",)
        assert "only text search is possible" in caplog.text
        for use in (lambda: other.ask("?"), lambda: other.recall("?", mode="latent")):
            with pytest.raises(StoreError, match="recompress"):
                use()
        other.remember("new text")
        assert other.status().compressed == 0
    memory.flush(60)
    assert memory.status().compressed == compressed + 1


def test_asking_with_another_model_leaves_nothing_behind(
    memory: Memory, clara: Any, path: Path
) -> None:
    """Each refusal is an exception of its own: one that is raised again keeps all its frames."""
    lengths = set()
    with Memory.open(path, clara("c16", "instruct")) as other:
        for _ in range(100):
            with pytest.raises(OtherModel) as refused:
                other.ask("?")
            lengths.add(len(traceback.extract_tb(refused.tb)))
    assert len(lengths) == 1


def test_recompressing_moves_the_file_to_another_model(path: Path, clara: Any) -> None:
    with Memory.open(path, clara("c16", "e2e")) as memory:
        handle = memory.remember(TEXTS["ls"])
        memory.flush(60)
        chunks = memory.status().chunks
    with Memory.open(path, clara("c4", "e2e")) as memory:
        seen: list[tuple[int, int]] = []
        memory.recompress(lambda done, total: seen.append((done, total)))
        assert seen[-1] == (1, 1)
        assert memory.status().compressed == memory.status().chunks == chunks
        assert memory.recall("file_7", 2, mode="latent")
        assert memory.original(handle) == TEXTS["ls"]
        assert memory.verify().problems == []
    with Memory.open(path, clara("c16", "e2e")) as memory, pytest.raises(StoreError):
        memory.ask("?")


def test_a_content_that_fails_does_not_hold_up_the_others(
    path: Path, clara: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = clara("c16", "e2e")
    encode = type(model).encode

    def fails(self: Any, texts: Any, **options: Any) -> Any:
        if any("poison" in text for text in texts):
            raise ClaraError("it was poisoned")
        return encode(self, texts, **options)

    monkeypatch.setattr(type(model), "encode", fails)
    with Memory.open(path, model) as memory:
        for text in ("good one", "poison", "good two"):
            memory.remember(text)
        memory.flush(60)
        status = memory.status()
        assert (status.compressed, status.failed, status.pending) == (2, 1, 0)
        assert status.last_error == "it was poisoned"
        assert memory.recall("poison", 1, mode="text")[0].text == "poison"


def test_closing_leaves_marks_and_reopening_finishes(path: Path, clara: Any) -> None:
    with Memory.open(path, clara("c16", "e2e")) as memory:
        for i in range(150):
            memory.remember(f"text number {i} " * 10)
    with Memory.open(path, clara("c16", "e2e")) as memory:
        memory.flush(60)
        assert memory.status().compressed == memory.status().chunks
        assert memory.verify().problems == []


def test_only_one_process_compresses(path: Path, clara: Any) -> None:
    with Memory.open(path, clara("c16", "e2e"), compress=False) as memory:
        memory.remember("text")
        memory._store.backlog.take_lease("compressor", "another process", 0.8)
        assert memory._background is not None
        memory._background.start()
        time.sleep(0.3)
        assert memory.status().pending == 1
        memory.flush(60)  # once the other's lease has expired
        assert memory.status().pending == 0


def test_export_and_import_keep_everything(memory: Memory, tmp_path: Path, clara: Any) -> None:
    memory.remember(b"\xff\x00", source="raw")
    memory.remember("lone \udc80 surrogate")
    file = io.StringIO()
    assert memory.export(file) == 5
    lines = file.getvalue().splitlines()
    with Memory.open(tmp_path / "copy.db", clara("c16", "e2e")) as copy:
        assert copy.import_(lines) == 5
        assert copy.import_(lines) == 0
        copy.flush(60)
        assert list(copy.list()) == list(memory.list())
        for remembered in memory.list():
            assert copy.original(remembered.handle) == memory.original(remembered.handle)
        with pytest.raises(StoreError, match="line 2: the original is damaged"):
            copy.import_([lines[0], lines[1].replace("flush", "flusk")])
        with pytest.raises(StoreError, match="line 1: not an exported memory"):
            copy.import_(["{}"])


def test_connections_of_ended_threads_are_closed(path: Path) -> None:
    with Memory.open(path) as memory:
        for _ in range(5):
            thread = threading.Thread(target=memory.status)
            thread.start()
            thread.join()
        assert len(memory._store._connections) <= 2
        assert memory.status().memories == 0


def test_remembering_something_long_shows_its_progress(path: Path) -> None:
    text = "some words of a long log, the same again and again\n" * 20_000
    with Memory.open(path) as memory:
        seen: list[tuple[int, int]] = []
        handle = memory.remember(text, progress=lambda done, total: seen.append((done, total)))
        assert memory.original(handle) == text
    assert len(seen) > 3 and seen == sorted(seen)
    assert {total for _, total in seen} == {len(text)}


def test_a_size_limit_forgets_only_when_it_is_set(path: Path) -> None:
    with Memory.open(path, most_bytes=1_000_000) as memory:
        handles = [memory.remember(np.random.default_rng(i).bytes(50_000)) for i in range(40)]
        kept = [m.handle for m in memory.list()]
        assert kept == handles[-len(kept) :]
        assert 3 < len(kept) < 40


def test_batches_are_small_enough_to_interrupt() -> None:
    assert CHUNKS <= 16
