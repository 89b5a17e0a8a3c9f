"""The outputs and probes that a model is evaluated on: generated, captured, and the user's own."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clara_mlx.errors import ClaraError, reason
from clara_mlx.evaluate.corpus import BRIEF_TOOLS, LEFT_OUT, SIZES, TOOLS, generate
from clara_mlx.evaluate.probes.probe import Output, Probe, ProbeError, kind_of

#: The contents of each set, as a report prints them.
SETS = {
    "brief": "one layout for each of eight tools; word pairs and values never trained on",
    "held-out": f"generated outputs of {len(TOOLS) - 1} tools; names and values never trained on",
    "long": "the same, of several chunks each",
    "left-out": f"generated outputs of {LEFT_OUT}, a tool that was never trained on",
    "captured": "outputs of real commands",
    "own": "the user's own probes",
}

_CAPTURED = Path(__file__).parent / "captured.jsonl"
_MOST_PROBLEMS = 20  # problems of one file that are listed

_REQUIRED_FIELDS = {"document": str, "question": str, "answer": str}
_OPTIONAL_FIELDS = {"tool": str, "kind": str, "start": int, "end": int}


class CaptureError(ClaraError):
    """Captured outputs can't be made or read."""


@dataclass(frozen=True)
class Captured(Output):
    """A real output with the command that printed it; for evaluation, never for training.

    Attributes:
        command: The command line; ``python`` is the interpreter that ran the capture.
        rewritten: Neutral folders that the text names in place of the machine's own.
    """

    command: str
    rewritten: tuple[str, ...]


@dataclass(frozen=True)
class ProbeSet:
    """Outputs with their probes, under one of the names in `SETS`."""

    name: str
    outputs: tuple[Output, ...]

    @property
    def probes(self) -> int:
        """Number of questions."""
        return sum(len(output.probes) for output in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """Counts, and the SHA-256 of all texts, questions and answers, ready for JSON."""
        content = json.dumps([asdict(output) for output in self.outputs], ensure_ascii=True)
        return {
            "what": SETS[self.name],
            "documents": len(self.outputs),
            "probes": self.probes,
            "tools": sorted({output.tool for output in self.outputs}),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }


def generate_set(name: str, seed: int, per_tool: int) -> ProbeSet:
    """Generate the set ``brief``, ``held-out``, ``long`` or ``left-out``.

    Args:
        name: The name of the set.
        seed: The same seed gives the same outputs; a larger set begins with the smaller one.
        per_tool: Number of outputs of each tool.
    """
    tools = [tool for tool in TOOLS if (tool == LEFT_OUT) == (name == "left-out")]
    if name == "brief":
        tools = list(BRIEF_TOOLS)
    size = name if name in SIZES else "short"
    return ProbeSet(name, tuple(draw_outputs(f"{seed} {name}", tools, size, per_tool)))


def draw_outputs(seed: str, tools: list[str], size: str, per_tool: int) -> Iterator[Output]:
    """Yield outputs of the test split, one of each tool in turn; no text comes twice."""
    seen: set[str] = set()
    for number in range(per_tool):
        for tool in tools:
            rng = random.Random(f"{seed} {tool} {number}")
            output = generate(rng, tool, split="test", size=size)
            if output.text not in seen:
                seen.add(output.text)
                yield output


def read_captured_set() -> ProbeSet:
    """Read the outputs of real commands that come with clara-mlx."""
    return ProbeSet("captured", tuple(read_captured(_CAPTURED)))


def read_captured(file: Path) -> list[Captured]:
    """Read captured outputs from JSON lines.

    Raises:
        CaptureError: The file can't be read, or one of its lines is not a captured output.
    """
    captured = []
    try:
        # Not by splitlines, because an output may contain U+2028.
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CaptureError(f"the captured outputs in {file} can't be read: {error}") from error
    for number, line in enumerate(lines, 1):
        try:
            raw = json.loads(line)
            probes = tuple(Probe(**probe) for probe in raw.pop("probes"))
            rewritten = tuple(raw.pop("rewritten"))
            captured.append(Captured(probes=probes, rewritten=rewritten, **raw))
        except (ValueError, KeyError, TypeError, AttributeError, ClaraError) as error:
            raise CaptureError(f"{file}:{number}: not a captured output: {error}") from error
    return captured


def read_own_set(path: Path) -> ProbeSet:
    """Read the user's probes: JSON lines with one question each, in any order.

        {"document": "...", "question": "Which test failed?", "answer": "test_load"}

    A line may also have the ``tool`` that printed the document and the ``kind`` of the answer.
    ``start`` and ``end`` are the characters of the document that hold the evidence; they are
    needed only if the document does not contain the answer. If it contains the answer several
    times, the first place counts. Lines that `clara-mlx examples` wrote are read, too, except
    those of the stage scp; the evidence is all of the document if that does not contain the answer.

    Raises:
        ClaraError: The file can't be read, has no probes, or has unusable lines; the message says
            for each such line what is wrong with it.
    """
    problems: list[str] = []
    documents: dict[tuple[str, str], dict[str, Probe]] = {}
    for number, line in _lines(path):
        try:
            tool, text, probe = _parse_line(line)
            asked = documents.setdefault((tool, text), {})
            if probe.question in asked:
                raise ClaraError(f"{probe.question!r} was already asked about this document")
            asked[probe.question] = probe
        except ClaraError as error:
            problems.append(f"{path}:{number}: {error}")
    if problems:
        more = len(problems) - _MOST_PROBLEMS
        lines = problems[:_MOST_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        raise ClaraError(f"lines that are not probes: {len(problems)}\n  " + "\n  ".join(lines))
    if not documents:
        raise ClaraError(
            f'{path}: no probes; write lines like {{"document": "...", "question": "...", '
            '"answer": "..."}'
        )
    outputs = (
        Output(tool, text, tuple(asked.values())) for (tool, text), asked in documents.items()
    )
    return ProbeSet("own", tuple(outputs))


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the content of every line that is not blank."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ClaraError(f"{path}: {reason(error)}") from error
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, line


def _parse_line(line: bytes) -> tuple[str, str, Probe]:
    """Parse a line into the tool, the document and the probe."""
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ClaraError(f"not JSON: {error}") from error
    if not isinstance(given, dict):
        raise ClaraError("not a JSON object")
    if isinstance(given.get("docs"), list) and "document" not in given:
        given = _from_training(given)
    for name, kind in (_REQUIRED_FIELDS | _OPTIONAL_FIELDS).items():
        if name not in given and name in _REQUIRED_FIELDS:
            raise ClaraError(f'"{name}" is missing')
        if name in given and type(given[name]) is not kind:
            raise ClaraError(f'"{name}" must be of type {kind.__name__}, got {given[name]!r}')
    document = given["document"]
    answer = given["answer"]
    if not given["question"].strip():
        raise ClaraError('"question" is empty')
    if ("start" in given) != ("end" in given):
        raise ClaraError('give both "start" and "end", or neither')
    if "start" in given:
        start = given["start"]
        end = given["end"]
    else:
        start = document.find(answer)
        if start < 0:
            raise ProbeError(
                "the document does not contain the answer; give the characters of its evidence "
                'as "start" and "end"'
            )
        end = start + len(answer)
    if end > len(document):
        raise ProbeError(f'"end" is {end}, but the document has {len(document)} characters')
    probe = Probe(given["question"], answer, given.get("kind") or kind_of(answer), start, end)
    return given.get("tool", "own"), document, probe


def _from_training(given: dict[str, Any]) -> dict[str, Any]:
    """A line of training examples as a line of probes: of its documents, the one that answers."""
    try:
        (which, *_) = given.get("pos_index", [0])
        document = given["docs"][which]
    except (LookupError, TypeError, ValueError) as error:
        raise ClaraError('"docs" has no document at "pos_index"') from error
    made: dict[str, Any] = {key: given[key] for key in ("question", "answer") if key in given}
    made["document"] = document
    if isinstance(document, str) and str(made.get("answer")) not in document:
        made |= {"start": 0, "end": len(document)}
    return made
