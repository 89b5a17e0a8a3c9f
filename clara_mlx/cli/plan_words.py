"""How `clara-mlx plan` writes sizes and setups."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clara_mlx.plan.planner import Setup


def gigabytes(nbytes: int) -> str:
    """Bytes as GB of 10^9, with one decimal."""
    return f"{nbytes / 1e9:,.1f}"


def capacity(nbytes: int) -> str:
    """A Mac's memory as it is sold, and in GB of 10^9 bytes."""
    return f"{nbytes / 2**30:,.5g} GB ({gigabytes(nbytes)} x 10^9 bytes)"


def in_words(setup: Setup) -> str:
    """A setup in one line."""
    return f"{setup.bits}-bit weights, {without_weights(setup)}"


def without_weights(setup: Setup) -> str:
    """Everything of a setup but the bits of the reasoner's weights."""
    one_by_one = "" if setup.kv_bits == 16 else " (requests one by one)"
    clara = "swapped out" if setup.clara_bits is None else f"at {setup.clara_bits} bits"
    return (
        f"{setup.kv_bits}-bit KV cache{one_by_one}, {setup.sequences} x {setup.context:,} tokens, "
        f"passes of {setup.prefill_step:,}, CLaRa {clara}"
    )
