"""The folder of a training run: the states that it can be resumed from, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from filelock import FileLock, Timeout

from clara_mlx.errors import ClaraError, reason
from clara_mlx.store import atomic
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.parameters import Parameters, sort_by_key

_STATE = "state-{:08d}.safetensors"
_STATES_KEPT = 2  # the newest, and the one before in case that one can't be read
# Fields of the config that may change between the parts of a run: they change no result.
_FREE = ("save_every", "evaluate_every", "evaluation_answers", "answer_tokens")


@dataclass(frozen=True)
class State:
    """The state of a run; with the config it decides everything after ``step``."""

    step: int  # optimiser steps done
    parameters: Parameters
    optimiser: dict[str, Any]  # the optimiser's own tree


class RunFolder:
    """The folder of one run; `open` locks it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"

    @classmethod
    @contextmanager
    def open(cls, config: TrainConfig) -> Iterator[RunFolder]:
        """Make or reopen a run's folder, which only this process uses until the block ends.

        Raises:
            ClaraError: Another process trains there, or the folder holds a run with another config.
        """
        path = Path(config.output)
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise ClaraError(
                f"{path}: another process is training there; wait, or choose another output"
            ) from error
        try:
            folder = cls(path)
            folder._record_config(config)
            yield folder
        finally:
            lock.release()

    def _record_config(self, config: TrainConfig) -> None:
        file = self.path / "config.json"
        wanted = asdict(config)
        if file.exists():
            recorded = json.loads(file.read_text(encoding="utf-8"))
            different = [
                name for name in _differences(recorded, wanted) if name.split(".")[-1] not in _FREE
            ]
            if different:
                raise ClaraError(
                    f"{self.path}: holds a run with another config ({', '.join(different)}); "
                    "choose another output, or delete that folder"
                )
        atomic.write_text(file, json.dumps(wanted, indent=2) + "\n")

    def resume(self) -> State | None:
        """Read the state to resume from and drop the metrics after it; None at the beginning."""
        states = self._states()
        if not states:
            self._drop_metrics_after(0)
            return None
        try:
            loaded: Any = mx.load(str(states[-1]), return_metadata=True)
            arrays, metadata = loaded
        except (RuntimeError, ValueError) as error:
            raise ClaraError(
                f"{states[-1]}: {error}; delete it to resume from the state before"
            ) from error
        tree = sort_by_key(_nest(arrays))
        step = int(metadata["step"])
        self._drop_metrics_after(step)
        return State(step, tree["parameters"], tree["optimiser"])

    def save(self, state: State) -> None:
        """Write a state, complete or not at all, and remove the older ones."""
        arrays = _flatten({"parameters": state.parameters, "optimiser": state.optimiser})
        target = self.path / _STATE.format(state.step)
        atomic.clear_leftovers(target)
        try:
            with atomic.partial_file(target) as partial:
                with partial.open("wb") as file:  # by its name, mlx would add .safetensors
                    mx.save_safetensors(file, arrays, metadata={"step": str(state.step)})
                if self.metrics.exists():
                    atomic.sync(self.metrics)
        except OSError as error:
            raise ClaraError(f"{target}: can't be written: {reason(error)}") from error
        for old in self._states()[:-_STATES_KEPT]:
            old.unlink()

    def log(self, line: dict[str, Any]) -> None:
        """Append a line to the metrics."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _states(self) -> list[Path]:
        return sorted(self.path.glob(_STATE.replace("{:08d}", "*")))

    def _drop_metrics_after(self, step: int) -> None:
        """Drop the lines of steps that will be trained again, so that none is there twice."""
        if not self.metrics.exists():
            return
        lines = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    lines.append(line + "\n")
            except ValueError:  # a kill ended the file in the middle of this line
                break
        atomic.write_text(self.metrics, "".join(lines))


def _differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Names of the fields in which two nested mappings differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        names = sorted(a.keys() | b.keys())
        return [d for n in names for d in _differences(a.get(n), b.get(n), f"{where}.{n}")]
    return [] if a == b else [where.removeprefix(".")]


def _flatten(tree: Any, name: str = "") -> dict[str, mx.array]:
    """The arrays of nested dicts by path; slashes join it, because names contain dots."""
    if isinstance(tree, mx.array):
        return {name.removeprefix("/"): tree}
    arrays: dict[str, mx.array] = {}
    for key, value in tree.items():
        arrays |= _flatten(value, f"{name}/{key}")
    return arrays


def _nest(arrays: dict[str, mx.array]) -> dict[str, Any]:
    """The inverse of `_flatten`."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *path, last = name.split("/")
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = array
    return tree
