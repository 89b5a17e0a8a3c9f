"""Measures whether a learned low-rank correction makes up for a quantised base.

    python bench/learned.py [--steps 60]

The encoder's own adapter, which every model folder has, is trained further on the quantised base,
so that its latents are those of the bfloat16 folder; neither the format nor the size changes.
Texts are clara-nano's brief outputs, others for training than for measuring. Results go to
bench/results/learned.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from quantisation import NANO, ROOT, measure

from clara_mlx import machine
from clara_mlx.convert import Source, convert
from clara_mlx.evaluate.sets import generate_set
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.schemes import Quantisation
from clara_mlx.train import parameters
from clara_mlx.train.losses import Network

BATCH = 8
RATE = 3e-4
FORMATS = {
    "4 bits": Quantisation(4),
    "3 bits": Quantisation(3),
}


def distil(clara: Clara, texts: list[str], exact: Any, steps: int) -> None:
    """Train the encoder's adapter towards exact latents (texts, M, hidden), in place."""
    memory = clara.config.memory_tokens
    network = Network(clara.network, clara.lora, memory)
    inputs = [clara.prompts.encoder_input(clara.tokenizer.encode(text)) for text in texts]
    trained = parameters.collect(clara.network, clara.lora, ("encoder",), rows=False)
    optimiser = optim.AdamW(learning_rate=optim.cosine_decay(RATE, steps), weight_decay=0.0)

    def loss(trained: Any, ids: mx.array, starts: mx.array, target: mx.array) -> mx.array:
        with parameters.in_place(clara.network, clara.lora, trained):
            latents = network.encode(ids, starts, "encoder").astype(mx.float32)
        return (latents - target).square().mean() / target.square().mean()

    gradient = mx.value_and_grad(loss)
    draw = random.Random(0)
    order = sorted(range(len(texts)), key=lambda i: len(inputs[i]))  # pads batches little
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    for step in range(steps):
        batch = draw.choice(batches)
        longest = max(len(inputs[i]) for i in batch)
        ids = mx.array([list(inputs[i]) + [0] * (longest - len(inputs[i])) for i in batch])
        starts = mx.array([len(inputs[i]) - memory for i in batch])
        value, gradients = gradient(trained, ids, starts, mx.array(exact[batch]))
        trained = optimiser.apply_gradients(gradients, trained)
        mx.eval(trained, optimiser.state)
        if step % 10 == 0:
            print(f"step {step}: {value.item():.5f}", flush=True)
    parameters.put(clara.network, clara.lora, trained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--per-tool", type=int, default=5)
    options = parser.parse_args()
    probes = generate_set("brief", 0, options.per_tool)
    texts = [output.text for output in probes.outputs]
    lessons = [output.text for output in generate_set("brief", 1, 20).outputs]
    source = Source.open(NANO / "checkpoint", base=NANO / "base")
    exact: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as work:
        to = Path(work) / "model"
        unquantised = load(convert(source, to).folder)
        targets = np.array(unquantised.encode(lessons))
        measure(unquantised, probes, texts, exact)
        for name, quantisation in FORMATS.items():
            convert(source, to, quantisation=quantisation, force=True)
            clara = load(to)
            before = measure(clara, probes, texts, exact)
            distil(clara, lessons, targets, options.steps)
            after = measure(clara, probes, texts, exact)
            rows.append({"format": name, "before": before, "after": after})
            print(name, before, after, flush=True)
            result = {"machine": machine.describe(), "steps": options.steps, "formats": rows}
            file = ROOT / "bench" / "results" / "learned.json"
            file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
