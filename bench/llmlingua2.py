"""Measure LLMLingua-2's two encoders at full size, with random checkpoints of the released shapes.

    python bench/llmlingua2.py --work /tmp/llmlingua2

For each encoder a checkpoint is written into the work folder (bfloat16, 1.1 and 0.4 GB), converted
to 8 bits and to float32, loaded, timed on a text, and removed; that needs 4 GB of disk and of
memory. Each step runs in a process of its own, so that peak memory is measured per step.

Results go to bench/results/llmlingua2.json; `--repeats 0` measures sizes and memory alone, for a
machine that is busy. The weights are random numbers in the exact shapes:
bytes, memory and speed are measured, quality is not.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from full_size import Noise, run_process, write_safetensors

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden-llmlingua2"

#: The released sizes: xlm-roberta-large and bert-base-multilingual-cased.
ENCODERS: dict[str, dict[str, Any]] = {
    "xlm-roberta": {
        "architectures": ["XLMRobertaForTokenClassification"],
        "vocab_size": 250002,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
    },
    "bert": {
        "architectures": ["BertForTokenClassification"],
        "vocab_size": 119547,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    },
}
FORMATS = {"q8": ("-q", "8"), "float32": ("-q", "none", "--dtype", "float32")}
LINE = "FAILED tests/shop/test_prices.py::test_rounding[eur] - AssertionError: 12.50 != 12.49\n"


# -- the checkpoints -----------------------------------------------------------------------------


def tensor_shapes(sizes: dict[str, Any], prefix: str) -> dict[str, tuple[int, ...]]:
    """The shapes of an encoder's tensors, by the names that transformers gives them."""
    hidden, mlp = sizes["hidden_size"], sizes["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {}
    for table, rows in (
        ("word", "vocab_size"),
        ("position", "max_position_embeddings"),
        ("token_type", "type_vocab_size"),
    ):
        shapes[f"{prefix}.embeddings.{table}_embeddings.weight"] = (sizes[rows], hidden)
    parts: dict[str, tuple[int, ...]] = {f"{prefix}.embeddings.LayerNorm": (hidden,)}
    for i in range(sizes["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            parts[f"{layer}.attention.{name}"] = (hidden, hidden)
        parts[f"{layer}.attention.output.LayerNorm"] = (hidden,)
        parts[f"{layer}.intermediate.dense"] = (mlp, hidden)
        parts[f"{layer}.output.dense"] = (hidden, mlp)
        parts[f"{layer}.output.LayerNorm"] = (hidden,)
    parts["classifier"] = (2, hidden)
    for name, shape in parts.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return shapes


def write_checkpoint(kind: str, folder: Path) -> None:
    """Write a checkpoint in the layout of the released ones, its vocabulary filled up."""
    folder.mkdir(parents=True)
    sizes = ENCODERS[kind]
    (folder / "config.json").write_text(json.dumps({"model_type": kind, **sizes}))
    tokenizer = json.loads((GOLDEN / kind / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    if kind == "bert":
        vocabulary |= {f"filler{i}": i for i in range(len(vocabulary), sizes["vocab_size"])}
    else:  # a list with scores; <mask> is the last
        last = sizes["vocab_size"] - 1
        vocabulary += [[f"filler{i}", -99.0] for i in range(len(vocabulary), last)]
        tokenizer["added_tokens"][-1]["id"] = last
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    prefix = "bert" if kind == "bert" else "roberta"
    write_safetensors(folder / "model.safetensors", tensor_shapes(sizes, prefix), Noise())


# -- the measurements ----------------------------------------------------------------------------


def time_words(folder: Path, tokens: int, repeats: int) -> dict[str, Any]:
    """Load a folder, and rate the words of a text of about so many tokens."""
    import mlx.core as mx

    import clara_mlx

    start = time.perf_counter()
    model = clara_mlx.load(folder)
    loading = time.perf_counter() - start
    loaded = mx.get_active_memory()
    of_a_line = len(model.tokenizer.encode(LINE))
    text = LINE * max(1, tokens // of_a_line)
    counted = len(model.tokenizer.encode(text))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.words(text)
        seconds.append(time.perf_counter() - start)
    return {
        "load_seconds": loading,
        "array_bytes": loaded,
        "tokens": counted,
        "seconds": seconds,
        "ms_per_1000_tokens": median(seconds) / counted * 1e6 if seconds else None,
        "line_tokens": model.shorten(LINE, rate=0.5).tokens,
    }


def measure(work: Path, kinds: list[str], tokens: int, repeats: int) -> dict[str, Any]:
    """Write, convert, load and time each encoder in each format; leaves nothing behind."""
    from clara_mlx import machine

    results: dict[str, Any] = {"machine": machine.describe(), "repeats": repeats, "encoders": {}}
    for kind in kinds:
        source = work / kind
        shutil.rmtree(source, ignore_errors=True)
        try:
            print(f"{kind}: writing the checkpoint ...", flush=True)
            run_process(sys.executable, __file__, "--work", work, "--step", "write", "--kind", kind)
            found: dict[str, Any] = {}
            for name, options in FORMATS.items():
                folder = work / f"{kind}-{name}"
                print(f"{kind}: {name} ...", flush=True)
                seconds, peak, output = run_process(
                    sys.executable, "-m", "clara_mlx.cli", "convert", source, "--to", folder,
                    *options, "--force", "--json",
                )  # fmt: skip
                report = json.loads(output)
                _, load_peak, timed = run_process(
                    sys.executable, __file__, "--work", folder, "--step", "time",
                    "--tokens", tokens, "--repeats", repeats,
                )  # fmt: skip
                found[name] = {
                    "folder_bytes": sum(p.stat().st_size for p in folder.iterdir()),
                    "parameters": report["parameters"]["encoder"],
                    "weight_bytes": report["bytes"]["encoder"],
                    "bits_per_weight": report["bits_per_weight"],
                    "conversion_seconds": seconds,
                    "conversion_peak_resident_bytes": peak,
                    "peak_resident_bytes": load_peak,
                    **json.loads(timed),
                }
                shutil.rmtree(folder)
            results["encoders"][kind] = found
        finally:
            shutil.rmtree(source, ignore_errors=True)
    return results


def table(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    about = results["machine"]
    columns = {
        f"{kind} {name}": figures
        for kind, formats in results["encoders"].items()
        for name, figures in formats.items()
    }
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "parameters": lambda m: f"{m['parameters'] / 1e6:.0f} M",
        "folder": lambda m: f"{m['folder_bytes'] / 1e9:.3f} GB",
        "bits per weight": lambda m: f"{m['bits_per_weight']:.2f}",
        "arrays after load": lambda m: f"{m['array_bytes'] / 1e9:.3f} GB",
        "peak resident, conversion": lambda m: (
            f"{m['conversion_peak_resident_bytes'] / 1e9:.2f} GB"
        ),
        "peak resident, in use": lambda m: f"{m['peak_resident_bytes'] / 1e9:.2f} GB",
        "ms per 1,000 tokens": lambda m: (
            f"{m['ms_per_1000_tokens']:,.0f}" if m["seconds"] else "not timed"
        ),
    }
    lines = [
        f"{about['processor']}, {about['cores']} cores, {about['system']}; mlx {about['mlx']} on "
        f"the {about['device']}, preloaded: {about['preloaded'] or 'nothing'}; {about['date']}; "
        + (f"medians of {results['repeats']}." if results["repeats"] else "not timed."),
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        *(f"| {name} | {' | '.join(map(show, columns.values()))} |" for name, show in rows.items()),
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoints")
    parser.add_argument("--kind", choices=ENCODERS, help="one of the two only")
    parser.add_argument("--tokens", type=int, default=500, help="of the text that is timed")
    parser.add_argument("--repeats", type=int, default=3, help="0: sizes and memory only")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "llmlingua2.json")
    parser.add_argument("--step", choices=("write", "time"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step == "write":
        write_checkpoint(options.kind, options.work / options.kind)
    elif options.step == "time":
        print(json.dumps(time_words(options.work, options.tokens, options.repeats)))
    else:
        options.work.mkdir(parents=True, exist_ok=True)
        kinds = [options.kind] if options.kind else list(ENCODERS)
        results = measure(options.work, kinds, options.tokens, options.repeats)
        options.out.write_text(json.dumps(results, indent=2) + "\n")
        print(table(results))


if __name__ == "__main__":
    main()
