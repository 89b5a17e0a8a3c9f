"""What compressors make: latents and shortened texts, kept beside originals and lost with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from clara_mlx.errors import OtherModel, StoreError
from clara_mlx.store import calibration
from clara_mlx.store.calibration import Calibration
from clara_mlx.store.latent_search import open_latents
from clara_mlx.store.latents import drop_all_latents
from clara_mlx.store.originals import Originals
from clara_mlx.store.shortened import ShortenedTable, count_by_shortener, drop_all_shortened
from clara_mlx.store.spaces import space_of

SHAPE = (4, 64)


def remember(store: Originals, text: str, pieces: int = 1) -> int:
    """Remember a text in some chunks; returns the id of its content."""
    step = -(-len(text) // pieces)
    spans = [(at, min(at + step, len(text)), 1) for at in range(0, len(text), step)]
    return store.content_id(store.remember(text.encode(), text, spans))


def open_table(store: Originals, model: str = "a model") -> Any:
    table, _ = open_latents(store, model, SHAPE, "int8")
    return table


def made(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, *SHAPE)).astype(np.float32)


def test_latents_complete_a_content(opened: Callable[[], Originals]) -> None:
    store = opened()
    table = open_table(store)
    assert open_table(opened()).id == table.id
    contents = [remember(store, f"text {i} " * 10, pieces=2) for i in range(6)]
    ids = [chunk.id for content in contents for chunk in store.chunks(content)]
    latents = made(12)
    digests = [bytes([i]) * 16 for i in range(12)]
    table.put(ids, latents, contents, digests)
    assert table.count() == 12 and store.backlog.count() == 0
    assert table.present([*ids, 10**9]) == set(ids)
    again = table.latents([ids[7], ids[0], ids[7]])
    for found, place in zip(again, (7, 0, 7), strict=True):
        assert np.abs(found - latents[place]).max() < 0.05
    assert set(table.blobs(ids)) == set(table.checked_blobs(ids)) == set(ids)
    assert list(table.known([digests[3], b"x" * 16])) == [digests[3]]
    with pytest.raises(StoreError, match="have no latents"):
        table.latents([ids[0], 10**9])
    space = space_of(store)
    assert space and (space.fingerprint, space.count) == ("a model", 12)
    # What is there already is not replaced, and what is forgotten is not kept.
    table.put([ids[0], 10**9], made(2, seed=1))
    assert np.abs(table.latents([ids[0]])[0] - latents[0]).max() < 0.05
    assert table.count() == 12


def test_latents_are_lost_with_their_chunks(store: Originals) -> None:
    table = open_table(store)
    contents = [remember(store, f"text {i}") for i in range(4)]
    ids = [chunk.id for content in contents for chunk in store.chunks(content)]
    table.put(ids, made(4), contents)
    before = table.state()
    store.rechunk(contents[0], [(0, 6, 2)])
    (memory,) = [one for one in store.memories() if store.content_id(one.handle) == contents[1]]
    store.forget({"handle": memory.handle})
    assert table.present(ids) == set(ids[2:])
    assert table.state() != before, "others have to read the sketches again"
    assert store.dialect.sketches.ids(store, table.id) == set(ids[2:])


def test_damaged_latents_are_noticed(store: Originals) -> None:
    table = open_table(store)
    content = remember(store, "text")
    (chunk,) = store.chunks(content)
    table.put([chunk.id], made(1), [content])
    with store.write() as connection:
        connection.execute("UPDATE latents SET crc = crc + 1")
    assert table.checked_blobs([chunk.id]) == {chunk.id: None}
    with pytest.raises(StoreError, match="are damaged"):
        table.latents([chunk.id])


def test_latents_of_two_models_never_mix(store: Originals) -> None:
    table = open_table(store)
    content = remember(store, "text")
    table.put([store.chunks(content)[0].id], made(1), [content])
    with pytest.raises(OtherModel, match="clara-mlx recompress"):
        open_table(store, "another model")
    drop_all_latents(store)
    assert space_of(store) is None and store.backlog.pending(9) == [content]
    other = open_table(store, "another model")
    assert other.count() == 0
    with pytest.raises(OtherModel):
        table.put([store.chunks(content)[0].id], made(1), [content])
    with pytest.raises(OtherModel):
        table.state()


def test_shortened_texts(opened: Callable[[], Originals]) -> None:
    store = opened()
    first = remember(store, "first text")
    table = ShortenedTable.open(store, "short", "f1", 4.0)
    second = remember(store, "second text", pieces=2)
    backlog = store.texts_backlog
    assert backlog.pending(9) == [first, second], "those before and after it was opened"
    ids = [chunk.id for content in (first, second) for chunk in store.chunks(content)]
    texts = ["a\0b", "\ud800", ""]
    table.put([*ids, 10**9], [*texts, "of nothing"], [first, second])
    assert backlog.count() == 0 and table.count() == 3
    assert table.texts(ids) == dict(zip(ids, texts, strict=True))
    assert count_by_shortener(store) == {"short": 3}
    with pytest.raises(OtherModel):
        ShortenedTable.open(opened(), "other", "f2", 4.0)
    store.rechunk(second, [(0, 11, 3)])
    assert backlog.pending(9) == [second] and table.present(ids) == {ids[0]}
    drop_all_shortened(store)
    assert count_by_shortener(store) == {} and backlog.count() == 0


def test_what_was_measured_is_kept(store: Originals) -> None:
    measured = Calibration(0.1, 0.05, 7, 3, "a model")
    for kept in (Calibration(0.2, 0.1, 1, 1, "a model"), measured):
        with store.write() as connection:
            calibration.write(connection, kept)
    assert calibration.read(store, "a model") == measured
    assert calibration.read(store, "another") is None
