"""Pretrain clara-nano's base: one small Mistral learns to read outputs, compress them and answer.

All parameters are trained together, without adapters: the model's memory tokens see a document,
and the same model answers from their states or from the document's text. CLaRa's own stages
(`clara-mlx train`) then start from this base. A run that was killed goes on where it was.

`mlx.launch -n 2 --backend ring` runs it on two processes, each with one core and half a batch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from batches import HEADS, QUESTIONS, Batch, Batches, prefetch
from forward import cross_entropy, states_and_attention
from mlx.utils import tree_flatten, tree_map, tree_unflatten
from mlx_lm.models.llama import Model, ModelArgs

from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.store import atomic

SHAPE: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "intermediate_size": 512,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
DOC_MAX_LENGTH = 64  # tokens of a chunk
COMPR_RATE = 16  # tokens per memory token
LORA_R = 16  # rank of the adapters that training starts with
STEPS = 6000
WARM_UP = 100  # steps in which the learning rate rises
DECAY = 0.6  # share of the steps, at the end, in which the learning rate falls to 0
#: Layer whose heads learn where to look, for which a small model alone needs thousands of steps.
POINTER = 2
POINTER_WEIGHT = 0.3  # of that loss, beside those of the answers
CACHE = 1 << 30  # bytes of freed buffers that MLX may keep: lengths vary, and so do their sizes
Tree = dict[str, Any]


def clara_config(vocab_size: int) -> ClaraConfig:
    """clara-nano's CLaRa fields over a base vocabulary."""
    return ClaraConfig(
        doc_max_length=DOC_MAX_LENGTH,
        compr_rate=COMPR_RATE,
        lora_r=LORA_R,
        hidden_size=SHAPE["hidden_size"],
        base_vocab_size=vocab_size,
        window=SHAPE["max_position_embeddings"],
        training_stage="stage1",
        generation_top_k=1,
    )


def batch_loss(model: Any, config: ClaraConfig, arrays: list[mx.array]) -> tuple[mx.array, ...]:
    """Sums over a batch: loss, answers and exact answers of latent rows, the same of text rows,
    and the loss of the heads that learn where to look."""
    encoder, memory, (where, head, source), *rest = arrays
    embed = model.model.embed_tokens
    flat = (-1, config.hidden_size)
    latents, seen = states_and_attention(model, embed(encoder), POINTER)
    latents = latents.reshape(flat)[memory.reshape(-1)]
    results: list[mx.array] = []
    pointing = pointer_loss(seen, where, head, source)
    for ids, slots, at, labels, answers, sources, heads in (rest[:7], rest[7:]):
        h = mx.where(slots[..., None] >= 0, latents[mx.maximum(slots, 0)], embed(ids))
        h, seen = states_and_attention(model, h, POINTER)
        logits = model.lm_head(h.reshape(flat)[at])
        learned = labels >= 0
        losses: Any = cross_entropy(logits, mx.maximum(labels, 0))
        # An answer is exact if none of its tokens is wrong.
        of_answer = (answers[..., None] == mx.arange(QUESTIONS)) & learned[..., None]
        # (rows, learned, answers)
        wrong = (mx.argmax(logits, -1) != labels)[..., None] & of_answer
        asked = of_answer.any(1)
        results += [(losses * learned).sum(), asked.sum(), (asked & ~wrong.any(1)).sum()]
        pointing = pointing + pointer_loss(seen, at, heads, sources)
    return *results, pointing


def pointer_loss(seen: mx.array, at: mx.array, heads: mx.array, sources: mx.array) -> mx.array:
    """Sum of -log attention of some heads from flattened positions to sources in their rows."""
    _, count, length, _ = seen.shape
    row, position = at // length, at % length
    index = ((row * count + heads) * length + position) * length + mx.maximum(sources, 0)
    return -(mx.log(seen.reshape(-1)[index] + 1e-5) * (sources >= 0)).sum()


def count_learned_tokens(arrays: list[mx.array]) -> mx.array:
    """Number of tokens that a batch's rows learn."""
    return (arrays[6] >= 0).sum() + (arrays[13] >= 0).sum()


class Pretraining:
    """The model, its optimiser, and one step of both.

    Args:
        tokenizer: clara-nano's tokenizer.
        vocab_size: Token ids of the base, without the added tokens.
        steps: Steps of the whole run, which the learning rate depends on.
        seed: Seed of the initial weights and of the data.
    """

    def __init__(self, tokenizer: TextTokenizer, vocab_size: int, steps: int, seed: int) -> None:
        self.config = clara_config(vocab_size)
        self.batches = Batches(tokenizer, self.config, seed)
        mx.random.seed(seed)
        self.model = Model(ModelArgs(**SHAPE, vocab_size=self.config.vocab_size))
        self._initialise()
        rise = optim.linear_schedule(0.0, 1.0, WARM_UP)
        decaying = round(DECAY * steps)
        fall = optim.linear_schedule(1.0, 0.0, decaying)
        # The rate is constant first, so that a run can be made longer until it begins to fall.
        factor = optim.join_schedules(
            [rise, lambda _: mx.array(1.0), fall], [WARM_UP, steps - decaying]
        )
        # Orthogonalised momentum for the blocks' matrices, Adam for tables and norms.
        self.optimiser = optim.MultiOptimizer(
            [
                optim.Muon(lambda step: 0.02 * factor(step), weight_decay=0.0),
                optim.Adam(lambda step: 3e-3 * factor(step), betas=[0.9, 0.95]),
            ],
            [lambda path, weight: "layers" in path and weight.ndim == 2],
        )
        self.optimiser.init(self.model.trainable_parameters())
        self.group = mx.distributed.init()

    def _initialise(self) -> None:
        """Draw the weights, and tie some of them at first so that attention copies tokens."""
        layers = SHAPE["num_hidden_layers"]
        weights: Any = tree_flatten(self.model.trainable_parameters())
        for path, weight in weights:
            if weight.ndim == 2:
                scale = 0.02 if "embed" in path or "lm_head" in path else weight.shape[1] ** -0.5
                if path.endswith("down_proj.weight"):
                    scale /= math.sqrt(2 * layers)
                fresh = mx.random.normal(weight.shape) * scale
                self.model.update(tree_unflatten([(path, fresh)]))
        # With these weights, attention to a token makes the same token likelier from the start.
        self.model.lm_head.weight = mx.array(self.model.model.embed_tokens.weight)
        for layer in self.model.model.layers:
            attention = layer.self_attn
            attention.o_proj.weight = attention.v_proj.weight.T / math.sqrt(2 * layers)

    def _gradients(self, parameters: Tree, arrays: list[mx.array]) -> Any:
        """((loss, sums), gradients) of a batch; leaves the model with traced parameters."""

        def loss(parameters: Tree) -> tuple[mx.array, list[mx.array]]:
            self.model.update(parameters)
            parts = [*batch_loss(self.model, self.config, arrays), count_learned_tokens(arrays)]
            return parts[0] + parts[3] + POINTER_WEIGHT * parts[6], parts

        return mx.value_and_grad(loss)(parameters)

    def step(self, halves: list[Batch]) -> list[float]:
        """Train on a step's batches, shared among the processes; returns `batch_loss`'s sums."""
        parameters = self.model.trainable_parameters()
        results = []
        for half in halves[self.group.rank() :: self.group.size()]:
            arrays = [mx.array(array) for array in half.arrays()]
            results.append(self._gradients(parameters, arrays))
            mx.eval(results)
        sums = mx.stack([mx.stack(result[0][1]).astype(mx.float32) for result in results]).sum(0)
        gradients = results[0][1]
        for _, other in results[1:]:
            gradients = tree_map(mx.add, gradients, other)
        sums = mx.distributed.all_sum(sums)
        gradients = tree_map(mx.distributed.all_sum, gradients)
        gradients = tree_map(lambda gradient: gradient / sums[-1], gradients)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        self.model.update(parameters)  # taking gradients has replaced them
        self.optimiser.update(self.model, gradients)
        mx.eval(self.model.parameters(), self.optimiser.state, sums)
        return np.array(sums).tolist()

    def evaluate(self, batches: Batches, steps: int) -> dict[str, float]:
        """Loss and share of exact answers (teacher-forced) on other batches."""
        totals = [0.0] * 8
        for step in range(steps):
            for half in batches.step(step):
                arrays = [mx.array(array) for array in half.arrays()]
                parts = batch_loss(self.model, self.config, arrays)
                sums = [*parts, count_learned_tokens(arrays)]
                totals = [a + float(np.array(b)) for a, b in zip(totals, sums, strict=True)]
        return summarise(totals)

    def save(self, path: Path, step: int) -> None:
        """Write what the next step needs, in one file that is complete or as it was before."""
        model: Any = tree_flatten(self.model.parameters())
        optimiser: Any = tree_flatten(self.optimiser.state)
        arrays = {f"model.{name}": value for name, value in model}
        arrays |= {f"optimiser.{name}": value for name, value in optimiser}
        with atomic.partial_file(path) as partial, partial.open("wb") as file:
            mx.save_safetensors(file, arrays, {"step": str(step)})

    def load(self, path: Path) -> int:
        """Read a saved state; returns the number of the next step."""
        loaded: Any = mx.load(str(path), return_metadata=True)
        arrays, metadata = loaded

        def part(prefix: str) -> Tree:
            return tree_unflatten(
                [(name[len(prefix) :], a) for name, a in arrays.items() if name.startswith(prefix)]
            )

        self.model.update(part("model."))
        self.optimiser.state = part("optimiser.")
        return int(metadata["step"])


def summarise(totals: list[float]) -> dict[str, float]:
    """Loss per token and shares of exact answers, from `Pretraining.step`'s sums."""
    latent, rows, right, text, text_rows, text_right, pointing, tokens = totals
    return {
        "loss": round((latent + text) / max(tokens, 1), 4),
        "pointing": round(pointing / max(tokens, 1), 4),
        "exact": round(right / max(rows, 1), 4),
        "exact_text": round(text_right / max(text_rows, 1), 4),
    }


def run(arguments: argparse.Namespace, report: Callable[[dict[str, Any]], None]) -> Pretraining:
    """Train to the last step, starting from a saved state if there is one."""
    folder: Path = arguments.folder
    tokenizer_json = (folder / "tokenizer.json").read_text()
    tokenizer = TextTokenizer(tokenizer_json)
    mx.set_cache_limit(CACHE)
    vocab_size = len(json.loads(tokenizer_json)["model"]["vocab"])
    training = Pretraining(tokenizer, vocab_size, arguments.steps, arguments.seed)
    held_out = Batches(tokenizer, training.config, arguments.seed, "test")
    state = folder / "state.safetensors"
    first = training.load(state) if state.exists() else 0

    totals, started = [0.0] * 8, time.perf_counter()
    for step, halves in prefetch(training.batches, range(first, arguments.steps)):
        totals = [a + b for a, b in zip(totals, training.step(halves), strict=True)]
        done = step + 1
        if done % 50 == 0:
            seconds = (time.perf_counter() - started) / 50
            report({"step": done, **summarise(totals), "seconds_per_step": round(seconds, 3)})
            totals, started = [0.0] * 8, time.perf_counter()
        if (done % 100 == 0 or done == arguments.steps) and training.group.rank() == 0:
            training.save(state, done)
        if done % 500 == 0 or done == arguments.steps:
            report({"step": done, "held_out": training.evaluate(held_out, 8)})
            started = time.perf_counter()
    return training


def main() -> None:
    """Command line: the folder with the tokenizer, which also takes the state and the log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="has tokenizer.json; takes state and log")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=20261123)
    arguments = parser.parse_args()
    with (arguments.folder / "pretrain.jsonl").open("a") as log:

        def report(record: dict[str, Any]) -> None:
            if mx.distributed.init().rank() == 0:
                print(json.dumps(record), file=log, flush=True)
                print(json.dumps(record), flush=True)

        run(arguments, report)


if __name__ == "__main__":
    main()
