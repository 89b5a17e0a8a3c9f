"""The folder of a training run: the states that it can be resumed from, and its metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
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
_READ = "read"  # the record's name for what the run has read, beside the config's fields

#: Called with one line about something that the user should know, though the run goes on.
Say = Callable[[str], None]


@dataclass(frozen=True)
class Read:
    """What a run has read: with the config it decides everything that is computed."""

    model: str  # fingerprint of the model folder that the run starts from
    data: Mapping[str, str]  # SHA-256 of each file of examples, by its path


@dataclass(frozen=True)
class State:
    """The state of a run; with the config it decides everything after ``step``."""

    step: int  # optimiser steps done
    parameters: Parameters
    optimiser: dict[str, Any]  # the optimiser's own tree


class RunFolder:
    """The folder of one run; `open` locks it."""

    def __init__(self, path: Path, say: Say) -> None:
        self.path = path
        self.metrics = path / "metrics.jsonl"
        self._say = say

    @classmethod
    @contextmanager
    def open(cls, config: TrainConfig, read: Read, say: Say) -> Iterator[RunFolder]:
        """Make or reopen a run's folder, which only this process uses until the block ends.

        Args:
            config: The run.
            read: The model and the examples that it has read.
            say: Told what the user should know.

        Raises:
            ClaraError: Another process trains there, or the folder holds a run with another config,
                from another model, or on other examples.
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
            folder = cls(path, say)
            folder._record(config, read)
            yield folder
        finally:
            lock.release()

    def _record(self, config: TrainConfig, read: Read) -> None:
        """Write down what decides the run, or check that it is what was written down."""
        file = self.path / "config.json"
        fields = asdict(config)
        if file.exists():
            recorded = json.loads(file.read_text(encoding="utf-8"))
            had = recorded.pop(_READ, None)
            different = [
                name for name in _differences(recorded, fields) if name.split(".")[-1] not in _FREE
            ]
            if different:
                raise ClaraError(
                    f"{self.path}: holds a run with another config ({', '.join(different)}); "
                    "choose another output, or delete that folder"
                )
            if had is None:
                self._say(
                    f"{self.path}: was begun by a version that kept no hash of what it read; from "
                    "now on, a change of the examples or the model is noticed"
                )
            else:
                self._check_read(had, read)
        content = fields | {_READ: asdict(read)}
        atomic.write_text(file, json.dumps(content, indent=2) + "\n")

    def _check_read(self, had: Mapping[str, Any], read: Read) -> None:
        changed = [name for name, hash in read.data.items() if had["data"].get(name, hash) != hash]
        if had["model"] != read.model:
            changed.append("the model that the run starts from")
        if changed:
            raise ClaraError(
                f"{self.path}: holds a run for which this was different: {', '.join(changed)}; put "
                "it back, choose another output, or delete that folder to train again"
            )

    def resume(self) -> State | None:
        """Read the state to resume from and drop the metrics after it; None at the beginning.

        A state that can't be read is passed over: the one before leads to the same losses.

        Raises:
            ClaraError: There are states, but none can be read.
        """
        states = self._states()
        problems = []
        for path in reversed(states):
            try:
                state = _read_state(path)
            except (RuntimeError, ValueError, KeyError) as error:
                problems.append(f"{path}: can't be read ({error})")
                continue
            if problems:
                self._say(f"{'; '.join(problems)}; going on from step {state.step}, {path.name}")
            self._drop_metrics_after(state.step)
            return state
        if problems:
            raise ClaraError(f"{'; '.join(problems)}; delete {self.path} to train again")
        self._drop_metrics_after(0)
        return None

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


def _read_state(path: Path) -> State:
    """A state from its file."""
    loaded: Any = mx.load(str(path), return_metadata=True)
    arrays, metadata = loaded
    mx.eval(arrays)  # what is damaged must show now
    tree = sort_by_key(_nest(arrays))
    return State(int(metadata["step"]), tree["parameters"], tree["optimiser"])


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
