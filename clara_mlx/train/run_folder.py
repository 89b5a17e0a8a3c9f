"""The folder of a training run: its states, from which it goes on, and its metrics."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.errors import ClaraError
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.parameters import Parameters, ordered

_STATE = "state-{:08d}.safetensors"
_STATES_KEPT = 2
# Fields that may change between the parts of a run: they do not change what is computed.
_FREE = ("save_every", "evaluate_every", "evaluation_answers", "answer_tokens")


@dataclass(frozen=True)
class State:
    """Where a run is: everything after ``step`` follows from this and the config."""

    step: int  # optimiser steps done
    parameters: Parameters
    optimiser: dict[str, Any]  # the optimiser's own tree


class RunFolder:
    """One run's folder, locked for this process.

    Raises:
        ClaraError: another process trains in it, or it holds a run with another config.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.path = Path(config.output)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ClaraError(f"{self.path}: another process is training there") from error
        self._check_config(config)
        self.metrics = self.path / "metrics.jsonl"

    def _check_config(self, config: TrainConfig) -> None:
        recorded = self.path / "config.json"
        wanted = config.to_dict()
        if recorded.exists():
            there = json.loads(recorded.read_text(encoding="utf-8"))
            different = [
                name for name in _differences(there, wanted) if name.split(".")[-1] not in _FREE
            ]
            if different:
                raise ClaraError(
                    f"{self.path}: holds a run with another config ({', '.join(different)}); "
                    "choose another output, or delete that folder"
                )
        _replace(recorded, json.dumps(wanted, indent=2) + "\n")

    def close(self) -> None:
        """Let another process train there."""
        self._lock.close()

    def latest(self) -> State | None:
        """The state to go on from; None at the beginning. Metrics after it are dropped."""
        states = self._states()
        if not states:
            self._drop_metrics_after(0)
            return None
        try:
            loaded: Any = mx.load(str(states[-1]), return_metadata=True)
            arrays, metadata = loaded
        except (RuntimeError, ValueError) as error:
            raise ClaraError(f"{states[-1]}: {error}; delete it to go on from before") from error
        tree = ordered(_nested(arrays))
        step = int(metadata["step"])
        self._drop_metrics_after(step)
        return State(step, tree["parameters"], tree["optimiser"])

    def save(self, state: State) -> None:
        """Write a state, complete or not at all, and remove older ones."""
        arrays = _flat({"parameters": state.parameters, "optimiser": state.optimiser})
        target = self.path / _STATE.format(state.step)
        partial = self.path / f".partial-{target.name}"
        try:
            mx.save_safetensors(str(partial), arrays, metadata={"step": str(state.step)})
        except RuntimeError as error:  # mlx's word for a full disk
            raise ClaraError(f"{partial}: {error}") from error
        for path in (partial, *([self.metrics] if self.metrics.exists() else [])):
            _sync(path)
        partial.rename(target)
        _sync(self.path)
        for old in self._states()[:-_STATES_KEPT]:
            old.unlink()

    def note(self, line: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _states(self) -> list[Path]:
        return sorted(self.path.glob(_STATE.replace("{:08d}", "*")))

    def _drop_metrics_after(self, step: int) -> None:
        """Steps after the state come again, so their lines would be there twice."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # cut off in the middle by a kill
                break
        _replace(self.metrics, "".join(kept))


def _differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Names of the fields in which two nested mappings differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted(a.keys() | b.keys())
        return [d for n in names for d in _differences(a.get(n), b.get(n), f"{where}.{n}")]
    return [] if a == b else [where.removeprefix(".")]


def _flat(tree: Any, name: str = "") -> dict[str, mx.array]:
    """Arrays of nested dicts by their path; names inside have dots, so slashes join."""
    if isinstance(tree, mx.array):
        return {name.removeprefix("/"): tree}
    arrays: dict[str, mx.array] = {}
    for key, value in tree.items():
        arrays |= _flat(value, f"{name}/{key}")
    return arrays


def _nested(arrays: dict[str, mx.array]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split("/")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = array
    return tree


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf-8")
    _sync(partial)
    partial.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
