"""Planning a Mac's memory: whether a reasoner and CLaRa fit, and the nearest setup that does.

Everything is computed from shapes and documented rules; nothing here was measured on a Mac. Sizes
are in bytes and a GB is 10^9 of them, but a Mac sold with 128 GB has 128 x 2^30 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil

from clara_mlx.model.encoder import BATCH_TOKENS
from clara_mlx.plan.footprint import KV_BITS
from clara_mlx.plan.inputs import NamedClara, NamedReasoner
from clara_mlx.plan.mac import GIB, MIB, Mac

_ANSWER_TOKENS = 1024  # that CLaRa's decoder was trained with: memory tokens, question and answer
_SHORTEST_CONTEXT = 8192  # tokens; below it a shorter context is not offered
_SHORTEST_STEP = 512  # tokens per pass; below it a shorter one is not offered


@dataclass(frozen=True)
class Setup:
    """One way to run a reasoner and CLaRa together."""

    bits: int  # of a reasoner's weight
    kv_bits: int = 16  # of a cached key or value; below 16 mlx_lm.server serves one by one
    context: int = 32768  # tokens of each conversation
    sequences: int = 1  # conversations at a time
    prefill_step: int = 2048  # prompt tokens per pass (--prefill-step-size)
    clara_bits: int | None = 8  # of a weight of CLaRa's base; None while CLaRa is swapped out

    @property
    def active_caches(self) -> int:
        """Number of KV caches that requests in progress write to."""
        return self.sequences if self.kv_bits == 16 else 1

    @property
    def kept_caches(self) -> int:
        """Number of KV caches that mlx_lm.server keeps for the next turns.

        Each is as long as a conversation. The next turn copies its cache before the copy grows, so
        active caches come on top. When it serves one request at a time, mlx_lm.server limits the
        number of caches and not their size; one more of them keeps a conversation's cache alive
        when a short request (for a title, say) comes between two turns.
        """
        return self.sequences if self.kv_bits == 16 else self.sequences + 1


@dataclass(frozen=True)
class Part:
    """A share of the memory, and a sentence on how it was computed."""

    name: str
    how: str
    nbytes: int


class Planner:
    """Computes setups of one reasoner and one CLaRa on one Mac."""

    def __init__(self, mac: Mac, reasoner: NamedReasoner, clara: NamedClara) -> None:
        self.mac = mac
        self.reasoner = cache(reasoner.footprint)  # by bits per weight
        self.clara = cache(clara.footprint)
        self._reasoner_bits = reasoner.choices
        self._clara_bits = clara.choices

    def parts(self, setup: Setup) -> list[Part]:
        """The shares of the memory when both servers are at their busiest.

        Raises:
            ClaraError: mlx-lm can't quantise the cache of this reasoner.
        """
        model = self.reasoner(setup.bits)
        one = model.kv_bytes(setup.context, setup.kv_bits, setup.prefill_step)
        step = min(setup.prefill_step, setup.context)
        temporaries = model.step_bytes(step, setup.context, setup.kv_bits)
        # One layer's cache is there twice while it grows.
        growing = one // max(len(model.caches), 1)
        parts = [
            Part(
                "reasoner: weights",
                f"{model.parameters / 1e9:,.2f} billion at {model.bits_per_weight:.3f} bits, "
                "scales and biases included",
                model.weight_bytes,
            ),
            Part(
                "reasoner: KV cache in use",
                f"{setup.active_caches} x {setup.context:,} tokens x "
                f"{one / setup.context / 1024:.1f} KiB",
                setup.active_caches * one,
            ),
            Part(
                "reasoner: KV cache kept",
                f"{setup.kept_caches} for the next turns",
                setup.kept_caches * one,
            ),
            Part(
                "reasoner: one pass",
                f"{step:,} prompt tokens, upper estimate",
                temporaries + growing + model.logit_bytes(setup.sequences),
            ),
        ]
        return parts + (self._clara_parts(setup.clara_bits) if setup.clara_bits else [])

    def _clara_parts(self, bits: int) -> list[Part]:
        """CLaRa's shares: its weights, and the larger of encoding a batch and answering."""
        model = self.clara(bits)
        encode = model.base.step_bytes(BATCH_TOKENS, BATCH_TOKENS)
        answer = model.base.step_bytes(_ANSWER_TOKENS, _ANSWER_TOKENS)
        answer += model.base.kv_bytes(_ANSWER_TOKENS)
        return [
            Part("CLaRa: weights", "base, all adapters, exact rows", model.weight_bytes),
            Part(
                "CLaRa: one pass",
                f"{BATCH_TOKENS:,} tokens of chunks, upper estimate",
                max(encode, answer),
            ),
        ]

    def total(self, setup: Setup) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts(setup))

    def fits(self, setup: Setup) -> bool:
        """Whether a setup fits once the wired limit is raised as far as it may be."""
        return self.total(setup) <= self.mac.ceiling

    def sysctl_mb(self, setup: Setup) -> int | None:
        """The ``iogpu.wired_limit_mb`` that a setup needs, in whole GiB; None if it needs none.

        This has a meaning only if the setup fits.
        """
        needed = self.total(setup)
        if needed <= self.mac.wired_limit:
            return None
        return min(ceil(needed / GIB) * GIB, self.mac.ceiling) // MIB

    def smallest_memory(self, setup: Setup) -> int:
        """Bytes of memory that a Mac needs for a setup, with the same reserve."""
        return self.total(setup) + self.mac.reserve

    def nearest(self, wanted: Setup) -> Setup | None:
        """The setup that fits and differs least from the one wanted; None if nothing fits.

        It only gives something up: bits, context (halved, but not below 8,192 tokens),
        conversations, the length of passes, or CLaRa in memory. `cost` says how bad each one is.
        """
        by_cost = sorted(self._smaller_setups(wanted), key=lambda setup: cost(wanted, setup))
        return next(filter(self.fits, by_cost), None)

    def _smaller_setups(self, wanted: Setup) -> Iterator[Setup]:
        """The setup wanted, and all that have less of something."""
        kv_bits = [bits for bits in KV_BITS if bits <= wanted.kv_bits]
        if self.reasoner(wanted.bits).cache_problem:
            kv_bits = [16]  # mlx-lm can't quantise this cache
        clara: list[int | None] = [None]
        if wanted.clara_bits:
            clara += [bits for bits in self._clara_bits if bits <= wanted.clara_bits]
        choices = product(
            [bits for bits in self._reasoner_bits if bits <= wanted.bits],
            kv_bits,
            _halvings(wanted.context, _SHORTEST_CONTEXT),
            _halvings(wanted.sequences, 1),
            _halvings(wanted.prefill_step, _SHORTEST_STEP),
            clara,
        )
        yield from (Setup(*choice) for choice in choices)


def _halvings(value: int, least: int) -> list[int]:
    """The value, its half, its quarter, ... as long as they are not below ``least``."""
    values = [value]
    while values[-1] // 2 >= least:
        values.append(values[-1] // 2)
    return values


def cost(wanted: Setup, other: Setup) -> float:
    """The price of another setup: slower costs least, then shorter, then coarser.

    The weights are a judgement, not a measurement.
    """
    swapped = wanted.clara_bits is not None and other.clara_bits is None
    return (
        0.25 * (wanted.prefill_step / other.prefill_step - 1)
        + 0.25 * ((wanted.clara_bits or 0) - (other.clara_bits or 0)) * (not swapped)
        + 3.0 * swapped
        + 0.2 * (wanted.kv_bits - other.kv_bits)
        + 1.5 * (wanted.context / other.context - 1)
        + 1.5 * (wanted.sequences / other.sequences - 1)
        + 2.0 * (wanted.bits - other.bits)
    )
