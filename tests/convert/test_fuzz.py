"""Mutated files: each is read or refused, nothing is run, and memory stays small.

The work is done by fuzz_worker.py in processes of its own. When a case fails, its kind and number
are in the output; the same case runs again with
``python tests/support/fuzz_worker.py KIND NUMBER 1 EMPTY_FOLDER GOLDEN_FOLDER``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sizes import sized

from clara_mlx.convert import Source, convert
from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import ModelFolder

#: Files of each kind, 10,000 in full size and 1,000 in small. The first half is read by one
#: process, the second by another at the same time.
FILES = {
    "bytes": sized(240, 2400),
    "description": sized(360, 3600),
    "zip": sized(120, 1200),
    "golden": sized(40, 400),
    "safetensors": sized(240, 2400),
}
CHECKPOINTS = {"checkpoints": sized(30, 150)}  # whole conversions, one file of each is mutated

WORKER = Path(__file__).parents[1] / "support" / "fuzz_worker.py"
MOST_MEMORY = 1 << 30  # bytes
MOST_SECONDS = 120


def start(kind: str, first: int, count: int, scratch: Path, golden: Path) -> subprocess.Popen[str]:
    scratch.mkdir()
    command = [sys.executable, WORKER, kind, first, count, scratch, golden]
    return subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def finish(worker: subprocess.Popen[str]) -> str:
    try:
        return worker.communicate(timeout=MOST_SECONDS)[0]
    except subprocess.TimeoutExpired:
        worker.kill()
        return worker.communicate()[0]


@pytest.mark.alone
@pytest.mark.parametrize(("kind", "count"), {**FILES, **CHECKPOINTS}.items())
def test_fuzz(kind: str, count: int, tmp_path: Path, golden: Path) -> None:
    half = count // 2
    workers = [start(kind, n * half, half, tmp_path / f"{n}", golden) for n in range(2)]
    for worker, output in [(worker, finish(worker)) for worker in workers]:
        tail = output[-4000:]
        assert worker.returncode == 0, f"exit {worker.returncode}:\n{tail}"
        result = json.loads(tail.splitlines()[-1])
        assert result["read"] + result["refused"] == half
        assert min(result["read"], result["refused"]) > half / 20  # both happen
        assert result["peak"] < MOST_MEMORY


def test_all_files_are_counted() -> None:
    assert sum(FILES.values()) == sized(1_000, 10_000)


def test_the_guard_sees_code_that_runs(tmp_path: Path, golden: Path) -> None:
    """Without it, a fuzz test that finds nothing would mean nothing."""
    worker = start("unpickling", 0, 1, tmp_path / "0", golden)
    output = finish(worker)
    assert worker.returncode == 1
    assert "Forbidden: pickle.find_class" in output


# -- odd values in JSON, which random mutations seldom make --------------------------------------

CHECKPOINT, BASE = "checkpoint/config.json", "base/config.json"
TOKENIZER, INDEX = "base/tokenizer.json", "base/model.safetensors.index.json"
VOCABULARY, WEIGHTS = "model.vocab.x", "weight_map.x"

ODD = [
    (CHECKPOINT, "doc_max_length", 10**4299),
    (CHECKPOINT, "doc_max_length", 2**26),
    (CHECKPOINT, "compr_rate", 0),
    (CHECKPOINT, "lora_r", "8"),
    (CHECKPOINT, "decoder_model_name", "a\0b"),
    (CHECKPOINT, "decoder_model_name", ["/"]),
    (BASE, "hidden_size", 64.0),
    (BASE, "head_dim", [1]),
    (BASE, "num_attention_heads", 0),
    (TOKENIZER, VOCABULARY, 10**4299),
    (TOKENIZER, VOCABULARY, float("nan")),
    (TOKENIZER, "added_tokens", None),
    (TOKENIZER, "added_tokens", [{"id": 3}]),
    (INDEX, WEIGHTS, ".."),
    (INDEX, WEIGHTS, "../checkpoint/x.safetensors"),
    (INDEX, WEIGHTS, "x.gguf"),
    (INDEX, WEIGHTS, "x\0.safetensors"),
    (INDEX, WEIGHTS, "x" * 5000 + ".safetensors"),
    (CHECKPOINT, "decoder_model_name", "x" * 5000),
    (CHECKPOINT, "training_stage", "\ud800"),
    (BASE, "x", "\ud800"),
    (BASE, "rope_parameters", "x"),
    (BASE, "rope_parameters", [1]),
    (BASE, "head_dim", 10**4300 - 1),
    (TOKENIZER, VOCABULARY, float("inf")),
    (TOKENIZER, "added_tokens", ""),
    (TOKENIZER, "added_tokens", {}),
    (TOKENIZER, "added_tokens", [{"content": "<MEM0>"}]),
    (TOKENIZER, "model.vocab.\ud800", 3),
    (INDEX, WEIGHTS, "\ud800.safetensors"),
    (BASE, "num_hidden_layers", 2**24),
]


@pytest.mark.parametrize(("file", "keys", "value"), ODD, ids=lambda part: ascii(part)[:30])
def test_odd_values(tmp_path: Path, golden: Path, file: str, keys: str, value: Any) -> None:
    shutil.copytree(golden / "c16" / "e2e", tmp_path / "checkpoint")
    shutil.copytree(golden / "tiny-base", tmp_path / "base")
    content = target = json.loads((tmp_path / file).read_text())
    *path, last = keys.split(".")
    for key in path:
        target = target[key]
    target[last] = value
    (tmp_path / file).write_text(json.dumps(content))
    base = None if keys == "decoder_model_name" else tmp_path / "base"
    to = tmp_path / "out" / "model"
    try:
        convert(Source.open(tmp_path / "checkpoint", base=base), to, dtype="float32")
    except ClaraError as error:
        str(error).encode()  # it can be printed
        assert not to.parent.exists() or not any(to.parent.iterdir())
    else:
        ModelFolder.open(to)
