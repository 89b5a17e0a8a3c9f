"""Search among latents: the memory's own, beside brute force, sqlite-vec and full text.

    python bench/retrieval.py [--sizes 1000 10000 100000] [--queries 100] [--folder /tmp]

Latents of 16 x 4096 are synthetic, with what makes real ones hard: a common part with two thirds of
the energy, so that any two have a cosine of about 0.66; a few dimensions ten times larger than the
others; topics, documents in them, chunks in those; correlated directions beside white noise; and a
mean of the queries that differs from that of the chunks. Queries are near-duplicates of a chunk
(a centred cosine of 0.96 to it), related (0.59) or weak (0.30). The truth is the ten best by
float32 cosine. What the search is tuned with (its stopping rule above all) was chosen with seed 0;
results are reported with another one, whose data and queries were not looked at before.

All is done by `Store`, `LatentTable` and `LatentIndex`: a content of one chunk is remembered for
each latent, with a text of about 80 words, and the latents are put in batches. Ways to search:

- ours: `LatentIndex.search`; ours exact: the same with ``exact=True``, over all blobs of the file;
- numpy, mlx: exact, one matrix-vector product with everything in memory as float32 (for up to
  --resident chunks; 26 GB at 100,000);
- vec0 pooled: sqlite-vec over the mean of the 16 memory tokens, float[4096], k = 10;
- vec0 bits: the store's sketches by SQL, the nearest 200, then their exact cosines;
- words, words plain: full text alone, by the store's rule and as one BM25 query over any word;
- hits, hybrid, hybrid filtered: `search.search` with all it returns, by latents alone, by latents
  and words, and by both within one of ten sources.

Milliseconds are of warm files, without encoding the query (`clara-mlx bench` reports that); those
of the processor are of the search alone, whatever else the machine did. At 100,000 chunks
this needs 10 GB of disk, and minutes. Results go to bench/results/retrieval.json and, with
matplotlib, retrieval.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from synthetic import BATCH, DIMS, HIDDEN, KINDS, MEMORY, WORDS_KEPT, Array, World

from clara_mlx import machine
from clara_mlx.store import asked, fulltext, search
from clara_mlx.store.driver import connect
from clara_mlx.store.latent_index import LatentIndex
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.store import Store

K = 10

FINGERPRINT = "synthetic"


class Truth:
    """The exact K best of each query, gathered while the latents go by."""

    def __init__(self, queries: dict[str, Array]) -> None:
        self.units = {k: q / np.linalg.norm(q, axis=1, keepdims=True) for k, q in queries.items()}
        self.best = {k: (np.empty((len(q), 0)), np.empty((len(q), 0))) for k, q in queries.items()}

    def add(self, ids: list[int], latents: Array) -> None:
        """Take in latents (n, DIMS) of chunks."""
        lengths = np.linalg.norm(latents, axis=1)
        for kind, units in self.units.items():
            scores, known = self.best[kind]
            scores = np.concatenate([scores, units @ latents.T / lengths], axis=1)
            known = np.concatenate([known, np.tile(ids, (len(known), 1))], axis=1)
            order = np.argsort(-scores, axis=1)[:, :K]
            self.best[kind] = (
                np.take_along_axis(scores, order, axis=1),
                np.take_along_axis(known, order, axis=1),
            )


class Pooled:
    """sqlite-vec over the mean of the memory tokens, in a file of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.db = path, connect(path)
        self.db.execute(
            f"CREATE VIRTUAL TABLE pooled USING vec0(v float[{HIDDEN}] distance_metric=cosine)"
        )

    def add(self, ids: list[int], latents: Array) -> None:
        """Latents (n, DIMS) of chunks, in one transaction."""
        rows = [row.tobytes() for row in latents.reshape(-1, MEMORY, HIDDEN).mean(axis=1)]
        self.db.execute("BEGIN IMMEDIATE")
        self.db.executemany(
            "INSERT INTO pooled (rowid, v) VALUES (?, ?)", zip(ids, rows, strict=True)
        )
        self.db.execute("COMMIT")

    def search(self, query: Array, _: str) -> list[int]:
        """The K nearest."""
        pooled = query.reshape(MEMORY, HIDDEN).mean(axis=0).tobytes()
        rows = self.db.execute(
            "SELECT rowid FROM pooled WHERE v MATCH ? AND k = ? ORDER BY distance", (pooled, K)
        )
        return [row[0] for row in rows]


Way = Callable[[Array, str], list[int]]


def ways(store: Store, table: LatentTable) -> dict[str, Way]:
    """The searches of a store, each from a query and its words to chunk ids."""
    index = LatentIndex(table)

    def shaped(query: Array) -> Array:
        return query.reshape(MEMORY, HIDDEN)

    def latent(query: Array, exact: bool) -> list[int]:
        return [id for id, _ in index.search(shaped(query), K, exact=exact)]

    def by_bits(query: Array, _: str) -> list[int]:
        sketched = table.sketcher()[1].sketch_query(query)
        rows = store.read(
            f"SELECT rowid FROM sketches_{table.id} "
            "WHERE bits MATCH vec_bit(?) AND k = 200 ORDER BY distance",
            (sketched.sketch.tobytes(),),
        )
        ids = np.array([row[0] for row in rows])
        scores = index.cosines(table.codec.rotate_queries(shaped(query)), ids)[0]
        return ids[np.argsort(-scores)[:K]].tolist()

    def plain(_: Array, question: str) -> list[int]:
        rows = store.read(
            "SELECT rowid, bm25(chunk_text, 1.0, 0.5) AS score FROM chunk_text "
            "WHERE chunk_text MATCH ? ORDER BY score, rowid LIMIT ?",
            (asked.query(question), K),
        )
        return [row[0] for row in rows]

    def whole(query: Array, question: str | None, where: dict[str, Any] | None) -> list[int]:
        hits = search.search(store, index, shaped(query), question, K, where)
        return [hit.chunk_id for hit in hits]

    return {
        "ours": lambda query, _: latent(query, False),
        "ours exact": lambda query, _: latent(query, True),
        "vec0 bits": by_bits,
        "words": lambda _, question: [id for id, _ in fulltext.search(store, question, K)],
        "words plain": plain,
        "hits": lambda query, _: whole(query, None, None),
        "hybrid": lambda query, question: whole(query, question, None),
        "hybrid filtered": lambda query, question: whole(query, question, {"source": "s3"}),
    }


def resident(latents: Array) -> dict[str, Way]:
    """Brute force over float32 in memory, in numpy and in MLX."""
    lengths = np.linalg.norm(latents, axis=1)
    x, lengths_x = mx.array(latents), mx.array(lengths)

    def numpy(query: Array, _: str) -> list[int]:
        return (1 + np.argsort(-(latents @ query / lengths))[:K]).tolist()

    def by_mlx(query: Array, _: str) -> list[int]:
        order = mx.argsort(-(x @ mx.array(query) / lengths_x))[:K]
        return (1 + np.array(order)).tolist()

    return {"numpy": numpy, "mlx": by_mlx}


def measure(
    way: Way, queries: dict[str, Array], questions: dict[str, list[str]], truth: Truth, count: int
) -> dict[str, Any]:
    """Recall and latency of a way, by kind of query; the kinds take turns."""
    walls: dict[str, list[float]] = {kind: [] for kind in queries}
    processor: dict[str, list[float]] = {kind: [] for kind in queries}
    recalls: dict[str, list[float]] = {kind: [] for kind in queries}
    for i in range(-1, count):
        for kind in queries:
            wall, own = time.perf_counter(), time.thread_time()
            ids = way(queries[kind][i], questions[kind][i])
            own, wall = time.thread_time() - own, time.perf_counter() - wall
            if i >= 0:  # the first warms up
                walls[kind].append(1e3 * wall)
                processor[kind].append(1e3 * own)
                recalls[kind].append(len(np.intersect1d(ids, truth.best[kind][1][i])) / K)
    return {
        kind: {
            "recall": float(np.mean(recalls[kind])),
            "p50_ms": float(np.percentile(walls[kind], 50)),
            "p95_ms": float(np.percentile(walls[kind], 95)),
            "p50_processor_ms": float(np.percentile(processor[kind], 50)),
            "p95_processor_ms": float(np.percentile(processor[kind], 95)),
        }
        for kind in queries
    }


def run(n: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything at one size."""
    world = World(n, options.seed)
    queries, about = world.queries(options.queries)
    questions = {
        kind: [world.question(chunk, WORDS_KEPT[kind]) for chunk in about[kind].tolist()]
        for kind in KINDS
    }
    load = [os.getloadavg()[0]]
    truth, pooled = Truth(queries), Pooled(folder / "pooled.db")
    path = folder / "memory.db"
    store = Store(path)
    table = LatentTable.open(store, FINGERPRINT, MEMORY, HIDDEN, "int8")
    keep = np.empty((n if n <= options.resident else 0, DIMS), np.float32)
    spent = {name: [0.0, 0.0] for name in ("remember", "put", "vec0 pooled")}

    def timed(name: str, work: Callable[[], object]) -> None:
        wall, own = time.perf_counter(), time.process_time()
        work()
        spent[name][0] += time.perf_counter() - wall
        spent[name][1] += time.process_time() - own

    for start in range(0, n, BATCH):
        latents = world.batch(start)
        ids = list(range(start + 1, start + len(latents) + 1))
        texts = [f"{id - 1}: " + " ".join(world.text(id - 1)) for id in ids]

        def remember(ids: list[int] = ids, texts: list[str] = texts) -> None:
            for id, text in zip(ids, texts, strict=True):
                span = (0, len(text), 80)
                store.remember(text.encode(), text, [span], source=f"s{id % 10}")

        shaped = latents.reshape(-1, MEMORY, HIDDEN)
        timed("remember", remember)
        timed("put", lambda ids=ids, shaped=shaped: table.put(ids, shaped, ids))  # type: ignore[misc]
        timed("vec0 pooled", lambda ids=ids, latents=latents: pooled.add(ids, latents))  # type: ignore[misc]
        truth.add(ids, latents)
        if len(keep):
            keep[start : start + len(latents)] = latents
        if start % 10_000 == 0:
            print(f"{start} of {n} generated", flush=True)
    store.close()
    load.append(os.getloadavg()[0])
    store = Store(path)
    table = LatentTable.open(store, FINGERPRINT, MEMORY, HIDDEN, "int8")
    begun = time.perf_counter()
    LatentIndex(table).search(queries["related"][0].reshape(MEMORY, HIDDEN), K)
    first = time.perf_counter() - begun
    few = max(1, min(options.queries, 20_000 // n))  # of the slow ones
    slow = {"ours exact": few, "numpy": few, "mlx": few, "vec0 bits": 20 + few}
    slow |= {"vec0 pooled": 20 + few}
    found: dict[str, Any] = {}
    # The exact one first: it reads the whole file, which is warm from then on.
    of_store = ways(store, table)
    all_ways = {"ours exact": of_store["ours exact"]} | of_store
    for name, way in {**all_ways, "vec0 pooled": pooled.search, **resident(keep)}.items():
        if name in ("numpy", "mlx") and not len(keep):
            continue
        count = min(options.queries, slow.get(name, options.queries))
        found[name] = measure(way, queries, questions, truth, count)
        for kind in KINDS:
            row = found[name][kind]
            print(
                f"{n:7} {name:15} {kind:15} recall {row['recall']:.3f}  "
                f"p50 {row['p50_ms']:8.2f}  p95 {row['p95_ms']:8.2f} ms, of the processor "
                f"{row['p50_processor_ms']:8.2f} {row['p95_processor_ms']:8.2f}",
                flush=True,
            )
    store.close()
    load.append(os.getloadavg()[0])
    return {
        "chunks": n,
        "load_average_before_inserts_searches_and_after": load,
        "random_pair_cosine": random_pairs(world),
        "ways": found,
        "first_search_seconds": first,
        "inserts_per_second": {name: n / wall for name, (wall, _) in spent.items()},
        "inserts_per_processor_second": {name: n / own for name, (_, own) in spent.items()},
        "bytes_per_chunk": {
            "memory": path.stat().st_size / n,
            "vec0 pooled": pooled.path.stat().st_size / n,
        },
    }


def random_pairs(world: World) -> dict[str, float]:
    """Mean and deviation of the cosines between chunks."""
    x = world.batch(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (x @ x.T)[np.triu_indices(len(x), 1)]
    return {"mean": float(cosines.mean()), "deviation": float(cosines.std())}


def table(results: list[dict[str, Any]]) -> str:
    """Recall@10, then p50 / p95 in milliseconds, as Markdown for RESULTS.md."""
    lines = [f"| way | chunks | {' | '.join(KINDS)} |", "|---|---|---|---|---|"]
    for result in results:
        for name, kinds in result["ways"].items():
            cells = [
                f"{row['recall']:.3f}, {row['p50_ms']:,.1f} / {row['p95_ms']:,.1f}"
                for row in kinds.values()
            ]
            lines.append(f"| {name} | {result['chunks']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """p95 of each kind of query over the number of chunks."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    figure, axes = plt.subplots(1, len(KINDS), figsize=(13, 4.5), sharey=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        for name in results[-1]["ways"] | results[0]["ways"]:
            points = [
                (r["chunks"], r["ways"][name][kind]["p95_ms"]) for r in results if name in r["ways"]
            ]
            axis.plot(*zip(*points, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", title=f"{kind} queries", xlabel="chunks")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("p95, ms")
    axes[-1].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--queries", type=int, default=100, help="of each kind")
    parser.add_argument("--seed", type=int, default=1, help="0 is the one that was tuned with")
    parser.add_argument("--resident", type=int, default=10_000, help="chunks to hold as float32")
    parser.add_argument("--folder", type=Path, help="where the files are made, then deleted")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    results = []
    for n in sorted(options.sizes):
        folder = Path(tempfile.mkdtemp(prefix="retrieval-", dir=options.folder))
        try:
            results.append(run(n, options, folder))
        finally:
            shutil.rmtree(folder)
        report = {
            "machine": machine.describe(),
            "shape": [MEMORY, HIDDEN],
            "k": K,
            "seed": options.seed,
            "queries_of_each_kind": options.queries,
            "centred_cosines": KINDS,
            "sizes": results,
        }
        (options.output / "retrieval.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(results, options.output / "retrieval.png")
    print(table(results))


if __name__ == "__main__":
    main()
