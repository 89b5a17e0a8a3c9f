"""What known Macs could reach with CLaRa-7B at best: computed from published rates, not measured.

macs.json has the rates and names their sources. No program reaches a chip's published peak, and
nothing here was run on a Mac: these are the times below which no program can come.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

from clara_mlx.plan import shapes
from clara_mlx.plan.passes import BaseShape
from clara_mlx.plan.reasoners import CLARA_7B

_TABLE = json.loads((files(__package__) / "macs.json").read_text(encoding="utf-8"))

#: Where each rate was read, and when.
SOURCES: dict[str, dict[str, str]] = _TABLE["sources"]

#: The bits per weight that are compared; 16 is bfloat16 as published.
WIDTHS = (16, 8, 4)

# CLaRa-7B at 16x: a full chunk of 256 tokens becomes 16 memory tokens.
_CHUNK_TOKENS = 256
_MEMORY_TOKENS = 16
_LAYOUT_TOKENS = 3  # <ENC>, <s> and </s> of an encoder input
_QUESTION_TOKENS = 16
_PROMPT = 80  # tokens of an answer's instructions and question
_GROUP = 64  # weights that share a scale


@dataclass(frozen=True)
class KnownMac:
    """A chip's published rates, of its largest GPU.

    Attributes:
        name: The chip.
        gpu_cores: Cores of its GPU.
        flops: float32 operations a second.
        matmul_flops: Operations a second in products of 16-bit matrices; the same, unless the
            GPU's cores have neural accelerators.
        bandwidth: Bytes a second.
    """

    name: str
    gpu_cores: int
    flops: float
    matmul_flops: float
    bandwidth: float

    @property
    def has_accelerators(self) -> bool:
        """Whether its GPU's cores have neural accelerators."""
        return self.matmul_flops > self.flops


#: From M1 to M5.
KNOWN_MACS = tuple(
    KnownMac(
        one["name"],
        one["gpu_cores"],
        1e12 * one["tflops"],
        1e12 * one.get("matmul_tflops", one["tflops"]),
        1e9 * one["bandwidth_gb_s"],
    )
    for one in _TABLE["macs"]
)


def clara_7b(bits: int) -> BaseShape:
    """The sizes of CLaRa-7B with its base at this many bits per weight; 16 is unquantised."""
    added = CLARA_7B["added_tokens"]
    config = dict(CLARA_7B["config"])
    config["vocab_size"] += added
    if bits != 16:
        config["quantization"] = {"bits": bits, "group_size": _GROUP}
    return BaseShape.from_config(config, rank=CLARA_7B["rank"])


def limits() -> list[dict[str, Any]]:
    """The best that each known Mac could do with CLaRa-7B, a row for each number of bits.

    Returns:
        Rows ready for JSON: ``mac``, its rates, ``bits``, ``weight_bytes`` with all adapters,
        ``chunk_seconds`` of a full chunk, ``query_seconds`` of a question of 16 tokens,
        ``first_token_seconds`` over 5 memories, ``first_token_from_text_seconds`` over the same as
        text, and ``tokens_per_second`` of such an answer.
    """
    rows = []
    for bits in WIDTHS:
        base = clara_7b(bits)
        weight_bytes = shapes.clara_from_config(**CLARA_7B, bits=bits).weight_bytes
        length = _CHUNK_TOKENS + _LAYOUT_TOKENS + _MEMORY_TOKENS
        memories = _PROMPT + 5 * (_MEMORY_TOKENS + 1)
        passes = {
            "chunk_seconds": base.encode([length], _MEMORY_TOKENS),
            "query_seconds": base.encode(
                [_QUESTION_TOKENS + _LAYOUT_TOKENS + _MEMORY_TOKENS], _MEMORY_TOKENS
            ),
            "first_token_seconds": base.prefill(memories),
            "first_token_from_text_seconds": base.prefill(_PROMPT + 5 * _CHUNK_TOKENS),
            "token_seconds": base.decode(memories),
        }
        for mac in KNOWN_MACS:
            seconds = {
                name: work.limit_seconds(mac.matmul_flops, mac.bandwidth)
                for name, work in passes.items()
            }
            rate = {"tokens_per_second": 1 / seconds.pop("token_seconds")}
            rows.append(
                {"mac": asdict(mac), "bits": bits, "weight_bytes": weight_bytes, **seconds, **rate}
            )
    return rows
