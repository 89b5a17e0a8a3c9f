"""Checkpoints as other tools write and damage them: read if their meaning is plain, else named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from pth_files import REBUILD, call, mapping, number, pack, save, storage, tensor

import clara_mlx
from clara_mlx.convert import Source, convert
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.pth_writer import write_pth
from clara_mlx.convert.weight_map import clean_adapter_key, clean_key
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder, load_arrays

SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture
def checkpoint(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden / "c16/e2e", tmp_path / "checkpoint"))


@pytest.fixture
def base(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden / "tiny-base", tmp_path / "base"))


def adapters(checkpoint: Path) -> dict[str, dict[str, mx.array]]:
    content = read_pth(checkpoint / "adapters.pth")
    return {name: {key: ref.read() for key, ref in t.items()} for name, t in content.items()}


def refused(checkpoint: Path, base: Path, reason: str, to: Path | None = None) -> None:
    with pytest.raises(CheckpointError, match=reason) as error:
        convert(Source.open(checkpoint, base=base), to or checkpoint.parent / "out" / "model")
    assert "\n" not in str(error.value)
    assert not (to or checkpoint.parent / "out" / "model").exists()


# -- downloads that did not bring the file -------------------------------------------------------

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 98304\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Log in</title>"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "pointer": (lambda path: path.write_bytes(LFS), "a Git LFS pointer.*git lfs pull"),
    "page": (lambda path: path.write_bytes(PAGE), "a web page.*hf auth login"),
    "link": (lambda path: path.symlink_to("../blobs/4d7a"), "a broken link.*download it again"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    "name",
    [
        "checkpoint/adapters.pth",
        "checkpoint/decoder_first_last_layers.pth",
        "checkpoint/config.json",
        "base/config.json",
        "base/tokenizer.json",
        f"base/{SHARD}",
    ],
)
def test_a_broken_download_is_named(checkpoint: Path, base: Path, name: str, kind: str) -> None:
    path = checkpoint.parent / name
    path.unlink()
    put, reason = BROKEN[kind]
    put(path)
    refused(checkpoint, base, f"{path.name}: {reason}")


def test_missing_shards_are_counted(checkpoint: Path, base: Path) -> None:
    (base / SHARD).unlink()
    refused(checkpoint, base, rf"1 of the 2 files .* \('{SHARD}'\); download the base again")


def test_what_a_folder_without_adapters_is(checkpoint: Path, base: Path) -> None:
    refused(base, base, "no adapters.pth, but a model's weights")
    (checkpoint / "adapters.pth").unlink()
    refused(checkpoint, base, "no adapters.pth.; download it again")


# -- wrappers and layouts that are read ----------------------------------------------------------

WRAPPED = {
    "data parallel": lambda key: f"module.{key}",
    "compiled": lambda key: f"_orig_mod.{key}",
    "sharded": lambda key: f"_fsdp_wrapped_module.{key}".replace(
        "layers.1.", "layers.1._fsdp_wrapped_module."
    ),
    "peft's default": lambda key: f"base_model.model.{key}".replace(".weight", ".default.weight"),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrappers_are_understood(golden: Path, checkpoint: Path, base: Path, kind: str) -> None:
    before = Source.open(golden / "c16/e2e", base=golden / "tiny-base")
    wrapped = {
        name: {WRAPPED[kind](key): array for key, array in tensors.items()}
        for name, tensors in adapters(checkpoint).items()
    }
    write_pth(checkpoint / "adapters.pth", wrapped)
    if "peft" not in kind:
        for file in (base / SHARD, base / SHARD.replace("00001", "00002", 1)):
            arrays = {WRAPPED[kind](key): array for key, array in load_arrays(file).items()}
            mx.eval(arrays)
            mx.save_safetensors(str(file), arrays)
    after = Source.open(checkpoint, base=base)
    assert after.base.keys() == before.base.keys()
    for name, tensors in before.adapters.items():
        assert after.adapters[name].keys() == tensors.keys()
        for key, ref in tensors.items():
            assert mx.array_equal(after.adapters[name][key].read(), ref.read())


def test_names_that_only_look_wrapped_are_kept() -> None:
    assert clean_key("model.modules.x") == "model.modules.x"
    assert clean_adapter_key("a.lora_C.default.weight") == "a.lora_C.default.weight"


def test_one_name_under_two_prefixes(checkpoint: Path, base: Path) -> None:
    content = adapters(checkpoint)
    tensors = content["encoder_adapter"]
    key = next(iter(tensors))
    tensors[f"module.{key}"] = tensors[key]
    write_pth(checkpoint / "adapters.pth", content)
    refused(checkpoint, base, "twice, under different prefixes")


def test_differences_are_capped(checkpoint: Path, base: Path) -> None:
    content = adapters(checkpoint)
    content["encoder_adapter"] = {f"x.{k}": a for k, a in content["encoder_adapter"].items()}
    write_pth(checkpoint / "adapters.pth", content)
    with pytest.raises(CheckpointError, match=r"\n  and 64 more$") as error:
        Source.open(checkpoint, base=base)
    assert str(error.value).count("\n") == 21


PLAIN = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_dora": False, "rank_pattern": {}}


def peft_folders(checkpoint: Path, **settings: Any) -> None:
    for name, tensors in adapters(checkpoint).items():
        folder = checkpoint / name
        folder.mkdir()
        named = {f"base_model.model.{key}": array for key, array in tensors.items()}
        mx.save_safetensors(str(folder / "adapter_model.safetensors"), named)
        (folder / "adapter_config.json").write_text(json.dumps(PLAIN | settings))
    (checkpoint / "adapters.pth").unlink()


def test_pefts_own_folders(golden: Path, checkpoint: Path, base: Path, tmp_path: Path) -> None:
    peft_folders(checkpoint)
    convert(Source.open(checkpoint, base=base), tmp_path / "a", dtype="fp32")
    convert(Source.open(golden / "c16/e2e", base=base), tmp_path / "b", dtype="float32")
    opened = [ModelFolder.open(tmp_path / name) for name in "ab"]
    for name in ("encoder", "decoder", "query_reasoner"):
        one, other = (folder.adapter(name) for folder in opened)
        assert one.keys() == other.keys()
        assert all(mx.array_equal(one[key], other[key]) for key in one)
    hashed = opened[0].description["source"]["sha256"]["checkpoint"]
    assert sum(name.endswith("/adapter_model.safetensors") for name in hashed) == 3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"lora_alpha": 8}, "lora_alpha must be 2 times r"),
        ({"use_dora": True}, "use_dora is True"),
        ({"use_rslora": True}, "use_rslora"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
    ],
)
def test_peft_settings_that_change_an_adapter(
    checkpoint: Path, base: Path, settings: dict[str, Any], reason: str
) -> None:
    peft_folders(checkpoint, **settings)
    refused(checkpoint, base, reason)


def test_other_names_and_a_state_dict_around(checkpoint: Path, base: Path) -> None:
    write_pth(checkpoint / "adapters.bin", {"state_dict": adapters(checkpoint)})
    (checkpoint / "adapters.pth").unlink()
    assert Source.open(checkpoint, base=base).adapters.keys() >= {"encoder", "decoder"}


def test_byte_order_marks(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    for file in (checkpoint / "config.json", base / "config.json", base / "tokenizer.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    convert(Source.open(checkpoint, base=base), tmp_path / "to")
    ModelFolder.open(tmp_path / "to").tokenizer()


def test_a_file_beside_the_weights_that_is_no_json(checkpoint: Path, base: Path) -> None:
    """CLaRa does not read it, but mlx-lm would end with a traceback."""
    (base / "special_tokens_map.json").write_text("{'a': 1}")
    with pytest.raises(CheckpointError, match=r"special_tokens_map\.json: "):
        convert(Source.open(checkpoint, base=base), checkpoint.parent / "to")
    assert not (checkpoint.parent / "to").exists()


def test_position_tables_of_any_kind_are_dropped(checkpoint: Path, base: Path) -> None:
    arrays = dict(load_arrays(base / SHARD))
    mx.eval(arrays)
    arrays["model.rotary_emb.inv_freq"] = mx.arange(8)  # int32
    arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = mx.zeros(8)
    arrays["model.layers.0.self_attn.rotary_emb.cos_cached"] = mx.zeros((4, 8))
    mx.save_safetensors(str(base / SHARD), arrays)
    assert not any("rotary" in name for name in Source.open(checkpoint, base=base).base)


# -- dtypes and flags ----------------------------------------------------------------------------


def spoil(base: Path, name: str, array: mx.array) -> None:
    arrays = dict(load_arrays(base / SHARD))
    mx.eval(arrays)
    mx.save_safetensors(str(base / SHARD), arrays | {name: array})


def test_a_foreign_dtype_is_a_dtype(checkpoint: Path, base: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    spoil(base, name, mx.zeros((160, 64), mx.uint8))
    with pytest.raises(CheckpointError, match=f"{name} has dtype uint8; quantised weights"):
        Source.open(checkpoint, base=base)
    spoil(base, "model.layers.0.more", mx.zeros(3, mx.int64))
    with pytest.raises(CheckpointError, match=r"unexpected model\.layers\.0\.more"):
        Source.open(checkpoint, base=base)


@pytest.mark.parametrize(
    ("kind", "size", "dtype"), [("Double", 8, "float64"), ("Long", 8, "int64"), ("Bool", 1, "bool")]
)
def test_foreign_storages(tmp_path: Path, kind: str, size: int, dtype: str) -> None:
    within = storage(24, kind=f"torch {kind}Storage")
    path = save(tmp_path / "a.pth", mapping(a=tensor(within=within)), {"0": bytes(24 * size)})
    ref = read_pth(path)["a"]
    assert (ref.dtype, ref.nbytes, ref.is_foreign) == (dtype, 24 * size, True)
    with pytest.raises(CheckpointError, match=f"a tensor has dtype {dtype}"):
        ref.read()


def test_float8_is_not_an_attack(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", mapping(a=call("torch._utils _rebuild_tensor_v3", number(1))))
    with pytest.raises(CheckpointError, match="a dtype that is not read"):
        read_pth(path)


@pytest.mark.parametrize("flag", ["neg", "conj"])
def test_metadata_of_a_tensor(tmp_path: Path, flag: str) -> None:
    def with_metadata(metadata: bytes) -> Path:
        sizes = (pack(number(4), number(6)), pack(number(6), number(1)))
        start = (storage(), number(0), *sizes, b"\x89", call("collections OrderedDict"))
        return save(tmp_path / "a.pth", mapping(a=call(REBUILD, *start, metadata)))

    assert read_pth(with_metadata(b"}"))["a"].shape == (4, 6)
    with pytest.raises(CheckpointError, match="resolve_neg"):
        read_pth(with_metadata(mapping(**{flag: b"\x88"})))


def test_float16_overflow_is_no_damage(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    spoil(base, name, mx.full((160, 64), 1e5))
    source = Source.open(checkpoint, base=base)
    with pytest.raises(CheckpointError, match=rf"{name} has values up to 1e\+05, an overflow"):
        convert(source, tmp_path / "to", dtype="fp16")
    convert(source, tmp_path / "to", dtype="bf16")


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
def test_a_null_quantisation_is_none(
    checkpoint: Path, base: Path, tmp_path: Path, key: str
) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {key: None}))
    convert(Source.open(checkpoint, base=base), tmp_path / "to")
    assert key not in json.loads((tmp_path / "to/config.json").read_text())


# -- where a folder is made ----------------------------------------------------------------------


def test_a_link_stands_for_its_place(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    source = Source.open(checkpoint, base=base)
    (tmp_path / "disk" / "model").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to("disk/model")
    assert convert(source, link).folder == tmp_path / "disk" / "model"
    assert link.is_symlink()
    ModelFolder.open(link)
    convert(source, link, force=True)
    link.unlink()
    link.symlink_to("disk/other")
    convert(source, link)  # a link that leads nowhere yet
    ModelFolder.open(tmp_path / "disk" / "other")
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["model", "other"]
    link.unlink()
    link.symlink_to("no-disk/model")
    refused(checkpoint, base, "is its disk connected", link)


def test_the_folder_that_one_is_in(
    checkpoint: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "here" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    for to in (".", "..", str(inside)):
        with pytest.raises(CheckpointError, match="the folder that this command runs in"):
            convert(Source.open(checkpoint, base=base), to)


def test_leftovers_that_are_links_go(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    (tmp_path / ".model.replaced-999999999").symlink_to(elsewhere)
    (tmp_path / "model").mkdir()  # an empty folder is filled
    convert(Source.open(checkpoint, base=base), tmp_path / "model")
    assert not list(tmp_path.glob(".model*")) and (elsewhere / "kept").exists()


def test_a_tied_lm_head_is_named_once(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    """As torch's named_parameters gives it, which the reference saves."""
    content = read_pth(checkpoint / "decoder_first_last_layers.pth")
    name = "model.embed_tokens.weight"
    write_pth(checkpoint / "decoder_first_last_layers.pth", {name: content[name].read()})
    refused(checkpoint, base, r"nothing was written: base: missing lm_head\.weight")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    convert(Source.open(checkpoint, base=base), tmp_path / "to", dtype="float32")
    network = clara_mlx.load(tmp_path / "to").network
    assert mx.array_equal(network.lm_head.weight, network.model.embed_tokens.table.weight)
