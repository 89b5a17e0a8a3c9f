"""What a user wants to know of a report: the question, yes or no, and the figures that say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

#: The goals, as users state them.
MOST_GIGABYTES = 8.0  # of a loaded model, in 10^9 bytes
MOST_CHUNK_SECONDS = 0.1  # to compress one document: a full chunk
MOST_SEARCH_SECONDS = 0.02  # to find the ten best; their goal is 10 to 20 ms

Word = Literal["yes", "no", "open"]


@dataclass(frozen=True)
class Verdict:
    """An answer to one of the user's questions.

    Attributes:
        question: The question, in a user's words.
        word: ``yes``, ``no``, or ``open`` where the figures don't say.
        because: The figures, in one sentence; for ``no`` also what is possible here.
    """

    question: str
    word: Word
    because: str


def of_bench(result: dict[str, Any]) -> list[Verdict]:
    """The verdicts of what `speed.measure` measured."""
    return [_loads(result), _compresses(result), *_searches(result)]


def table_of(verdicts: Sequence[Verdict]) -> Table:
    """Verdicts as a table for people."""
    from rich.table import Table

    table = Table("your question", "", "because", title="Verdict", title_justify="left")
    for verdict in verdicts:
        table.add_row(verdict.question, verdict.word, verdict.because)
    return table


def _word(holds: bool) -> Word:
    return "yes" if holds else "no"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.{1 if seconds < 0.1 else 0}f} ms"


def _loads(result: dict[str, Any]) -> Verdict:
    memory = result["memory"]
    gigabytes = memory["array_bytes_with_adapters"] / 1e9
    return Verdict(
        f"Does it load in less than {MOST_GIGABYTES:g} GB?",
        _word(gigabytes < MOST_GIGABYTES),
        f"{gigabytes:.3g} GB of arrays with all adapters used here, at most "
        f"{memory['peak_array_bytes'] / 1e9:.3g} GB while it works",
    )


def _compresses(result: dict[str, Any]) -> Verdict:
    """Whether a full chunk takes less than the goal, and if not, what this machine could do."""
    longest = max(row["chunk_tokens"] for row in result["compress"])
    rows = [row for row in result["compress"] if row["chunk_tokens"] == longest]
    alone = min(rows, key=lambda row: row["batch"])
    best = min(rows, key=lambda row: row["seconds_per_chunk"])
    because = f"a chunk of {longest} tokens takes {_milliseconds(alone['seconds_per_chunk'])} alone"
    if best is not alone:
        because += f", {_milliseconds(best['seconds_per_chunk'])} in a batch of {best['batch']}"
    holds = alone["seconds_per_chunk"] < MOST_CHUNK_SECONDS
    if not holds:
        limit = min(row["seconds_per_chunk"] * row["share_of_matmul_peak"] for row in rows)
        within = "within" if limit < MOST_CHUNK_SECONDS else "beyond"
        because += (
            f"; at all of this machine's measured {result['matmul_flops'] / 1e9:,.0f} GFLOP/s it "
            f"would take {_milliseconds(limit)}, so the goal is {within} its limit"
        )
    question = f"Is a document compressed in less than {1e3 * MOST_CHUNK_SECONDS:g} ms?"
    return Verdict(question, _word(holds), because)


def _searches(result: dict[str, Any]) -> Iterator[Verdict]:
    found = result.get("memory_file")
    if not found:
        return
    recall = {row["mode"]: row for row in found["recall"]}
    hybrid, text = recall["hybrid"], recall["text"]
    yield Verdict(
        f"Are the ten best found in 10 to {1e3 * MOST_SEARCH_SECONDS:g} ms?",
        _word(hybrid["p95_seconds"] <= MOST_SEARCH_SECONDS),
        f"{_milliseconds(hybrid['seconds'])} with the question's encoding (p95 "
        f"{_milliseconds(hybrid['p95_seconds'])}), by words alone {_milliseconds(text['seconds'])} "
        f"(p95 {_milliseconds(text['p95_seconds'])}), in a memory of {found['chunks']:,} chunks",
    )
