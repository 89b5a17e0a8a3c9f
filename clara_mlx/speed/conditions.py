"""What disturbed a measurement, and which of the user's goals this machine can reach at all."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from clara_mlx.evaluate.verdicts import (
    MOST_CHUNK_SECONDS,
    MOST_GIGABYTES,
    MOST_SEARCH_SECONDS,
    Verdict,
    Word,
)
from clara_mlx.machine import NOT_KNOWN
from clara_mlx.model.clara import Clara
from clara_mlx.plan.passes import BaseShape

# Load average per core above which others used the machine when the bench began.
_BUSY = 0.25

# Load average per core at the end that the bench alone does not make, one process added.
_BUSY_MEANWHILE = 2.0

# Bytes by which swap may grow unnoticed.
_SWAPPED = 64 << 20


def find_disturbances(state: dict[str, Any], cores: int | None) -> list[str]:
    """What the machine's state at start and end says against the figures, a sentence each."""
    start, end = state["start"], state["end"]
    found = []
    if start["load_average"] > _BUSY * (cores or 1):
        found.append(
            f"the machine was busy before the bench began: load average "
            f"{start['load_average']:.1f} on {cores} cores"
        )
    if end["load_average"] > _BUSY_MEANWHILE * (cores or 1) + 1:
        found.append(
            f"others used the machine meanwhile: load average {end['load_average']:.1f} at the end"
        )
    swaps = start["swap_used_bytes"], end["swap_used_bytes"]
    if None not in swaps and swaps[1] - swaps[0] > _SWAPPED:
        found.append(
            f"swap grew from {swaps[0] / 1e9:.1f} to {swaps[1] / 1e9:.1f} GB: there was too "
            "little memory"
        )
    if start["power"] != end["power"]:
        found.append(f"the power changed from {start['power']} to {end['power']}")
    for which in ("battery", "low power"):
        if which in end["power"].lower():
            found.append(f"power: {end['power']}, which may slow the machine down")
            break
    if end["thermal"] != NOT_KNOWN and "Speed_Limit" in end["thermal"]:
        found.append(f"the processor was held back for heat: {end['thermal']}")
    return found


def targets_within_limit(
    result: dict[str, Any], clara: Clara, base: BaseShape
) -> list[dict[str, Any]]:
    """Whether each goal lies within this machine's limit, whatever the program; as verdicts."""
    found = result["limits"]
    layout, memory_tokens = len(clara.prompts.encoder_input([])), clara.config.memory_tokens

    def least(tokens: int) -> float:
        work = base.encode([tokens + layout], memory_tokens)
        return work.limit_seconds(found["flops"], found["bytes_per_second"])

    chunk, question = least(clara.chunk_tokens), least(16)
    loaded = result["load"] or result["memory"]
    nbytes = loaded["array_bytes_with_adapters"]
    rates = f"{found['flops'] / 1e9:,.0f} GFLOP/s and {found['bytes_per_second'] / 1e9:,.0f} GB/s"
    return [
        asdict(verdict)
        for verdict in (
            Verdict(
                f"A document in {1e3 * MOST_CHUNK_SECONDS:g} ms",
                _word(chunk <= MOST_CHUNK_SECONDS),
                f"a full chunk of {clara.chunk_tokens} tokens takes at least {1e3 * chunk:,.3g} ms "
                f"at the {rates} measured here",
            ),
            Verdict(
                f"The ten best in 10 to {1e3 * MOST_SEARCH_SECONDS:g} ms",
                _word(question <= MOST_SEARCH_SECONDS),
                f"encoding a question of 16 tokens takes at least {1e3 * question:,.3g} ms, and "
                "the search comes on top; a search by words needs no encoding",
            ),
            Verdict(
                f"Loaded in {MOST_GIGABYTES:g} GB",
                _word(nbytes < MOST_GIGABYTES * 1e9),
                f"this model's arrays are {nbytes / 1e9:,.3g} GB with all adapters",
            ),
        )
    ]


def _word(holds: bool) -> Word:
    return "yes" if holds else "no"
