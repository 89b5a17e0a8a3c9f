"""The figures of a bench.json by their names, whichever clara-mlx wrote it, ready to compare."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError, reason
from clara_mlx.speed.grids import stored_as
from clara_mlx.speed.run import FORMAT


@dataclass(frozen=True)
class Figure:
    """One figure with its runs.

    Attributes:
        part: The part of the bench that it belongs to; ``machine`` for the machine's own rates.
        name: What was measured, the same in every bench.
        unit: ``s``, ``bytes``, ``x`` (a ratio), or ``/s``, of which more is better.
        median: The figure itself.
        runs: What each run gave; empty if the file does not have them.
    """

    part: str
    name: str
    unit: str
    median: float
    runs: tuple[float, ...] = ()

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self.unit == "/s"


def read(file: Path) -> dict[str, Any]:
    """Read a bench.json of this or an older version.

    Raises:
        ClaraError: The file can't be read, is not a bench, or has a newer format than this one.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClaraError(f"{file}: {reason(error)}") from error
    except (ValueError, RecursionError) as error:
        raise ClaraError(f"{file}: not a bench: {error}") from error
    if not isinstance(result, dict) or not {"machine", "compress", "load"} <= result.keys():
        raise ClaraError(f"{file}: not a bench; `clara-mlx bench MODEL --to FOLDER` writes one")
    written = result.get("format", 1)
    if type(written) is not int or written > FORMAT:
        raise ClaraError(
            f"{file}: format {written!r:.40}, but this clara-mlx reads up to {FORMAT}; update it"
        )
    return result


def figures_of(result: dict[str, Any]) -> dict[str, Figure]:
    """The figures of a bench by their names; those of other models than the first say which.

    Raises:
        ClaraError: The bench is damaged.
    """
    try:
        found = list(_of_model(result))
        found += [
            _timed("gateway", _request(row), row["added"]) for row in _rows(result, "gateway")
        ]
        for other in result.get("others") or []:
            found += [
                Figure(one.part, f"{one.name} ({stored_as(other)})", *_values(one))
                for one in _of_model(other)
            ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ClaraError(f"a bench is damaged: {error!r}") from error
    return {one.name: one for one in found}


def _values(figure: Figure) -> tuple[str, float, tuple[float, ...]]:
    return figure.unit, figure.median, figure.runs


def _of_model(model: dict[str, Any]) -> Iterator[Figure]:
    """Yield what was measured of one model."""
    if load := model["load"]:
        yield _timed("load", "load", load)
        for name in ("array_bytes", "array_bytes_with_adapters", "peak_resident_bytes"):
            if name in load:
                words = name.replace("_", " ")
                yield Figure("load", f"load: {words}", "bytes", load[name])
    for row in _rows(model, "compress"):
        name = f"compress {row['batch']} x {row['chunk_tokens']} tokens"
        yield _timed("compress", name, row)
    if model.get("query"):
        yield _timed("query", "encode a question", model["query"])
    for row in _rows(model, "answer"):
        count = row["documents"]
        yield from _answer("1 memory" if count == 1 else f"{count} memories", row)
        if "text" in row:
            yield from _answer(f"{count} document{'s' * (count > 1)} as text", row["text"])
    yield from _beside(model.get("mlx_lm") or {})
    yield from _memory(model.get("memory_file") or {})
    for row in _rows(model, "retrieval"):
        yield _timed("retrieval", f"search {row['chunks']} chunks, {row['mode']}", row)
    if peak := model.get("matmul_flops"):
        yield Figure("machine", "the machine: operations", "/s", peak)
    if found := model.get("limits"):
        yield Figure("machine", "the machine: bytes read", "/s", found["bytes_per_second"])


def _rows(model: dict[str, Any], part: str) -> list[dict[str, Any]]:
    return model.get(part) or []


def _timed(part: str, name: str, row: dict[str, Any]) -> Figure:
    """A time, whose runs an old file does not always have."""
    return Figure(part, name, "s", row["seconds"], tuple(row.get("all_seconds") or ()))


def _answer(read: str, row: dict[str, Any]) -> Iterator[Figure]:
    if row.get("first_token_seconds") is not None:
        runs = tuple(row.get("all_first_token_seconds") or ())
        yield Figure("answer", f"first token, {read}", "s", row["first_token_seconds"], runs)
    if row.get("tokens_per_second") is not None:
        runs = tuple(row.get("all_tokens_per_second") or ())
        yield Figure("answer", f"tokens, {read}", "/s", row["tokens_per_second"], runs)


def _beside(found: dict[str, Any]) -> Iterator[Figure]:
    """Yield CLaRa's times over mlx-lm's for each token, run by run, and mlx-lm's own.

    The ratios hold where the machine was not equally busy; its own times show how busy it was.
    """
    for row in found.get("prefill") or []:
        texts = f"{row['batch']} x {row['chunk_tokens']} tokens"
        ours, theirs = row["clara"], row["mlx-lm"]
        scale = theirs["tokens"] / ours["tokens"]
        pairs = zip(ours["all_seconds"], theirs["all_seconds"], strict=True)
        runs = tuple(scale * one / other for one, other in pairs)
        name = f"encode / mlx-lm's prefill, {texts}"
        yield Figure("mlx-lm", name, "x", row["clara_over_mlx_lm"], runs)
        yield _timed("machine", f"mlx-lm prefills {texts}", theirs)
    if ratio := (decode := found.get("decode") or {}).get("clara_over_mlx_lm"):
        rates = (decode[name]["all_tokens_per_second"] for name in ("mlx-lm", "clara"))
        runs = tuple(theirs / ours for theirs, ours in zip(*rates, strict=True))
        yield Figure("mlx-lm", "a token of an answer / mlx-lm's", "x", ratio, runs)


def _memory(found: dict[str, Any]) -> Iterator[Figure]:
    if not found:
        return
    yield _timed("memory", "remember", found["remember"])
    for row in found["recall"]:
        yield _timed("memory", f"recall, {row['mode']}", row)
    yield _timed("memory", "ask", found["ask"])
    for row in found.get("remember_to_recall") or []:
        yield _timed("memory", f"remember to recall, {row['mode']}", row)


def _request(row: dict[str, Any]) -> str:
    return f"gateway adds, {row['request']}{', streamed' if row['streamed'] else ''}"
