"""LCLM checkpoints become one folder, whole or not at all; odd ones are refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from lclm_files import checkpoint, document
from mlx_lm.utils import load_model
from sizes import sized

import clara_mlx
from clara_mlx.compressors.lclm.folder import DECODER, ENCODER, LclmFolder
from clara_mlx.convert import inspection
from clara_mlx.convert.kinds import convert_checkpoint, open_checkpoint, open_recorded
from clara_mlx.convert.kinds import verify_checkpoint as verify
from clara_mlx.convert.lclm_source import LclmSource
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder
from clara_mlx.model.schemes import Quantisation

Run = Callable[..., Any]

FORMATS = [("-q", "8"), ("--q-bits", "4", "--q-group-size", "32"), ("--q-mode", "mxfp4")]
DTYPES = ["bfloat16", "float16", "float32"]  # of a checkpoint

DECODER_FILE = "decoder/model.safetensors"  # of c4, which has one


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of c4's checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint("c4"), tmp_path / "checkpoint"))


def change_json(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def change_tensors(path: Path, change: Callable[[dict[str, mx.array]], None]) -> None:
    tensors: Any = mx.load(str(path))
    change(tensors)
    mx.eval(tensors)
    mx.save_safetensors(str(path), tensors, metadata={"format": "mlx"})


def refused(path: Path, *said: str) -> None:
    with pytest.raises(CheckpointError) as raised:
        open_checkpoint(path)
    for words in said:
        assert words in str(raised.value)


# -- what it makes -------------------------------------------------------------------------------


@pytest.mark.parametrize("options", sized(FORMATS[:2], FORMATS))
def test_quantised_folders_agree_with_their_source(
    cli: Run, lclm_folder: Run, options: tuple[str, ...]
) -> None:
    folder = lclm_folder("c16", *options)
    described = json.loads(cli("inspect", folder, "--verify", "--json").stdout)
    assert not described["problems"]
    assert described["identical"] == described["tensors"] == 35 + 46 + 5 + 1
    # The tiny matrices are random; the released ones lose far less.
    assert min(described["cosines"][ENCODER]) > (0.999 if options[1] == "8" else 0.8)
    assert cli("inspect", folder, "--check").exit_code == 0
    model = clara_mlx.load(folder)
    assert model.generate([{"role": "user", "content": "Hello?"}], 2)


def test_a_changed_tensor_is_found(lclm_folder: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(lclm_folder("c4"), tmp_path / "folder"))
    file = folder / "adapter/adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-2] ^= 0x10  # in the last number of the last tensor
    file.write_bytes(content)
    (problem,) = verify(folder, open_recorded(folder)).problems
    assert problem.endswith("differs from its source")
    with pytest.raises(CheckpointError, match=r"adapter/adapter\.safetensors"):
        inspection.check(folder)


def test_the_decoder_is_an_ordinary_model(lclm_folder: Run, lclm: Run) -> None:
    """mlx-lm's own programs can load encoder and decoder; the folder says what it is."""
    folder = lclm_folder("c16")
    for part in (ENCODER, DECODER):
        network, config = load_model(folder / part)
        assert config["model_type"] == "qwen3"
        assert network.args.tie_word_embeddings
    ids = mx.array([lclm("c16").decoder_tokenizer.encode("The red valve")])
    assert mx.array_equal(network(ids), lclm("c16").decoder(ids))
    with pytest.raises(CheckpointError, match="of 'lclm', not of CLaRa"):
        ModelFolder.open(folder)
    described = inspection.inspect(folder)
    assert described["compressor"] == "lclm"
    assert described["config"]["ratio"] == 16


@pytest.mark.parametrize("dtype", sized(DTYPES[:1], DTYPES))
def test_any_dtype_on_disk(copy: Path, tmp_path: Path, lclm: Run, dtype: str) -> None:
    for file in copy.rglob("*.safetensors"):
        change_tensors(
            file,
            lambda tensors: tensors.update(
                {name: t.astype(getattr(mx, dtype)) for name, t in tensors.items()}
            ),
        )
    convert_checkpoint(open_checkpoint(copy), tmp_path / "folder", dtype="float32")
    text = document("c4", "short")
    ours, theirs = (m.encode(text) for m in (clara_mlx.load(tmp_path / "folder"), lclm("c4")))
    assert np.abs(np.array(ours) - np.array(theirs)).max() < (1e-6 if dtype == "float32" else 0.1)
    kept = LclmFolder.open(tmp_path / "folder").description
    assert kept["dtype"] == "float32"
    assert kept["quantization"] is None


def test_the_added_rows_stay_exact(lclm_folder: Run) -> None:
    """At 4 bits, too: what opens and closes a region is what was trained."""
    model = clara_mlx.load(lclm_folder("c16", "-q", "8"))
    exact = clara_mlx.load(lclm_folder("c16"))
    first = model.config.memory_start_id
    added, ordinary = mx.arange(first, first + 3), mx.arange(5, 8)
    rows, others = (
        [np.array(m.decoder.model.embed_tokens(ids)) for m in (model, exact)]
        for ids in (added, ordinary)
    )
    assert np.array_equal(*rows)
    assert not np.array_equal(*others)


def test_folders_of_other_bits_have_other_fingerprints(lclm_folder: Run) -> None:
    folders = [LclmFolder.open(lclm_folder("c16", *q)) for q in ((), ("-q", "8"))]
    assert folders[0].fingerprint != folders[1].fingerprint
    assert folders[0].fingerprint != LclmFolder.open(lclm_folder("c4")).fingerprint


def test_the_highest_number_is_taken(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "training"
    for name in ("checkpoint_9", "checkpoint_20", "checkpoint_30x"):
        shutil.copytree(copy, root / name)
    change_json(root / "checkpoint_20" / "model_config.json", compression_ratio=8)
    (root / "README.md").write_text("---\nlicense: apache-2.0\n---\nA card.\n")
    source = open_checkpoint(root)
    assert isinstance(source, LclmSource)
    assert (source.subfolder, source.config.ratio) == ("checkpoint_20", 8)
    assert source.licences == {"checkpoint": "apache-2.0"}
    asked = open_checkpoint(root, subfolder="checkpoint_9")
    assert isinstance(asked, LclmSource)
    assert asked.config.ratio == 4


def test_the_licence_travels(copy: Path, tmp_path: Path) -> None:
    (copy / "LICENSE").write_text("                 Apache License\n           Version 2.0\n")
    result = convert_checkpoint(open_checkpoint(copy), tmp_path / "folder")
    assert result.licences == {"checkpoint": "apache-2.0"}
    assert LclmFolder.open(tmp_path / "folder").description["licences"] == result.licences
    assert "Apache" in (tmp_path / "folder" / "LICENSE").read_text()


# -- what it refuses -----------------------------------------------------------------------------


def test_every_misfit_is_named_and_nothing_is_written(cli: Run, copy: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, mx.array]) -> None:
        tensors["model.layers.1.mlp.up_proj.weight"] = mx.zeros((3, 4))
        tensors["model.odd.weight"] = tensors.pop("model.norm.weight")

    change_tensors(copy / DECODER_FILE, spoil)
    change_tensors(
        copy / "encoder/model.safetensors", lambda t: t.pop("layers.2.mlp.up_proj.weight")
    )
    change_tensors(copy / "adapter/adapter.safetensors", lambda t: t.pop("fc2.bias"))
    refused(
        copy,
        "decoder: missing model.norm.weight",
        "decoder: unexpected model.odd.weight",
        "decoder: model.layers.1.mlp.up_proj.weight has shape (3, 4) instead of (192, 96)",
        "encoder: missing layers.2.mlp.up_proj.weight",
        "adapter: missing fc2.bias",
    )
    result = cli("convert", copy, "--to", tmp_path / "folder", ok=False)
    assert result.exit_code == 1
    assert not (tmp_path / "folder").exists()


def test_a_tied_decoder_has_no_head(copy: Path) -> None:
    change_json(copy / "decoder/config.json", tie_word_embeddings=True)
    refused(copy, "decoder: unexpected lm_head.weight")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("pooling", "concat", "pooling is 'concat'"),
        ("encoder_mask_type", "bidirectional", "only a causal encoder"),
        ("boundary_overlap", 8, "windows that do not overlap"),
        ("boundary_overlap", False, "boundary_overlap is False"),
        ("adapter_type", "mlp_attn", "two linear layers"),
        ("adapter_type", None, "adapter_type is None"),
        ("compression_ratio", 0, "ratio can't be 0"),
        ("compression_ratio", "16", "ratio must be a number"),
        ("compression_ratio", 3, "not a multiple"),
        ("encoder_window_size", 1 << 19, "the encoder can attend to"),
    ],
)
def test_what_was_never_released_is_refused(copy: Path, field: str, value: Any, said: str) -> None:
    change_json(copy / "model_config.json", **{field: value})
    refused(copy, "model_config.json", said)


def test_parts_that_are_not_there(copy: Path) -> None:
    (copy / "adapter/adapter.safetensors").unlink()
    refused(copy, "adapter.safetensors: missing", "random numbers")
    shutil.rmtree(copy / "adapter")
    refused(copy, "adapter is not there")


def test_a_checkpoint_without_its_config(copy: Path) -> None:
    (copy / "model_config.json").unlink()
    refused(copy, "model_config.json", "download it again")


def test_lora_weights_are_to_be_merged_first(copy: Path) -> None:
    (copy / "decoder/adapter_config.json").write_text("{}")
    refused(copy, "merge")


def test_the_tokenizer_of_the_base_is_not_enough(copy: Path) -> None:
    file = copy / "decoder/tokenizer.json"
    content = json.loads(file.read_text())
    kept = [t for t in content["added_tokens"] if t["content"] != "<|memory|>"]
    file.write_text(json.dumps(content | {"added_tokens": kept}))
    refused(copy, "it has no <|memory|>", "the base's tokenizer")


def test_ids_beyond_the_table_are_refused(copy: Path) -> None:
    shutil.copyfile(copy / "decoder/tokenizer.json", copy / "encoder/tokenizer.json")
    refused(copy, "encoder: its tokenizer has ids up to 502")


def test_a_base_is_not_asked_for(copy: Path) -> None:
    with pytest.raises(CheckpointError, match="leave --base out"):
        open_checkpoint(copy, base=copy)


def test_damage_leaves_nothing(copy: Path, tmp_path: Path) -> None:
    """It is found at the last tensor, when all others have been written."""

    def spoil(tensors: dict[str, mx.array]) -> None:
        tensors["fc2.bias"] = mx.full(tensors["fc2.bias"].shape, mx.nan)

    change_tensors(copy / "adapter/adapter.safetensors", spoil)
    source = open_checkpoint(copy)
    with pytest.raises(CheckpointError, match=r"fc2\.bias"):
        convert_checkpoint(source, tmp_path / "folder", quantisation=Quantisation(8))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_spoiled_folder_is_refused(lclm_folder: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(lclm_folder("c4"), tmp_path / "folder"))
    (folder / "decoder/memory_tokens.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"memory_tokens\.safetensors is missing"):
        clara_mlx.load(folder)
    manifest = json.loads((lclm_folder("c4") / "clara.json").read_text())
    for change, said in (
        ({"format": 99}, "update clara-mlx"),
        ({"dtype": "int8"}, "damaged"),
        ({"config": {}}, "not an LCLM config"),
        ({"config": manifest["config"] | {"memory_id": 9999}}, "knows 503 ids"),
    ):
        (folder / "clara.json").write_text(json.dumps(manifest | change))
        with pytest.raises(CheckpointError, match=said):
            LclmFolder.open(folder)
