"""Conversion: checkpoints it accepts and refuses, and the folder it makes."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from golden_files import CHECKPOINTS, VARIANTS

import clara_mlx
from clara_mlx.convert import Source, convert
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.weight_map import (
    ADAPTER,
    TABLE_LINES,
    clean_adapter_key,
    expand,
    inverse,
)
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import ModelFolder, load_arrays
from clara_mlx.model.schemes import Quantisation

TABLE = "model.embed_tokens.weight"


@pytest.fixture
def checkpoint(golden: Path, tmp_path: Path) -> Path:
    """A copy of c16/e2e whose adapters and tables are safetensors, easy to change."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shutil.copy(golden / "c16/e2e/config.json", folder)
    save(folder, "adapters", flat(read_pth(golden / "c16/e2e/adapters.pth")))
    save(folder, "decoder_first_last_layers", values(golden / "c16/e2e"))
    return folder


def flat(adapters: dict[str, Any]) -> dict[str, mx.array]:
    return {f"{a}.{k}": ref.read() for a, tensors in adapters.items() for k, ref in tensors.items()}


def values(checkpoint: Path) -> dict[str, mx.array]:
    tables = read_pth(checkpoint / "decoder_first_last_layers.pth")
    return {key: ref.read() for key, ref in tables.items()}


def save(folder: Path, name: str, arrays: dict[str, mx.array]) -> None:
    mx.save_safetensors(str(folder / f"{name}.safetensors"), arrays)


def change(folder: Path, name: str, edit: Callable[[dict[str, mx.array]], object]) -> None:
    arrays = dict(load_arrays(folder / f"{name}.safetensors"))
    mx.eval(arrays)
    edit(arrays)
    save(folder, name, arrays)


def run(checkpoint: Path, golden: Path, to: Path, **options: Any) -> Path:
    convert(Source.open(checkpoint, base=golden / "tiny-base"), to, **options)
    return to


def contents(folder: Path) -> dict[str, mx.array]:
    return {
        f"{file.relative_to(folder)}:{name}": array
        for file in sorted(folder.rglob("*.safetensors"))
        for name, array in load_arrays(file).items()
    }


def assert_same(a: Path, b: Path) -> None:
    one, other = contents(a), contents(b)
    assert one.keys() == other.keys()
    assert all(mx.array_equal(one[name], other[name]) for name in one)


# -- what is accepted ----------------------------------------------------------------------------


def test_adapters_and_tables_as_safetensors(checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    a = run(checkpoint, golden, tmp_path / "a")
    b = run(golden / "c16/e2e", golden, tmp_path / "b")
    assert_same(a, b)


def test_peft_prefixes_and_adapter_names_left_in_keys(
    checkpoint: Path, golden: Path, tmp_path: Path
) -> None:
    def rename(arrays: dict[str, mx.array]) -> None:
        for key in list(arrays):
            adapter, _, name = key.partition(".")
            name = name.replace(".weight", f".{adapter}.weight")
            arrays[f"{adapter}.base_model.model.{name}"] = arrays.pop(key)

    a = run(checkpoint, golden, tmp_path / "a")
    change(checkpoint, "adapters", rename)
    assert_same(a, run(checkpoint, golden, tmp_path / "b"))


def test_tables_copied_inside_adapters_are_left_out_and_reported(golden: Path) -> None:
    source = Source.open(golden / "c16/base", base=golden / "tiny-base")
    assert any("encoder_adapter has copies" in note for note in source.notes)
    assert not any(TABLE in tensors for tensors in source.adapters.values())


def test_a_checkpoint_without_query_reasoner(clara: Any, golden: Path) -> None:
    source = Source.open(golden / "c16/instruct", base=golden / "tiny-base")
    assert any("queries will use the encoder adapter" in note for note in source.notes)
    model = clara("c16", "instruct")
    assert mx.array_equal(model.encode_query("which test?"), model.encode("which test?")[0])
    full = clara("c16", "e2e")
    assert not mx.allclose(full.encode_query("which test?"), full.encode("which test?")[0])


def test_one_shared_memory_token(checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    """different_mem_tokens=false: one <MEM> row, repeated."""
    edit_json(checkpoint / "config.json", different_mem_tokens=False)
    change(
        checkpoint,
        "decoder_first_last_layers",
        lambda tables: tables.update({name: table[:647] for name, table in tables.items()}),
    )
    model = clara_mlx.load(run(checkpoint, golden, tmp_path / "to"))
    assert model.config.added_tokens == ["<MEM>", "<AE>", "<ENC>", "<SEP>"]
    assert model.encode("a text").shape == (1, 4, 64)


def test_a_base_config_of_newer_transformers(golden: Path, tmp_path: Path) -> None:
    """They nest rope_theta; mlx-lm would silently take its default."""
    base = shutil.copytree(golden / "tiny-base", tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    theta = config.pop("rope_theta")
    config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
    (base / "config.json").write_text(json.dumps(config))
    convert(Source.open(golden / "c16/e2e", base=base), tmp_path / "to")
    written = json.loads((tmp_path / "to/config.json").read_text())
    assert written["rope_theta"] == theta == 1e6


def test_the_licence_is_the_model_cards(checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    (checkpoint / "README.md").write_text("---\nlicense: other\nlicense_name: apple-amlr\n---\n# x")
    (checkpoint / "LICENSE").write_text("the terms")
    to = run(checkpoint, golden, tmp_path / "to")
    licences = ModelFolder.open(to).description["licences"]
    assert licences == {"checkpoint": "apple-amlr", "base": None}
    assert (to / "LICENSE").read_text() == "the terms"


# -- what is refused -----------------------------------------------------------------------------


def test_every_misfit_is_listed_and_nothing_written(
    checkpoint: Path, golden: Path, tmp_path: Path
) -> None:
    q, k = (f"encoder_adapter.model.layers.0.self_attn.{n}_proj.lora_A.weight" for n in "qk")

    def spoil(arrays: dict[str, mx.array]) -> None:
        del arrays[q]
        arrays[k] = arrays[k][:, 1:]
        arrays["decoder_adapter.model.layers.9.mlp.up_proj.lora_A.weight"] = mx.zeros((8, 64))
        arrays["other_adapter.x"] = mx.zeros((1,))

    change(checkpoint, "adapters", spoil)
    with pytest.raises(CheckpointError) as error:
        run(checkpoint, golden, tmp_path / "to")
    message = str(error.value)
    assert f"encoder_adapter: missing {q.partition('.')[2]}" in message
    assert f"{k.partition('.')[2]} has shape (8, 63) instead of (8, 64)" in message
    assert "decoder_adapter: unexpected model.layers.9" in message
    assert "unexpected adapter other_adapter" in message
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize("lost", ["encoder_adapter", "decoder_adapter"])
def test_encoder_and_decoder_are_needed(
    checkpoint: Path, golden: Path, tmp_path: Path, lost: str
) -> None:
    def drop(arrays: dict[str, mx.array]) -> None:
        for key in [key for key in arrays if key.startswith(lost)]:
            del arrays[key]

    change(checkpoint, "adapters", drop)
    with pytest.raises(CheckpointError, match=f"missing adapter {lost}"):
        run(checkpoint, golden, tmp_path / "to")


def test_a_base_of_other_shape_or_kind(golden: Path, tmp_path: Path) -> None:
    base = shutil.copytree(golden / "tiny-base", tmp_path / "base")
    for changes, message in (
        ({"num_hidden_layers": 4}, "missing model.layers.3.self_attn.q_proj.weight"),
        ({"intermediate_size": 161}, r"instead of \(161, 64\)"),
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"quantization": {"bits": 4}}, "already quantised"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_attention_heads": 0}, "num_attention_heads can't be 0"),
    ):
        shutil.copy(golden / "tiny-base/config.json", base)
        edit_json(base / "config.json", **changes)
        with pytest.raises(CheckpointError, match=message):
            Source.open(golden / "c16/e2e", base=base)
    shutil.copy(golden / "tiny-base/config.json", base)
    (base / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00002"):
        Source.open(golden / "c16/e2e", base=base)


def test_values_that_are_not_finite(checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    def poison(tables: dict[str, mx.array]) -> None:
        tables[TABLE][3, 5] = float("nan")

    change(checkpoint, "decoder_first_last_layers", poison)
    with pytest.raises(CheckpointError, match=r"embed_tokens.weight has values .* not finite"):
        run(checkpoint, golden, tmp_path / "to", quantisation=Quantisation(8))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


def test_a_folder_without_a_checkpoint(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no adapters\.pth"):
        Source.open(golden / "tiny-base")
    shutil.copytree(golden / "c16/e2e", tmp_path / "repo/compression-16")
    with pytest.raises(CheckpointError, match="--subfolder: compression-16"):
        Source.open(tmp_path / "repo", base=golden / "tiny-base")
    assert Source.open(
        tmp_path / "repo", subfolder="compression-16", base=golden / "tiny-base"
    ).adapters


@pytest.mark.parametrize("name", ["/mnt/someone/else/mistral", "tiny-base", None, 7])
def test_an_unusable_base_name_asks_for_base(checkpoint: Path, name: object) -> None:
    edit_json(checkpoint / "config.json", decoder_model_name=name)
    with pytest.raises(CheckpointError, match="--base"):
        Source.open(checkpoint)


def test_a_tokenizer_that_disagrees(golden: Path, tmp_path: Path) -> None:
    base = shutil.copytree(golden / "tiny-base", tmp_path / "base")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    token = dict(tokenizer["added_tokens"][0], content="<SEP>", id=700)
    tokenizer["added_tokens"].append(token)
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="gives <SEP> the id 700, not 649"):
        Source.open(golden / "c16/e2e", base=base)


# -- what a folder holds -------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ["8", "6", "4"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("checkpoint_name", CHECKPOINTS)
def test_quantised_folders_load_and_answer(
    clara: Any, variant: str, checkpoint_name: str, bits: str
) -> None:
    exact = clara(variant, checkpoint_name)
    model = clara(variant, checkpoint_name, "-q", bits, "--group-size", "32")
    texts = ["def parse(line): return int(line)", "1 failed, 2 passed"]
    latents = model.encode(texts)
    cosines = [
        exact.rank(e, q)[0].item() for e, q in zip(exact.encode(texts), latents, strict=True)
    ]
    # Random weights with a large LoRA: 4 bits keep less here than on a trained model.
    assert min(cosines) > {"8": 0.99, "6": 0.97, "4": 0.7}[bits]
    assert isinstance(model.answer("Which test failed?", latents, max_tokens=4), str)


@pytest.mark.parametrize("bits", ["8", "4"])
def test_trained_rows_survive_quantisation_exactly(folder: Any, golden: Path, bits: str) -> None:
    to = folder("c16", "e2e", "-q", bits)
    trained = values(golden / "c16/e2e")[TABLE][643:]
    kept = ModelFolder.open(to).memory_rows()
    assert kept.dtype == trained.dtype == mx.bfloat16
    assert mx.array_equal(kept, trained)
    model = clara_mlx.load(to)
    embedded = model.network.model.embed_tokens(mx.arange(640, 650))
    assert mx.array_equal(embedded[3:], trained.astype(mx.float32))
    # An ordinary row is quantised: near, not equal.
    ordinary = values(golden / "c16/e2e")[TABLE][640].astype(mx.float32)
    assert 0 < mx.abs(embedded[0] - ordinary).max().item() < 0.5


def test_rows_keep_the_checkpoints_dtype(checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    change(
        checkpoint,
        "decoder_first_last_layers",
        lambda t: t.update({n: a.astype(mx.float32) * 1.0001 for n, a in t.items()}),
    )
    to = run(checkpoint, golden, tmp_path / "to", dtype="bfloat16")
    assert ModelFolder.open(to).memory_rows().dtype == mx.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtype(golden: Path, tmp_path: Path, dtype: str) -> None:
    to = run(golden / "c16/e2e", golden, tmp_path / "to", dtype=dtype)
    dtypes = {name: array.dtype for name, array in contents(to).items()}
    rows = dtypes.pop("memory_tokens.safetensors:embed_tokens.weight")
    assert rows == mx.bfloat16
    assert set(dtypes.values()) == {getattr(mx, dtype)}


def test_mlx_lm_reads_the_folder(folder: Any, clara: Any) -> None:
    """The same logits through mlx-lm's own loader and adapter code."""
    import mlx_lm

    to, ours = folder("c16", "e2e"), clara("c16", "e2e")
    ids = mx.array([ours.tokenizer.encode("which test failed in the session?")])
    for name in ours.adapters:
        theirs, tokenizer = mlx_lm.load(str(to), adapter_path=str(to / "adapters" / name))
        with ours.lora.use(name):
            assert mx.abs(ours.network(ids) - theirs(ids)).max().item() < 2e-4
    assert tokenizer.convert_ids_to_tokens([643, 649]) == ["<MEM0>", "<SEP>"]
    assert isinstance(mlx_lm.generate(theirs, tokenizer, "hello", max_tokens=4), str)


def test_clara_json_says_where_everything_came_from(folder: Any, golden: Path) -> None:
    import hashlib

    described = ModelFolder.open(folder("c16", "e2e", "-q", "8")).description
    adapters = (golden / "c16/e2e/adapters.pth").read_bytes()
    hashes = described["source"]["sha256"]
    assert hashes["checkpoint"]["adapters.pth"] == hashlib.sha256(adapters).hexdigest()
    assert "model-00001-of-00002.safetensors" in hashes["base"]
    fitted = {"bits": 8, "group_size": 32, "mode": "affine"}  # 160 is no multiple of 64
    down = {f"model.layers.{i}.mlp.down_proj": fitted for i in range(3)}
    assert described["quantization"] == {"bits": 8, "group_size": 64, "mode": "affine"} | down
    assert described["query_adapter"] == "query_reasoner"
    assert described["added_tokens"]["<ENC>"] == 648
    other = ModelFolder.open(folder("c16", "e2e", "-q", "4")).description
    assert described["fingerprint"] != other["fingerprint"]


def test_the_weight_map_has_an_inverse() -> None:
    for table in (TABLE_LINES, ADAPTER):
        lines = {line for line in expand(table, 3).values() if line.target}
        assert set(inverse(table, 3).values()) == lines
        assert len({line.target for line in lines}) == len(lines)
    key = "base_model.model.model.layers.1.mlp.up_proj.lora_A.query_reasoner_adapter.weight"
    assert clean_adapter_key(key) == "model.layers.1.mlp.up_proj.lora_A.weight"


def test_a_folder_goes_back_to_its_checkpoint(folder: Any, golden: Path) -> None:
    """Through the inverse map, every adapter tensor is the checkpoint's again, bit for bit."""
    to = folder("c16", "e2e", "-q", "none")
    adapters = read_pth(golden / "c16/e2e/adapters.pth")
    for name in ("encoder", "decoder", "query_reasoner"):
        arrays = ModelFolder.open(to).adapter(name)
        original = adapters[f"{name}_adapter"]
        lines = inverse(ADAPTER, 3)
        assert {lines[target].source for target in arrays} == set(original)
        for target, array in arrays.items():
            assert mx.array_equal(array.T, original[lines[target].source].read())


# -- the disk ------------------------------------------------------------------------------------


def test_an_existing_folder_is_replaced_only_with_force(golden: Path, tmp_path: Path) -> None:
    to = run(golden / "c16/e2e", golden, tmp_path / "to")
    with pytest.raises(CheckpointError, match="--force"):
        run(golden / "c16/e2e", golden, to)
    before = ModelFolder.open(to).fingerprint
    run(golden / "c16/e2e", golden, to, force=True, dtype="float32")
    assert ModelFolder.open(to).fingerprint != before
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    with pytest.raises(CheckpointError, match="not a model folder"):
        run(golden / "c16/e2e", golden, tmp_path / "precious", force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["precious", "to"]


def test_disk_space_is_checked_first(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 1 << 20))
    with pytest.raises(CheckpointError, match=r"needs 0\.1 GB, but only 0\.0 GB are free"):
        run(golden / "c16/e2e", golden, tmp_path / "to")
    assert not any(tmp_path.iterdir())


def test_an_interrupt_leaves_nothing(golden: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, name: str) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(golden / "c16/e2e", golden, tmp_path / "to", progress=interrupt)
    assert not any(tmp_path.iterdir())


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
