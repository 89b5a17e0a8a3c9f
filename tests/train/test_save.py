"""What training saved: a model folder and a checkpoint, which say the same and load as any do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from train_runs import CANDIDATES, DOCUMENTS, QUESTIONS, train, write_config

import clara_mlx
from clara_mlx.convert import Source, verify
from clara_mlx.errors import CheckpointError, ClaraError
from clara_mlx.model.folder import ModelFolder
from clara_mlx.train import fresh
from clara_mlx.train.run import Run, describe

QUESTION = "What was moved?"


def write_fresh(folder: Path, base: Path, *, data: Any = QUESTIONS, **fresh: Any) -> Path:
    """A config that starts from a plain base."""
    fields = {"doc_max_length": 32, "compr_rate": 8, "lora_r": 4, "dtype": "float32"} | fresh
    options = {f"fresh__{name}": value for name, value in fields.items()}
    options |= {"stage": "scp", "steps__most": 2, "fresh__base": str(base)}
    return write_config(folder, None, data, **options)


def same(a: clara_mlx.Clara, b: clara_mlx.Clara) -> None:
    """Latents, scores and answers are equal, to the last bit."""
    latents = a.encode(DOCUMENTS)
    assert mx.array_equal(latents, b.encode(DOCUMENTS))
    assert mx.array_equal(a.rank(QUESTION, latents), b.rank(QUESTION, latents))
    for latent in latents:
        assert a.answer(QUESTION, latent, 12) == b.answer(QUESTION, latent, 12)


@pytest.mark.parametrize("options", [(), ("-q", "8", "--group-size", "32")], ids=["float32", "q8"])
def test_both_forms_are_the_trained_model(
    folder: Any, cli: Any, golden: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    start = folder("c16", "e2e", *options)
    fields = {"stage": "end-to-end", "method__memory_rows": True, "steps__most": 2}
    file = write_config(tmp_path, start, CANDIDATES, **fields)
    run = train(file)
    model = clara_mlx.load(tmp_path / "run/model")
    if not options:  # nothing was rounded
        same(model, run.trainer.clara)
    assert not mx.array_equal(
        model.encode_query(QUESTION), clara_mlx.load(start).encode_query(QUESTION)
    )
    # The checkpoint goes through the real CLI and gives the same model.
    again = tmp_path / "again"
    options = options or ("-q", "none", "--dtype", "float32")
    base = golden / "tiny-base"
    cli("convert", tmp_path / "run/checkpoint", "--base", base, "--to", again, *options)
    same(model, clara_mlx.load(again))
    # The folder still knows what it was made from, base tables included.
    saved = ModelFolder.open(tmp_path / "run/model")
    assert saved.config.training_stage == "stage2" and saved.config.generation_top_k == 2
    result = verify(saved.path, Source.open_recorded(saved))
    assert not result.problems
    assert saved.description["training"][-1]["from"] == ModelFolder.open(start).fingerprint


def test_an_untrained_adapter_comes_along(folder: Any, tmp_path: Path) -> None:
    start = ModelFolder.open(folder("c16", "e2e"))
    train(write_config(tmp_path, start.path, CANDIDATES, stage="retrieval"))
    saved = ModelFolder.open(tmp_path / "run/model")
    for adapter in ("encoder", "decoder"):
        for name, array in start.adapter(adapter).items():
            assert mx.array_equal(array, saved.adapter(adapter)[name])
    assert mx.array_equal(start.memory_rows(), saved.memory_rows())
    changed = [
        not mx.array_equal(array, saved.adapter("query_reasoner")[name])
        for name, array in start.adapter("query_reasoner").items()
    ]
    assert all(changed)


def test_mlx_lm_reads_the_trained_folder(folder: Any, tmp_path: Path) -> None:
    from mlx_lm.utils import load

    train(write_config(tmp_path, folder("c16", "instruct"), QUESTIONS, steps__most=2))
    path = tmp_path / "run/model"
    model, _ = load(str(path), adapter_path=str(path / "adapters/decoder"))
    assert mx.isfinite(model(mx.array([[1, 5, 6]]))).all().item()


def test_a_fresh_start_changes_nothing_until_it_is_trained(golden: Path, tmp_path: Path) -> None:
    file = write_fresh(tmp_path, golden / "tiny-base")
    run = Run.open(file)
    clara = run.trainer.clara
    assert clara.adapters == ("decoder", "encoder")
    assert clara.config.memory_tokens == 4 and clara.config.vocab_size == 643 + 4 + 3
    h = mx.array([[1, 300, 301]])
    plain = clara.network.model(h)
    for adapter in clara.adapters:  # B is zero
        with clara.lora.use(adapter):
            assert mx.array_equal(clara.network.model(h), plain)
    # New rows lie among the old ones: their mean and deviation, dimension by dimension.
    rows = clara.network.model.embed_tokens.rows
    known = clara.network.model.embed_tokens.table.weight[:643]
    z = (rows - known.mean(axis=0)) / known.std(axis=0)
    assert abs(z.mean().item()) < 0.2 and 0.8 < z.std().item() < 1.2
    run.train()
    saved = clara_mlx.load(tmp_path / "run/model")
    assert not mx.array_equal(saved.network.model.embed_tokens.rows[:4], rows[:4])
    assert mx.array_equal(saved.network.model.embed_tokens.rows[4:], rows[4:])  # the others rest
    config = json.loads((tmp_path / "run/checkpoint/config.json").read_text())
    assert config["training_stage"] == "stage1" and config["lora_r"] == 4


def test_a_dry_run_of_a_fresh_start_says_what_it_would_write(
    golden: Path, cli: Any, tmp_path: Path
) -> None:
    for number, bits in enumerate((0, 4)):
        file = write_fresh(tmp_path / str(number), golden / "tiny-base", bits=bits)
        before = sorted(file.parent.rglob("*"))
        plan = json.loads(cli("train", file, "--dry-run", "--json").stdout)
        assert sorted(file.parent.rglob("*")) == before
        assert "start/checkpoint (0.2 MB)" in cli("train", file, "--dry-run").stdout
        run = Run.open(file)
        assert plan == run.trainer.describe() | {"writes": plan["writes"]}
        for folder, planned in plan["writes"].items():
            weights = [p for p in Path(folder).rglob("*") if p.suffix in (".pth", ".safetensors")]
            written = sum(p.stat().st_size for p in weights)
            assert planned < written < 1.15 * planned, folder  # names and headers come on top
        assert describe(file)["writes"] == {}


def test_what_is_refused_leaves_no_folder(golden: Path, tmp_path: Path) -> None:
    base = golden / "tiny-base"
    config = json.loads((base / "config.json").read_text())

    def refused(match: str, *, data: Any = QUESTIONS, base: Path = base, **fields: Any) -> None:
        file = write_fresh(tmp_path / "refused", base, data=data, **fields)
        for use in (describe, Run.open):
            with pytest.raises(ClaraError, match=match):
                use(file)
            assert sorted(p.name for p in file.parent.iterdir()) == ["examples.jsonl", "train.toml"]

    refused("examples.jsonl:1: no answer", data=[{"docs": ["x"], "question": "?"}])
    refused("dtype 'float64' is not one of", dtype="float64")
    refused("can't quantise to 7 bits", bits=7)
    for name, changed in {
        "type": {"model_type": "unheard-of"},
        "quantised": {"quantization": {"bits": 4, "group_size": 64}},
        "shape": {"intermediate_size": 64},
    }.items():
        odd = shutil.copytree(base, tmp_path / name)
        (odd / "config.json").write_text(json.dumps(config | changed))
        refused(str(odd), base=odd)


def test_a_fresh_start_that_fails_is_removed(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_fresh(tmp_path, golden / "tiny-base")

    def fail(*args: Any, **options: Any) -> None:
        raise CheckpointError("damaged")

    monkeypatch.setattr(fresh, "convert", fail)
    with pytest.raises(CheckpointError, match="damaged"):
        Run.open(file)
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    Run.open(file)
    write_fresh(tmp_path, golden / "tiny-base", compr_rate=16)
    with pytest.raises(CheckpointError, match=r"start: was made for another \[fresh\] or seed"):
        Run.open(file)


def test_a_quantised_start_needs_its_checkpoint_before_training(
    folder: Any, tmp_path: Path
) -> None:
    start = folder("c16", "e2e", "-q", "8", "--group-size", "32")
    moved = shutil.copytree(start, tmp_path / "moved")
    described = json.loads((moved / "clara.json").read_text())
    described["source"]["checkpoint"] = str(tmp_path / "gone")
    (moved / "clara.json").write_text(json.dumps(described))
    file = write_config(tmp_path, moved, QUESTIONS)
    with pytest.raises(CheckpointError, match="gone"):
        Run.open(file)
    file = write_config(tmp_path, moved, QUESTIONS, write_checkpoint=False, steps__most=2)
    train(file)
    ModelFolder.open(tmp_path / "run/model")
    assert not (tmp_path / "run/checkpoint").exists()
