"""The main line of `clara-mlx bench`: every part in its turn, and what can't be measured, said."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx

from clara_mlx import machine
from clara_mlx.errors import ClaraError, Progress
from clara_mlx.evaluate import verdicts
from clara_mlx.model.clara import Clara, from_folder
from clara_mlx.model.folder import ModelFolder, resolve
from clara_mlx.plan import known_macs
from clara_mlx.plan.passes import BaseShape
from clara_mlx.speed import conditions, limits
from clara_mlx.speed.answering import Answers
from clara_mlx.speed.beside_mlx_lm import measure_beside_mlx_lm
from clara_mlx.speed.compressing import measure_compression, measure_query
from clara_mlx.speed.loading import measure_loading
from clara_mlx.speed.remembering import measure_memory
from clara_mlx.speed.searching import measure_retrieval
from clara_mlx.speed.settings import Settings
from clara_mlx.speed.through_gateway import measure_gateway
from clara_mlx.version import __version__

#: Of bench.json; the first ones, of 2026-11-23 to 30, have no format.
FORMAT = 2

# Parts that say nothing new of another quantisation of the same model.
_OF_THE_FIRST = ("memory", "retrieval", "gateway")

_Figures = TypeVar("_Figures")


def measure(
    paths: Sequence[str | Path], settings: Settings, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure model folders; times are in seconds, and every figure has its runs.

    Args:
        paths: Model folders, or hub ids; all parts are measured of the first, and of the others
            what a quantisation changes.
        settings: What is measured, and how often.
        progress: Called after each figure.

    Returns:
        A dict ready for JSON: what was measured of the first model by part (None for a part that
        was not), ``others``, the ``machine``, its ``state`` at start and end, what was
        ``not_measured`` and why, and the verdicts.

    Raises:
        ClaraError: A model can't be loaded, or no length fits its chunks.
    """
    start = machine.state()
    folders = [ModelFolder.open(resolve(path)) for path in paths]
    steps = _Steps(settings, len(folders), progress)
    # Before this process has a model: the others shall have the memory to themselves.
    loads = [
        steps.take("load", partial(measure_loading, folder.path, settings.loads))
        for folder in folders
    ]
    first, *others = (
        _measure_model(str(path), folder, load, settings, steps, is_first=not number)
        for number, (path, folder, load) in enumerate(zip(paths, folders, loads, strict=True))
    )
    result = first | {
        "format": FORMAT,
        "clara_mlx": __version__,
        "machine": machine.describe(),
        "settings": asdict(settings),
        "repeats": settings.repeats,
        "gateway": steps.take("gateway", lambda: measure_gateway(settings.requests)),
        "known_macs": known_macs.limits() if "limits" in settings.parts else None,
        "others": others,
        "state": {"start": start, "end": machine.state()},
        "not_measured": steps.not_measured,
    }
    result["busy"] = conditions.find_disturbances(result["state"], result["machine"]["cores"])
    return result | {"verdicts": [asdict(verdict) for verdict in verdicts.of_bench(result)]}


class _Steps:
    """Counts what is done, and notes what can't be."""

    def __init__(self, settings: Settings, models: int, progress: Progress | None) -> None:
        self._settings = settings
        self._progress = progress
        self._done = 0
        per_model = {
            "load": 1,
            "limits": 3,
            "compress": len(settings.lengths) * len(settings.batches),
            "query": 1,
            "answer": len(settings.documents),
            "mlx-lm": 3,
        }
        once = {"memory": 1, "retrieval": 3 * len(settings.stores), "gateway": 1}
        self._total = sum(
            models * per_model.get(part, 0) + once.get(part, 0) for part in settings.parts
        )
        self.not_measured: list[dict[str, str]] = []

    def tick(self, what: str) -> None:
        """Something more is done."""
        self._done += 1
        if self._progress:
            self._progress(min(self._done, self._total), self._total, what)

    def note(self, part: str, because: str) -> None:
        """Say that something of a part can't be measured here."""
        self.not_measured.append({"part": part, "because": because})

    def take(self, part: str, measure: Callable[[], _Figures]) -> _Figures | None:
        """What a part measures; None, and a note of why, if it can't be, or was not asked for."""
        if part not in self._settings.parts:
            return None
        try:
            figures = measure()
        except ClaraError as error:
            self.note(part, str(error))
            return None
        self.tick(part)
        return figures

    def collect(self, part: str, rows: Callable[[], Any], name: str) -> list[Any] | None:
        """The rows of a part as they come, each a step of the progress."""

        def collected() -> list[Any]:
            found = []
            for row in rows():
                found.append(row)
                self.tick(f"{part} {row[name]}")
            self._done -= 1  # `take` counts one of them
            return found

        return self.take(part, collected)


def _measure_model(
    name: str,
    folder: ModelFolder,
    load: dict[str, Any] | None,
    settings: Settings,
    steps: _Steps,
    *,
    is_first: bool,
) -> dict[str, Any]:
    """Everything that is measured of one model, which is given back afterwards."""
    gc.collect()  # a model's adapters and layers know each other
    mx.clear_cache()
    clara = from_folder(folder)
    limit = clara.chunk_tokens
    too_long = [length for length in settings.lengths if length > limit]
    fitting = tuple(length for length in settings.lengths if length <= limit)
    if not fitting:
        raise ClaraError(f"no length fits into a chunk, which holds {limit} tokens in this model")
    settings = replace(settings, lengths=fitting)
    if not is_first:
        left = tuple(part for part in settings.parts if part not in _OF_THE_FIRST)
        settings = replace(settings, parts=left)
    dtype = clara.network.model.embed_tokens.rows.dtype
    base = BaseShape.from_config(
        folder.base_config, rank=clara.config.lora_r, itemsize=folder.dtype.size
    )
    scheme = folder.base_config.get("quantization")
    compute_dtype = str(dtype).removeprefix("mlx.core.")
    own = dict(scheme) if scheme else {"dtype": compute_dtype}
    result: dict[str, Any] = {
        "model": name,
        "fingerprint": clara.fingerprint,
        "quantization": folder.description["quantization"],
        "compute_dtype": compute_dtype,
        "stored_dtype": str(folder.dtype).removeprefix("mlx.core."),
        "doc_max_length": limit,
        "memory_tokens": clara.config.memory_tokens,
        "left_out_lengths": too_long,
        "load": load,
    }
    for length in too_long:
        steps.note("compress", f"{length} tokens exceed this model's chunks of {limit}")
    result["limits"] = steps.take(
        "limits", lambda: limits.measure_limits(clara, own, base, settings, steps.tick)
    )
    mx.clear_cache()
    mx.reset_peak_memory()  # the matrices of the limits are not the model's
    square = machine.matmul_flops(dtype)
    found = result["limits"]
    result["matmul_flops"] = max(square, found["flops"]) if found else square
    result["compress"] = steps.collect(
        "compress",
        lambda: measure_compression(clara, settings, base, result["matmul_flops"]),
        "chunk_tokens",
    )
    result["query"] = steps.take("query", lambda: measure_query(clara, settings))
    result["answer"] = steps.collect(
        "answer", lambda: Answers(clara, settings).measure(), "documents"
    )
    _note_what_does_not_fit(result, clara, steps)
    for adapter in clara.adapters:
        clara.lora.tensors(adapter)
    result["memory"] = {
        "array_bytes_with_adapters": mx.get_active_memory(),
        "peak_array_bytes": mx.get_peak_memory(),
        "resident_bytes": machine.resident_bytes(),
        "peak_resident_bytes": machine.peak_resident_bytes(),
    }
    result["mlx_lm"] = steps.take(
        "mlx-lm", lambda: measure_beside_mlx_lm(clara, folder.path, settings, steps.tick)
    )
    result["memory_file"] = None
    if settings.outputs and is_first:
        result["memory_file"] = steps.take(
            "memory", lambda: measure_memory(clara, settings.outputs)
        )
    result["retrieval"] = None
    if settings.stores and is_first:
        result["retrieval"] = steps.collect(
            "retrieval", lambda: measure_retrieval(clara, settings), "chunks"
        )
    result["passes"] = list(limits.passes(result, clara, base)) if found else None
    result["targets"] = conditions.targets_within_limit(result, clara, base) if found else None
    return result


def _note_what_does_not_fit(result: dict[str, Any], clara: Clara, steps: _Steps) -> None:
    """Say which prompts exceed the decoder's window, and which lengths rounded differently."""
    window = clara.config.window
    for row in result["answer"] or []:
        for way, read in (("memories", row), ("the same documents as text", row["text"])):
            if "first_token_seconds" not in read:
                steps.note(
                    "answer",
                    f"{row['documents']} {way}: {read['positions']:,} positions, but the window "
                    f"has {window:,}",
                )
    for asked, there in {
        row["asked_tokens"]: row["chunk_tokens"]
        for row in result["compress"] or []
        if row["asked_tokens"] != row["chunk_tokens"]
    }.items():
        steps.note("compress", f"no text was found with {asked} tokens; {there} stands for it")
