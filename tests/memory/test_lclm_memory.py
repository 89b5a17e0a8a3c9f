"""A memory with LCLM: chunks of any number of states, found by words, read by the decoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lclm_files import document

from clara_mlx import Clara, Memory
from clara_mlx.compressors.lclm.lclm import Lclm, load
from clara_mlx.errors import ClaraError

FAILURE = "FAILED tests/test_io.py::test_load - FileNotFoundError: data/config.toml\n"
LONG = "".join(f"step {i}: compiled module_{i * 7} in {i * 13} ms\n" for i in range(40))


@pytest.fixture
def model(lclm_folder: Callable[..., Path]) -> Lclm:
    """A model of its own, as the memory's thread uses it."""
    return load(lclm_folder("c16"))


def test_it_remembers_finds_answers_and_gives_back(model: Lclm, tmp_path: Path) -> None:
    with Memory.open(tmp_path / "memory.db", model) as memory:
        handles = [memory.remember(text) for text in (FAILURE, LONG, "", "é🙂 <|memory_end|>")]
        memory.flush(60)
        hits = memory.recall("which file is missing: config.toml")
        assert hits[0].handle == handles[0]
        assert hits[0].found_by == ("text",)
        answer = memory.ask("Which file is missing, config.toml?", max_tokens=4)
        assert answer.evidence[0].handle == handles[0]
        assert answer.passes == 1
        count = sum(
            model.config.latents(len(model.tokenizer.encode(hit.text))) + model.separators
            for hit in answer.evidence
        )
        assert answer.tokens_read == count
        for handle, text in zip(handles, (FAILURE, LONG, "", "é🙂 <|memory_end|>"), strict=True):
            assert memory.original(handle) == text
        with pytest.raises(ClaraError, match="search by text"):
            memory.recall("config.toml", mode="latent")


def test_what_is_read_is_what_the_text_becomes(model: Lclm, tmp_path: Path) -> None:
    """But for the codec: fp16 here."""
    with Memory.open(tmp_path / "memory.db", model, codec="fp16") as memory:
        handle = memory.remember(FAILURE)
        memory.flush(60)
        text = memory.ask("Which file is missing, config.toml?", max_tokens=6).text
        assert memory.original(handle) == FAILURE
    assert text == model.answer("Which file is missing, config.toml?", [FAILURE], 6).strip()


def test_it_can_search_by_mean_states(model: Lclm, tmp_path: Path) -> None:
    """Switched on, a text is found by itself; that also without a word in common."""
    model.searches = True
    texts = [FAILURE, LONG, *document("c16", "windows").split("\n\n")[:6]]
    with Memory.open(tmp_path / "memory.db", model) as memory:
        handles = [memory.remember(text) for text in texts]
        memory.flush(60)
        for handle, text in zip(handles, texts, strict=True):
            if len(model.tokenizer.encode(text)) <= model.chunk_tokens:
                assert memory.recall(text, 1, mode="latent")[0].handle == handle
        assert "latent" in memory.recall("zzz", 3)[0].found_by


def test_a_log_that_grows_is_run_only_where_it_grows(model: Lclm, tmp_path: Path) -> None:
    """Its chunks are known by their content, also after the file was closed."""
    path = tmp_path / "memory.db"
    with Memory.open(path, model) as memory:
        memory.remember(LONG)
        memory.flush(60)
    before = len(model.tokenizer.encode(LONG))
    assert model.encoded_tokens >= before
    again = fresh(model)
    with Memory.open(path, again) as memory:
        handle = memory.remember(LONG + FAILURE)
        memory.flush(60)
        assert memory.recall("config.toml", 1)[0].handle == handle
    new = again.encoded_tokens
    assert 0 < new <= model.chunk_tokens + len(model.tokenizer.encode(FAILURE))
    assert new < before / 2


def fresh(model: Lclm) -> Lclm:
    """The same model without anything that it has compressed before."""
    inner = model._compressing
    tokenizers = model.tokenizer, model.decoder_tokenizer
    return Lclm(
        model.config, inner.encoder, inner._adapter, model.decoder, *tokenizers, model.fingerprint
    )


def test_a_memory_of_clara_moves_to_lclm(
    model: Lclm, clara: Callable[..., Clara], tmp_path: Path
) -> None:
    """Originals and handles stay; both find by words meanwhile."""
    path = tmp_path / "memory.db"
    with Memory.open(path, clara("c16", "e2e")) as memory:
        handle = memory.remember(FAILURE)
        memory.flush(60)
    with Memory.open(path, model) as memory:
        assert memory.recall("config.toml", 1)[0].handle == handle
        memory.recompress()
        assert memory.original(handle) == FAILURE
        assert memory.ask("Which file, config.toml?", max_tokens=2).passes == 1
        assert memory.status().fingerprint == model.fingerprint


def test_chunks_are_read_back_as_they_were(model: Lclm) -> None:
    """The protocol's own promises: one array for each text, and mean-pooled questions."""
    chunks: list[Any] = model.encode_chunks([FAILURE, "", "x"])
    most, width = model.latent_shape
    assert [chunk.shape[1] for chunk in chunks] == [width] * 3
    assert [len(chunk) for chunk in chunks[1:]] == [1, 1]
    assert all(len(chunk) <= most for chunk in chunks)
    question = np.array(model.encode_query(FAILURE))
    assert np.abs(question - chunks[0].mean(0, keepdims=True)).max() < 1e-6
