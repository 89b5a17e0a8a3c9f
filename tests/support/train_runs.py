"""Small training runs on the golden checkpoints, for the tests of the trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clara_mlx.train.run import Run

DOCUMENTS = ["The remote shard was moved to the parser.", "worker limit 16", "def add(a, b)", ""]

#: Four questions, three documents.
QUESTIONS = [
    {
        "docs": DOCUMENTS[:1],
        "question": ["What was moved?", "Where to?"],
        "answers": ["the shard", "the parser"],
    },
    {"docs": DOCUMENTS[1:2], "question": "What limit?", "answer": "16"},
    {"docs": DOCUMENTS[2:3], "question": "Which function?", "answer": "add"},
]

#: Questions with candidates, and which of them hold the answer.
CANDIDATES = [
    {"docs": DOCUMENTS, "question": "What was moved?", "answer": "the shard", "pos_index": [0]},
    {"docs": DOCUMENTS[1:], "question": "What limit?", "answer": "16", "pos_index": [0]},
    {"docs": DOCUMENTS, "question": "Which function?", "answer": "add", "pos_index": [2]},
]


def write_config(folder: Path, model: Path | None, examples: Any, /, **fields: Any) -> Path:
    """A config file with its data beside it; ``fields`` are ``name`` or ``table__name``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "examples.jsonl").write_text("".join(json.dumps(e) + "\n" for e in examples))
    tables: dict[str, dict[str, Any]] = {
        "data": {"train": ["examples.jsonl"], "evaluation": ["examples.jsonl"]},
        "steps": {
            "batch_size": 4,
            "micro_batch_size": 2,
            "epochs": 1000,
            "most": 4,
            "answer_tokens": 12,  # more than any right answer has
        },
        "optimiser": {"learning_rate": 5e-3},
        # Compiling takes seconds, so most tests do without; one shows that it changes nothing.
        "method": {"compile": False, "top_k": 2},
    }
    top: dict[str, Any] = {"stage": "instruct", "output": "run"}
    if model is not None:
        top["model"] = str(model)
    for name, value in fields.items():
        table, _, key = name.rpartition("__")
        (tables.setdefault(table, {}) if table else top)[key] = value
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    for table, content in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in content.items())]
    file = folder / "train.toml"
    file.write_text("\n".join(lines))
    return file


def metrics(file: Path) -> list[dict[str, Any]]:
    """The metrics of a config's run."""
    lines = (file.parent / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(file: Path) -> list[tuple[int, float]]:
    """Step and loss of each line."""
    return [(line["step"], line["loss"]) for line in metrics(file) if "loss" in line]


def train(file: Path) -> Run:
    """A run, at its end."""
    run = Run.open(file)
    run.train()
    return run
