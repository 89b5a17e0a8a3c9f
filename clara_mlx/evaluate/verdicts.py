"""What a user wants to know of a report: the question, yes or no, and the figures that say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, log10
from typing import TYPE_CHECKING, Any, Literal

from clara_mlx.evaluate.tables import find_retention, percent

if TYPE_CHECKING:
    from rich.table import Table

#: The goals, as users state them.
MOST_GIGABYTES = 8.0  # of a loaded model, in 10^9 bytes
MOST_CHUNK_SECONDS = 0.1  # to compress one document: a full chunk
MOST_SEARCH_SECONDS = 0.02  # to find the ten best; their goal is 10 to 20 ms
RATE = 16  # source tokens for each memory token
MOST_LOST = 0.1  # of what the same decoder answers from the text
LEAST_RECALL = 0.95  # of the questions, with the relevant chunk among the ten best
MOST_CONTEXT = 0.5  # positions for each one that the text takes

# The questions, in the order of both reports.
_LOADS = f"Does it load in less than {MOST_GIGABYTES:g} GB?"
_COMPRESSES = f"Is a document compressed in less than {1e3 * MOST_CHUNK_SECONDS:g} ms?"
_SEARCHES = f"Are the ten best found in 10 to {1e3 * MOST_SEARCH_SECONDS:g} ms?"
_KEEPS = f"Is less than {MOST_LOST:.0%} lost at {RATE}x?"
_FINDS = f"Are the right ones found: recall above {LEAST_RECALL:.0%}?"
_SHORTENS = f"Is the context shorter by {1 - MOST_CONTEXT:.0%}?"

# Chunks end with lines, so that even long outputs do not fill them to the last token.
_FILLED = 0.9  # of the rate: from here on it counts as reached

# So many times the probes would take days: the figure is too close to the goal for any number.
_MOST_MORE = 100

# What the decoder reads: what stands for a chunk, and the chunk.
_WAYS = ("latents", "text")

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
    """The verdicts of what `speed.measure` measured; what only an evaluation says stays open."""
    elsewhere = "`clara-mlx evaluate MODEL` measures this"
    others = [Verdict(question, "open", elsewhere) for question in (_KEEPS, _FINDS, _SHORTENS)]
    return [_loads(result), _compresses(result), _searches(result), *others]


def of_evaluation(report: dict[str, Any]) -> list[Verdict]:
    """The verdicts of a report of `run.evaluate` on its first model.

    ``yes`` and ``no`` need a whole 95% interval on one side of the goal: ``yes`` in every set,
    ``no`` in any. What only `speed.measure` says stays open.
    """
    elsewhere = "`clara-mlx bench MODEL` measures this"
    others = [Verdict(question, "open", elsewhere) for question in (_LOADS, _COMPRESSES, _SEARCHES)]
    return [_keeps(report), _finds(report), _shortens(report), *others]


def table_of(verdicts: Sequence[Verdict]) -> Table:
    """Verdicts as a table for people."""
    from rich.table import Table

    table = Table("your question", "", "because", title="Verdict", title_justify="left")
    for verdict in verdicts:
        table.add_row(verdict.question, verdict.word, verdict.because)
    return table


def to_markdown(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as a list."""
    lines = (f"- {one.question} **{one.word}**: {one.because}" for one in verdicts)
    return "\n".join(["**Verdict**", "", *lines])


def _word(holds: bool) -> Word:
    return "yes" if holds else "no"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.{1 if seconds < 0.1 else 0}f} ms"


def _loads(result: dict[str, Any]) -> Verdict:
    memory = result["memory"]
    gigabytes = memory["array_bytes_with_adapters"] / 1e9
    return Verdict(
        _LOADS,
        _word(gigabytes < MOST_GIGABYTES),
        f"{gigabytes:.3g} GB of arrays with all adapters used here, at most "
        f"{memory['peak_array_bytes'] / 1e9:.3g} GB while it works",
    )


def _compresses(result: dict[str, Any]) -> Verdict:
    """Whether a full chunk takes less than the goal, and if not, what this machine could do."""
    if not result["compress"]:
        return Verdict(_COMPRESSES, "open", "compressing was not measured")
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
    full: int = result["doc_max_length"]
    if holds and max(row["asked_tokens"] for row in rows) < full:
        because += f"; a full chunk has up to {full} tokens, which `--lengths {full}` measures"
        return Verdict(_COMPRESSES, "open", because)
    return Verdict(_COMPRESSES, _word(holds), because)


def _searches(result: dict[str, Any]) -> Verdict:
    rows, chunks = _largest_memory(result)
    if not rows:
        return Verdict(_SEARCHES, "open", "no memory was measured; `--outputs 40` measures one")
    recall = {row["mode"]: row for row in rows}
    hybrid, text = recall["hybrid"], recall["text"]
    return Verdict(
        _SEARCHES,
        _word(hybrid["p95_seconds"] <= MOST_SEARCH_SECONDS),
        f"{_milliseconds(hybrid['seconds'])} with the question's encoding (p95 "
        f"{_milliseconds(hybrid['p95_seconds'])}), by words alone {_milliseconds(text['seconds'])} "
        f"(p95 {_milliseconds(text['p95_seconds'])}), in a memory of {chunks:,} chunks",
    )


def _largest_memory(result: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The searches of the largest memory that was measured, and its chunks; none if none was."""
    if retrieval := result.get("retrieval"):
        chunks = max(row["chunks"] for row in retrieval)
        return [row for row in retrieval if row["chunks"] == chunks], chunks
    found = result.get("memory_file")
    return (found["recall"], found["chunks"]) if found else ([], 0)


def _keeps(report: dict[str, Any]) -> Verdict:
    """Whether little enough is lost, and at which rate, as outputs may not fill their chunks."""
    words: list[Word] = []
    reasons = []
    not_full = []
    for name in report["sets"]:
        gap = _latents_against_text(report, name)
        if gap is None or gap.get("kept") is None:
            words.append("open")
            reasons.append(f"{name}: {_why_not(gap)}")
            continue
        rate, kept = _rate(report, name), gap["kept"]
        word = _judge(kept, 1 - MOST_LOST)
        reason = f"{name} at {rate:.1f}x: {_lost(kept)} of the {_from_text(report, name)}"
        full = rate >= _FILLED * RATE
        if word == "open" and (full or kept["mean"] <= 1 - MOST_LOST):
            reason += f", {_more(kept, 1 - MOST_LOST, gap['probes'])}"
        if not full:
            not_full.append(name)
            word = "open" if word == "yes" else word
        words.append(word)
        reasons.append(reason)
    sentences = ["Lost of what the same decoder answers from the text: " + "; ".join(reasons)]
    if not_full:
        why = _why_less(report["models"][0])
        which = "" if len(not_full) == len(report["sets"]) else f" by {_listed(not_full)}"
        sentences.append(f"{RATE}x is not reached{which}, as {why}")
    return Verdict(_KEEPS, _all_of(words), ". ".join(sentences))


def _latents_against_text(report: dict[str, Any], name: str) -> dict[str, Any] | None:
    model = report["models"][0]["name"]
    for entry in report["differences"]:
        of, minus = ({"model": model, "method": way} for way in _WAYS)
        if (entry["set"], entry["of"], entry["minus"]) == (name, of, minus):
            return dict(entry)
    return None


def _why_not(gap: dict[str, Any] | None) -> str:
    if gap is None or "kept" not in gap:
        return "not in this report; evaluate again (answers that are there are not asked again)"
    return "nothing is answered exactly even from the text, so nothing can be lost"


def _why_less(model: dict[str, Any]) -> str:
    tokens, memory_tokens = model["doc_max_length"], model["memory_tokens"]
    if tokens < RATE * memory_tokens:
        return f"this model makes {memory_tokens} memory tokens of {tokens} tokens"
    return f"these texts do not fill chunks of {tokens} tokens"


def _lost(kept: dict[str, Any]) -> str:
    """What is lost, in percent; less than nothing where latents answer more than the text."""
    lost = f"{100 * (1 - kept['mean']):.1f}%"
    if kept["low"] is None:
        return f"{lost} (one document: no interval)"
    return f"{lost} ({100 * (1 - kept['high']):.1f} to {100 * (1 - kept['low']):.1f})"


def _from_text(report: dict[str, Any], name: str) -> str:
    """What the decoder answers from the text: of little, little can be lost."""
    entry = find_retention(report, report["models"][0]["name"], name, "text")
    return f"{100 * entry['all']['exact']['mean']:.1f}%" if entry else "text"


def _rate(report: dict[str, Any], name: str) -> float:
    """Source tokens for each memory token, over all probes of a set."""
    latents, text = _positions(report, name)
    memory_tokens: int = report["models"][0]["memory_tokens"]
    return text / (latents * memory_tokens / (memory_tokens + 1))  # a chunk has one <SEP> more


def _positions(report: dict[str, Any], name: str) -> tuple[float, float]:
    """Mean decoder positions of latents and of the text they stand for."""
    found = (find_retention(report, report["models"][0]["name"], name, way) for way in _WAYS)
    latents, text = (float(entry["positions"]) if entry else 0.0 for entry in found)
    return latents, text


def _finds(report: dict[str, Any]) -> Verdict:
    memory = report["memory"]
    if not memory:
        return Verdict(_FINDS, "open", "no probe makes a question that only one document answers")
    total = memory["recall"]["hybrid"]["all"]
    found = total["10"]
    word = _judge(found, LEAST_RECALL)
    because = (
        f"The relevant chunk is among the ten best of {memory['chunks']:,} for "
        f"{_share(found)} of {total['queries']:,} questions"
    )
    if word == "open":
        because += f"; {_more(found, LEAST_RECALL, total['queries'], 'questions')}"
    return Verdict(_FINDS, word, because)


def _share(estimate: dict[str, Any]) -> str:
    mean, *interval = percent(estimate).split(" ", 1)
    return " ".join([f"{mean}%", *interval])


def _shortens(report: dict[str, Any]) -> Verdict:
    words: list[Word] = []
    reasons = []
    for name in report["sets"]:
        latents, text = _positions(report, name)
        words.append(_word(latents <= MOST_CONTEXT * text))
        change = f"{latents / text - 1:+.0%}" if text else "no text"
        reasons.append(f"{name} {latents:.1f} for {text:.1f} ({change})")
    because = (
        f"Positions of chunks in the decoder's prompt: {'; '.join(reasons)}. What whole "
        "conversations save: `clara-mlx stats`"
    )
    return Verdict(_SHORTENS, _all_of(words), because)


def _judge(estimate: dict[str, Any], goal: float) -> Word:
    """Whether a figure is above a goal: only what its whole interval says."""
    if estimate["low"] is None:
        return "open"
    if estimate["low"] > goal:
        return "yes"
    return "no" if estimate["high"] <= goal else "open"


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def _all_of(words: Sequence[Word]) -> Word:
    if "no" in words:
        return "no"
    return "yes" if set(words) == {"yes"} else "open"


def _more(estimate: dict[str, Any], goal: float, number: int, what: str = "probes") -> str:
    """How many more probes would probably say it, if they were like those that were asked.

    An interval shrinks with the square root of their number.
    """
    mean, low, high = (estimate[part] for part in ("mean", "low", "high"))
    if low is None:
        return f"{what} about more documents would say"
    half = mean - low if mean > goal else high - mean
    distance = abs(mean - goal)
    if half > distance * _MOST_MORE**0.5:
        return f"too close to {goal:.0%} for any number of {what} to say"
    more = ceil(number * ((half / distance) ** 2 - 1))
    places = 10 ** max(0, int(log10(max(more, 1))) - 1)  # two digits say enough
    return f"about {max(places, ceil(more / places) * places):,} more {what} would say"
