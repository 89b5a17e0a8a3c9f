"""Encoders of LLMLingua-2: checkpoints that are accepted and refused, and what they become."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from token_classifiers import KINDS, make_checkpoint
from tokenizers import Tokenizer

import clara_mlx
from clara_mlx.compressors.llmlingua2.folder import EncoderFolder
from clara_mlx.compressors.registry import open_compressor
from clara_mlx.convert.kinds import convert_checkpoint, open_checkpoint
from clara_mlx.convert.pth_writer import tensor_of, write_pth
from clara_mlx.errors import CheckpointError

TEXT = "FAILED tests/shop/test_prices.py::test_rounding[eur] - AssertionError: 12.50 != 12.49\n"

Tensors = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(params=KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_checkpoint(request.param, tmp_path / "checkpoint")


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return make_checkpoint("bert", tmp_path / "checkpoint")


def run(checkpoint: Path, to: Path) -> Path:
    return convert_checkpoint(open_checkpoint(checkpoint), to, dtype="float32").folder


def change(checkpoint: Path, edit: Callable[[Tensors], object]) -> None:
    file = checkpoint / "model.safetensors"
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def probabilities(folder: Path) -> list[float]:
    return [word.probability for word in clara_mlx.load(folder).words(TEXT)]


# -- what is accepted ----------------------------------------------------------------------------


def test_pth_files_with_old_names_and_wrappers(checkpoint: Path, tmp_path: Path) -> None:
    expected = probabilities(run(checkpoint, tmp_path / "a"))
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    old = {
        "module."
        + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor_of(mx.array(values))
        for name, values in tensors.items()
    }
    write_pth(checkpoint / "pytorch_model.bin", old)
    assert probabilities(run(checkpoint, tmp_path / "b")) == expected


def test_what_nothing_depends_on_is_left_out_and_reported(bert: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["bert.embeddings.position_ids"] = np.arange(512)[None]
        tensors["bert.pooler.dense.weight"] = np.zeros((64, 64), np.float32)

    change(bert, add)
    notes = open_checkpoint(bert).notes
    assert len(notes) == 1
    assert "position_ids" in notes[0] and "pooler" in notes[0]


def test_a_vocabulary_without_a_tokenizer_file(bert: Path, tmp_path: Path) -> None:
    expected = clara_mlx.load(run(bert, tmp_path / "a"))
    vocabulary = Tokenizer.from_file(str(bert / "tokenizer.json")).get_vocab()
    (bert / "tokenizer.json").unlink()
    lines = sorted(vocabulary, key=vocabulary.__getitem__)
    (bert / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    edit_json(bert / "tokenizer_config.json", do_lower_case=False)
    model = clara_mlx.load(run(bert, tmp_path / "b"))
    text = TEXT + "Größe, 新闻内容 [SEP]"
    assert model.tokenizer.encode(text) == expected.tokenizer.encode(text)
    assert model.tokenizer.full.token_to_id("[CLS]") == vocabulary["[CLS]"]


def test_the_folder_by_the_commands(
    cli: Callable[..., Any], checkpoint: Path, tmp_path: Path
) -> None:
    (checkpoint / "LICENSE").write_text("the terms")
    to = tmp_path / "to"
    converted = json.loads(
        cli("convert", checkpoint, "--to", to, "-q", "8", "--group-size", "32", "--verify",
            "--json").stdout
    )  # fmt: skip
    assert converted["licences"] == {"checkpoint": "mit"}
    assert converted["verification"]["problems"] == []
    assert converted["verification"]["identical"] == converted["verification"]["tensors"] > 30
    assert 8 < converted["bits_per_weight"] < 12
    assert (to / "LICENSE").read_text() == "the terms"
    described = json.loads(cli("inspect", to, "--json").stdout)
    assert described["compressor"] == "llmlingua2"
    assert json.loads(cli("inspect", checkpoint, "--json").stdout)["compressor"] == "llmlingua2"
    assert "files are as they were made" in cli("inspect", to, "--check").output
    opened = open_compressor("llmlingua2", to)
    assert opened.fingerprint == clara_mlx.load(to).fingerprint


def test_what_changes_ratings_changes_the_fingerprint(bert: Path, tmp_path: Path) -> None:
    source = open_checkpoint(bert)
    prints = {
        clara_mlx.load(convert_checkpoint(source, tmp_path / dtype, dtype=dtype).folder).fingerprint
        for dtype in ("float32", "bfloat16")
    }
    tokenizer = json.loads((bert / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = True
    (bert / "tokenizer.json").write_text(json.dumps(tokenizer))
    prints.add(clara_mlx.load(run(bert, tmp_path / "other")).fingerprint)
    assert len(prints) == 3


# -- what is refused -----------------------------------------------------------------------------


def test_every_misfit_is_listed_and_nothing_written(bert: Path, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        del tensors["bert.encoder.layer.0.output.dense.bias"]
        tensors["bert.encoder.layer.1.attention.self.key.weight"] = np.zeros((64, 63), np.float32)
        tensors["bert.encoder.layer.7.output.dense.bias"] = np.zeros(64, np.float32)
        tensors["classifier.bias"] = np.zeros(9, np.float32)  # another task's labels

    change(bert, spoil)
    with pytest.raises(CheckpointError) as error:
        run(bert, tmp_path / "to")
    message = str(error.value)
    assert "missing bert.encoder.layer.0.output.dense.bias" in message
    assert "layer.1.attention.self.key.weight has shape (64, 63) instead of (64, 64)" in message
    assert "unexpected bert.encoder.layer.7.output.dense.bias" in message
    assert "classifier.bias has shape (9,) instead of (2,)" in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu_new"}, "hidden_act 'gelu_new' is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"model_type": "deberta"}, "model_type 'deberta'"),
        ({"num_attention_heads": 5}, "can't be divided among 5 heads"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers can't be 1000000000"),
        ({"vocab_size": 3}, "ids up to"),
        ({"hidden_size": None}, "hidden_size can't be None"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps"),
    ],
)
def test_configs_that_are_not_computed_here(
    bert: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    edit_json(bert / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        run(bert, tmp_path / "to")


def test_tokenizers_that_are_not_read(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("xlm-roberta", tmp_path / "checkpoint")
    (checkpoint / "tokenizer.json").write_text((tmp_path / "missing").name)
    with pytest.raises(CheckpointError, match="not a usable tokenizer"):
        open_checkpoint(checkpoint)
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"there is no tokenizer\.json"):
        open_checkpoint(checkpoint)
    (checkpoint / "sentencepiece.bpe.model").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="save_pretrained"):
        open_checkpoint(checkpoint)
    other = make_checkpoint("bert", tmp_path / "bert") / "tokenizer.json"
    (checkpoint / "tokenizer.json").write_bytes(other.read_bytes())
    with pytest.raises(CheckpointError, match="the tokenizer has no <s>"):
        open_checkpoint(checkpoint)


def test_options_that_say_nothing_here(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="leave --base out"):
        open_checkpoint(bert, base=bert)
    with pytest.raises(CheckpointError, match="leave --recipe out"):
        convert_checkpoint(open_checkpoint(bert), tmp_path / "to", recipe="mixed_4_6")


def test_values_that_are_not_finite(bert: Path, tmp_path: Path) -> None:
    def poison(tensors: Tensors) -> None:
        tensors["classifier.weight"][0, 0] = np.nan

    change(bert, poison)
    with pytest.raises(CheckpointError, match=r"classifier.weight has values .* not finite"):
        run(bert, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_damaged_folder_is_named(bert: Path, tmp_path: Path) -> None:
    to = run(bert, tmp_path / "to")
    (weights,) = to.glob("model*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="bytes instead of"):
        clara_mlx.load(to)
    weights.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        EncoderFolder.open(to)
    edit_json(to / "clara.json", format=99)
    with pytest.raises(CheckpointError, match="format 99"):
        clara_mlx.load(to)
    edit_json(to / "clara.json", format=1, config={})
    with pytest.raises(CheckpointError, match="model_type None"):
        clara_mlx.load(to)
