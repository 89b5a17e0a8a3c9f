"""Compressors side by side: the same outputs and questions for all, each in its own process."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clara_mlx import machine
from clara_mlx.compressors import registry
from clara_mlx.errors import ClaraError, Progress
from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.contender import Contender, label_of, tokens_of
from clara_mlx.evaluate.contender_process import measure_apart
from clara_mlx.evaluate.exam import KEPT, Exam
from clara_mlx.evaluate.sets import ProbeSet
from clara_mlx.model.folder import compressor_of, resolve
from clara_mlx.version import __version__

#: Format number of a comparison; a reader refuses a higher one.
FORMAT = 1

#: The words of the tables, as a report prints them.
DEFINITIONS = {
    "kept": KEPT,
    "in place": (
        "Made before anybody asks: the shorter text, or the answer that the compressor's own "
        "decoder gives from the vectors of the whole output."
    ),
    "asked": (
        "One call away, made for the question: a shorter text of the same budget, or what a "
        "memory answers from the best chunk, or the best five, of that output (`ask`)."
    ),
    "read": (
        "The answer that the latent compressor's own decoder gives when it reads the text made for "
        "the question in place of its vectors, in as many positions."
    ),
    "rate": (
        "Tokens of the outputs, as the reasoner counts them, for each token or position that "
        "stands in their place. A latent compressor has one rate; the others are measured at its "
        "positions, too, counted by its tokenizer."
    ),
    "stored": (
        "Bytes for each byte of the outputs, beside the originals: of a memory's file, and of the "
        "shorter texts at the first and the last rate."
    ),
    "interval": (
        metrics.DEFINITIONS["interval"].removesuffix("A single document has no interval.")
        + "Here questions about a single output count as one."
    ),
}


@dataclass(frozen=True)
class Extent:
    """The extent of a comparison.

    Attributes:
        recorded: A file of recorded outputs with questions, see bench/README.md.
        rates: Rates at which texts are made shorter.
        longest: Longest output in characters; the questions about longer ones are counted, and
            left out. None takes all.
        max_tokens: Largest number of tokens in an answer.
        tokenizer: A folder with the reasoner's tokenizer; without it a token is four characters.
    """

    recorded: Path | None = None
    rates: tuple[float, ...] = (4, 8, 16)
    longest: int | None = None
    max_tokens: int = 48
    tokenizer: str | None = None


def compare(
    names: Sequence[str],
    sets: Iterable[ProbeSet],
    extent: Extent,
    *,
    mechanics: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure compressors, and return the report as a dict that is ready for JSON.

    Args:
        names: Model folders, hub ids or registered names. A textual compressor is also measured at
            the positions of every latent one that is measured after it; registered names are
            measured first.
        sets: The sets of probes.
        extent: What else is measured, and how.
        mechanics: The same, of compressors whose weights are not trained: only their speed and
            bytes are measured.
        progress: Called as the work goes on.

    Raises:
        ClaraError: There is no such compressor, no question, or one of the compressors fails.
    """
    _check(names, mechanics)
    tokens_of(extent.tokenizer)  # or it fails here, before anything that takes long
    exam = Exam()
    for probes in sets:
        exam.add_set(probes, extent.longest)
    if extent.recorded is not None:
        exam.add_recorded(extent.recorded, extent.longest)
    if not exam.questions:
        raise ClaraError("there is no question to ask; name sets, --recorded FILE, or --longest")
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="clara-mlx-") as scratch:
        file = Path(scratch) / "exam.json"
        file.write_text(json.dumps(exam.to_json()), encoding="utf-8")
        for name in sorted((*names, *mechanics), key=lambda one: one not in registry.names()):
            contender = Contender(
                name,
                name not in mechanics,
                tuple(one for one, each in found.items() if _is_rival(each)),
                extent.rates,
                extent.max_tokens,
                extent.tokenizer,
            )
            began = time.perf_counter()
            found[name] = measure_apart(contender, file, _labelled(progress, label_of(name)))
            found[name]["seconds"] = time.perf_counter() - began
    return {
        "format": FORMAT,
        "clara_mlx": __version__,
        "machine": machine.describe(),
        "load": os.getloadavg(),
        "libraries": {name: version(name) for name in ("mlx", "mlx-lm", "numpy", "tokenizers")},
        "extent": asdict(extent) | {"recorded": extent.recorded and extent.recorded.name},
        "definitions": DEFINITIONS,
        "sets": exam.describe(),
        "compressors": [found[name] for name in (*names, *mechanics)],
    }


def _check(names: Sequence[str], mechanics: Sequence[str]) -> None:
    every = (*names, *mechanics)
    if not every:
        raise ClaraError("name at least one compressor")
    if len({label_of(name) for name in every}) < len(every):
        raise ClaraError(f"a compressor was named twice: {', '.join(every)}")
    for name in every:
        if name in registry.names() and not Path(name).exists():
            registry.find(name)
        else:
            registry.find(compressor_of(resolve(name)))


def _is_rival(found: dict[str, Any]) -> bool:
    return found["kind"] == "textual" and bool(found["trained"])


def _labelled(progress: Progress | None, label: str) -> Progress | None:
    """Progress that says which compressor is measured."""
    if progress is None:
        return None
    report = progress
    return lambda done, total, what="", /: report(done, total, f"{label}: {what}")
