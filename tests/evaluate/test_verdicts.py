"""Verdicts: what users ask, answered from figures."""

from __future__ import annotations

from typing import Any

import pytest

from clara_mlx.evaluate.verdicts import of_bench


def bench(gigabytes: float, seconds: float, share: float, p95: float) -> dict[str, Any]:
    def chunk(batch: int, tokens: int, seconds: float) -> dict[str, Any]:
        figures = {"seconds_per_chunk": seconds, "share_of_matmul_peak": share}
        return {"batch": batch, "chunk_tokens": tokens, **figures}

    recall = [{"mode": mode, "seconds": p95 / 2, "p95_seconds": p95} for mode in ("hybrid", "text")]
    return {
        "memory": {"array_bytes_with_adapters": gigabytes * 1e9, "peak_array_bytes": 9e9},
        "compress": [chunk(1, 64, 0.001), chunk(4, 256, seconds / 2), chunk(1, 256, seconds)],
        "matmul_flops": 1e13,
        "memory_file": {"recall": recall, "chunks": 118},
    }


@pytest.mark.parametrize(
    ("figures", "words", "because"),
    [
        ((7.95, 0.09, 0.8, 0.019), ["yes", "yes", "yes"], "7.95 GB"),
        ((8.0, 0.09, 0.8, 0.021), ["no", "yes", "no"], "p95 21.0 ms"),
        # Twice as slow as the goal at 80% of the machine's rate: no program can reach it.
        ((7.95, 0.26, 0.8, 0.01), ["yes", "no", "yes"], "104 ms, so the goal is beyond its limit"),
        ((7.95, 0.26, 0.2, 0.01), ["yes", "no", "yes"], "26.0 ms, so the goal is within its limit"),
        ((7.95, 0.15, 0.9, 0.01), ["yes", "no", "yes"], "75.0 ms in a batch of 4"),
    ],
)
def test_bench(figures: tuple[float, ...], words: list[str], because: str) -> None:
    verdicts = of_bench(bench(*figures))
    assert [verdict.word for verdict in verdicts] == words
    assert because in " ".join(verdict.because for verdict in verdicts)
