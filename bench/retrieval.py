"""Search among latents: the memory's own way beside brute force, sqlite-vec and full text.

    python bench/retrieval.py [--sizes 1000 10000 100000] [--queries 100] [--folder /tmp]

Latents of 16 x 4096 are synthetic, with what makes real ones hard: a common part with two thirds of
the energy, so that any two have a cosine of about 0.66; a few dimensions ten times larger than the
others; topics, documents in them, chunks in those; correlated directions beside white noise; and a
mean of the queries that differs from that of the chunks. Queries are near-duplicates of a chunk
(a centred cosine of 0.96 to it), related (0.59) or weak (0.30). The truth is the ten best by
float32 cosine. Ways to find them, in one run:

- ours: sketches in memory, then exact cosines from int8 blobs in an SQLite file, until no other
  chunk can enter;
- blobs: exact cosines from all blobs, as a search with ``exact=True`` does;
- numpy, mlx: exact, one matrix-vector product with everything in memory as float32 (for up to
  --resident chunks; 26 GB at 100,000);
- vec0 pooled: sqlite-vec over the mean of the 16 memory tokens, float[4096], k = 10;
- vec0 bits: the same sketches in sqlite-vec, the nearest 200 by SQL, then their exact cosines;
- fts: FTS5 (BM25) alone, over texts whose words follow the same topics, documents and chunks.

Times are of warm files, without encoding the query. At 100,000 chunks this needs 10 GB of disk,
and minutes. Results go to bench/results/retrieval.json and, with matplotlib, retrieval.png.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from synthetic import BATCH, DIMS, HIDDEN, KINDS, MEMORY, WORDS_KEPT, Array, World

from clara_mlx import machine
from clara_mlx.store.codec import codec
from clara_mlx.store.driver import connect
from clara_mlx.store.index import SketchIndex, rescore
from clara_mlx.store.sketch import RunningMean, Sketcher

K = 10


class Truth:
    """The exact K best of each query, gathered while the latents go by."""

    def __init__(self, queries: dict[str, Array]) -> None:
        self.units = {k: q / np.linalg.norm(q, axis=1, keepdims=True) for k, q in queries.items()}
        self.best = {k: (np.empty((len(q), 0)), np.empty((len(q), 0))) for k, q in queries.items()}

    def add(self, start: int, latents: Array) -> None:
        """Take in latents (n, DIMS) of the chunks from ``start`` on."""
        lengths = np.linalg.norm(latents, axis=1)
        for kind, units in self.units.items():
            scores, ids = self.best[kind]
            new = units @ latents.T / lengths
            scores = np.concatenate([scores, new], axis=1)
            ids = np.concatenate([ids, np.tile(start + np.arange(len(latents)), (len(ids), 1))], 1)
            order = np.argsort(-scores, axis=1)[:, :K]
            self.best[kind] = (
                np.take_along_axis(scores, order, axis=1),
                np.take_along_axis(ids, order, axis=1),
            )


class File:
    """The tables that the ways search in, in one SQLite file, and the sketches in memory.

    The tables of clara_mlx.store in small: blobs and sketches by chunk.
    """

    def __init__(self, path: Path) -> None:
        self.db = connect(path)
        self.codec = codec("int8", MEMORY, HIDDEN)
        self.mean = RunningMean(DIMS)
        self.sketcher = Sketcher(DIMS)
        self.index = SketchIndex(self.sketcher.bits)
        self.scored = 0  # blobs, in all
        self.seconds = dict.fromkeys(("ours", "vec0 pooled", "vec0 bits", "fts"), 0.0)
        self.pages = dict.fromkeys(self.seconds, 0)
        (self.page_size,) = self.db.execute("PRAGMA page_size").fetchone()
        self.db.execute("CREATE TABLE latents (chunk_id INTEGER PRIMARY KEY, data BLOB)")
        self.db.execute("CREATE TABLE sketches (chunk_id INTEGER PRIMARY KEY, bits BLOB)")
        self.db.execute(
            f"CREATE VIRTUAL TABLE pooled USING vec0(v float[{HIDDEN}] distance_metric=cosine)"
        )
        self.db.execute(f"CREATE VIRTUAL TABLE bits USING vec0(v bit[{self.sketcher.bits}])")
        self.db.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='')")

    def add(self, start: int, latents: Array, texts: list[str]) -> None:
        """One batch in all tables; each way's own in a transaction of its own, timed."""
        if not self.mean.count:  # 64 vectors are enough for a mean
            self.mean.update(latents)
            self.sketcher = Sketcher(DIMS, mean=self.mean.mean)
        ids = range(start, start + len(latents))
        shaped = latents.reshape(-1, MEMORY, HIDDEN)

        def ours() -> None:
            blobs, sketches = self.codec.encode(shaped), self.sketcher.sketch(latents)
            kept = [sketch.tobytes() for sketch in sketches]
            self._insert("latents (chunk_id, data) VALUES (?, ?)", ids, blobs)
            self._insert("sketches (chunk_id, bits) VALUES (?, ?)", ids, kept)
            self.index.extend(np.array(ids), sketches)

        def pooled() -> None:
            rows = [row.tobytes() for row in shaped.mean(axis=1)]
            self._insert("pooled (rowid, v) VALUES (?, ?)", ids, rows)

        def bits() -> None:
            rows = [sketch.tobytes() for sketch in self.sketcher.sketch(latents)]
            self._insert("bits (rowid, v) VALUES (?, vec_bit(?))", ids, rows)

        def fts() -> None:
            self._insert("words (rowid, text) VALUES (?, ?)", ids, texts)

        for name, insert in zip(self.seconds, (ours, pooled, bits, fts), strict=True):
            pages, started = self._pages(), time.perf_counter()
            self.db.execute("BEGIN IMMEDIATE")
            insert()
            self.db.execute("COMMIT")
            self.seconds[name] += time.perf_counter() - started
            self.pages[name] += self._pages() - pages

    def _insert(self, into: str, ids: range, values: list[Any]) -> None:
        self.db.executemany(f"INSERT INTO {into}", list(zip(ids, values, strict=True)))

    def _pages(self) -> int:
        (pages,) = self.db.execute("PRAGMA page_count").fetchone()
        return int(pages)

    def scores(self, queries: Array, ids: Array) -> Array:
        """Exact cosines (q, n) of queries (q, DIMS) with chunks."""
        self.scored += len(ids)
        marks = ",".join("?" * len(ids))
        wanted = f"SELECT chunk_id, data FROM latents WHERE chunk_id IN ({marks})"
        rows = {row[0]: row[1] for row in self.db.execute(wanted, ids.tolist())}
        blobs = [rows[id] for id in ids.tolist()]
        return self.codec.scores(queries.reshape(-1, MEMORY, HIDDEN), blobs)

    def ours(self, query: Array, _: str) -> Array:
        """The memory's own way."""
        probe = self.sketcher.probe(query)
        ids, _scores = rescore(self.index, probe, lambda ids: self.scores(probe.vectors, ids), K)
        return ids

    def blobs(self, query: Array, _: str) -> Array:
        """Brute force over the file."""
        shaped = query.reshape(MEMORY, HIDDEN)
        ids, scores = [], []
        rows = self.db.execute("SELECT chunk_id, data FROM latents")
        while batch := rows.fetchmany(256):
            ids += [row[0] for row in batch]
            scores.append(self.codec.scores(shaped, [row[1] for row in batch]))
        return np.array(ids)[np.argsort(-np.concatenate(scores))[:K]]

    def vec0_pooled(self, query: Array, _: str) -> Array:
        """sqlite-vec over pooled latents."""
        pooled = query.reshape(MEMORY, HIDDEN).mean(axis=0).tobytes()
        return self._knn("pooled", "?", pooled, K)

    def vec0_bits(self, query: Array, _: str) -> Array:
        """The same sketches through SQL."""
        sketch = self.sketcher.sketch_query(query[None]).tobytes()
        ids = self._knn("bits", "vec_bit(?)", sketch, 200)
        return ids[np.argsort(-self.scores(query[None], ids)[0])[:K]]

    def _knn(self, table: str, value: str, query: bytes, k: int) -> Array:
        rows = self.db.execute(
            f"SELECT rowid FROM {table} WHERE v MATCH {value} AND k = ? ORDER BY distance",
            (query, k),
        )
        return np.array([row[0] for row in rows])

    def fts(self, _: Array, question: str) -> Array:
        """Words alone."""
        rows = self.db.execute(
            "SELECT rowid FROM words WHERE words MATCH ? ORDER BY rank LIMIT ?", (question, K)
        )
        return np.array([row[0] for row in rows])


Way = Callable[[Array, str], Array]


def resident(latents: Array) -> Iterator[tuple[str, Way]]:
    """Brute force over float32 in memory, in numpy and then in MLX."""
    lengths = np.linalg.norm(latents, axis=1)
    yield "numpy", lambda query, _: np.argsort(-(latents @ query / lengths))[:K]
    x, lengths_x = mx.array(latents), mx.array(lengths)

    def by_mlx(query: Array, _: str) -> Array:
        return np.array(mx.argsort(-(x @ mx.array(query) / lengths_x))[:K])

    yield "mlx", by_mlx


def measure(
    way: Way, queries: dict[str, Array], questions: dict[str, list[str]], truth: Truth, count: int
) -> dict[str, Any]:
    """Recall and latency of a way, by kind of query; the kinds take turns."""
    times: dict[str, list[float]] = {kind: [] for kind in queries}
    recalls: dict[str, list[float]] = {kind: [] for kind in queries}
    for i in range(-1, count):
        for kind in queries:
            started = time.perf_counter()
            ids = way(queries[kind][i], questions[kind][i])
            if i >= 0:  # the first warms up
                times[kind].append(1e3 * (time.perf_counter() - started))
                expected = truth.best[kind][1][i]
                recalls[kind].append(len(np.intersect1d(ids, expected)) / len(expected))
    return {
        kind: {
            "recall": float(np.mean(recalls[kind])),
            "p50_ms": float(np.percentile(times[kind], 50)),
            "p95_ms": float(np.percentile(times[kind], 95)),
        }
        for kind in queries
    }


def run(n: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything at one size."""
    world = World(n)
    queries, about = world.queries(options.queries)
    questions = {
        kind: [world.question(chunk, WORDS_KEPT[kind]) for chunk in about[kind].tolist()]
        for kind in KINDS
    }
    truth, file = Truth(queries), File(folder / f"{n}.db")
    keep = np.empty((n if n <= options.resident else 0, DIMS), np.float32)
    for start in range(0, n, BATCH):
        latents = world.batch(start)
        truth.add(start, latents)
        texts = [" ".join(world.text(i)) for i in range(start, start + len(latents))]
        file.add(start, latents, texts)
        if len(keep):
            keep[start : start + len(latents)] = latents
        if start % 10_000 == 0:
            print(f"{start} of {n} generated", flush=True)
    ways: dict[str, Any] = {}

    def add(name: str, way: Way, count: int) -> None:
        before = file.scored
        ways[name] = measure(way, queries, questions, truth, count)
        if file.scored > before:
            ways[name]["mean_scored"] = (file.scored - before) / ((count + 1) * len(queries))
        for kind in KINDS:
            row = ways[name][kind]
            print(
                f"{n:7} {name:12} {kind:15} recall {row['recall']:.3f}  "
                f"p50 {row['p50_ms']:8.2f} ms  p95 {row['p95_ms']:8.2f} ms",
                flush=True,
            )

    few = max(1, min(options.queries, 20_000 // n))  # of the slow ones
    add("blobs", file.blobs, few)  # first: it reads the whole file, which is warm from then on
    add("ours", file.ours, options.queries)
    add("vec0 bits", file.vec0_bits, min(options.queries, 2 * few + 20))
    add("vec0 pooled", file.vec0_pooled, min(options.queries, 2 * few + 20))
    add("fts", file.fts, options.queries)
    if len(keep):
        for name, way in resident(keep):
            add(name, way, few)
    add("ours again", file.ours, options.queries)
    return {
        "chunks": n,
        "random_pair_cosine": random_pairs(world),
        "ways": ways,
        "inserts_per_second": {name: n / seconds for name, seconds in file.seconds.items()},
        "bytes_per_chunk": {way: file.page_size * p / n for way, p in file.pages.items()},
        "sketch_bytes_in_memory": file.sketcher.bits // 8,
    }


def random_pairs(world: World) -> dict[str, float]:
    x = world.batch(0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (x @ x.T)[np.triu_indices(len(x), 1)]
    return {"mean": float(cosines.mean()), "deviation": float(cosines.std())}


def plot(results: list[dict[str, Any]], path: Path) -> None:
    """p95 of near-duplicate and weak queries over the number of chunks."""
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    figure, axes = plt.subplots(1, len(KINDS), figsize=(13, 4.5), sharey=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        for name in results[-1]["ways"] | results[0]["ways"]:
            if name == "ours again":
                continue
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
    parser.add_argument("--resident", type=int, default=10_000, help="chunks to hold as float32")
    parser.add_argument("--folder", type=Path, help="where the files are made, then deleted")
    options = parser.parse_args()
    results = []
    for n in sorted(options.sizes):
        folder = Path(tempfile.mkdtemp(prefix="retrieval-", dir=options.folder))
        try:
            results.append(run(n, options, folder))
        finally:
            shutil.rmtree(folder)
        output = Path(__file__).parent / "results"
        output.mkdir(exist_ok=True)
        report = {
            "machine": machine.describe(),
            "shape": [MEMORY, HIDDEN],
            "k": K,
            "queries_of_each_kind": options.queries,
            "centred_cosines": KINDS,
            "sizes": results,
        }
        (output / "retrieval.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(results, output / "retrieval.png")


if __name__ == "__main__":
    main()
