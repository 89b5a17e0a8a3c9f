"""Checkpoints and bases with something changed in them: converted to a model that answers, or
refused in words without a folder.

A case is its number: the message of a failure names it and what was changed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import pytest
from fuzz_mutations import damage, mutate_value
from sizes import sized

import clara_mlx
from clara_mlx.convert import Source, convert
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.pth_writer import write_pth
from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import load_arrays
from clara_mlx.model.schemes import Quantisation

CASES = sized(10, 10_000)
FIRST = int(os.environ.get("CLARA_MLX_FIRST_MUTATION", 0))  # to go on from, or to repeat one

ROPES: tuple[Any, ...] = (
    *(None, "linear", [], {}, {"rope_type": "default"}, {"rope_type": "foo"}, {"type": "su"}),
    *({"type": kind, "factor": 4.0} for kind in ("linear", "dynamic", "yarn", "llama3", "mrope")),
    *({"rope_type": kind} for kind in ("linear", "dynamic", "yarn", "llama3", "proportional")),
    {"rope_type": "yarn", "factor": 2, "original_max_position_embeddings": 0},
    {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0},
    {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]},
    {"rope_type": "linear", "factor": float("nan")},
    {"rope_type": "default", "rope_theta": "x"},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
)

#: Values of a base's fields that some base has, or that someone has written.
BASE_FIELDS: dict[str, tuple[Any, ...]] = {
    "model_type": (
        "llama",
        "qwen2",
        "qwen3",
        "ministral3",
        "gemma",
        "phi3",
        "mixtral",
        "gpt2",
        "x",
    ),
    "rope_scaling": ROPES,
    "rope_parameters": ROPES,
    "rope_theta": (None, 0, 1, 1e4, -5.0, "1e4", 1e308),
    "eos_token_id": (None, [2, 5], [], [None], 9999, "2", [[2]], -1),
    "bos_token_id": (None, [1], 9999, 0, "1"),
    "hidden_act": ("silu", "gelu", "relu", None, 3),
    "head_dim": (None, 16, 8, 15, 1, 0, 32),
    "num_key_value_heads": (None, 1, 2, 3, 4, 8),
    "num_attention_heads": (1, 2, 3, 4, 5, 64),
    "layer_types": (None, ["full_attention"] * 3, ["sliding_attention"] * 3, ["x"] * 3, [], "x"),
    "sliding_window": (None, 1, 16, 70, 71, 4096, 0, "x"),
    "max_position_embeddings": (None, 0, 1, 64, 4096, 10**9, 2.5),
    "rms_norm_eps": (None, 0, 1e-5, "1e-5", float("nan"), -1.0, 1e30),
    "attention_bias": (True, False, None),
    "mlp_bias": (True, False, None),
    "tie_word_embeddings": (True, None),
    "use_sliding_window": (True, False),
    "quantization_config": (None, {}, {"quant_method": "fp8"}, "x"),
    "partial_rotary_factor": (None, 1, 0.5, "x"),
    "text_config": (None, {}, {"model_type": "llama"}, "x"),
    "model_file": ("x.py", None),
    "torch_dtype": (None, "float32", 5),
    "vocab_size": (0, 643, 650, None, 2**40),
    "num_hidden_layers": (0, 1, 2, 3, 4, None),
}
CHECKPOINT_FIELDS: dict[str, tuple[Any, ...]] = {
    "doc_max_length": (1, 15, 16, 63, 64, 4096, None),
    "compr_rate": (1, 4, 16, 64, 65, 0),
    "lora_r": (1, 8, 16, None),
    "different_mem_tokens": (False, None, "x"),
    "sep": (False, None),
    "generation_top_k": (0, -1, 10**9, None),
    "max_new_tokens": (0, -1, None),
}

Change = Callable[[Random, Path], object]  # of the folder with ``checkpoint`` and ``base`` in it


def fields(file: str, choices: dict[str, tuple[Any, ...]]) -> Change:
    def change(rng: Random, root: Path) -> object:
        config = json.loads((root / file).read_text())
        chosen = {name: rng.choice(choices[name]) for name in rng.sample(list(choices), 2)}
        for name, value in list(chosen.items())[: rng.choice((1, 1, 2))]:
            if rng.random() < 0.1:
                config.pop(name, None)
            else:
                config[name] = value
        (root / file).write_text(json.dumps(config))
        return file, chosen

    return change


def values(rng: Random, root: Path) -> object:
    """Any value in any JSON file."""
    file = rng.choice(sorted(root.rglob("*.json")))
    file.write_text(json.dumps(mutate_value(rng, json.loads(file.read_text()))))
    return file.name


def a_file(rng: Random, root: Path) -> object:
    """Any file: damaged, absent, empty, a pointer, a page, a link, or with a mark at its start."""
    file = rng.choice(sorted(path for path in root.rglob("*") if path.is_file()))
    raw = file.read_bytes()
    kind = rng.randrange(8)
    file.unlink()
    match kind:
        case 0:
            file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        case 1:
            file.write_bytes(b"<!doctype html><html>")
        case 2:
            file.write_bytes(b"")
        case 3:
            file.write_bytes(b"\xef\xbb\xbf" + raw)
        case 4:
            file.symlink_to("nowhere")
        case 5 | 6:
            file.write_bytes(damage(rng, raw))
    return file.name, kind


PREFIXES = ("module.", "_orig_mod.", "base_model.model.", "x.", "model.", "model.language_model.")
DTYPES = (mx.float16, mx.float32, mx.bfloat16, mx.int32, mx.uint8, mx.int64)


def tensors(rng: Random, arrays: dict[str, mx.array]) -> object:
    """One of a dict of tensors, or all their names."""
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    kind = rng.randrange(8)
    match kind:
        case 0:
            del arrays[name]
        case 1:
            arrays[name] = array[:-1]
        case 2:
            arrays[name] = array.astype(rng.choice(DTYPES))
        case 3:
            arrays[name] = array * rng.choice((0, 1e30, float("nan"), float("inf"), 1e5, -1))
        case 4:
            prefix = rng.choice(PREFIXES)
            renamed = {prefix + key: value for key, value in arrays.items()}
            arrays.clear()
            arrays.update(renamed)
        case 5:
            arrays[rng.choice(("model.rotary_emb.inv_freq", f"{name}.bias", "x"))] = mx.zeros(3)
        case 6:
            arrays[name] = array.reshape(-1)
        case _:
            arrays[name.replace(".weight", rng.choice((".default.weight", ".weight_scale")))] = (
                array
            )
    return name, kind


def of_base(rng: Random, root: Path) -> object:
    file = rng.choice(sorted((root / "base").glob("*.safetensors")))
    arrays = dict(load_arrays(file))
    mx.eval(arrays)
    changed = tensors(rng, arrays)
    mx.save_safetensors(str(file), arrays)
    return changed


def of_checkpoint(rng: Random, root: Path) -> object:
    file = rng.choice(sorted((root / "checkpoint").glob("*.pth")))
    content = read_pth(file)
    if file.name == "adapters.pth":
        arrays = {k: {n: ref.read() for n, ref in t.items()} for k, t in content.items()}
        changed = tensors(rng, arrays[rng.choice(sorted(arrays))])
        write_pth(file, {k: t for k, t in arrays.items() if t})
    else:
        tables = {name: ref.read() for name, ref in content.items()}
        changed = tensors(rng, tables)
        write_pth(file, tables)
    return changed


CHANGES: tuple[Change, ...] = (
    *(fields("base/config.json", BASE_FIELDS),) * 3,
    fields("checkpoint/config.json", CHECKPOINT_FIELDS),
    *(values, a_file, of_base, of_checkpoint),
)
OPTIONS: tuple[dict[str, Any], ...] = (
    *({"dtype": dtype} for dtype in ("float32", "bf16", "float16")),
    *({"quantisation": Quantisation(bits, 32)} for bits in (8, 4)),
)


@pytest.fixture(scope="module")
def whole(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    shutil.copytree(golden / "c16" / "instruct", root / "checkpoint")
    shutil.copytree(golden / "tiny-base", root / "base")
    return root


def test_converted_or_refused(whole: Path, tmp_path: Path) -> None:
    outcomes = {True: 0, False: 0}
    for number in range(FIRST, FIRST + CASES):
        rng = Random(f"mutation {number}")
        root = tmp_path / str(number)
        shutil.copytree(whole, root)
        rounds = rng.choice((1, 1, 1, 2))
        try:
            changed: Any = [rng.choice(CHANGES)(rng, root) for _ in range(rounds)]
        except (ClaraError, ValueError, OSError):  # what the first change left can't be changed
            changed = "changed once"
        try:
            outcomes[works(root, rng)] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number}: {changed}: {error!r:.500}") from error
        shutil.rmtree(root)
    assert min(outcomes.values()) > CASES / 20, outcomes  # both happen


def works(root: Path, rng: Random) -> bool:
    """Whether a checkpoint is converted, and then works; or else is refused, and nothing left."""
    to = root / "out" / "model"
    try:
        source = Source.open(root / "checkpoint", base=root / "base")
        convert(source, to, **rng.choice(OPTIONS))
    except ClaraError as error:
        str(error).encode()  # it can be printed
        assert len(str(error)) < 8_000
        assert not to.parent.exists() or not any(to.parent.iterdir())
        return False
    assert [path.name for path in to.parent.iterdir()] == ["model"]
    model = clara_mlx.load(to)
    latents = model.encode(["x", "y z"])
    model.rank("z", latents)
    assert isinstance(model.answer("z", latents[:1], max_tokens=1), str)
    return True
