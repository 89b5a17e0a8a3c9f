"""Hub ids, through the real huggingface_hub reading a real cache, offline."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.2"


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


def cached(hub: Path, repo: str) -> Path:
    """The snapshot folder of a repository in a hub cache."""
    root = hub / "hub" / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(COMMIT)
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    return snapshot


def run(hub: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: the hub's settings are read on import."""
    return subprocess.run(
        [sys.executable, "-m", "clara_mlx.cli", *map(str, arguments)],
        env={**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_checkpoint_and_base_by_id(hub: Path, golden: Path, tmp_path: Path) -> None:
    checkpoint = cached(hub, "apple/CLaRa-tiny")
    shutil.copytree(golden / "c16/e2e", checkpoint / "compression-16")
    (checkpoint / "README.md").write_text("---\nlicense: apple-amlr\n---\n")
    shutil.copytree(golden / "tiny-base", cached(hub, "someone/tiny"), dirs_exist_ok=True)
    options = ("--subfolder", "compression-16", "--base", "someone/tiny", "--json")
    done = run(hub, "convert", "apple/CLaRa-tiny", "--to", tmp_path / "to", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["licences"]["checkpoint"] == "apple-amlr"
    source = json.loads((tmp_path / "to/clara.json").read_text())["source"]
    assert (source["checkpoint"], source["revision"]) == ("apple/CLaRa-tiny", COMMIT)
    # And the recorded source is enough to verify against later.
    verified = run(hub, "inspect", tmp_path / "to", "--verify", "--json")
    assert json.loads(verified.stdout)["problems"] == []


def test_a_model_folder_by_id(hub: Path, folder: object, tmp_path: Path) -> None:
    shutil.copytree(folder("c16", "e2e"), cached(hub, "me/clara-mlx"), dirs_exist_ok=True)  # type: ignore[operator]
    (tmp_path / "text").write_text("some text")
    done = run(hub, "compress", "--model", "me/clara-mlx", tmp_path / "text", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[str(tmp_path / "text")]["memory_tokens"] == 4


def test_missing_repositories(hub: Path, golden: Path, tmp_path: Path) -> None:
    done = run(hub, "convert", "apple/CLaRa-7B-E2E", "--to", tmp_path / "to")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "apple/CLaRa-7B-E2E" in done.stderr
    assert "HF_HUB_OFFLINE" in done.stderr
    done = run(hub, "convert", golden / "c16/e2e", "--base", "no such/base!", "--to", "x")
    assert done.returncode == 1
    assert "nor a hub id" in done.stderr


def test_the_checkpoints_base_by_id_and_the_fall_back(
    hub: Path, golden: Path, tmp_path: Path
) -> None:
    """A base name of another machine falls back to Mistral only when all shapes are Mistral's."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    config = json.loads((golden / "c16/e2e/config.json").read_text())
    config |= {"doc_max_length": 256, "lora_r": 16, "decoder_model_name": "/mnt/a/b/mistral"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    adapter = {
        f"model.layers.{i}.{name}.lora_{ab}.weight": shape
        for i in range(32)
        for name, (rows, columns) in MISTRAL_SHAPES.items()
        for ab, shape in (("A", (16, columns)), ("B", (rows, 16)))
    }
    names = ("encoder_adapter", "decoder_adapter")
    adapters = {f"{name}.{key}": shape for name in names for key, shape in adapter.items()}
    tables = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (32019, 4096))
    sparse(checkpoint / "adapters.safetensors", adapters)
    sparse(checkpoint / "decoder_first_last_layers.safetensors", tables)

    done = run(hub, "convert", checkpoint, "--to", tmp_path / "to")
    assert done.returncode == 1
    assert MISTRAL in done.stderr  # the shapes are Mistral's, so it was looked for
    (checkpoint / "config.json").write_text(json.dumps(config | {"decoder_model_name": MISTRAL}))
    done = run(hub, "convert", checkpoint, "--to", tmp_path / "to")
    assert "--base" in done.stderr

    # With Mistral in the cache (its tokenizer and configs; an unreadable weight file), the
    # fall-back goes on to read it, and says so.
    snapshot = cached(hub, MISTRAL)
    (checkpoint / "config.json").write_text(json.dumps(config))
    (snapshot / "model.safetensors").write_bytes(b"")
    tokenizer = json.loads((golden / "tiny-base/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"filler{i}": i for i in range(len(vocabulary), 32000)}
    (snapshot / "tokenizer.json").write_text(json.dumps(tokenizer))
    base = json.loads((golden / "tiny-base/config.json").read_text())
    base |= {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    base |= {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}
    (snapshot / "config.json").write_text(json.dumps(base))
    base_tensors = {
        f"model.layers.{i}.{name}.weight": shape
        for i in range(32)
        for name, shape in (MISTRAL_SHAPES | NORMS).items()
    }
    sparse(snapshot / "model.safetensors", base_tensors | {"model.norm.weight": (4096,)})
    script = (
        "import sys; from clara_mlx.convert import Source; s = Source.open(sys.argv[1]);"
        "print(s.base_name); print(*s.notes, sep='\\n')"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)],
        env={**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    name, *notes = found.stdout.splitlines()
    assert name == MISTRAL
    assert any("'/mnt/a/b/mistral' is not usable here" in note for note in notes)

    # One adapter with another width, and Mistral is no longer a candidate.
    adapters["encoder_adapter.model.layers.31.mlp.up_proj.lora_A.weight"] = (16, 4097)
    sparse(checkpoint / "adapters.safetensors", adapters)
    done = run(hub, "convert", checkpoint, "--to", tmp_path / "to")
    assert done.returncode == 1
    assert f"do not have the shapes of {MISTRAL}; name the base with --base" in done.stderr


MISTRAL_SHAPES = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
NORMS = {"input_layernorm": (4096,), "post_attention_layernorm": (4096,)}


def sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file of zeros in full size that takes no disk: only its header is written."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + end)
