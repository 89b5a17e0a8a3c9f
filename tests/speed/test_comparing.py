"""Two benches side by side: what is noise, what is not, and files of older versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clara_mlx.errors import ClaraError
from clara_mlx.speed import comparing, figures

MACHINE = {"processor": "M9", "cores": 8, "device": "gpu", "mlx": "1", "mlx-lm": "1"}


def timed(*runs: float) -> dict[str, Any]:
    return {"seconds": sorted(runs)[len(runs) // 2], "all_seconds": list(runs)}


def bench(*runs: float, rate: tuple[float, ...] = (20.0, 21.0, 22.0)) -> dict[str, Any]:
    """As this version writes it, with what a comparison reads."""
    first = {"first_token_seconds": 0.1, "all_first_token_seconds": [0.1, 0.1, 0.1]}
    answer = {**first, "tokens_per_second": rate[1], "all_tokens_per_second": list(rate)}
    return {
        "format": 2,
        "model": "q8",
        "fingerprint": "f",
        "compute_dtype": "bfloat16",
        "machine": MACHINE,
        "load": {**timed(1.0, 1.1, 1.2), "array_bytes": 8_000_000_000},
        "compress": [{"batch": 1, "chunk_tokens": 256, **timed(*runs)}],
        "query": timed(0.01, 0.011, 0.012),
        "answer": [{"documents": 5, **answer, "text": {"positions": 9}}],
        "matmul_flops": 1e13,
        "mlx_lm": {"prefill": [beside(*runs)], "decode": {}},
    }


def beside(*runs: float) -> dict[str, Any]:
    """The same chunk by CLaRa, and by an mlx-lm that is as slow as the machine at that moment."""
    ours, theirs = ({"tokens": 256, **timed(*runs)} for _ in range(2))
    row = {"batch": 1, "chunk_tokens": 256, "clara_over_mlx_lm": 1.0}
    return {**row, "clara": ours, "mlx-lm": theirs}


def old() -> dict[str, Any]:
    """As clara-mlx wrote it before there was a format."""
    row = {"asked_tokens": 256, "chunk_tokens": 251, "batch": 1, **timed(0.1, 0.1, 0.1)}
    answer = {"documents": 5, "first_token_seconds": 0.2, "tokens_per_second": None}
    recall = [{"mode": "text", **timed(0.1, 0.2)}]
    return {
        "model": "q8",
        "fingerprint": "f",
        "compute_dtype": "bfloat16",
        "machine": MACHINE,
        "load": {"seconds": 1.0, "array_bytes": 8_000_000_000},
        "compress": [row],
        "query": timed(0.01, 0.01, 0.01),
        "answer": [answer],
        "matmul_flops": 1e13,
        "memory_file": {"remember": timed(1.0), "recall": recall, "ask": timed(2.0)},
    }


def words(a: dict[str, Any], b: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["word"] for one in comparing.compare(a, b)["differences"]}


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ((0.10, 0.11, 0.12), (0.10, 0.12, 0.11), "within the noise"),
        ((0.10, 0.11, 0.12), (0.20, 0.21, 0.22), "worse"),
        ((0.20, 0.21, 0.22), (0.10, 0.11, 0.12), "better"),
        ((0.10, 0.20, 0.30), (0.20, 0.25, 0.35), "within the noise"),  # the runs overlap
        ((1.000, 1.001, 1.002), (1.020, 1.021, 1.022), "within the noise"),  # below 3%
        ((0.10, 0.11), (0.20, 0.21, 0.22), "too few runs"),
    ],
)
def test_a_time(before: tuple[float, ...], after: tuple[float, ...], word: str) -> None:
    assert words(bench(*before), bench(*after))["compress 1 x 256 tokens"] == word


def test_more_tokens_a_second_are_better() -> None:
    found = words(bench(1.0, rate=(20.0, 21.0, 22.0)), bench(1.0, rate=(40.0, 41.0, 42.0)))
    assert found["tokens, 5 memories"] == "better"
    assert found["first token, 5 memories"] == "within the noise"


def test_a_busy_machine_does_not_change_the_ratio() -> None:
    found = words(bench(0.10, 0.11, 0.12), bench(0.20, 0.22, 0.24))
    assert found["compress 1 x 256 tokens"] == found["mlx-lm prefills 1 x 256 tokens"] == "worse"
    assert found["encode / mlx-lm's prefill, 1 x 256 tokens"] == "within the noise"


def test_what_fails() -> None:
    """Only what is clearly worse by more than is allowed, and not the machine's own rates."""
    a, b = bench(0.10, 0.11, 0.12), bench(0.15, 0.16, 0.17, rate=(10.0, 11.0, 12.0))
    b["matmul_flops"] = 1e12
    b["load"]["array_bytes"] = 9_000_000_000
    found = comparing.compare(a, b)
    slower, rate = "compress 1 x 256 tokens", "tokens, 5 memories"
    assert comparing.worse(found, 0.1) == ["load: array bytes", slower, rate]
    assert comparing.worse(found, 0.5) == [rate]  # half the rate takes twice the time
    assert comparing.worse(found, 1.0) == []
    difference = next(one for one in found["differences"] if one["name"] == slower)
    assert difference["ratio"] == pytest.approx(16 / 11)
    assert difference["low"] < difference["ratio"] < difference["high"]


def test_other_machines_and_busy_ones_are_named() -> None:
    a, b = bench(1.0), bench(1.0)
    b["machine"] = MACHINE | {"processor": "M1"}
    b |= {"busy": ["swap grew"], "settings": {"quick": True}, "fingerprint": "g"}
    remarks = "; ".join(comparing.compare(a, b)["remarks"])
    assert "processor: M9 in A, M1 in B" in remarks and "fingerprint: f in A, g in B" in remarks
    assert "B: swap grew" in remarks and "B is a quick bench" in remarks
    assert not comparing.compare(a, a)["remarks"]


def test_an_older_file(tmp_path: Path) -> None:
    """What both have is compared; what an older version measured otherwise is named."""
    for name, result in (("old", old()), ("new", bench(0.1, 0.1, 0.1))):
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    a, b = (figures.read(tmp_path / f"{name}.json") for name in ("old", "new"))
    found = comparing.compare(a, b)
    names = {one["name"]: one["word"] for one in found["differences"]}
    assert names["encode a question"] == "within the noise"
    assert names["load"] == names["first token, 5 memories"] == "too few runs"
    assert "compress 1 x 251 tokens" in found["only_in_a"]
    assert "compress 1 x 256 tokens" in found["only_in_b"]
    shown = "\n".join(comparing.lines(found))
    assert "older clara-mlx" in shown and "not comparable, only in A: compress 1 x 251" in shown
    written = comparing.write(found, tmp_path / "to")
    assert [file.name for file in written] == ["compare.json", "compare.md"]
    assert "| encode a question | 10 ms | 11 ms | 1.1 |" in written[1].read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a bench"),
        ("[]", "not a bench"),
        ("{}", "clara-mlx bench MODEL --to FOLDER"),
        (json.dumps(bench(1.0) | {"format": 3}), "format 3, but .* reads up to 2"),
        (json.dumps(bench(1.0) | {"format": "x"}), "format 'x'"),
    ],
)
def test_files_that_cannot_be_compared(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ClaraError, match=message):
        figures.read(tmp_path / "a.json")
    with pytest.raises(ClaraError, match="none"):
        figures.read(tmp_path / "none.json")
    with pytest.raises(ClaraError, match="damaged"):
        comparing.compare(bench(1.0) | {"compress": [{}]}, bench(1.0))
