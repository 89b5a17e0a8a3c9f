"""The encoder pass beside the ways it replaces, on one machine in one run.

    python bench/encoder.py [--layers 8 --hidden 512 --repeats 5] [--mix full]

Ways to encode the same chunks, timed in turn and compared as ratios of medians:

- padded: as the reference does it, every input left-padded to the longest a chunk can be, a mask
  array, all positions through all layers and lm_head;
- plain: one unpadded input at a time through the whole base, no lm_head;
- bare: the same without adapters, which is what mlx-lm computes to read a prompt of these tokens;
- batched: batches of inputs padded to their longest, by the layers of mlx-lm, the last one at the
  memory positions only: what `fast` was until 2026-11-30;
- fast: `clara_mlx.model.encoder.encode_batch`, in the batches that `Clara.encode` makes.

In the same turns the base's own products are timed alone, 2,048 rows at a time: the machine's rate.
The share of it that a way reaches counts the base's products over real tokens, and nothing else
that it computes. The model is random, with CLaRa-7B's proportions. The lengths of the chunks are
those of this repository's Python files (``files``), all full (``full``), or those of tool outputs
of one chunk (``outputs``, see chunk_lengths.py). Results go to bench/results/encoder.json, or
encoder_MIX.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
from chunk_lengths import LENGTHS, spread
from mlx_lm.models.llama import Model, ModelArgs

from clara_mlx import machine
from clara_mlx.model import chunking
from clara_mlx.model.encoder import batches, encode_batch, states_at
from clara_mlx.model.lora import TARGETS, Adapters
from clara_mlx.model.tokenizer import TextTokenizer

ROOT = Path(__file__).parent.parent
VOCABULARY = 32019  # Mistral's 32,000 and CLaRa's added tokens
MEMORY = 16  # memory tokens of a chunk
LIMIT = 256  # text tokens of a chunk, at most
RANK = 16  # of the adapters


def build(hidden: int, layers: int) -> tuple[Any, Adapters]:
    """A random base with CLaRa's vocabulary and a random encoder adapter."""
    args = ModelArgs(
        model_type="mistral",
        hidden_size=hidden,
        num_hidden_layers=layers,
        intermediate_size=hidden * 7 // 2,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
        rms_norm_eps=1e-5,
        vocab_size=VOCABULARY,
        rope_theta=1e6,
        tie_word_embeddings=False,
    )
    model = Model(args)

    def read(name: str) -> dict[str, mx.array]:
        tensors = {}
        for i, layer in enumerate(model.model.layers):
            modules = dict(layer.named_modules())
            for target in TARGETS:
                out_dims, in_dims = modules[target].linear.weight.shape
                path = f"model.layers.{i}.{target}"
                tensors[f"{path}.lora_a"] = 0.02 * mx.random.normal((in_dims, RANK))
                tensors[f"{path}.lora_b"] = 0.02 * mx.random.normal((RANK, out_dims))
        return tensors

    adapters = Adapters(model, ("encoder",), read)
    mx.eval(model.parameters())
    return model, adapters


def inputs(count: int, mix: str) -> list[list[int]]:
    """Encoder inputs of a mix of lengths; their ids are random and do not matter."""
    mixes: dict[str, Callable[[int], list[int]]] = {
        "files": file_lengths,
        "full": lambda count: [LIMIT] * count,
        "outputs": lambda count: spread(LENGTHS, "runs", count, one_chunk=True),
    }
    chosen = mixes[mix](count)
    ids: Any = mx.random.randint(3, 32000, (len(chosen), LIMIT)).tolist()
    memory = list(range(32000, 32000 + MEMORY))
    return [[32017, 1, *row[:length], 2, *memory] for row, length in zip(ids, chosen, strict=True)]


def file_lengths(count: int) -> list[int]:
    """Lengths in tokens of chunks of this repository's own files."""
    tokenizer = TextTokenizer((ROOT / "tests/golden/tiny-base/tokenizer.json").read_text())
    files = sorted((ROOT / "clara_mlx").rglob("*.py")) + sorted((ROOT / "convert").glob("*.py"))
    lengths = [
        chunk.tokens
        for file in files
        for chunk in chunking.split(file.read_text(), tokenizer, LIMIT)
    ]
    return lengths[:: max(1, len(lengths) // count)][:count]


def padded(model: Any, texts: list[list[int]]) -> mx.array:
    """The reference's way, in batches of 16."""
    done = []
    longest = LIMIT + 3 + MEMORY
    for start in range(0, len(texts), 16):
        batch = texts[start : start + 16]
        pad = mx.array([longest - len(text) for text in batch])
        ids = mx.array([[1] * (longest - len(text)) + text for text in batch])
        positions = mx.arange(longest)
        causal = positions[:, None] >= positions
        # Padding rows see themselves, so that their softmax is defined.
        seen = (positions >= pad[:, None])[:, None, None] | mx.eye(longest).astype(mx.bool_)
        mask = causal & seen
        h = model.model.embed_tokens(ids)
        for layer in model.model.layers:
            h = layer(h, mask)
        h = model.model.norm(h)
        logits = model.lm_head(h)
        done.append(h[:, -MEMORY:])
        mx.eval(done[-1], logits)
    return mx.concatenate(done)


def plain(model: Any, texts: list[list[int]]) -> mx.array:
    """One at a time, unpadded, through all of the base but lm_head."""
    done = []
    for text in texts:
        done.append(model.model(mx.array([text]))[:, -MEMORY:])
        mx.eval(done[-1])
    return mx.concatenate(done)


def fast(
    model: Any,
    texts: list[list[int]],
    encode: Callable[..., mx.array] = encode_batch,
    *,
    pads: bool = False,
) -> mx.array:
    """The way of Clara.encode."""
    order: list[int] = []
    done = []
    for batch in batches([len(text) for text in texts], padded=pads):
        order += batch
        done.append(encode(model, [texts[i] for i in batch], MEMORY))
        mx.eval(done[-1])
    return mx.concatenate(done)[mx.argsort(mx.array(order))]


def encode_padded(model: Any, batch: list[list[int]], memory_tokens: int) -> mx.array:
    """`encode_batch` with padding on the right, through the layers of mlx-lm."""
    longest = max(map(len, batch))
    ids = mx.array([[*text, *[0] * (longest - len(text))] for text in batch])
    starts = mx.array([len(text) - memory_tokens for text in batch])
    return states_at(model, model.model.embed_tokens(ids), starts, memory_tokens)


def products(model: Any, texts: list[list[int]]) -> mx.array:
    """The base's products alone, over as many rows as the texts have tokens, 2,048 at a time."""
    tokens = sum(map(len, texts))
    matrices = [m.linear.weight for _, m in model.named_modules() if hasattr(m, "linear")]
    y = mx.zeros(())
    for start in range(0, tokens, 2048):
        rows = min(2048, tokens - start)
        x = {weight.shape[1]: mx.ones((rows, weight.shape[1])) for weight in matrices}
        for weight in matrices:
            y = x[weight.shape[1]] @ weight.T
            mx.eval(y)
    return y


def timed(work: Callable[[], mx.array]) -> tuple[float, float]:
    """Seconds of wall time and of processor time."""
    start, processor = time.perf_counter(), time.process_time()
    mx.eval(work())
    return time.perf_counter() - start, time.process_time() - processor


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Each way's median by that of the fast one; for the products alone, the share reached."""
    return {n: median(values) / median(times["fast"]) for n, values in times.items() if n != "fast"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--chunks", type=int, default=32)
    parser.add_argument("--mix", choices=("files", "full", "outputs"), default="files")
    parser.add_argument("--ways", nargs="+", metavar="WAY", help="by default all")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    mx.random.seed(0)
    model, adapters = build(options.hidden, options.layers)
    texts = inputs(options.chunks, options.mix)
    ways: dict[str, Callable[[Any, list[list[int]]], mx.array]] = {
        "padded": padded,
        "plain": plain,
        "bare": plain,
        "batched": partial(fast, encode=encode_padded, pads=True),
        "fast": fast,
        "products": products,
    }
    ways = {n: way for n, way in ways.items() if n in (options.ways or ways) or n == "fast"}
    times: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}
    states: dict[str, mx.array] = {}
    for turn in range(1 + options.repeats):
        for name, way in ways.items():
            with nullcontext() if name in ("bare", "products") else adapters.use("encoder"):
                if turn == 0:  # warms up
                    states[name] = way(model, texts)
                    continue
                seconds, of_processor = timed(partial(way, model, texts))
            times[name].append(seconds)
            processor[name].append(of_processor)
    lengths = [len(text) - 3 - MEMORY for text in texts]
    result = {
        "machine": machine.describe(),
        "hidden": options.hidden,
        "layers": options.layers,
        "chunks": len(texts),
        "chunk_tokens": {"mean": sum(lengths) / len(lengths), "all": lengths},
        "seconds": times,
        "processor_seconds": processor,
        "medians": {name: median(values) for name, values in times.items()},
        "times_as_long_as_fast": ratios(times),
        "times_as_long_as_fast_processor": ratios(processor),
        "largest_difference": {
            name: mx.abs(states[name] - states["fast"]).max().item()
            for name in ("padded", "plain", "batched")
            if name in states
        },
    }
    suffix = "" if options.mix == "files" else f"_{options.mix}"
    path = Path(__file__).parent / "results" / f"encoder{suffix}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "chunk_tokens"}, indent=2))


if __name__ == "__main__":
    main()
