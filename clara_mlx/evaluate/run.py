"""One evaluation, from models and sets to a report as a dict that is ready for JSON."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clara_mlx import machine
from clara_mlx.errors import ClaraError, Progress
from clara_mlx.evaluate import metrics, retrieval, sets, verdicts
from clara_mlx.evaluate.answer_cache import AnswerCache
from clara_mlx.evaluate.cases import MOST_CHUNKS
from clara_mlx.evaluate.retention import METHODS, Outcomes, Reader, compare
from clara_mlx.evaluate.sets import SETS, ProbeSet
from clara_mlx.model.clara import Clara, from_folder
from clara_mlx.model.folder import ModelFolder, resolve
from clara_mlx.version import __version__

#: Format number of a report; a reader refuses a higher one.
FORMAT = 1

#: Methods for the second and further models; the first model is asked by all methods.
COMPARED_METHODS = ("latents", "text")


@dataclass(frozen=True)
class Settings:
    """The extent of an evaluation.

    Attributes:
        sets: Names of `SETS`; ``own`` needs ``probes``.
        probes: The file of the user's own probes.
        per_tool: Generated outputs of each tool; there are a quarter as many long outputs, twice as
            many brief ones, and five times as many of the left-out tool.
        chunks: Smallest number of chunks in the memory that is searched.
        queries: Largest number of queries to that memory from each set.
        most: Largest number of documents of a set, spread evenly over it; None for all.
        max_tokens: Largest number of tokens in an answer.
        seed: Seed of everything that is drawn at random.
    """

    sets: tuple[str, ...] = ("brief", "held-out", "long", "left-out", "captured")
    probes: Path | None = None
    per_tool: int = 40
    chunks: int = 5000
    queries: int = 200
    most: int | None = None
    max_tokens: int = 48
    seed: int = 0


#: Enough to see that everything works, and no more.
QUICK = Settings(per_tool=1, chunks=200, queries=20, most=20)


def evaluate(
    paths: Sequence[str | Path],
    folder: Path,
    settings: Settings,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate model folders; the report is about the first, and compares the others with it.

    Each answer is kept in ``folder/answers.jsonl`` at once, and not asked for again.

    Raises:
        ClaraError: There is no such set or model, or the probes are not usable.
    """
    chosen = probe_sets(settings)  # before anything that takes long
    folders = {_name(path, paths): ModelFolder.open(resolve(path)) for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    cache = AnswerCache(folder / "answers.jsonl")
    seconds: dict[str, float] = {}
    outcomes: list[Outcomes] = []
    memory: dict[str, Any] = {}
    first = next(iter(folders))
    for name, opened in folders.items():
        started = time.perf_counter()
        clara = from_folder(opened)
        methods = METHODS if name == first else COMPARED_METHODS
        for probes in chosen:
            reader = Reader(name, clara, probes, progress)
            if not reader.cases:
                raise ClaraError(
                    f"no probe of the set {probes.name!r} has its evidence in {MOST_CHUNKS} chunks "
                    "or fewer"
                )
            outcomes += [reader.ask(method, cache, settings.max_tokens) for method in methods]
        seconds[name] = time.perf_counter() - started
        if name == first:
            started = time.perf_counter()
            memory = _measure_memory(clara, chosen, settings, progress)
            seconds["memory"] = time.perf_counter() - started
        del clara  # before the next one is loaded
    asked = {outcome.set: len(outcome.cases) for outcome in outcomes if outcome.model == first}
    report = {
        "format": FORMAT,
        "clara_mlx": __version__,
        "machine": machine.describe(),
        "libraries": {name: version(name) for name in ("mlx", "mlx-lm", "numpy", "tokenizers")},
        "settings": asdict(settings) | {"probes": settings.probes and settings.probes.name},
        "definitions": metrics.DEFINITIONS,
        "methods": METHODS,
        "models": [_describe_model(name, opened) for name, opened in folders.items()],
        "sets": {
            probes.name: probes.to_dict() | {"left_out": probes.probes - asked[probes.name]}
            for probes in chosen
        },
        "retention": [outcome.to_dict() for outcome in outcomes],
        "differences": [compare(a, b) for a, b in _pairs(outcomes)],
        "memory": memory,
        "answers_reused": cache.reused,
        "seconds": seconds,
    }
    return report | {"verdicts": [asdict(verdict) for verdict in verdicts.of_evaluation(report)]}


def probe_sets(settings: Settings) -> list[ProbeSet]:
    """The sets that the settings name, each with the number of documents they ask for.

    Raises:
        ClaraError: There is no such set, or the user's probes are not usable.
    """
    wanted = [*settings.sets, *(["own"] if settings.probes else [])]
    unknown = [name for name in wanted if name not in SETS]
    if unknown or not wanted:
        raise ClaraError(f"no set {', '.join(unknown)!r}; choose from {', '.join(SETS)}")
    outputs_per_tool = {
        "brief": 2 * settings.per_tool,
        "held-out": settings.per_tool,
        "long": max(1, settings.per_tool // 4),
        "left-out": 5 * settings.per_tool,
    }
    chosen = []
    for name in dict.fromkeys(wanted):
        if name in outputs_per_tool:
            chosen.append(sets.generate_set(name, settings.seed, outputs_per_tool[name]))
        elif name == "captured":
            chosen.append(sets.read_captured_set())
        elif settings.probes is None:
            raise ClaraError("the set 'own' needs --probes FILE")
        else:
            chosen.append(sets.read_own_set(settings.probes))
    return [_thin_out(probes, settings.most) for probes in chosen]


def _thin_out(probes: ProbeSet, most: int | None) -> ProbeSet:
    step = 1 if most is None else -(-len(probes.outputs) // most)
    return ProbeSet(probes.name, probes.outputs[::step])


def _name(path: str | Path, paths: Sequence[str | Path]) -> str:
    """The last part of a model's path, or the whole path if another one ends in the same way."""
    names = [Path(other).name for other in paths]
    if len(set(map(str, paths))) < len(paths):
        raise ClaraError(f"a model was named twice: {', '.join(map(str, paths))}")
    return str(path) if names.count(Path(path).name) > 1 else Path(path).name


def _measure_memory(
    clara: Clara, chosen: Sequence[ProbeSet], settings: Settings, progress: Progress | None
) -> dict[str, Any]:
    """Search and ask a memory in a temporary folder; empty if no probe makes a query."""
    haystack = retrieval.Haystack(chosen, clara, settings.chunks, settings.queries, settings.seed)
    if not haystack.queries:
        return {}
    with tempfile.TemporaryDirectory(prefix="clara-mlx-") as scratch:
        return retrieval.measure(
            haystack,
            clara,
            Path(scratch) / "memory.db",
            max_tokens=settings.max_tokens,
            progress=progress,
        )


def _describe_model(name: str, opened: ModelFolder) -> dict[str, Any]:
    """Everything that identifies a model: its fingerprint and the SHA-256 of all its files."""
    digest = hashlib.sha256()
    files = sorted(path for path in opened.path.rglob("*") if path.is_file())
    for file in files:
        with file.open("rb") as content:
            of_file = hashlib.file_digest(content, "sha256").hexdigest()
        digest.update(f"{file.relative_to(opened.path)} {of_file}\n".encode())
    config = opened.config
    return {
        "name": name,
        "fingerprint": opened.fingerprint,
        "sha256": digest.hexdigest(),
        "quantization": opened.description["quantization"],
        "dtype": opened.description["dtype"],
        "adapters": list(opened.adapters),
        "doc_max_length": config.doc_max_length,
        "memory_tokens": config.memory_tokens,
        "hidden_size": config.hidden_size,
    }


def _pairs(outcomes: Sequence[Outcomes]) -> Iterator[tuple[Outcomes, Outcomes]]:
    """Pairs to compare: every method with the text, codecs with latents, models with the first."""
    known = {(outcome.model, outcome.set, outcome.method): outcome for outcome in outcomes}
    first = outcomes[0].model
    for outcome in outcomes:
        against = []
        if outcome.method != "text":
            against.append((outcome.model, outcome.set, "text"))
        if outcome.method.startswith("latents "):
            against.append((outcome.model, outcome.set, "latents"))
        if outcome.model != first:
            against.append((first, outcome.set, outcome.method))
        yield from ((outcome, known[key]) for key in against if key in known)
