"""A plan of a Mac's memory: a reasoner and CLaRa side by side, what fits, and what nearly does.

Everything is computed from shapes and documented rules; nothing in here was measured on a Mac.
Sizes are bytes, GB are 10^9 of them; a Mac sold with 128 GB has 128 x 2^30.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import ceil
from shlex import join

from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import BATCH_TOKENS
from clara_mlx.plan.footprint import KV_BITS, ClaraFootprint, Footprint

GIB = 2**30
MIB = 2**20

#: What stays free for macOS, the two servers' own processes and other programs, unless said else.
RESERVE = 8 * GIB
#: CLaRa's bits per weight that `clara-mlx convert` makes.
CLARA_BITS = (8, 6, 4)
# Tokens of memory tokens, question and answer that CLaRa's decoder sees at once (1,024 trained).
_ANSWER_TOKENS = 1024
_SHORTEST_CONTEXT = 8192
_SHORTEST_STEP = 512


@dataclass(frozen=True)
class Mac:
    """A Mac's unified memory.

    Attributes:
        memory: bytes of it.
        wired_limit: what the GPU may keep resident without asking: Metal's
            ``recommendedMaxWorkingSetSize``.
        limit_source: where that figure comes from.
        reserve: bytes that ``iogpu.wired_limit_mb`` should never reach into.
    """

    memory: int
    wired_limit: int
    limit_source: str
    reserve: int = RESERVE

    @property
    def ceiling(self) -> int:
        """What both servers may take in all, with the wired limit raised."""
        return max(self.memory - self.reserve, self.wired_limit)

    @classmethod
    def of(cls, memory: int, wired_limit: int | None = None, reserve: int = RESERVE) -> Mac:
        """A Mac by its memory, with macOS's default limit unless another is known."""
        if memory <= reserve:
            raise ClaraError(
                f"{memory / GIB:g} GB of memory leave nothing beside a reserve of "
                f"{reserve / GIB:g} GB for macOS"
            )
        if wired_limit is not None:
            if not 0 < wired_limit <= memory:
                raise ClaraError(
                    f"a GPU limit of {wired_limit / GIB:g} GB on {memory / GIB:g} GB of memory"
                )
            return cls(memory, wired_limit, "as given", reserve)
        return cls(memory, default_wired_limit(memory), "macOS's default, as documented", reserve)


def default_wired_limit(memory: int) -> int:
    """macOS's default limit of GPU memory, as users' logs of ``recommendedMaxWorkingSetSize`` say.

    Two thirds below 36 GB (10.67 of 16, 21.33 of 32) and three quarters from there (27 of 36, 72
    of 96): abetlen/llama-cpp-python issue 687, ggml-org/llama.cpp pull 2011 and issue 3213,
    ml-explore/mlx-lm issue 883. Apple documents no rule, and newer systems report more (107.5 of
    128: antirez/ds4 pull 893): this is the cautious figure, and on a Mac MLX reports the real one.
    """
    return memory * 2 // 3 if memory < 36 * GIB else memory * 3 // 4


@dataclass(frozen=True)
class Setup:
    """One way to run both: what can be chosen.

    Attributes:
        bits: of the reasoner's weights.
        kv_bits: of its KV cache, 16 for none; any other makes mlx_lm.server serve one request at
            a time.
        context: tokens of each conversation.
        sequences: conversations at a time.
        prefill_step: prompt tokens per pass (``--prefill-step-size``).
        clara_bits: of CLaRa's base, None while CLaRa is swapped out.
    """

    bits: int
    kv_bits: int = 16
    context: int = 32768
    sequences: int = 1
    prefill_step: int = 2048
    clara_bits: int | None = 8

    @property
    def active_caches(self) -> int:
        """KV caches that requests in progress write to."""
        return self.sequences if self.kv_bits == 16 else 1

    @property
    def kept_caches(self) -> int:
        """KV caches that mlx_lm.server keeps for the next turn, each as long as a conversation.

        The next turn copies its cache before it grows, so active ones come on top. Serving one
        at a time it counts them without regard to their size: one more slot lets a short request
        between two turns (a title, say) not cost the conversation its cache.
        """
        return self.sequences if self.kv_bits == 16 else self.sequences + 1


@dataclass(frozen=True)
class Part:
    """One share of the memory, and in words how it was computed."""

    name: str
    how: str
    nbytes: int


class Planner:
    """Arithmetic of one Mac, one reasoner and one CLaRa.

    Args:
        mac: the machine.
        reasoner: its footprint at a number of bits per weight.
        clara: CLaRa's footprint at a number of bits per weight.
        reasoner_bits: bits that `reasoner` can be asked for, best first.
        clara_bits: likewise for `clara`.
    """

    def __init__(
        self,
        mac: Mac,
        reasoner: Callable[[int], Footprint],
        clara: Callable[[int], ClaraFootprint],
        *,
        reasoner_bits: tuple[int, ...],
        clara_bits: tuple[int, ...] = CLARA_BITS,
    ) -> None:
        self.mac = mac
        self.reasoner = cache(reasoner)
        self.clara = cache(clara)
        self.reasoner_bits = reasoner_bits
        self.clara_bits = clara_bits

    def parts(self, setup: Setup) -> list[Part]:
        """Where the memory goes when both servers are at their busiest.

        Raises:
            ClaraError: mlx-lm can't quantise the cache of this reasoner.
        """
        model = self.reasoner(setup.bits)
        one = model.kv_bytes(setup.context, setup.kv_bits, setup.prefill_step)
        step = min(setup.prefill_step, setup.context)
        passing = model.step_bytes(step, setup.context, setup.kv_bits)
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
                passing + one // max(len(model.caches), 1) + model.logit_bytes(setup.sequences),
            ),
        ]
        return parts + (self._clara_parts(setup.clara_bits) if setup.clara_bits else [])

    def _clara_parts(self, bits: int) -> list[Part]:
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
        """Whether it fits, with the wired limit raised if it must be."""
        return self.total(setup) <= self.mac.ceiling

    def sysctl_mb(self, setup: Setup) -> int | None:
        """The ``iogpu.wired_limit_mb`` that it takes, in whole GiB; None if the limit will do.

        Meaningful only for what fits.
        """
        needed = self.total(setup)
        if needed <= self.mac.wired_limit:
            return None
        return min(ceil(needed / GIB) * GIB, self.mac.ceiling) // MIB

    def smallest_memory(self, setup: Setup) -> int:
        """The least memory that a Mac needs for it, with the same reserve."""
        return self.total(setup) + self.mac.reserve

    def nearest(self, wanted: Setup) -> Setup | None:
        """The setup that fits and differs least from the one wanted; None if nothing does.

        Only ever gives something up: fewer bits, a shorter context (to 8,192 tokens), fewer
        conversations, shorter passes, or CLaRa swapped out. What each change costs is a judgement,
        in `_cost`.
        """
        by_cost = sorted(self._lesser(wanted), key=lambda setup: _cost(wanted, setup))
        return next(filter(self.fits, by_cost), None)

    def _lesser(self, wanted: Setup) -> Iterator[Setup]:
        unquantisable = self.reasoner(wanted.bits).unquantisable_cache
        clara: list[int | None] = [None]
        if wanted.clara_bits:
            clara += [bits for bits in self.clara_bits if bits <= wanted.clara_bits]
        choices = product(
            [bits for bits in self.reasoner_bits if bits <= wanted.bits],
            [16] if unquantisable else [bits for bits in KV_BITS if bits <= wanted.kv_bits],
            _halved(wanted.context, _SHORTEST_CONTEXT),
            _halved(wanted.sequences, 1),
            _halved(wanted.prefill_step, _SHORTEST_STEP),
            clara,
        )
        yield from (Setup(*choice) for choice in choices)


def _halved(value: int, least: int) -> list[int]:
    values = [value]
    while values[-1] // 2 >= least:
        values.append(values[-1] // 2)
    return values


def _cost(wanted: Setup, other: Setup) -> float:
    """How much worse another setup is: slower first, then shorter, then coarser."""
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


# -- starting both ---------------------------------------------------------------------------------

_PORT = 8080  # mlx_lm.server's own default


def script(planner: Planner, setup: Setup, model: str, clara: str, made_by: str | None) -> str:
    """Shell commands that start both servers within what the setup takes.

    Args:
        planner: what computed it.
        setup: one that fits.
        model: the reasoner's mlx-lm folder.
        clara: CLaRa's model folder.
        made_by: a command that makes the reasoner's folder, for a comment.
    """
    one = planner.reasoner(setup.bits).kv_bytes(setup.context, setup.kv_bits, setup.prefill_step)
    caches = ["--prompt-concurrency", "1", "--decode-concurrency", str(setup.sequences)]
    # Checked when a request comes, and what is in use counts: it may still grow by as much.
    caches += ["--prompt-cache-bytes", str(setup.kept_caches * one)]
    if setup.kv_bits != 16:
        caches = ["--kv-bits", str(setup.kv_bits), "--quantized-kv-start", "0"]
        caches += ["--prompt-cache-size", str(setup.kept_caches)]
    server = ["mlx_lm.server", "--model", model, "--host", "127.0.0.1", "--port", str(_PORT)]
    server += ["--prefill-step-size", str(setup.prefill_step), *caches]
    gateway = ["clara-mlx", "serve", "--reasoner", f"http://127.0.0.1:{_PORT}/v1"]
    gateway += ["--tokenizer", model, "--window", str(setup.context)]
    lines = [
        f"Computed from shapes, not measured: {_gb(planner.total(setup))} of at most "
        f"{_gb(planner.mac.ceiling)}.",
        *_limit_lines(planner, setup),
    ]
    if made_by:
        lines += ["The reasoner's folder, if it is not there yet:", f"  {made_by}"]
    if setup.clara_bits is None:
        lines += [
            "CLaRa stays out of memory: originals, handles and text search work without it.",
            "To compress what was remembered, stop the reasoner and run:",
            f"  {join(['clara-mlx', 'flush', '--model', clara])}",
        ]
        gateway = ["env", "-u", "CLARA_MLX_MODEL", *gateway]
    else:
        gateway += ["--model", clara]
    comments = [f"# {line}" for line in lines]
    return "\n".join([*comments, f"{join(server)} &", join(gateway)]) + "\n"


def _limit_lines(planner: Planner, setup: Setup) -> list[str]:
    limit = f"{_gb(planner.mac.wired_limit)} ({planner.mac.limit_source})"
    megabytes = planner.sysctl_mb(setup)
    if megabytes is None:
        return [f"The GPU's limit of {limit} is enough: no sysctl is needed."]
    return [
        f"That is more than the GPU's limit of {limit}. Raise it first, until the next restart;",
        f"{_gb(planner.mac.memory - megabytes * MIB)} stay for macOS and everything else:",
        f"  sudo sysctl iogpu.wired_limit_mb={megabytes}",
    ]


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB"
