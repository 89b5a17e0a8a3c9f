"""Measures what each way of quantising CLaRa's base keeps: latents, and answers from them.

    python bench/quantisation.py [--per-tool 10]

Converts clara-nano in every format and by every recipe that `clara-mlx convert` has. Latents are
compared with those of the bfloat16 folder, and the brief probes are answered from latents. Results
go to bench/results/quantisation.json. Which matrices need more bits than others:
quantisation_kinds.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mlx_lm.convert import QUANT_RECIPES

from clara_mlx import machine
from clara_mlx.convert import Source, convert
from clara_mlx.evaluate.answer_cache import AnswerCache
from clara_mlx.evaluate.retention import Reader
from clara_mlx.evaluate.sets import ProbeSet, generate_set
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.schemes import LATENTS_4_6, MODES, Quantisation

ROOT = Path(__file__).parents[1]
NANO = ROOT / "scripts" / "nano" / "clara-nano"
TEXTS = 200  # whose latents are compared


def ways() -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each way, and the arguments of `convert`."""
    yield "bfloat16", {}
    for bits in MODES["affine"][0]:
        for group in (32, 64, 128):
            yield f"{bits} bits, groups of {group}", {"quantisation": Quantisation(bits, group)}
    for mode in ("mxfp8", "nvfp4", "mxfp4"):
        yield mode, {"quantisation": Quantisation.of_mode(mode)}
    for recipe in (*QUANT_RECIPES, LATENTS_4_6):
        yield recipe, {"quantisation": Quantisation(8), "recipe": recipe}


def encode(clara: Clara, texts: list[str]) -> Any:
    """Latents (texts, M * hidden) of unit length."""
    latents = np.array(clara.encode(texts)).reshape(len(texts), -1)
    return latents / np.linalg.norm(latents, axis=1, keepdims=True)


def measure(
    clara: Clara, probes: ProbeSet, texts: list[str], exact: dict[str, Any]
) -> dict[str, Any]:
    """Compare one model with the first, whose latents and answers are kept in ``exact``."""
    latents = encode(clara, texts)
    with tempfile.TemporaryDirectory() as cache:
        answers = Reader("model", clara, probes).ask(
            "latents", AnswerCache(Path(cache) / "answers.jsonl"), 48
        )
    exact.setdefault("latents", latents)
    exact.setdefault("answers", answers.answers)
    cosines = (latents * exact["latents"]).sum(axis=1)
    right = answers.scores()["exact"]
    same = sum(a == b for a, b in zip(answers.answers, exact["answers"], strict=True))
    return {
        "worst_cosine": float(cosines.min()),
        "mean_cosine": float(cosines.mean()),
        "right": int(right.sum()),
        "same_answer": same,
        "probes": len(right),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--per-tool", type=int, default=10)
    options = parser.parse_args()
    probes = generate_set("brief", 0, options.per_tool)
    source = Source.open(NANO / "checkpoint", base=NANO / "base")
    exact: dict[str, Any] = {}
    rows = []
    to = ROOT / "bench" / "results" / "quantisation.json"
    with tempfile.TemporaryDirectory() as work:
        for name, arguments in ways():
            converted = convert(source, Path(work) / "model", force=True, **arguments)
            texts = [output.text for output in probes.outputs][:TEXTS]
            row = {"way": name, "bits_per_weight": converted.bits_per_weight}
            row |= measure(load(converted.folder), probes, texts, exact)
            rows.append(row)
            print(
                f"| {name} | {row['bits_per_weight']:.2f} | {row['mean_cosine']:.5f} | "
                f"{row['worst_cosine']:.5f} | {row['right']} | {row['same_answer']} |",
                flush=True,
            )
            result = {"machine": machine.describe(), "probes": probes.to_dict(), "ways": rows}
            to.write_text(json.dumps(result, indent=1) + "\n")  # each time: this takes long


if __name__ == "__main__":
    main()
