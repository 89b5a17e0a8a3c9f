"""`TrainConfig`: everything that defines a training run, read from a TOML file and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from clara_mlx.errors import ClaraError, reason
from clara_mlx.train.data import LongDocuments
from clara_mlx.train.stages import Stage, stage_named

EXAMPLE = files("clara_mlx.train").joinpath("example.toml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Fresh:
    """A start from a plain base: zero adapters and new memory tokens."""

    base: str  # a Llama-like model in Hugging Face's layout, not quantised
    doc_max_length: int = 256
    compr_rate: int = 16
    lora_r: int = 16
    bits: int = 0  # 8, 6, 5, 4, 3 or 2 quantise the base; 0 keeps it in ``dtype``
    dtype: str = "bfloat16"
    # New embedding rows are normal around the mean of the existing rows; this is their standard
    # deviation, in standard deviations of the existing rows. Hugging Face's resize uses 3e-5, which
    # makes all new tokens nearly the same.
    row_spread: float = 1.0


@dataclass(frozen=True)
class Data:
    """The files of examples; `clara_mlx.train.data` describes their lines."""

    train: list[str]
    evaluation: list[str] = field(default_factory=list)
    long_documents: LongDocuments = "refuse"
    questions_per_document: int = 1
    max_length: int | None = None  # tokens of prompt and answer; None: the stage's


@dataclass(frozen=True)
class Steps:
    """The number of steps, their size, and what happens between them."""

    batch_size: int | None = None  # examples per optimiser step; None: the stage's
    micro_batch_size: int = 8
    epochs: int = 1
    most: int | None = None  # optimiser steps; the run ends there if the epochs have more
    evaluate_every: int = 0  # optimiser steps; 0: at the end only
    evaluation_answers: int = 64  # held-out examples that are answered; 0: the loss only
    answer_tokens: int = 64
    save_every: int = 50  # optimiser steps between resumable states


@dataclass(frozen=True)
class Optimiser:
    """Adam and its schedule; None takes the stage's value, as in the reference's scripts."""

    learning_rate: float | None = None
    schedule: Literal["cosine", "constant"] | None = None
    warmup: float = 0.03  # share of all steps; a constant schedule has none, as in the reference
    least: float = 0.1  # share of the learning rate that the cosine ends with
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    weight_decay: float = 0.0
    clip: float = 1.0  # norm of the whole gradient


@dataclass(frozen=True)
class Method:
    """The parts that are trained, and the losses."""

    mse_weight: float | None = None  # None: the stage's
    dropout: float = 0.1  # of the adapters' inputs
    memory_rows: bool | None = None  # None: trained only in a fresh start, as in the reference
    reset: list[str] = field(default_factory=list)  # adapters to start again, with B = 0
    gradient_checkpointing: bool = False
    compile: bool = True
    top_k: int = 5  # documents chosen per question, end-to-end
    temperature: float = 0.02
    in_batch_negatives: bool = False  # the other examples' documents are candidates too
    keep_latents: bool = False  # if documents get no gradient: encode once and keep all


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Paths are relative to the file that names them. Everything has a default except ``stage``,
    ``output``, ``model`` or ``fresh``, and ``data.train``; a stage's defaults are the reference's.
    """

    stage: str
    output: str
    data: Data
    model: str | None = None
    fresh: Fresh | None = None
    teacher: str | None = None  # for the stage distil: the model folder before it was quantised
    seed: int = 0
    write_checkpoint: bool = True  # in Hugging Face's layout, beside the model folder
    steps: Steps = field(default_factory=Steps)
    optimiser: Optimiser = field(default_factory=Optimiser)
    method: Method = field(default_factory=Method)

    def __post_init__(self) -> None:
        def check(ok: bool, message: str) -> None:
            if not ok:
                raise ClaraError(message)

        stage = self.kind
        check((self.model is None) != (self.fresh is None), "give either model or [fresh]")
        check(
            self.fresh is None or not stage.chooses,
            f"stage {stage.name} needs a model whose encoder is trained, not [fresh]",
        )
        check(
            (self.teacher is not None) == stage.imitates,
            "the stage distil needs a teacher: the model folder, not quantised, whose latents are "
            "wanted"
            if stage.imitates
            else f"stage {stage.name} has no teacher; only distil has one",
        )
        check(
            self.fresh is None or not stage.imitates, "the stage distil needs a model, not [fresh]"
        )
        check(bool(self.data.train), "data.train must name at least one file")
        positive = {
            "data.questions_per_document": self.data.questions_per_document,
            "steps.batch_size": self.batch_size,
            "steps.micro_batch_size": self.steps.micro_batch_size,
            "steps.epochs": self.steps.epochs,
            "steps.most": 1 if self.steps.most is None else self.steps.most,
            "steps.answer_tokens": self.steps.answer_tokens,
            "steps.save_every": self.steps.save_every,
            "optimiser.clip": self.optimiser.clip,
            "method.top_k": self.method.top_k,
            "method.temperature": self.method.temperature,
        }
        for name, value in positive.items():
            check(value > 0, f"{name} must be above 0, got {value}")
        check(
            self.data.questions_per_document <= self.steps.micro_batch_size,
            "data.questions_per_document is more than steps.micro_batch_size; questions that share "
            "their documents go through one forward pass",
        )
        check(0 <= self.method.dropout < 1, "method.dropout must be at least 0 and below 1")
        check(len(self.optimiser.betas) == 2, "optimiser.betas must be two numbers")
        check(
            0 <= self.optimiser.warmup < 1,
            "optimiser.warmup must be at least 0 and below 1: it is a share of the steps",
        )
        unknown = set(self.method.reset) - set(stage.trains)
        check(
            not unknown, f"method.reset: stage {stage.name} trains only {', '.join(stage.trains)}"
        )

    @property
    def kind(self) -> Stage:
        """The stage."""
        return stage_named(self.stage)

    @property
    def learning_rate(self) -> float:
        """The peak of the schedule."""
        own = self.optimiser.learning_rate
        return self.kind.learning_rate if own is None else own

    @property
    def batch_size(self) -> int:
        """Examples per optimiser step."""
        own = self.steps.batch_size
        return self.kind.batch_size if own is None else own

    @property
    def mse_weight(self) -> float:
        """Weight of the mse in the loss."""
        own = self.method.mse_weight
        return self.kind.mse_weight if own is None else own

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt with its answer."""
        return self.data.max_length or self.kind.max_length

    @property
    def dropout(self) -> float:
        """The share of the adapters' inputs that is dropped; none where latents are imitated."""
        return 0.0 if self.kind.imitates else self.method.dropout

    @property
    def writes_checkpoint(self) -> bool:
        """Whether the result is also written in Hugging Face's layout.

        An encoder that makes up for a quantised base is of no use on another.
        """
        return self.write_checkpoint and not self.kind.imitates

    @property
    def trains_rows(self) -> bool:
        """Whether the memory tokens' embedding rows are trained."""
        own = self.method.memory_rows
        return self.fresh is not None if own is None else own


def read_config(file: Path) -> TrainConfig:
    """Read a TOML file; see `EXAMPLE`.

    Raises:
        ClaraError: It can't be read, or a field is unknown, missing, or of the wrong type.
    """
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        config: TrainConfig = _read(TrainConfig, raw, "")
    except (OSError, ValueError, ClaraError) as error:
        raise ClaraError(f"{file}: {reason(error)}") from error
    return _with_full_paths(config, file.absolute().parent)


def _with_full_paths(config: TrainConfig, folder: Path) -> TrainConfig:
    """The config with paths that no longer depend on the folder they are relative to."""

    def full(path: str) -> str:
        return str(folder / Path(path).expanduser())

    def full_unless_hub_id(path: str) -> str:
        return full(path) if Path(full(path)).exists() else path

    data = config.data
    fresh = config.fresh
    return replace(
        config,
        output=full(config.output),
        model=None if config.model is None else full_unless_hub_id(config.model),
        teacher=None if config.teacher is None else full_unless_hub_id(config.teacher),
        fresh=fresh and replace(fresh, base=full_unless_hub_id(fresh.base)),
        data=replace(
            data,
            train=[full(file) for file in data.train],
            evaluation=[full(file) for file in data.evaluation],
        ),
    )


def _read(kind: Any, raw: Any, where: str) -> Any:
    """A value of a type from TOML's values: dataclasses, unions, literals, lists and scalars."""
    if is_dataclass(kind) and isinstance(kind, type):
        return _read_table(kind, raw, where)
    name = where.removesuffix(".")
    options = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        if raw is None and type(None) in options:
            return None
        (kind,) = (option for option in options if option is not type(None))
        return _read(kind, raw, where)
    if get_origin(kind) is Literal:
        if raw not in options:
            raise ClaraError(
                f"{name} is {raw!r}, but must be one of {', '.join(map(str, options))}"
            )
        return raw
    if get_origin(kind) is list:
        if not isinstance(raw, list):
            raise ClaraError(f"{name} must be a list, got {raw!r}")
        return [_read(options[0], item, where) for item in raw]
    if kind is float and type(raw) is int:
        raw = float(raw)
    if type(raw) is not kind:
        raise ClaraError(f"{name} must be of type {kind.__name__}, got {raw!r}")
    return raw


def _read_table(kind: Any, raw: Any, where: str) -> Any:
    """A dataclass from a TOML table; unknown and missing fields are errors."""
    if not isinstance(raw, Mapping):
        raise ClaraError(f"{where.removesuffix('.')} must be a table, got {raw!r}")
    types = get_type_hints(kind)
    unknown = sorted(set(raw) - set(types))
    if unknown:
        raise ClaraError(
            f"unknown: {', '.join(where + name for name in unknown)}; known are "
            f"{', '.join(where + name for name in types)}"
        )
    for entry in fields(kind):
        has_default = entry.default is not MISSING or entry.default_factory is not MISSING
        if entry.name not in raw and not has_default:
            raise ClaraError(f"{where}{entry.name} is missing")
    return kind(
        **{name: _read(types[name], value, f"{where}{name}.") for name, value in raw.items()}
    )
