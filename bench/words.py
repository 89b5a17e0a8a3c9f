"""Text search by rare words first beside plain BM25 over any word: agreement and latency.

    python bench/words.py [--chunks 100000] [FOLDER ...]

Over chunks of text files of the folders (by default this Python's own library and packages), as
they are cut without a tokenizer. Queries of four kinds, made of a chunk's words: eight in a row;
three beside five words of any question; one beside three of those; and its eight commonest words,
which say least and take longest. Results go to bench/results/words.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from clara_mlx import machine
from clara_mlx.memory.cutting import PROVISIONAL_CHARACTERS
from clara_mlx.model import chunking
from clara_mlx.store import asked, fulltext
from clara_mlx.store.store import Store

K = 10

ENDINGS = {".py", ".pyi", ".txt", ".md", ".rst", ".json"}

QUESTION = ["how", "do", "I", "find", "where", "the", "which", "what", "is", "in", "of", "to", "a"]


def fill(store: Store, folders: list[Path], most: int) -> list[str]:
    """Remember files until they have at least ``most`` chunks; returns the chunks' texts."""
    files = [f for folder in folders for f in sorted(folder.rglob("*")) if f.suffix in ENDINGS]
    random.Random(0).shuffle(files)
    pieces: list[str] = []
    for file in files:
        if len(pieces) >= most:
            break
        if not file.is_file() or file.stat().st_size > 300_000:
            continue
        text = file.read_text(errors="replace")
        spans = [(a, b, None) for a, b in chunking.split_characters(text, PROVISIONAL_CHARACTERS)]
        store.remember(text.encode(), text, spans)
        pieces += [text[a:b] for a, b, _ in spans]
    return pieces


def queries(pieces: list[str], count: int) -> dict[str, list[str]]:
    """``count`` queries of each kind."""
    rng = random.Random(1)
    found = Counter(word for piece in pieces for word in set(re.findall(r"\w+", piece)))
    made: dict[str, list[str]] = {"in a row": [], "question": [], "one word": [], "commonest": []}
    while len(made["commonest"]) < count:
        own = re.findall(r"[A-Za-z_][\w.]*", rng.choice(pieces))
        if len(own) < 30:
            continue
        start = rng.randrange(len(own) - 8)
        made["in a row"].append(" ".join(own[start : start + 8]))
        made["question"].append(" ".join(rng.sample(own, 3) + rng.sample(QUESTION, 5)))
        made["one word"].append(" ".join([rng.choice(own), *rng.sample(QUESTION, 3)]))
        common = sorted(set(own), key=lambda word: -found[word])[:8]
        made["commonest"].append(" ".join(common))
    return made


def plain(store: Store, query: str) -> list[int]:
    """The best chunks by BM25 over all chunks with any word."""
    rows = store.read(
        "SELECT rowid, bm25(chunk_text, 1.0, 0.5) AS score FROM chunk_text "
        "WHERE chunk_text MATCH ? ORDER BY score, rowid LIMIT ?",
        (asked.query(query), K),
    )
    return [row[0] for row in rows]


def measure(store: Store, some: list[str]) -> dict[str, Any]:
    """Search both ways in turn, query by query."""
    times: dict[str, list[list[float]]] = {"ours": [], "plain": []}
    shared = []
    for query in some:
        ids: dict[str, list[int]] = {}
        for name in times:
            wall, own = time.perf_counter(), time.thread_time()
            if name == "ours":
                ids[name] = [id for id, _ in fulltext.search(store, query, K)]
            else:
                ids[name] = plain(store, query)
            took = time.perf_counter() - wall, time.thread_time() - own
            times[name].append([1e3 * seconds for seconds in took])
        shared.append(len({*ids["ours"]} & {*ids["plain"]}) / max(1, len(ids["plain"])))
    result: dict[str, Any] = {"shared_of_the_ten": float(np.mean(shared))}
    for name, each in times.items():
        for clock, values in zip(("ms", "processor_ms"), np.transpose(each), strict=True):
            for p in (50, 95):
                result[f"{name}_p{p}_{clock}"] = float(np.percentile(values, p))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    paths = sysconfig.get_paths()
    own = [Path(paths["stdlib"]), Path(paths["purelib"])]
    parser.add_argument("folders", nargs="*", type=Path, default=own)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=50, help="of each kind")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "memory.db")
        pieces = fill(store, options.folders, options.chunks)
        kinds = queries(pieces, options.queries)
        for query in kinds["question"]:  # warms up
            plain(store, query)
        report = {
            "machine": machine.describe(),
            "load_average": os.getloadavg()[0],
            "chunks": len(pieces),
            "queries_of_each_kind": options.queries,
            "kinds": {kind: measure(store, some) for kind, some in kinds.items()},
        }
        store.close()
    text = json.dumps(report, indent=2)
    (options.output / "words.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
