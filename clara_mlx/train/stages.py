"""The stages of training: what each one trains and the reference's defaults for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from clara_mlx.errors import ClaraError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage; the defaults are those of the reference's training scripts."""

    name: str  # in a config
    checkpoint_name: str  # the value of ``training_stage`` in a checkpoint's ``config.json``
    trains: tuple[str, ...]  # the adapters that get gradient
    decodes: bool  # the decoder runs, with a loss on answers
    chooses: bool  # questions are encoded to choose among documents, which get no gradient
    learning_rate: float  # the peak of the schedule
    schedule: Literal["cosine", "constant"]
    mse_weight: float  # in the loss, of the mse between memory tokens and the other tokens
    max_length: int  # most tokens of a prompt with its answer
    batch_size: int  # examples per optimiser step
    imitates: bool = False  # latents are to be those of another model; lines need documents only


# Compression: the encoder learns to keep what the decoder needs for many questions.
_SCP = Stage(
    name="scp",
    checkpoint_name="stage1",
    trains=("encoder", "decoder"),
    decodes=True,
    chooses=False,
    learning_rate=1e-4,
    schedule="cosine",
    mse_weight=0.1,
    max_length=2048,
    batch_size=128,
)
# Answers: the same, with one question for each prompt.
_INSTRUCT = replace(_SCP, name="instruct", checkpoint_name="stage1_2")
# The query reasoner learns from the answers which documents to choose. The encoder is not trained,
# so there is no mse.
_END_TO_END = Stage(
    name="end-to-end",
    checkpoint_name="stage2",
    trains=("decoder", "query_reasoner"),
    decodes=True,
    chooses=True,
    learning_rate=5e-6,
    schedule="constant",
    mse_weight=0.0,
    max_length=1024,
    batch_size=32,
)
# The query reasoner learns from examples that name the right documents; no text is written.
_RETRIEVAL = replace(_END_TO_END, name="retrieval", trains=("query_reasoner",), decodes=False)
# Not one of the reference's: the encoder of a quantised model learns the latents of before.
# Its adapter is a low-rank correction of every matrix, and takes no more room than it did.
_DISTIL = Stage(
    name="distil",
    checkpoint_name="",  # the model's own: what it can do stays the same
    trains=("encoder",),
    decodes=False,
    chooses=False,
    learning_rate=3e-4,
    schedule="cosine",
    mse_weight=0.0,
    max_length=1024,
    batch_size=8,
    imitates=True,
)

#: By name, in the order in which a model goes through them.
STAGES = {stage.name: stage for stage in (_SCP, _INSTRUCT, _END_TO_END, _RETRIEVAL, _DISTIL)}


def stage_named(name: str) -> Stage:
    """The stage with that name.

    Raises:
        ClaraError: There is none.
    """
    if name not in STAGES:
        raise ClaraError(f"stage {name!r} is not one of {', '.join(STAGES)}")
    return STAGES[name]
