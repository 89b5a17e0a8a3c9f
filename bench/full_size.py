"""Measure conversion and loading at full size, with a random CLaRa-7B checkpoint.

    python bench/full_size.py --work /tmp/full-size [--layers 4]

This needs about 30 GB of disk and 12 GB of memory. Each step runs in a process of its own, so that
peak memory is measured per step. Results go to bench/results/full_size.json and, as a table, to the
terminal. The weights are random numbers in the exact shapes of CLaRa-7B at 16x: sizes, memory and
speed are measured, quality is not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clara_mlx.convert.pth_writer import Tensor, write_pth

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden"

# The shapes of Mistral-7B-Instruct-v0.2 and of CLaRa-7B at 16x.
HIDDEN = 4096
MLP = 14336
LAYERS = 32
HEADS = 32
KV_HEADS = 8
VOCABULARY = 32000
KV = HIDDEN // HEADS * KV_HEADS
ROWS = VOCABULARY + 16 + 3  # memory tokens, <AE>, <ENC>, <SEP>
RANK = 16
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KV, HIDDEN),
    "self_attn.v_proj": (KV, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (MLP, HIDDEN),
    "mlp.up_proj": (MLP, HIDDEN),
    "mlp.down_proj": (HIDDEN, MLP),
}
BARS = {"8": 8.0e9, "4": 4.6e9}  # most bytes of arrays after loading, adapters included
RESIDENT_BAR = 4e9  # most bytes that a conversion may have resident


# -- the checkpoint ------------------------------------------------------------------------------


class Noise:
    """Normally distributed bfloat16 values (as uint16), cut from one pool at random places."""

    def __init__(self, seed: int = 0, size: int = 1 << 26) -> None:
        self._random = np.random.default_rng(seed)
        values = self._random.standard_normal(size, dtype=np.float32) * np.float32(0.02)
        self._pool = (values.view(np.uint32) >> 16).astype(np.uint16)

    def blocks(self, count: int) -> Iterator[memoryview]:
        """The bytes of ``count`` values, a pool at a time."""
        while count:
            start = int(self._random.integers(0, self._pool.size // 2))
            piece = self._pool[start : start + count]
            count -= piece.size
            yield piece.data.cast("B")


def write_checkpoint(folder: Path, layers: int) -> None:
    """Write a checkpoint in the layout of the published ones, and its base beside it."""
    noise = Noise()
    base, checkpoint = folder / "base", folder / "checkpoint"
    base.mkdir(parents=True)
    checkpoint.mkdir()
    tensors = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for i in range(layers):
        for name, shape in SHAPES.items():
            tensors[f"model.layers.{i}.{name}.weight"] = shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{name}.weight"] = (HIDDEN,)
    names = list(tensors)
    weight_map: dict[str, str] = {}
    for part in range(3):  # three files, as Mistral-7B-Instruct-v0.2 has
        mine = names[part * len(names) // 3 : (part + 1) * len(names) // 3]
        file = f"model-{part + 1:05d}-of-00003.safetensors"
        write_safetensors(base / file, {name: tensors[name] for name in mine}, noise)
        weight_map |= dict.fromkeys(mine, file)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    config = json.loads((GOLDEN / "tiny-base" / "config.json").read_text())
    config |= {
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
    }
    (base / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((GOLDEN / "tiny-base" / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"filler{i}": i for i in range(len(vocabulary), VOCABULARY)}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))

    config = json.loads((GOLDEN / "c16" / "e2e" / "config.json").read_text())
    config |= {"doc_max_length": 256, "compr_rate": 16, "lora_r": RANK, "decoder_model_name": ""}
    (checkpoint / "config.json").write_text(json.dumps(config))
    adapter = {}
    for i in range(layers):
        for name, (rows, columns) in SHAPES.items():
            adapter[f"model.layers.{i}.{name}.lora_A.weight"] = (RANK, columns)
            adapter[f"model.layers.{i}.{name}.lora_B.weight"] = (rows, RANK)
    adapters = ("encoder_adapter", "decoder_adapter", "query_reasoner_adapter")
    write_pth(
        checkpoint / "adapters.pth", {name: noise_tensors(adapter, noise) for name in adapters}
    )
    tables = {"model.embed_tokens.weight": (ROWS, HIDDEN), "lm_head.weight": (ROWS, HIDDEN)}
    write_pth(checkpoint / "decoder_first_last_layers.pth", noise_tensors(tables, noise))


def noise_tensors(shapes: Mapping[str, tuple[int, ...]], noise: Noise) -> dict[str, Tensor]:
    """Tensors of these shapes whose values are noise, to be written."""
    return {
        name: Tensor(shape, "bfloat16", partial(noise.blocks, int(np.prod(shape))))
        for name, shape in shapes.items()
    }


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]], noise: Noise) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            file.writelines(noise.blocks(int(np.prod(shape))))


# -- the measurements ----------------------------------------------------------------------------


def plain_copy(sources: list[Path], nbytes: int, to: Path) -> None:
    """Read the source files, write as many bytes as the model folder has, sync, and do no more."""
    last = b""
    for source in sources:
        with source.open("rb", buffering=0) as file:
            while block := file.read(16 << 20):
                last = block
    with to.open("wb", buffering=0) as file:
        while nbytes > 0:
            nbytes -= file.write(last[:nbytes])
        os.fsync(file.fileno())
    to.unlink()


def load_model(folder: Path) -> dict[str, Any]:
    """Load a model folder, use every adapter as the passes would, and encode one short text."""
    import mlx.core as mx

    import clara_mlx

    start = time.perf_counter()
    clara = clara_mlx.load(folder)
    seconds = time.perf_counter() - start
    base = mx.get_active_memory()
    for name in clara.adapters:
        with clara.lora.use(name):
            pass
    loaded = mx.get_active_memory()
    start = time.perf_counter()
    latents = clara.encode("FAILED tests/test_io.py::test_load")
    finite = bool(mx.isfinite(latents).all())
    return {
        "load_seconds": seconds,
        "array_bytes_base": base,
        "array_bytes": loaded,
        "adapters": clara.adapters,
        "encode_seconds": time.perf_counter() - start,
        "latents": list(latents.shape),
        "finite": finite,
    }


def run_process(*arguments: object) -> tuple[float, int, str]:
    """Run this script or the CLI in a process; gives seconds, peak resident bytes and output."""
    start = time.perf_counter()
    process = subprocess.Popen([str(a) for a in arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{arguments} failed with status {status}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return time.perf_counter() - start, peak, output


def measure(work: Path, bits: list[str], layers: int) -> dict[str, Any]:
    """Convert to each number of bits and load it; copy the same bytes for comparison."""
    from clara_mlx import machine

    source = work / "source"
    if not (source / "complete").exists():
        shutil.rmtree(source, ignore_errors=True)
        print("writing the checkpoint ...", flush=True)
        run_process(sys.executable, __file__, "--step", "write", "--work", work, "--layers", layers)
        (source / "complete").touch()
    files = [p for p in sorted(source.rglob("*")) if p.is_file()]
    results: dict[str, Any] = {
        "machine": machine.describe(),
        "layers": layers,
        "source_bytes": sum(p.stat().st_size for p in files),
        "models": {},
    }
    for width in bits:
        folder = work / f"q{width}"
        print(f"converting to {width} bits ...", flush=True)
        seconds, peak, output = run_process(
            sys.executable, "-m", "clara_mlx.cli", "convert", source / "checkpoint",
            "--base", source / "base", "--to", folder, "-q", width, "--force", "--json",
        )  # fmt: skip
        report = json.loads(output)
        written = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
        print("reading and writing the same bytes ...", flush=True)
        plain, _, _ = run_process(
            sys.executable, __file__, "--step", "copy", "--work", work, "--bytes", written
        )
        print("loading ...", flush=True)
        _, load_peak, loaded = run_process(
            sys.executable, __file__, "--step", "load", "--work", work, "--bits", width
        )
        results["models"][width] = {
            "folder_bytes": written,
            "bits_per_weight": report["bits_per_weight"],
            "conversion_seconds": seconds,
            "conversion_peak_resident_bytes": peak,
            "plain_seconds": plain,
            "errors": report["errors"],
            "load_peak_resident_bytes": load_peak,
            **json.loads(loaded),
        }
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    about = results["machine"]
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['memory_bytes'] / 1e9:.0f} GB, "
        f"{about['system']}; mlx {about['mlx']} on the {about['device']}; {about['date']}. "
        f"Source: {results['source_bytes'] / 1e9:.2f} GB.",
        "",
        "| | " + " | ".join(f"Q{bits}" for bits in results["models"]) + " | bar |",
        "|---|" + "---|" * (len(results["models"]) + 1),
    ]
    rows: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
        "folder": (lambda m: f"{m['folder_bytes'] / 1e9:.3f} GB", ""),
        "bits per weight of the base": (lambda m: f"{m['bits_per_weight']:.2f}", ""),
        "arrays after load, all three adapters": (
            lambda m: f"{m['array_bytes'] / 1e9:.3f} GB",
            " / ".join(f"{BARS[b] / 1e9:.1f} GB" for b in results["models"] if b in BARS),
        ),
        "arrays after load, base alone": (lambda m: f"{m['array_bytes_base'] / 1e9:.3f} GB", ""),
        "peak resident memory of the conversion": (
            lambda m: f"{m['conversion_peak_resident_bytes'] / 1e9:.2f} GB",
            f"{RESIDENT_BAR / 1e9:.0f} GB",
        ),
        "conversion": (lambda m: f"{m['conversion_seconds']:.0f} s", ""),
        "plain read and write of the same bytes": (lambda m: f"{m['plain_seconds']:.0f} s", ""),
        "conversion / plain": (
            lambda m: f"{m['conversion_seconds'] / m['plain_seconds']:.1f}",
            "",
        ),
        "load": (lambda m: f"{m['load_seconds']:.0f} s", ""),
    }
    for name, (show, bar) in rows.items():
        values = " | ".join(show(model) for model in results["models"].values())
        lines.append(f"| {name} | {values} | {bar} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoint")
    parser.add_argument("--bits", default="8,4")
    parser.add_argument("--layers", type=int, default=LAYERS, help="fewer for a first look")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "full_size.json")
    parser.add_argument("--step", choices=("write", "copy", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    source = options.work / "source"
    if options.step == "write":
        write_checkpoint(source, options.layers)
    elif options.step == "copy":
        files = [p for p in sorted(source.rglob("*")) if p.is_file()]
        plain_copy(files, options.bytes, options.work / "copy")
    elif options.step == "load":
        print(json.dumps(load_model(options.work / f"q{options.bits}")))
    else:
        results = measure(options.work, options.bits.split(","), options.layers)
        options.output.write_text(json.dumps(results, indent=2) + "\n")
        print(table(results))
        missed = [
            bits
            for bits, model in results["models"].items()
            if model["array_bytes"] > BARS.get(bits, float("inf"))
            or model["conversion_peak_resident_bytes"] > RESIDENT_BAR
            or not model["finite"]
        ]
        if missed:
            raise SystemExit(f"bars missed for {', '.join(missed)}")


if __name__ == "__main__":
    main()
