"""Where the time of an answer goes, and what each way to shorten it saves, in one run.

    python bench/answers.py --work FOLDER [--only PART ...] [--outputs FILE --tokenizer FILE]

The model is reference.py's: random, with CLaRa-7B's proportions, in float32, kept in FOLDER. Each
part does its ways in turn and compares medians, of wall time and of this process's processor time:

- passes: the decoder's pass over a few tokens, with weights in blocks and with whole ones;
- opening: the first token over 5 memories, with the prompt's opening known and with it read again;
- first token: over 1 to 32 memories, and over the same documents as text;
- cache: 24 tokens over 32 memories, with keys and values in float32, 8 and 4 bits;
- products: one matrix of the model in float32, 8 and 4 bits, with 1 row and with 128;
- lookup: passes that answers take if what they copy is drafted. It needs no model: the answers are
  the right ones, and the whole lines in which they stand, of the captured outputs or of --outputs
  (bench/README.md has the format), in the tokens of the golden base or of --tokenizer.

Results go to bench/results/answers.json. OpenBLAS and jemalloc are preloaded as in reference.py.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import make_prompt_cache
from reference import preloads, prepared_model

import clara_mlx
from clara_mlx import machine
from clara_mlx.evaluate.first_token import measure_first_tokens
from clara_mlx.model import few_rows
from clara_mlx.model.decoder import Decoder
from clara_mlx.model.lookup import DRAFTED, Lookup
from clara_mlx.model.tokenizer import TextTokenizer

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "golden" / "tiny-base" / "tokenizer.json"
CAPTURED = HERE.parent / "clara_mlx" / "evaluate" / "captured.jsonl"
QUESTION = "Which test failed, and on which line?"
READ = 213  # positions before the tokens of a pass: a prompt over 5 memories
TOKENS = 24  # of an answer
AROUND = 2500  # characters of an output before and after an answer, about a memory's evidence
END = 2  # </s>


def in_turns(works: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of each work, after one round that is not counted: wall and processor time."""
    wall: dict[str, list[float]] = {name: [] for name in works}
    processor: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start, began = time.perf_counter(), time.process_time()
            work()
            mx.synchronize()
            if turn:
                wall[name].append(1000 * (time.perf_counter() - start))
                processor[name].append(1000 * (time.process_time() - began))
    return {
        name: {"ms": median(wall[name]), "processor_ms": median(processor[name]), "all": wall[name]}
        for name in works
    }


def passes(clara: Any, repeats: int) -> dict[str, Any]:
    """The decoder's pass over a few tokens that follow a prompt."""
    read = make_prompt_cache(clara.network)

    def run(tokens: int, cache: list[Any], most_rows: int) -> None:
        few_rows.MOST_ROWS = most_rows
        with clara.lora.use("decoder"):
            logits = clara.network(mx.ones((1, tokens), mx.int32), cache)
        mx.eval(logits, [layer.state for layer in cache])

    most = few_rows.MOST_ROWS
    run(READ, read, most)

    def after(tokens: int, most_rows: int) -> None:
        run(tokens, copy.deepcopy(read), most_rows)

    works = {
        f"{tokens} tokens, {name}": partial(after, tokens, rows)
        for tokens in (1, 2, 4, 7, 12, 16)
        for name, rows in (("blocks", most), ("whole weights", 0))
    }
    try:
        return in_turns(works, repeats)
    finally:
        few_rows.MOST_ROWS = most


def opening(clara: Any, repeats: int) -> dict[str, Any]:
    """The first token over 5 memories."""
    latents = mx.random.normal((5, *clara.latent_shape))
    prompt = clara.prompts.answer(QUESTION, 5)

    def new() -> Decoder:
        return Decoder(clara.network, clara.lora, clara.tokenizer, clara.config.stop_ids)

    known = new()
    works = {
        "known": lambda: next(known.stream(prompt, latents, 1, {})),
        "read again": lambda: next(new().stream(prompt, latents, 1, {})),
    }
    positions = {"positions": len(prompt.ids), "of the opening": prompt.opening}
    return positions | in_turns(works, repeats)


def first_token(clara: Any, repeats: int) -> list[dict[str, Any]]:
    """The first token over memories, and over the same documents as text."""
    return measure_first_tokens(clara, (1, 4, 16, 32), repeats=min(repeats, 3))


def cache(clara: Any, repeats: int) -> dict[str, Any]:
    """Tokens over 32 memories, with quantised keys and values."""
    prompt = clara.prompts.answer(QUESTION, 32)
    embeds = 0.02 * mx.random.normal((len(prompt.ids), clara.config.hidden_size))
    made: dict[str, list[int]] = {}

    def run(name: str, bits: int | None) -> None:
        # mlx-lm asks for embeddings beside ids of the same number, which it does not read.
        options = {"kv_bits": bits, "quantized_kv_start": 0, "max_tokens": TOKENS}
        with clara.lora.use("decoder"):
            steps = generate_step(
                mx.array(prompt.ids), clara.network, input_embeddings=embeds, **options
            )
            made[name] = [token for token, _ in steps]

    kinds = {"float32": None, "8 bits": 8, "4 bits": 4}
    works = {name: partial(run, name, bits) for name, bits in kinds.items()}
    results: dict[str, Any] = in_turns(works, min(repeats, 3))
    for name, tokens in made.items():
        same = [a == b for a, b in zip(tokens, made["float32"], strict=True)]
        results[name]["tokens the same"] = [*same, False].index(False)
    return results


def products(clara: Any, repeats: int) -> dict[str, Any]:
    """One matrix in each format; its bytes are many times a core's cache."""
    weight = mx.random.normal((14 * clara.config.hidden_size, clara.config.hidden_size))
    works: dict[str, Callable[[], Any]] = {}
    for rows in (1, 128):
        x = mx.random.normal((rows, weight.shape[1]))
        works[f"float32, {rows} rows"] = partial(_multiply, x, weight)
        for bits in (8, 4):
            stored = mx.quantize(weight, group_size=64, bits=bits)
            mx.eval(stored)
            works[f"{bits} bits, {rows} rows"] = partial(_multiply_quantised, x, stored, bits)
    mx.eval(weight)
    results = in_turns(works, repeats)
    for name, result in results.items():
        rows = int(name.split()[-2])
        result["gflop a processor second"] = 2e-6 * weight.size * rows / result["processor_ms"]
    return results


def _multiply(x: mx.array, weight: mx.array) -> None:
    mx.eval(few_rows.multiply(x, weight))


def _multiply_quantised(x: mx.array, stored: Any, bits: int) -> None:
    codes, scales, biases = stored
    product = mx.quantized_matmul(x, codes, scales, biases, group_size=64, bits=bits)
    mx.eval(product)


def lookup(texts: Path, tokenizer: TextTokenizer) -> dict[str, Any]:
    """Passes and rows of answers and of lines that are copied, for each token of them."""
    results = {}
    for kind in ("answers", "lines"):
        lengths, made, rows = [], 0, 0
        for text, question, answer in asked(texts):
            at = text.find(answer)
            line = text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0].strip()
            ids = [*tokenizer.encode(answer if kind == "answers" else line), END]
            around = text[max(0, at - AROUND) : at + AROUND]
            drafts = Lookup(tokenizer.encode_batch([around, question]), 1 << 17)
            lengths.append(len(ids))
            for verified in verify(drafts, ids):
                made, rows = made + 1, rows + verified
        results[kind] = {
            "answers": len(lengths),
            "median tokens": median(lengths),
            "passes a token": made / sum(lengths),
            "rows a pass": rows / made,
        }
    return results


def asked(file: Path) -> Iterator[tuple[str, str, str]]:
    """Texts with a question and the answer, which stands in the text."""
    for line in file.read_text().splitlines():
        output = json.loads(line)
        for one in output.get("questions") or output["probes"]:
            if one["answer"] and one["answer"] in output["text"]:
                yield output["text"], one["question"], one["answer"]


def verify(drafts: Lookup, ids: list[int]) -> Iterator[int]:
    """Rows of each pass that an answer with these ids takes, as mlx-lm calls a draft model."""
    done, new = 0, [0]  # the last token of the prompt
    while done < len(ids):
        wanted = min(DRAFTED, len(ids) - done)
        made = []
        inputs = mx.array([new])
        for _ in range(wanted):
            draft: Any = mx.argmax(drafts(inputs)[0, 0]).item()
            made.append(draft)
            inputs = mx.array([made[-1:]])
        yield 1 + min(drafts.drafted, wanted)
        right = 0
        while right < wanted and made[right] == ids[done + right]:
            right += 1
        done += right + 1
        drafts.trim(max(wanted - right - 1, 0))
        new = [*(made[-1:] if right == wanted else []), *ids[done - 1 : done]]


PARTS: dict[str, Callable[[Any, int], Any]] = {
    "passes": passes,
    "opening": opening,
    "first token": first_token,
    "cache": cache,
    "products": products,
}


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the model; kept")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "lookup"])
    parser.add_argument("--outputs", type=Path, default=CAPTURED)
    parser.add_argument("--tokenizer", type=Path, default=GOLDEN)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "answers.json")
    options = parser.parse_args()
    environment = preloads()
    if environment and "openblas" not in os.environ.get("LD_PRELOAD", ""):
        command = [sys.executable, *sys.argv]
        os.execve(sys.executable, command, {**os.environ, **environment})
    parts = options.only or [*PARTS, "lookup"]
    results: dict[str, Any] = {"machine": machine.describe()}
    clara = None
    if set(parts) & set(PARTS):
        clara = clara_mlx.load(prepared_model(options.work, hidden=1024, layers=8))
    for part in parts:
        results["load average"] = os.getloadavg()
        if part == "lookup":
            tokenizer = TextTokenizer(options.tokenizer.read_text())
            results[part] = lookup(options.outputs, tokenizer)
        else:
            results[part] = PARTS[part](clara, options.repeats)
        print(json.dumps({part: results[part]}, indent=1), flush=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
