"""The story of `clara-mlx demo`: commands run, remembered, found, asked about, and given back."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from clara_mlx.context import Budget, Context
from clara_mlx.convert import Source, convert
from clara_mlx.demo.project import COMMANDS, QUESTIONS, make_project, run
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.model import chunking
from clara_mlx.model.clara import Clara, load
from clara_mlx.model.schemes import Quantisation
from clara_mlx.tool_outputs.quoting import MARKER

# So small that the conversation of the story does not fit.
_BUDGET = Budget(window=2048, reserve=256)


@dataclass(frozen=True)
class Output:
    """A command's output and what became of it."""

    command: str
    handle: str
    lines: int
    tokens: int
    memory_tokens: int


@dataclass(frozen=True)
class Asked:
    """A question, the answer from memory tokens, and the line of an original that has it."""

    question: str
    answer: str
    is_right: bool
    evidence: str  # a line of the originals that were found; empty if none of them has the answer
    handle: str
    seconds: float


@dataclass
class Told:
    """What happened, for JSON and for people."""

    model: dict[str, Any] = field(default_factory=dict)
    outputs: list[Output] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    found: dict[str, Any] = field(default_factory=dict)
    originals: dict[str, Any] = field(default_factory=dict)
    conversation: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def convert_nano(to: Path) -> dict[str, Any]:
    """Convert the clara-nano that comes with this package; returns facts about it.

    Raises:
        ClaraError: It is not in this installation.
    """
    found = files(__package__) / "clara-nano"
    started = time.perf_counter()
    with as_file(found) as folder:
        if not (folder / "checkpoint").is_dir():
            raise ClaraError(f"{folder}: clara-nano is not in this installation; install it again")
        source = Source.open(str(folder / "checkpoint"), base=str(folder / "base"))
        convert(source, to, quantisation=Quantisation(8))
    return {
        "name": "clara-nano",
        "folder": str(to),
        "bytes": sum(file.stat().st_size for file in to.rglob("*") if file.is_file()),
        "seconds": time.perf_counter() - started,
    }


def tell(folder: Path, step: Callable[[str], None]) -> Told:
    """Let the story happen in a folder.

    Args:
        folder: An empty folder, in which project, model and memory are made.
        step: Called with what comes next.

    Raises:
        ClaraError: A part of it can't be done here; the message says which.
    """
    started = time.perf_counter()
    told = Told()
    step("converting clara-nano")
    told.model = convert_nano(folder / "model")
    clara = load(folder / "model")
    make_project(folder / "project")
    with Memory.open(folder / "memory.db", clara) as memory:
        printed = {}
        for command in COMMANDS:
            step(f"$ {command.typed}")
            content = run(command, folder / "project")
            printed[memory.remember(content.decode(), source=command.source)] = content
        step("compressing what was remembered")
        memory.flush()
        for command, (handle, content) in zip(COMMANDS, printed.items(), strict=True):
            told.outputs.append(_describe(command.typed, handle, content.decode(), clara))
        step("asking")
        told.found = _find(memory, "cobra_nickel")
        told.asked = [_ask(memory, question.text, question.answer) for question in QUESTIONS]
        same = [memory.original_bytes(handle) == content for handle, content in printed.items()]
        told.originals = {
            "equal": sum(same),
            "of": len(same),
            "bytes": sum(map(len, printed.values())),
            "sha256": hashlib.sha256(next(iter(printed.values()))).hexdigest(),
        }
        step("compacting a conversation")
        told.conversation = _compact(memory, {h: c.decode() for h, c in printed.items()})
    told.seconds = time.perf_counter() - started
    return told


def _describe(typed: str, handle: str, text: str, clara: Clara) -> Output:
    chunks = list(chunking.split(text, clara.tokenizer, clara.config.doc_max_length))
    return Output(
        typed,
        handle,
        lines=len(text.splitlines()),
        tokens=sum(chunk.tokens for chunk in chunks),
        memory_tokens=len(chunks) * clara.config.memory_tokens,
    )


def _find(memory: Memory, words: str) -> dict[str, Any]:
    hit = memory.recall(words, k=1, mode="text")[0]
    return {
        "words": words,
        "handle": hit.handle,
        "line": hit.matched_line,
        "text": hit.matched,
    }


def _ask(memory: Memory, question: str, expected: str) -> Asked:
    started = time.perf_counter()
    answer = memory.ask(question, max_tokens=24)
    seconds = time.perf_counter() - started
    given = answer.text.splitlines()[0] if answer.text else ""
    for hit in answer.evidence:
        for line in hit.text.splitlines():
            if given and given in line:
                shown = line.strip()
                return Asked(question, given, given == expected, shown, hit.handle, seconds)
    return Asked(question, given, given == expected, "", "", seconds)


def _compact(memory: Memory, outputs: dict[str, str]) -> dict[str, Any]:
    """A conversation that has these outputs, as an agent sends it and as a reasoner gets it."""
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "One test fails. Find out why, and mend it."}
    ]
    for number, (command, text) in enumerate(zip(COMMANDS, outputs.values(), strict=True)):
        call = {"name": "bash", "arguments": f'{{"command": "{command.source}"}}'}
        messages.append(
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": f"call-{number}", "type": "function", "function": call}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": f"call-{number}", "content": text})
    prepared = Context(memory, budget=_BUDGET).prepare(messages, session="demo", compact="now")
    block = next(
        str(message["content"])
        for message in prepared.messages
        if str(message["content"]).startswith(MARKER)
    )
    return {
        "tokens": prepared.original_tokens,
        "sent": prepared.tokens,
        "compacted": list(prepared.compacted),
        "block": block,
    }
