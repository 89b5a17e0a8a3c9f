"""What the ranks of a run check before they train together: that it is one and the same run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from clara_mlx.errors import ClaraError
from clara_mlx.model.ranks import Ranks
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.plan import Plan
from clara_mlx.train.run_folder import Read


def check_same_run(ranks: Ranks, config: TrainConfig, read: Read) -> None:
    """Make sure that all ranks train the same model on the same examples in the same way.

    Where files lie may differ from machine to machine, what they hold may not.

    Raises:
        ClaraError: A rank would train something else; the error names the first, and what differs.
    """
    first, *others = ranks.gather(
        {
            "the config": _digest(_without_paths(config)),
            "the model that the run starts from": _digest(read.model),
            "the examples": _digest(list(read.data.values())),
        }
    )
    for rank, other in enumerate(others, 1):
        different = [name for name in first if first[name] != other[name]]
        if different:
            raise ClaraError(
                f"rank {rank} has another run than rank 0: different are {', '.join(different)}; "
                "copy the config, the model folder and the examples from rank 0's machine"
            )


def check_work_for_all(ranks: Ranks, plan: Plan) -> None:
    """Make sure that a step has enough micro-batches for the ranks to share.

    Raises:
        ClaraError: Some ranks would have nothing to do in any step.
    """
    most = max(len(step) for step in plan.batching.epoch(plan.train_set, 0))
    if ranks.size > most:
        raise ClaraError(
            f"a step has at most {most} micro-batches, but there are {ranks.size} ranks; raise "
            "steps.batch_size, lower steps.micro_batch_size (a rank computes whole micro-batches), "
            "or start fewer ranks"
        )


def _without_paths(config: TrainConfig) -> dict[str, Any]:
    fields = asdict(config) | {"output": None, "model": None, "teacher": None}
    fields["data"] |= {"train": None, "evaluation": None}
    if fields["fresh"]:
        fields["fresh"] |= {"base": None}
    return fields


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
