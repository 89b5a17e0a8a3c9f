"""What a centred cosine means: where the score floor of `Memory.ask` can lie.

    python bench/floor.py [--chunks 4000]

On the synthetic latents of bench/synthetic.py: the best centred cosine that a query about something
remembered reaches, by kind, and the best that a query about something never remembered reaches by
chance. Results go to bench/results/floor.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from synthetic import HIDDEN, MEMORY, World

from clara_mlx import machine
from clara_mlx.memory.asking import SCORE_FLOOR
from clara_mlx.store.sketch import RunningMean, Sketcher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=4000)
    parser.add_argument("--queries", type=int, default=30)
    options = parser.parse_args()
    world = World(options.chunks)
    remembered = options.chunks // 2  # the second half is never stored
    mean = RunningMean(MEMORY * HIDDEN)
    stored = []
    for start in range(0, remembered, 250):
        batch = world.batch(start)
        mean.update(batch)
        stored.append(batch.astype(np.float16))
    sketcher = Sketcher(MEMORY * HIDDEN, mean=mean.mean)
    queries, targets = world.queries(2 * options.queries)
    best: dict[str, list[float]] = {}
    for kind, vectors in queries.items():
        for query, target in zip(vectors, targets[kind], strict=True):
            probe = sketcher.probe(query.astype(np.float32))
            top = -1.0
            for batch in stored:
                documents = batch.astype(np.float32)
                unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
                units = probe.vectors / np.linalg.norm(probe.vectors, axis=1, keepdims=True)
                top = max(top, float(probe.centred(units @ unit.T).max()))
            name = kind if target < remembered else f"{kind}, never remembered"
            best.setdefault(name, []).append(top)
    result = {
        "machine": machine.describe(),
        "remembered": remembered,
        "floor": SCORE_FLOOR,
        "best_centred_cosine": {
            name: {
                "queries": len(values),
                "least": min(values),
                "median": float(np.median(values)),
                "most": max(values),
                "below_the_floor": sum(value < SCORE_FLOOR for value in values),
            }
            for name, values in sorted(best.items())
        },
    }
    path = Path(__file__).parent / "results" / "floor.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result["best_centred_cosine"], indent=2))


if __name__ == "__main__":
    main()
