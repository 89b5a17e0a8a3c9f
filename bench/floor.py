"""Measures where the score floor of `Memory.ask` can be: what a centred cosine says.

    python bench/floor.py [--chunks 4000]

On the synthetic latents of bench/synthetic.py, this compares the best centred cosines of queries
about something that is remembered, by kind, with the best that queries about something that was
never remembered reach by chance. Results go to bench/results/floor.json.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from synthetic import BATCH, HIDDEN, MEMORY, Array, World

from clara_mlx import machine
from clara_mlx.store.calibration import UNMEASURED
from clara_mlx.store.sketch import RunningMean, Sketcher


def best_cosines(chunks: int, count: int) -> dict[str, list[float]]:
    """The best centred cosine of each query, by kind; half of the chunks are never remembered."""
    world = World(chunks)
    mean = RunningMean(MEMORY * HIDDEN)
    stored = []
    for start in range(0, chunks // 2, BATCH):
        batch = world.batch(start)
        mean.update(batch)
        stored.append(batch.astype(np.float16))
    sketcher = Sketcher(MEMORY * HIDDEN, mean=mean.mean)
    queries, targets = world.queries(count)
    best = defaultdict(list)
    for kind, vectors in queries.items():
        for query, target in zip(vectors, targets[kind], strict=True):
            sketched = sketcher.sketch_query(query.astype(np.float32))
            directions = unit(sketched.vectors)
            top = max(
                float(sketched.centred(directions @ unit(batch.astype(np.float32)).T).max())
                for batch in stored
            )
            best[kind if target < chunks // 2 else f"{kind}, never remembered"].append(top)
    return best


def unit(vectors: Array) -> Array:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=4000)
    parser.add_argument("--queries", type=int, default=30)
    options = parser.parse_args()
    best = best_cosines(options.chunks, 2 * options.queries)
    result = {
        "machine": machine.describe(),
        "remembered": options.chunks // 2,
        "floor": UNMEASURED.floor,
        "best_centred_cosine": {
            name: {
                "queries": len(values),
                "least": min(values),
                "median": float(np.median(values)),
                "most": max(values),
                "below_the_floor": sum(value < UNMEASURED.floor for value in values),
            }
            for name, values in sorted(best.items())
        },
    }
    path = Path(__file__).parent / "results" / "floor.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["best_centred_cosine"], indent=2))


if __name__ == "__main__":
    main()
