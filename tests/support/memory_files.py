"""Memory files with latents, made without a model, for tests of what is in their bytes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
from memory_worker import WORDS, remember

from clara_mlx.store.latents import LatentTable
from clara_mlx.store.store import Store

SHAPE = (4, 64)


def open_latents(store: Store) -> LatentTable:
    return LatentTable.open(store, "a model", *SHAPE, "int8")


def fill(path: Path, count: int, seed: int = 0) -> dict[str, bytes]:
    """A memory of texts with latents, all of it in the file itself; originals by handle."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    store = Store(path)
    table = open_latents(store)
    kept = {}
    for _ in range(count):
        text = f"{rng.choice(WORDS)} {rng.randbytes(rng.choice((40, 1500, 9000))).hex()}"
        kept[remember(store, text, source=rng.choice(WORDS))] = text.encode()
    for content in store.backlog.pending(count):
        ids = [chunk.id for chunk in store.chunks(content)]
        table.put(ids, numbers.normal(size=(len(ids), *SHAPE)).astype(np.float32), [content])
    with store.errors():
        store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    store.close()
    return kept
