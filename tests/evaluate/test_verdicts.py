"""Verdicts: what users ask, answered from figures."""

from __future__ import annotations

from typing import Any

import pytest

from clara_mlx.evaluate.verdicts import of_bench, of_evaluation, to_markdown


def bench(gigabytes: float, seconds: float, share: float, p95: float) -> dict[str, Any]:
    def chunk(batch: int, tokens: int, seconds: float) -> dict[str, Any]:
        figures = {"seconds_per_chunk": seconds, "share_of_matmul_peak": share}
        return {"batch": batch, "chunk_tokens": tokens, "asked_tokens": tokens + 9, **figures}

    recall = [{"mode": mode, "seconds": p95 / 2, "p95_seconds": p95} for mode in ("hybrid", "text")]
    return {
        "memory": {"array_bytes_with_adapters": gigabytes * 1e9, "peak_array_bytes": 9e9},
        "compress": [chunk(1, 64, 0.001), chunk(4, 256, seconds / 2), chunk(1, 256, seconds)],
        "matmul_flops": 1e13,
        "doc_max_length": 265,
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
    assert [verdict.word for verdict in verdicts] == [*words, "open", "open", "open"]
    assert all("clara-mlx evaluate" in verdict.because for verdict in verdicts[3:])
    assert because in " ".join(verdict.because for verdict in verdicts)


def test_half_a_chunk_is_not_a_document() -> None:
    verdicts = of_bench(bench(7, 0.09, 0.8, 0.01) | {"doc_max_length": 512})
    assert verdicts[1].word == "open" and "`--lengths 512`" in verdicts[1].because
    verdicts = of_bench(bench(7, 0.2, 0.8, 0.01) | {"doc_max_length": 512})
    assert verdicts[1].word == "no"  # a full one takes no less


def share(low: float | None, mean: float, high: float | None) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high}


FEW_LOST = share(0.93, 0.97, 1.01)
FOUND = share(0.96, 0.98, 0.99)


def evaluation(
    kept: dict[str, Any] | None, found: dict[str, Any], text: float = 62.0, name: str = "own"
) -> dict[str, Any]:
    """A report of one set: 4 memory tokens and a separator in place of so much text."""
    ways = {"latents": 5.0, "text": text}
    recall = {"hybrid": {"all": {"queries": 100, "10": found}}}
    return {
        "models": [{"name": "m", "doc_max_length": 64, "memory_tokens": 4}],
        "sets": {name: {}},
        "retention": [
            {
                "model": "m",
                "set": name,
                "method": way,
                "positions": positions,
                "all": {"exact": share(0.7, 0.8, 0.9)},
            }
            for way, positions in ways.items()
        ],
        "differences": [
            {
                "set": name,
                "of": {"model": "m", "method": "latents"},
                "minus": {"model": "m", "method": "text"},
                "probes": 200,
                "kept": kept,
            }
        ],
        "memory": {"chunks": 5000, "recall": recall},
    }


@pytest.mark.parametrize(
    ("report", "words", "because"),
    [
        (
            evaluation(FEW_LOST, FOUND),
            ["yes", "yes", "yes"],
            "own at 15.5x: 3.0% (-1.0 to 7.0) of the 80.0%",
        ),
        # The interval's end decides, not its middle.
        (
            evaluation(share(0.88, 0.95, 1.0), FOUND),
            ["open", "yes", "yes"],
            "about 200 more probes",
        ),
        (
            evaluation(share(0.8, 0.86, 0.92), FOUND),
            ["open", "yes", "yes"],
            "more probes would say",
        ),
        (evaluation(share(0.8, 0.85, 0.9), FOUND), ["no", "yes", "yes"], "15.0% (10.0 to 20.0)"),
        (evaluation(share(0.8, 0.9, 1.0), FOUND), ["open", "yes", "yes"], "too close to 90%"),
        (evaluation(share(None, 1.0, None), FOUND), ["open", "yes", "yes"], "more documents"),
        # Half full chunks: whatever is kept, it was not at 16x.
        (evaluation(FEW_LOST, FOUND, 33), ["open", "yes", "yes"], "at 8.2x: 3.0%"),
        (evaluation(share(0.8, 0.85, 0.9), FOUND, 33), ["no", "yes", "yes"], "at 8.2x: 15.0%"),
        (evaluation(FEW_LOST, FOUND, 9), ["open", "yes", "no"], "own 5.0 for 9.0 (-44%)"),
        (evaluation(None, FOUND), ["open", "yes", "yes"], "nothing is answered exactly even from"),
        (
            evaluation(FEW_LOST, share(0.9, 0.93, 0.95)),
            ["yes", "no", "yes"],
            "93.0% (90.0 to 95.0) of 100",
        ),
        (evaluation(FEW_LOST, share(0.9, 0.97, 1.0)), ["yes", "open", "yes"], "more questions"),
    ],
)
def test_evaluation(report: dict[str, Any], words: list[str], because: str) -> None:
    verdicts = of_evaluation(report)
    assert [verdict.word for verdict in verdicts] == [*words, "open", "open", "open"]
    assert because in to_markdown(verdicts)
    assert all("clara-mlx bench" in verdict.because for verdict in verdicts[3:])


def test_every_set_must_hold() -> None:
    good, bad = evaluation(FEW_LOST, FOUND), evaluation(share(0.1, 0.2, 0.3), FOUND, name="long")
    for part in ("retention", "differences"):
        good[part] += bad[part]
    good["sets"] |= bad["sets"]
    keeps, _, shortens, *_ = of_evaluation(good)
    assert keeps.word == "no" and "long at 15.5x: 80.0% (70.0 to 90.0) of" in keeps.because
    assert shortens.word == "yes"


def test_a_report_that_does_not_say_it() -> None:
    report = evaluation(FEW_LOST, FOUND)
    del report["differences"][0]["kept"]  # as older versions wrote it
    report["memory"] = {}
    keeps, finds, *_ = of_evaluation(report)
    assert keeps.word == finds.word == "open"
    assert "evaluate again" in keeps.because and "no probe" in finds.because
