"""The whole memory at size: inserts, first search, and each kind of search, by Store and Space.

    python bench/recall.py --chunks 10000

The synthetic latents and queries of bench/synthetic.py; bench/retrieval.py compares ways to search,
this times ours with everything around it. Results go to bench/results/recall_<chunks>.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import HIDDEN, MEMORY, World

from clara_mlx import machine
from clara_mlx.store import search
from clara_mlx.store.space import Space
from clara_mlx.store.store import Store

FINGERPRINT = "synthetic"


def fill(path: Path, world: World) -> dict[str, float]:
    """Remember a content of one chunk for each latent; seconds in the store, by what they go to."""
    store = Store(path)
    space = Space.open(store, FINGERPRINT, MEMORY, HIDDEN, "int8")
    spent = {"remember": 0.0, "put": 0.0}
    for start in range(0, world.n, 250):
        batch = world.batch(start)
        latents = batch.reshape(len(batch), MEMORY, HIDDEN)
        begun = time.perf_counter()
        for i in range(start, start + len(batch)):
            text = f"{i}: " + " ".join(world.text(i))
            source = f"s{i % 10}"
            store.remember(text.encode(), text, [(0, len(text), 80)], source=source)
        spent["remember"] += time.perf_counter() - begun
        begun = time.perf_counter()
        ids = list(range(start + 1, start + len(batch) + 1))
        space.put(ids, latents, ids)
        spent["put"] += time.perf_counter() - begun
    store.close()
    return spent


def milliseconds(work: Any, queries: Any) -> dict[str, float]:
    """Median and 95th percentile over queries."""
    times = []
    for query in queries:
        begun = time.perf_counter()
        work(query)
        times.append(1e3 * (time.perf_counter() - begun))
    return {"p50_ms": float(np.median(times)), "p95_ms": float(np.percentile(times, 95))}


def measure(path: Path, world: World, count: int) -> dict[str, Any]:
    """A process that opens the file: its first search, then searches of each kind."""
    store = Store(path)
    space = Space.open(store, FINGERPRINT, MEMORY, HIDDEN, "int8")
    queries, targets = world.queries(count)
    encoded = {k: v.reshape(-1, MEMORY, HIDDEN).astype(np.float32) for k, v in queries.items()}
    begun = time.perf_counter()
    space.search(encoded["related"][0], 10)
    result: dict[str, Any] = {"first_search_seconds": time.perf_counter() - begun}
    for kind, vectors in encoded.items():
        exact_for = vectors[: min(5, count)]
        agree = [
            len(
                {id for id, _ in space.search(q, 10)}
                & {id for id, _ in space.search(q, 10, exact=True)}
            )
            / 10
            for q in exact_for
        ]
        found = [targets[kind][i] + 1 in dict(space.search(q, 10)) for i, q in enumerate(vectors)]
        result[kind] = {
            **milliseconds(lambda q: space.search(q, 10), vectors),
            "recall_against_exact": float(np.mean(agree)),
            "target_found": float(np.mean(found)),
        }
    words = [" ".join(world.text(int(t))[:8]) for t in targets["related"]]
    pairs = list(zip(encoded["related"], words, strict=True))
    ways: dict[str, Any] = {
        "latent, with hits": lambda p: search.search(store, space, p[0], None, 10, None),
        "text": lambda p: search.search(store, None, None, p[1], 10, None),
        "hybrid": lambda p: search.search(store, space, p[0], p[1], 10, None),
        "hybrid, one source": lambda p: search.search(
            store, space, p[0], p[1], 10, {"source": "s3"}
        ),
    }
    result["whole searches"] = {name: milliseconds(way, pairs) for name, way in ways.items()}
    store.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()
    world = World(options.chunks)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db"
        spent = fill(path, world)
        result = {
            "machine": machine.describe(),
            "chunks": options.chunks,
            "bytes_per_chunk": path.stat().st_size / options.chunks,
            "chunks_put_per_second": options.chunks / spent["put"],
            "remembered_per_second_one_by_one": options.chunks / spent["remember"],
            **measure(path, world, options.queries),
        }
    output = Path(__file__).parent / "results" / f"recall_{options.chunks}.json"
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
