"""Measures whether what is learned makes up for a quantised base.

    python bench/learned.py [--steps 200] [--bits 4 3]

Two ways, each trained towards the latents of the unquantised folder, on other texts than those
measured. *The stage distil* of `clara-mlx train` trains the encoder's adapter, a low-rank
correction that every model folder has; neither the format nor the size changes. *With scales*, the
scales and biases of the base's groups are trained, too; they serve the decoder as well, which is
not asked. That is only done here. Matrices are dequantised before they are measured, which changes
no value. Results go to bench/results/learned.json.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_unflatten
from quantisation import NANO, ROOT, measure
from quantisation_kinds import load_dequantised

from clara_mlx import machine
from clara_mlx.convert import Source, convert
from clara_mlx.evaluate.sets import generate_set
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.schemes import Quantisation
from clara_mlx.train import losses, parameters
from clara_mlx.train.losses import Network
from clara_mlx.train.run import Run

BATCH = 8  # texts of a step
RATE = 3e-4  # of the adapter: the stage's own


def run_stage(work: Path, student: Path, teacher: Path, texts: list[str], steps: int) -> Path:
    """The model folder that the stage distil makes."""
    work.mkdir()
    (work / "texts.jsonl").write_text("".join(json.dumps({"docs": [t]}) + "\n" for t in texts))
    config = {"stage": "distil", "model": str(student), "teacher": str(teacher), "output": "run"}
    tables = (
        '[data]\ntrain = ["texts.jsonl"]\nlong_documents = "chunk"\n'
        f"[steps]\nepochs = 1000\nmost = {steps}\n[method]\nkeep_latents = true\n"
    )
    top = "".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items())
    (work / "train.toml").write_text(top + tables)
    return Path(Run.open(work / "train.toml").train()["model"])


class Grouped(nn.Module):
    """A quantised linear layer as numbers, whose scales and biases can be trained."""

    def __init__(self, layer: nn.QuantizedLinear) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        ones, zeros = mx.ones_like(layer.scales), mx.zeros_like(layer.biases)
        codes = mx.dequantize(layer.weight, ones, zeros, layer.group_size, layer.bits)
        self.weight = codes.astype(mx.float32)  # whole numbers (out, in)
        self.scales = layer.scales.astype(mx.float32)  # (out, groups)
        self.biases = layer.biases.astype(mx.float32)

    def __call__(self, x: mx.array) -> mx.array:
        """Outputs (..., out) of inputs (..., in)."""
        outputs, groups = self.scales.shape
        codes = self.weight.reshape(outputs, groups, -1)
        values = codes * self.scales[..., None] + self.biases[..., None]
        return x @ values.reshape(outputs, -1).T


def with_groups(folder: Path) -> tuple[Clara, list[Grouped]]:
    """A model folder with trainable groups, and its layers but lm_head."""
    clara = load(folder)
    layers = {
        name: Grouped(module)
        for name, module in clara.network.named_modules()
        if isinstance(module, nn.QuantizedLinear)
    }
    clara.network.update_modules(tree_unflatten(list(layers.items())))
    return clara, [layer for name, layer in layers.items() if "lm_head" not in name]


def train_scales(
    clara: Clara,
    layers: list[Grouped],
    texts: list[str],
    teacher: Clara,
    steps: int,
    rate: float,
) -> None:
    """Train scales and biases, at their own rate, and the encoder's adapter, in place."""
    memory = clara.config.memory_tokens
    network = Network(clara.network, clara.lora, memory)
    inputs = [clara.prompts.encoder_input(clara.tokenizer.encode(text)) for text in texts]
    targets = np.array(teacher.encode(texts))

    def groups() -> list[dict[str, mx.array]]:
        return [{"scales": layer.scales, "biases": layer.biases} for layer in layers]

    def put(trained: list[dict[str, mx.array]]) -> None:
        for layer, arrays in zip(layers, trained, strict=True):
            layer.scales, layer.biases = arrays["scales"], arrays["biases"]

    def loss(trained: Any, batch: losses.Arrays) -> mx.array:
        own = groups()
        put(trained["groups"]["layers"])
        with parameters.in_place(clara.network, clara.lora, trained["adapters"]):
            value, _ = losses.imitation(network, batch)
        put(own)
        return value

    adapters = parameters.collect(clara.network, clara.lora, ("encoder",), rows=False)
    trained: Any = {"adapters": adapters, "groups": {"layers": groups()}}
    optimisers = {
        part: optim.AdamW(learning_rate=optim.cosine_decay(peak, steps), weight_decay=0.0)
        for part, peak in (("adapters", RATE), ("groups", rate))
    }
    gradient = mx.value_and_grad(loss)
    draw = random.Random(0)
    order = sorted(range(len(texts)), key=lambda i: len(inputs[i]))  # pads batches little
    batches = [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
    for _ in range(steps):
        chosen = draw.choice(batches)
        longest = max(len(inputs[i]) for i in chosen)
        batch = {
            "document_ids": mx.array(
                [[*inputs[i], *[0] * (longest - len(inputs[i]))] for i in chosen]
            ),
            "document_starts": mx.array([len(inputs[i]) - memory for i in chosen]),
            "document_weights": mx.full((len(chosen),), 1 / len(chosen)),
            "teacher_latents": mx.array(targets[chosen]),
        }
        _, gradients = gradient(trained, batch)
        for part, optimiser in optimisers.items():
            trained[part] = optimiser.apply_gradients(gradients[part], trained[part])
            mx.eval(trained[part], optimiser.state)
    parameters.put(clara.network, clara.lora, trained["adapters"])
    put(trained["groups"]["layers"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--scales-rate", type=float, default=RATE)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--per-tool", type=int, default=5)
    options = parser.parse_args()
    probes = generate_set("brief", 0, options.per_tool)
    texts = [output.text for output in probes.outputs]
    lessons = [output.text for output in generate_set("brief", 1, 40).outputs]
    source = Source.open(NANO / "checkpoint", base=NANO / "base")
    exact: dict[str, Any] = {}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        teacher = convert(source, work / "teacher").folder
        measure(load_dequantised(teacher), probes, texts, exact)
        for bits in options.bits:
            format = f"{bits} bits"
            student = convert(source, work / format, quantisation=Quantisation(bits)).folder
            row: dict[str, Any] = {"format": format}
            row["before"] = measure(load_dequantised(student), probes, texts, exact)
            made = run_stage(work / f"run {format}", student, teacher, lessons, options.steps)
            row["distil"] = measure(load_dequantised(made), probes, texts, exact)
            print(row, flush=True)
            clara, layers = with_groups(student)
            rate = options.scales_rate
            train_scales(clara, layers, lessons, load(teacher), options.steps, rate)
            row["with scales"] = measure(clara, probes, texts, exact)
            rows.append(row)
            for way, figures in list(row.items())[1:]:
                print(
                    f"| {format}, {way} | {figures['mean_cosine']:.5f} | "
                    f"{figures['worst_cosine']:.5f} | {figures['right']} | "
                    f"{figures['same_answer']} |",
                    flush=True,
                )
            result = {
                "machine": machine.describe(),
                "steps": options.steps,
                "lessons": len(lessons),
                "probes": probes.to_dict(),
                "formats": rows,
            }
            file = ROOT / "bench" / "results" / "learned.json"
            file.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
