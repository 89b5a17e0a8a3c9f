"""The stage distil: a quantised model's encoder learns the latents of the unquantised one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from train_runs import DOCUMENTS, train, write_config

import clara_mlx
from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara
from clara_mlx.model.folder import ModelFolder
from clara_mlx.train.run import Run

TEXTS = [*DOCUMENTS, "retry 3 of 5 failed", "x = [1, 2, 3]"]

Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def student(folder: Folder) -> Path:
    return folder("c16", "e2e", "-q", "3", "--group-size", "32")


def config(root: Path, model: Path, teacher: Path | None, **fields: Any) -> Path:
    if teacher:
        fields["teacher"] = str(teacher)
    lines = [{"docs": [text]} for text in TEXTS]
    return write_config(root, model, lines, **{"stage": "distil", **fields})


def cosine(a: Clara, b: Clara) -> float:
    x, y = (model.encode(TEXTS).reshape(len(TEXTS), -1) for model in (a, b))
    norms = mx.linalg.norm(x, axis=1) * mx.linalg.norm(y, axis=1)
    return float(((x * y).sum(1) / norms).mean())


def test_latents_come_nearer_and_nothing_else_changes(
    folder: Folder, clara: Callable[..., Clara], student: Path, cli: Any, tmp_path: Path
) -> None:
    file = config(tmp_path, student, folder("c16", "e2e"), steps__most=20)
    result = Run.open(file).train()
    before, after = clara_mlx.load(student), clara_mlx.load(result["model"])
    near = [cosine(model, clara("c16", "e2e")) for model in (before, after)]
    assert 1 - near[1] < (1 - near[0]) / 2
    assert result["evaluation"]["cosine"] == pytest.approx(near[1], abs=1e-4)
    # A folder like any other, of the same stage and size, with one adapter changed.
    assert "as they were made" in cli("inspect", result["model"], "--check").output
    assert result["checkpoint"] is None and not (tmp_path / "run" / "checkpoint").exists()
    assert after.fingerprint != before.fingerprint
    old, new = ModelFolder.open(student), ModelFolder.open(result["model"])
    assert new.config == old.config and new.is_quantised
    for name in old.adapters:
        one, other = old.adapter(name), new.adapter(name)
        same = all(mx.array_equal(one[key], other[key]) for key in one)
        assert same is (name != "encoder")
        assert all(one[key].dtype == other[key].dtype for key in one)
    assert isinstance(after.answer("What was moved?", after.encode(DOCUMENTS[:1]), 4), str)


def test_what_can_not_teach(folder: Folder, student: Path, tmp_path: Path) -> None:
    def refused(match: str, teacher: Path | None, **fields: Any) -> None:
        with pytest.raises(ClaraError, match=match):
            Run.open(config(tmp_path, student, teacher, **fields))

    refused("the teacher is quantised itself", student)
    refused("other compr_rate; convert the same checkpoint", folder("c4", "e2e"))
    refused("the stage distil needs a teacher", None)
    refused("stage instruct has no teacher", folder("c16", "e2e"), stage="instruct")


def test_another_teacher_is_noticed(folder: Folder, student: Path, tmp_path: Path) -> None:
    teacher = shutil.copytree(folder("c16", "e2e"), tmp_path / "teacher")
    file = config(tmp_path, student, teacher, steps__most=1)
    train(file)
    train(file)
    description = teacher / "clara.json"
    content = json.loads(description.read_text()) | {"fingerprint": "another"}
    description.write_text(json.dumps(content))
    with pytest.raises(ClaraError, match="this was different: the teacher"):
        train(file)
