"""The stages of training: what each one trains and the reference's defaults for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from clara_mlx.errors import ClaraError


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as configs name it.
        checkpoint_name: ``training_stage`` in a checkpoint's ``config.json``.
        trains: the adapters that get gradient.
        decodes: whether the decoder runs, with a loss on answers.
        chooses: whether questions are encoded to choose among documents; those get no gradient.
    """

    name: str
    checkpoint_name: str
    trains: tuple[str, ...]
    decodes: bool
    chooses: bool
    # The reference's scripts (SPEC, "Defaults"):
    learning_rate: float
    schedule: Literal["cosine", "constant"]
    mse_weight: float
    max_length: int
    batch_size: int


_STAGES = (
    Stage("scp", "stage1", ("encoder", "decoder"), True, False, 1e-4, "cosine", 0.1, 2048, 128),
    Stage(
        "instruct", "stage1_2", ("encoder", "decoder"), True, False, 1e-4, "cosine", 0.1, 2048, 128
    ),
    Stage(
        "end-to-end",
        "stage2",
        ("decoder", "query_reasoner"),
        True,
        True,
        5e-6,
        "constant",
        0.0,
        1024,
        32,
    ),
    Stage("retrieval", "stage2", ("query_reasoner",), False, True, 5e-6, "constant", 0.0, 1024, 32),
)

#: By name.
STAGES = {stage.name: stage for stage in _STAGES}


def stage_named(name: str) -> Stage:
    """The stage of that name.

    Raises:
        ClaraError: there is none.
    """
    if name not in STAGES:
        raise ClaraError(f"stage {name!r} is none of {', '.join(STAGES)}")
    return STAGES[name]
