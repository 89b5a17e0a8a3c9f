"""Measures whether several processes that train together have the losses of one.

    python bench/distributed.py [--steps 50] [--ranks 2] [--stages instruct scp ...]

Trains the small model of the golden tests in float32, once as one process and once as ranks that
`mlx.launch` connects in a ring on this machine, with the same config: the same steps of the same
examples, with dropout. Says how far the losses and the gradients' norms differ at most, for each
stage. What training on several machines gains can't be measured on one. Results go to
bench/results/distributed.json.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from clara_mlx import machine
from clara_mlx.convert import Source, convert
from clara_mlx.evaluate.sets import generate_set
from clara_mlx.model.schemes import Quantisation
from clara_mlx.train.stages import STAGES, stage_named

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
CANDIDATES = 4  # documents that a question chooses from
BATCH = 5  # examples of a step
MICRO_BATCH = 2  # so that a step has three micro-batches, which two ranks can't halve
CHARACTERS = 120  # of a document
CLARA = "import sys; from clara_mlx.cli.app import main; main()"


def write_examples(file: Path, stage: str, held_out: bool = False) -> None:
    """Examples about generated outputs: questions of unequal length about documents that differ."""
    outputs = generate_set("brief", 2 if held_out else 1, 1 if held_out else 6).outputs
    rng = random.Random(0)
    lines: list[dict[str, Any]] = []
    for output in outputs:
        docs = [output.text[:CHARACTERS]]
        if stage_named(stage).chooses:
            docs += rng.sample(
                [o.text[:CHARACTERS] for o in outputs if o is not output], CANDIDATES - 1
            )
        lines += [
            {"docs": docs, "question": probe.question, "answer": probe.answer, "pos_index": [0]}
            for probe in output.probes[:3]
        ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_config(folder: Path, model: Path, stage: str, steps: int, teacher: Path | None) -> Path:
    """The config of a run in a folder of its own."""
    folder.mkdir(parents=True)
    write_examples(folder / "train.jsonl", stage)
    write_examples(folder / "held-out.jsonl", stage, held_out=True)
    named = {"stage": stage, "model": str(model), "output": "run"}
    named |= {"teacher": str(teacher)} if teacher else {}
    top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in named.items())
    file = folder / "train.toml"
    file.write_text(
        f'{top}write_checkpoint = false\n[data]\ntrain = ["train.jsonl"]\n'
        'evaluation = ["held-out.jsonl"]\nquestions_per_document = 2\nlong_documents = "chunk"\n'
        f"[steps]\nbatch_size = {BATCH}\nmicro_batch_size = {MICRO_BATCH}\nepochs = 1000\n"
        f"most = {steps}\nevaluation_answers = 2\nanswer_tokens = 4\n"
        f"[method]\ntop_k = 2\nin_batch_negatives = true\ndropout = 0.1\ncompile = false\n"
    )
    return file


def train(config: Path, ranks: int) -> list[dict[str, Any]]:
    """Train, and return the metrics."""
    command = [sys.executable, "-c", CLARA, "train", str(config), "--json"]
    if ranks > 1:
        launch = str(Path(sys.executable).with_name("mlx.launch"))
        port = random.SystemRandom().randrange(20000, 32000)
        command = [launch, "-n", str(ranks), "--backend", "ring", "-p", str(port), "--", *command]
    # mlx.launch waits for input: at its end it would ask for more again and again.
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=config.parent,
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    process.wait()
    if not (config.parent / "run" / "model").exists():
        raise RuntimeError(f"{command}: failed: {errors}")
    lines = (config.parent / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def compare(alone: list[dict[str, Any]], together: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest differences between two runs."""

    def differ(name: str) -> float:
        pairs = zip(alone, together, strict=True)
        return max(abs(a[name] - b[name]) for a, b in pairs if name in a)

    steps = [line for line in alone if "loss" in line]
    return {
        "steps": len(steps),
        "first_loss": steps[0]["loss"],
        "last_loss": steps[-1]["loss"],
        "loss_difference": differ("loss"),
        "gradient_norm_difference": differ("gradient_norm"),
        "evaluation": [run[-1].get("evaluation") for run in (alone, together)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--stages", nargs="+", default=list(STAGES))
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine.describe(), "ranks": options.ranks, "stages": {}}
    source = Source.open(GOLDEN / "c16" / "e2e", base=GOLDEN / "tiny-base")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        plain = convert(source, work / "plain", dtype="float32").folder
        quantised = convert(
            source, work / "quantised", quantisation=Quantisation(4, 32), dtype="float32"
        ).folder
        for stage in options.stages:
            imitates = stage_named(stage).imitates
            model, teacher = (quantised, plain) if imitates else (plain, None)
            runs = [
                train(write_config(work / stage / way, model, stage, options.steps, teacher), ranks)
                for way, ranks in (("alone", 1), ("together", options.ranks))
            ]
            figures = result["stages"][stage] = compare(*runs)
            print(
                f"| {stage} | {figures['first_loss']:.4f} to {figures['last_loss']:.4f} | "
                f"{figures['loss_difference']:.1e} | {figures['gradient_norm_difference']:.1e} |",
                flush=True,
            )
    file = ROOT / "bench" / "results" / "distributed.json"
    file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
