"""What a GPU makes of CLaRa at full size, and of training, within ten minutes.

    scripts/gpu --to OUT [--minutes 10] [--smollm2 FOLDER] [--size tiny]

`scripts/gpu` sets up MLX for an NVIDIA GPU and runs this. A random model with CLaRa-7B's shapes is
made in memory, as bf16, Q8 and Q4, one after the other: milliseconds for a chunk of 256 tokens
alone and in batches, a question, an answer from five memories, memory, and the share of the rate
that this machine's own matmul reaches. Speed and sizes are measured, quality is not.

The rest of the time trains: clara-nano's base from nothing, and CLaRa on SmolLM2-135M if its folder
is named (`scripts/smollm2.py` makes it). What is reached is in OUT, and goes on from there if OUT
is given again. ``--size tiny`` takes a small model, to see on any machine that all of it works.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.llama import Model, ModelArgs

from clara_mlx import machine
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.encoder import MemoryTokenEmbedding
from clara_mlx.model.lora import TARGETS, Adapters, dims
from clara_mlx.model.tokenizer import TextTokenizer

ROOT = Path(__file__).parent.parent
TOKENIZER = ROOT / "tests/golden/tiny-base/tokenizer.json"
VOCABULARY = 32000
MEMORY = 16
RANK = 16
ADAPTERS = ("encoder", "decoder", "query_reasoner")

# Hidden size, layers, MLP, heads, heads of keys and values: CLaRa-7B's, and a small model's.
SIZES = {"full": (4096, 32, 14336, 32, 8), "tiny": (128, 2, 448, 4, 2)}

#: The forms of the base: name, and bits of its weights; None is bf16.
FORMS: tuple[tuple[str, int | None], ...] = (("bf16", None), ("q8", 8), ("q4", 4))

BATCHES = (1, 4, 16, 64)  # chunks
REPEATS = 5
DOCUMENTS = 5  # of an answer
ANSWER_TOKENS = 64
QUESTION = "Which test failed, and on which line?"

# Seconds that are left for what follows the training.
LAST_SECONDS = 15


def build(size: str, bits: int | None) -> Clara:
    """A random CLaRa, layer by layer in the form in which it stays."""
    hidden, layers, mlp, heads, kv_heads = SIZES[size]
    config = ClaraConfig(
        doc_max_length=256,
        compr_rate=256 // MEMORY,
        lora_r=RANK,
        hidden_size=hidden,
        base_vocab_size=VOCABULARY,
        window=32768,
        training_stage="stage2",
        generation_top_k=DOCUMENTS,
    )
    network: Any = Model(
        ModelArgs(
            model_type="mistral",
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=mlp,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            rms_norm_eps=1e-5,
            vocab_size=config.vocab_size,
            rope_theta=1e6,
            tie_word_embeddings=False,
        )
    )
    # Half precision is many times slower on a CPU, so as `clara_mlx.load` does it.
    dtype = mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16
    for part in (*network.model.layers, network.model, network):  # a layer's random numbers at once
        part.set_dtype(dtype)
        if bits and part is not network.model:
            nn.quantize(part, 64, bits)
        mx.eval(part.parameters())
    rows = mx.random.normal((config.vocab_size - VOCABULARY, hidden)) * 0.02
    embedding = MemoryTokenEmbedding(network.model.embed_tokens, rows, VOCABULARY, dtype)
    network.model.embed_tokens = embedding

    def read(name: str) -> dict[str, mx.array]:
        tensors: dict[str, mx.array] = {}
        for i, layer in enumerate(network.model.layers):
            modules = dict(layer.named_modules())
            for target in TARGETS:
                outputs, inputs = dims(modules[target].linear)
                path = f"model.layers.{i}.{target}"
                tensors[f"{path}.lora_a"] = (0.02 * mx.random.normal((inputs, RANK))).astype(dtype)
                tensors[f"{path}.lora_b"] = (0.02 * mx.random.normal((RANK, outputs))).astype(dtype)
        return tensors

    adapters = Adapters(network, ADAPTERS, read)
    for name in ADAPTERS:
        with adapters.use(name):
            pass
    tokenizer = TextTokenizer(TOKENIZER.read_text())
    return Clara(config, network, adapters, tokenizer, "query_reasoner", f"random {size} {bits}")


def measure(size: str, bits: int | None) -> dict[str, Any]:
    """The figures of one form of the base; times are medians in seconds."""
    mx.reset_peak_memory()
    began = time.perf_counter()
    clara = build(size, bits)
    made = time.perf_counter() - began
    arrays = mx.get_active_memory()
    text = "FAILED tests/test_io.py::test_load line 42: expected 7, got 8\n" * 64
    chunk = next(chunking.split(text, clara.tokenizer, 256))
    text = text[: chunk.end]
    dtype = clara.network.model.embed_tokens.rows.dtype
    rate = machine.matmul_flops(dtype, 512 if size == "tiny" else 4096)
    weights = sum(
        dims(module.linear)[0] * dims(module.linear)[1]
        for layer in clara.network.model.layers
        for _, module in layer.named_modules()
        if hasattr(module, "linear")
    )
    chunks = []
    for batch in BATCHES if size == "full" else BATCHES[:2]:
        seconds = repeated(lambda batch=batch: mx.eval(clara.encode([text] * batch)))  # type: ignore[misc]
        positions = batch * (chunk.tokens + 3 + MEMORY)
        chunks.append(
            {
                "batch": batch,
                "tokens": chunk.tokens,
                "seconds": seconds,
                "seconds_per_chunk": seconds / batch,
                "tokens_per_second": batch * chunk.tokens / seconds,
                "share_of_matmul_rate": 2 * weights * positions / seconds / rate,
            }
        )
    latents = clara.encode([text] * DOCUMENTS)
    first, speeds = [], []
    for _ in range(REPEATS):
        began = time.perf_counter()
        stamps = [
            time.perf_counter() for _ in clara.stream_responses(QUESTION, latents, ANSWER_TOKENS)
        ]
        first.append(stamps[0] - began)
        if len(stamps) > 1:
            speeds.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
    return {
        "making_seconds": made,
        "array_bytes": arrays,
        "matmul_flops": rate,
        "chunks": chunks,
        "query_seconds": repeated(lambda: mx.eval(clara.encode_query(QUESTION))),
        "first_token_seconds": median(first),
        "answer_tokens_per_second": median(speeds) if speeds else None,
        "peak_bytes": mx.get_peak_memory(),
    }


def repeated(work: Callable[[], Any]) -> float:
    """The median seconds of some repeats, after one that does not count."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return median(times)


def train(command: list[str], log: Path, seconds: float) -> dict[str, Any]:
    """Run a training program for a while; it saves as it goes, and can be started again.

    Args:
        command: The program and its arguments.
        log: Where it writes a line of JSON for each step that it reports.
        seconds: After which it is asked to end, and soon after made to.
    """
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    ended = process.poll()
    if ended is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(LAST_SECONDS / 2)
        process.kill()  # what it saves is whole at every moment
        process.wait()
    lines = log.read_text().splitlines() if log.exists() else []
    reports = [json.loads(line) for line in lines]
    return {
        "command": " ".join(Path(word).name for word in command),
        "seconds": time.monotonic() - began,
        "ended_by_itself": ended,
        "reports": len(reports),
        "first": reports[0] if reports else None,
        "last": reports[-1] if reports else None,
    }


def trainings(to: Path, smollm2: Path | None, steps: int) -> Iterator[tuple[str, list[str], Path]]:
    """What can be trained: its name, the command, and its log."""
    nano = to / "nano"
    nano.mkdir(parents=True, exist_ok=True)
    scripts = ROOT / "scripts/nano"
    if not (nano / "tokenizer.json").exists():
        subprocess.run([sys.executable, str(scripts / "tokenizer.py"), str(nano)], check=True)
    command = [str(scripts / "pretrain.py"), str(nano), "--steps", str(steps)]
    yield "clara-nano, from nothing", command, nano / "pretrain.jsonl"
    if smollm2 is None:
        return
    folder = to / "smollm2"
    if not (folder / "data").exists():
        command = [str(scripts / "examples.py"), str(nano), str(folder / "data")]
        subprocess.run([sys.executable, *command], check=True)
    (folder / "train.toml").write_text(
        f'stage = "scp"\noutput = "run"\nseed = 20261123\n\n'
        f'[fresh]\nbase = "{smollm2.absolute()}"\ndoc_max_length = 64\ncompr_rate = 16\n\n'
        '[data]\ntrain = ["data/scp-train.jsonl"]\nevaluation = ["data/scp-test.jsonl"]\n\n'
        f"[steps]\nbatch_size = 64\nmicro_batch_size = 32\nmost = {steps}\n\n"
        "[optimiser]\nlearning_rate = 1e-4\n"
    )
    command = ["-m", "clara_mlx.cli", "train", str(folder / "train.toml")]
    yield "CLaRa on SmolLM2-135M", command, folder / "run/metrics.jsonl"


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    about = results["machine"]
    lines = [
        f"{about['processor']}, MLX {about['mlx']} on the {about['device']}, {about['date']}; a "
        f"random model of the size {results['size']!r}.",
        "",
        "| | arrays | ms a chunk, alone | " + " | ".join(f"of {b}" for b in BATCHES[1:]),
    ]
    lines[-1] += " | share of matmul, best | question, ms | first token, ms | tokens/s | peak |"
    lines.append("|---|" + "---|" * (lines[-1].count("|") - 2))
    for form, found in results["forms"].items():
        chunks = found["chunks"]
        speed = found["answer_tokens_per_second"]
        lines.append(
            f"| {form} | {found['array_bytes'] / 1e9:.2f} GB | "
            + " | ".join(f"{1e3 * chunk['seconds_per_chunk']:.1f}" for chunk in chunks)
            + " | -" * (len(BATCHES) - len(chunks))
            + f" | {max(chunk['share_of_matmul_rate'] for chunk in chunks):.0%} | "
            f"{1e3 * found['query_seconds']:.1f} | {1e3 * found['first_token_seconds']:.1f} | "
            f"{f'{speed:.0f}' if speed else '-'} | {found['peak_bytes'] / 1e9:.2f} GB |"
        )
    for name, found in results["training"].items():
        lines += ["", f"{name}: {found['seconds']:.0f} s, last report: {found['last']}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, required=True, help="folder for results and training")
    parser.add_argument("--minutes", type=float, default=10, help="for all of it; default 10")
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    parser.add_argument("--smollm2", type=Path, help="SmolLM2-135M's folder")
    parser.add_argument("--steps", type=int, default=6000, help="of each training, at most")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    options.to.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "size": options.size,
        "forms": {},
        "training": {},
    }

    def save() -> None:
        (options.to / "gpu.json").write_text(json.dumps(results, indent=2) + "\n")
        (options.to / "gpu.md").write_text(table(results) + "\n")

    for form, bits in FORMS:
        print(f"{form} ...", flush=True)
        results["forms"][form] = measure(options.size, bits)
        mx.clear_cache()
        save()
    planned = list(trainings(options.to, options.smollm2, options.steps))
    for number, (name, command, log) in enumerate(planned):
        seconds = (end - LAST_SECONDS - time.monotonic()) / (len(planned) - number)
        if seconds <= 0:
            print(f"{name}: no time left")
            continue
        print(f"{name}: {seconds:.0f} s ...", flush=True)
        results["training"][name] = train(command, log, seconds)
        save()
    print(table(results))


if __name__ == "__main__":
    main()
