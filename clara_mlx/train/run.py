"""From a config file to a trained model on the disk; ``clara-mlx train`` runs this."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clara_mlx.convert.export import tables_of
from clara_mlx.convert.trained import save_trained
from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara, from_folder
from clara_mlx.model.folder import CLARA, ModelFolder, resolve
from clara_mlx.model.ranks import Ranks
from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.train.config import Fresh, TrainConfig, read_config
from clara_mlx.train.fresh import Start
from clara_mlx.train.parameters import ROWS
from clara_mlx.train.plan import Plan
from clara_mlx.train.run_folder import Say
from clara_mlx.train.trainer import OnStep, Trainer


@dataclass(frozen=True)
class Run:
    """A training run whose data is read and whose model is loaded; `open` makes it."""

    config: TrainConfig
    folder: ModelFolder  # that the run starts from
    trainer: Trainer

    @classmethod
    def open(cls, file: Path, ranks: Ranks | None = None) -> Run:
        """Read a config file and load the data and the model that it names.

        Args:
            file: The config.
            ranks: The processes that train together, each of which opens the run.

        Raises:
            ClaraError: The config, the data or the model is not usable.
        """
        config = read_config(file)
        if config.fresh is not None:
            start, plan = _plan_start(config, config.fresh)
            _write_in_turn(start, ranks or Ranks())
            folder = ModelFolder.open(start.folder)
        else:
            folder = ModelFolder.open(resolve(str(config.model)))
            if folder.compressor != CLARA:
                raise ClaraError(
                    f"{folder.path}: a model of {folder.compressor}; the stages are CLaRa's, so "
                    "name a model folder of CLaRa, or a base under [fresh]"
                )
            if config.writes_checkpoint and folder.is_quantised:
                tables_of(folder)  # better before the training than after: they may be gone
            plan = Plan.make(config, folder.config, folder.tokenizer())
        teacher = config.teacher and _open_teacher(config.teacher, folder)
        clara = from_folder(folder)
        return cls(config, folder, Trainer.prepare(config, clara, plan, teacher or None, ranks))

    def train(self, on_step: OnStep | None = None, say: Say | None = None) -> dict[str, Any]:
        """Train, or resume and train to the end, then write the model folder and the checkpoint.

        Of several ranks, the first writes them.

        Args:
            on_step: Called after each step.
            say: Called with one line for each thing that the user should know.

        Returns:
            Where they are, and the last step's line of the metrics with the last evaluation.
        """
        last = self.trainer.run(on_step, say)
        config, output = self.config, Path(self.config.output)
        trained = dict(self.trainer.parameters)
        rows = trained.pop(ROWS, None)
        stage = config.kind.checkpoint_name or self.folder.config.training_stage
        described = replace(self.folder.config, training_stage=stage)
        if config.kind.chooses:
            described = replace(described, generation_top_k=config.method.top_k)
        model = output / "model"
        checkpoint = output / "checkpoint" if config.writes_checkpoint else None
        if self.trainer.ranks.is_first:
            save_trained(
                self.folder,
                trained,
                None if rows is None else next(iter(rows.values())),
                config=described,
                about={"stage": config.stage, "steps": self.trainer.steps, "seed": config.seed},
                model=model,
                checkpoint=checkpoint,
            )
        self.trainer.ranks.wait_for_all()  # so that all end well, or none
        return {"model": str(model), "checkpoint": checkpoint and str(checkpoint), **last}


def describe(file: Path) -> dict[str, Any]:
    """Check a config file, its data and its model, and describe the run; nothing is written.

    Returns:
        `Plan.describe`'s values. ``writes`` has what a fresh start would write before the first
        step: the bytes of each folder, by its path.

    Raises:
        ClaraError: The config, the data or the model is not usable.
    """
    config = read_config(file)
    if config.fresh is None:
        return Run.open(file).trainer.describe()
    start, plan = _plan_start(config, config.fresh)
    trained = start.trained
    if config.trains_rows:
        described = start.source.config
        trained[ROWS] = len(described.added_tokens) * described.hidden_size
    return plan.describe(trained) | {"writes": {} if start.is_written else start.sizes()}


def _open_teacher(path: str, student: ModelFolder) -> Clara:
    """The model whose latents are wanted, if it reads and writes as the student does.

    Raises:
        ClaraError: It is quantised, too, or another kind of model.
    """
    folder = ModelFolder.open(resolve(path))
    if folder.is_quantised:
        raise ClaraError(
            f"{folder.path}: the teacher is quantised itself; convert the same checkpoint with "
            "-q none"
        )
    same = ("doc_max_length", "compr_rate", "hidden_size", "base_vocab_size", "bos_id", "eos_id")
    other = [n for n in same if getattr(folder.config, n) != getattr(student.config, n)]
    if other:
        raise ClaraError(
            f"{folder.path}: no teacher for {student.path}: other {', '.join(other)}; convert the "
            "same checkpoint with -q none"
        )
    return from_folder(folder)


def _write_in_turn(start: Start, ranks: Ranks) -> None:
    """Write what a fresh run starts from where it is not there yet.

    Ranks on one machine find what the first has written; on a machine of its own a rank makes the
    same from the seed.
    """
    for turn in range(ranks.size):
        if turn == ranks.rank and not start.is_written:
            start.write()
        ranks.wait_for_all()


def _plan_start(config: TrainConfig, fresh: Fresh) -> tuple[Start, Plan]:
    """What a fresh run starts from and what it will do, before anything is written."""
    start = Start.plan(fresh, Path(config.output), config.seed)
    source = start.source
    tokenizer = TextTokenizer(json.dumps(source.tokenizer), where=str(source.base_path))
    return start, Plan.make(config, source.config, tokenizer)
