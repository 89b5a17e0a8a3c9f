"""What an LCLM memory finds by words, by the cosine of mean states, and by both.

    python bench/lclm_search.py --model FOLDER --outputs FILE

The outputs are those of bench/real.py: a JSON object a line, with questions whose answers are in
the text. A question counts as found at k if one of the first k hits comes from its output and has
the answer in it. Results go to bench/results/lclm_search.json.

LCLM was not trained to search. Without trained weights at hand, the committed result is of the tiny
random checkpoint of the tests: it shows what the machinery does, and nothing of a trained model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, get_args

from real_questions import read_outputs

import clara_mlx
from clara_mlx import machine
from clara_mlx.memory.memory import Memory, Mode

HERE = Path(__file__).parent
DEPTHS = (1, 5, 10)


def measure(model: str, outputs: Path, longest: int) -> dict[str, Any]:
    """Recall of every way to search, at each depth."""
    lclm = clara_mlx.load(model)
    lclm.searches = True
    rows = [row for row in read_outputs(outputs) if len(row["text"]) <= longest]
    found = {mode: dict.fromkeys(DEPTHS, 0) for mode in get_args(Mode)}
    questions = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        Memory.open(Path(folder) / "memory.db", lclm) as memory,
    ):
        handles = [memory.remember(row["text"]) for row in rows]
        memory.flush()
        for row, handle in zip(rows, handles, strict=True):
            for one in row["questions"]:
                questions += 1
                for mode, depths in found.items():
                    hits = memory.recall(one["question"], max(DEPTHS), mode=mode)
                    ranks = [
                        rank
                        for rank, hit in enumerate(hits, 1)
                        if hit.handle == handle and one["answer"] in hit.text
                    ]
                    for depth in DEPTHS:
                        depths[depth] += bool(ranks) and ranks[0] <= depth
        chunks = memory.status().chunks
    return {
        "machine": machine.describe(),
        "trained": False,
        "outputs": len(rows),
        "chunks": chunks,
        "questions": questions,
        "ratio": lclm.config.ratio,
        "recall": {m: {str(d): n / questions for d, n in found[m].items()} for m in found},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="an LCLM model folder")
    parser.add_argument("--outputs", type=Path, required=True)
    parser.add_argument("--longest", type=int, default=20_000, help="characters of an output")
    parser.add_argument("--trained", action="store_true", help="the weights are not random")
    options = parser.parse_args()
    results = measure(options.model, options.outputs, options.longest)
    results["trained"] = options.trained
    (HERE / "results" / "lclm_search.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"{results['questions']} questions, {results['chunks']} chunks")
    for mode, depths in results["recall"].items():
        print(mode, ", ".join(f"{share:.0%} at {depth}" for depth, share in depths.items()))


if __name__ == "__main__":
    main()
