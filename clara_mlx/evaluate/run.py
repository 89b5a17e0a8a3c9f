"""One evaluation from models and sets to a report, as a dict that is ready for JSON."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from clara_mlx import machine
from clara_mlx.errors import ClaraError
from clara_mlx.evaluate import metrics, retrieval, sets
from clara_mlx.evaluate.answers import Answers
from clara_mlx.evaluate.cases import MOST_CHUNKS
from clara_mlx.evaluate.retention import METHODS, Outcomes, Progress, Reader, difference
from clara_mlx.evaluate.sets import SETS, ProbeSet
from clara_mlx.model.clara import Clara, from_folder
from clara_mlx.model.folder import ModelFolder, resolve
from clara_mlx.version import __version__

#: Of the report; a reader refuses a newer one.
FORMAT = 1

#: What the second and further models are asked with; the first one is with everything.
COMPARED = ("latents", "text")


@dataclass(frozen=True)
class Settings:
    """How much is asked.

    Attributes:
        sets: names of `SETS`; ``own`` needs probes.
        probes: the user's file.
        per_tool: generated outputs of each tool; long ones are a quarter of it, brief ones twice,
            and of the tool that was left out there are five times as many.
        chunks: in the memory at least.
        queries: asked of it from each set at most.
        most: documents of a set, spread over it; all without it.
        max_tokens: of an answer.
        seed: of everything that is drawn.
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


def run(
    paths: Sequence[str | Path],
    folder: Path,
    settings: Settings,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate model folders; the first is the one that is reported on, others are its variants.

    Answers are kept in ``folder/answers.jsonl`` as they come, and not asked for again.

    Raises:
        ClaraError: no such set or model, or probes that are not usable.
    """
    progress = progress or (lambda what, done, total: None)
    asked = _sets(settings)  # before anything that takes long
    folders = {_name(path, paths): ModelFolder.open(resolve(path)) for path in paths}
    folder.mkdir(parents=True, exist_ok=True)
    answers = Answers(folder / "answers.jsonl")
    seconds: dict[str, float] = {}
    outcomes: list[Outcomes] = []
    found: dict[str, Any] = {}
    first = next(iter(folders))
    for name, opened in folders.items():
        started = time.perf_counter()
        clara = from_folder(opened)
        methods = METHODS if name == first else COMPARED
        for probes in asked:
            outcomes += _outcomes(Reader(name, clara, probes, progress), methods, answers, settings)
        seconds[name] = time.perf_counter() - started
        if name == first:
            started = time.perf_counter()
            found = _memory(clara, asked, settings, progress)
            seconds["memory"] = time.perf_counter() - started
        del clara  # before the next one is loaded
    kept = {o.set: len(o.cases) for o in outcomes if o.model == first}
    described = {
        probes.name: probes.to_dict() | {"left_out": probes.probes - kept[probes.name]}
        for probes in asked
    }
    return {
        "format": FORMAT,
        "clara_mlx": __version__,
        "machine": machine.describe(),
        "libraries": {name: version(name) for name in ("mlx", "mlx-lm", "numpy", "tokenizers")},
        "settings": asdict(settings) | {"probes": settings.probes and settings.probes.name},
        "definitions": metrics.DEFINITIONS | {"resamples": str(metrics.RESAMPLES)},
        "methods": METHODS,
        "models": [_described(name, opened) for name, opened in folders.items()],
        "sets": described,
        "retention": [outcome.to_dict(settings.seed) for outcome in outcomes],
        "differences": _differences(outcomes, settings.seed),
        "memory": found,
        "answers_reused": answers.reused,
        "seconds": seconds,
    }


def _sets(settings: Settings) -> list[ProbeSet]:
    wanted = [*settings.sets, *(["own"] if settings.probes else [])]
    unknown = [name for name in wanted if name not in SETS]
    if unknown or not wanted:
        raise ClaraError(f"no set {', '.join(unknown)!r}; choose of {', '.join(SETS)}")
    sizes = {
        "brief": 2 * settings.per_tool,
        "held-out": settings.per_tool,
        "long": max(1, settings.per_tool // 4),
        "left-out": 5 * settings.per_tool,
    }
    made = []
    for name in dict.fromkeys(wanted):
        if name in sizes:
            made.append(sets.generated(name, settings.seed, sizes[name]))
        elif name == "captured":
            made.append(sets.captured())
        elif settings.probes is None:
            raise ClaraError("the set 'own' needs --probes FILE")
        else:
            made.append(sets.own(settings.probes))
    return [_spread(probes, settings.most) for probes in made]


def _spread(probes: ProbeSet, most: int | None) -> ProbeSet:
    step = 1 if most is None else -(-len(probes.outputs) // most)
    return ProbeSet(probes.name, probes.outputs[::step])


def _name(path: str | Path, paths: Sequence[str | Path]) -> str:
    """The last part of a model's path, or all of it if another's ends so too."""
    names = [Path(other).name for other in paths]
    if len(set(map(str, paths))) < len(paths):
        raise ClaraError(f"a model was named twice: {', '.join(map(str, paths))}")
    return str(path) if names.count(Path(path).name) > 1 else Path(path).name


def _outcomes(
    reader: Reader, methods: Iterable[str], answers: Answers, settings: Settings
) -> list[Outcomes]:
    if not reader.cases:
        raise ClaraError(
            f"no probe of the set {reader.set!r} has its evidence in {MOST_CHUNKS} chunks or fewer"
        )
    return [reader.run(method, answers, settings.max_tokens) for method in methods]


def _memory(
    clara: Clara, asked: Sequence[ProbeSet], settings: Settings, progress: Progress
) -> dict[str, Any]:
    corpus = retrieval.Corpus(asked, clara, settings.chunks, settings.queries, settings.seed)
    if not corpus.asked:
        return {}
    with tempfile.TemporaryDirectory(prefix="clara-mlx-") as scratch:
        return retrieval.measure(
            corpus,
            clara,
            Path(scratch) / "memory.db",
            max_tokens=settings.max_tokens,
            seed=settings.seed,
            progress=progress,
        )


def _described(name: str, opened: ModelFolder) -> dict[str, Any]:
    """What identifies a model: its fingerprint, and the SHA-256 of all its files."""
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


def _differences(outcomes: Sequence[Outcomes], seed: int) -> list[dict[str, Any]]:
    """Latents and every other method against the text, codecs against latents, models likewise."""
    found = {(o.model, o.set, o.method): o for o in outcomes}
    first = outcomes[0].model
    pairs = []
    for outcome in outcomes:
        against = []
        if outcome.method != "text":
            against.append((outcome.model, outcome.set, "text"))
        if outcome.method.startswith("latents "):
            against.append((outcome.model, outcome.set, "latents"))
        if outcome.model != first:
            against.append((first, outcome.set, outcome.method))
        pairs += [(outcome, found[key]) for key in against if key in found]
    return [difference(a, b, seed) for a, b in pairs]
