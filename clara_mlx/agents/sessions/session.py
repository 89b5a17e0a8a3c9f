"""What the sessions of agents are read into: turns, which are messages with their origin.

A turn is a record of an agent's file as chat messages. Readers give them one after the other, so
that a file of any size is never held as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from clara_mlx.agents.agent import Machine
from clara_mlx.errors import ClaraError

#: A message in the form of OpenAI's chat completions.
Message = dict[str, Any]

# Bytes of a line; a longer one is left out and reported. Screenshots are some MB of base64.
_LONGEST_LINE = 64 << 20

# Bytes at the beginning of a file by which its format is recognised.
_BEGINNING = 1 << 16


@dataclass(frozen=True)
class Turn:
    """One record of a session.

    Attributes:
        messages: What was said or printed; a call and its result may be one record.
        key: Identifies the record, wherever it is copied to.
        session: The session's name, as the agent itself sends it to the gateway.
        project: The folder that the agent worked in.
        time: Seconds since 1970.
        where: ``file:line``, or what else names the place.
        reply: Names the answer that the record is a part of; parts of one are one message.
    """

    messages: list[Message]
    key: str
    session: str
    project: str | None
    time: float | None
    where: str
    reply: str | None = None


@dataclass(frozen=True)
class Broken:
    """A record that can't be read, and why."""

    where: str
    why: str


@dataclass(frozen=True)
class Source:
    """An agent whose sessions can be read.

    Attributes:
        name: What ``remember --from`` calls it.
        title: What people call it.
        files: The files with sessions on a machine.
        recognises: Whether the first records of a file are of this agent.
        read: The turns of a file, and what is broken in it.
        ends: How the files' names end.
    """

    name: str
    title: str
    files: Callable[[Machine], Iterable[Path]]
    recognises: Callable[[list[Any]], bool]
    read: Callable[[Path], Iterator[Turn | Broken]]
    ends: tuple[str, ...] = (".jsonl",)


def records(file: Path) -> Iterator[tuple[str, Any]]:
    """The records of a file of JSON lines with their places; a broken one is a `Broken`.

    A last line without a line end is still being written: it is left out if it can't be read.

    Raises:
        ClaraError: The file can't be read.
    """
    try:
        with _opened(file) as lines:
            number = 0
            while line := lines.readline(_LONGEST_LINE + 1):
                number += 1
                where = f"{file}:{number}"
                if len(line) > _LONGEST_LINE:
                    while line and not line.endswith(b"\n"):
                        line = lines.readline(_LONGEST_LINE)
                    yield where, Broken(where, "the line is longer than 64 MiB")
                    continue
                if not line.strip():
                    continue
                try:
                    yield where, json.loads(line)
                except (ValueError, RecursionError) as error:
                    if line.endswith(b"\n"):
                        yield where, Broken(where, f"not JSON: {str(error)[:200]}")
    except (OSError, EOFError) as error:
        raise ClaraError(f"{file}: {error}") from error


def first_records(file: Path) -> list[Any]:
    """The records at the beginning of a file, as far as they are JSON."""
    found = []
    try:
        with _opened(file) as lines:
            beginning = lines.read(_BEGINNING)
            if len(beginning) == _BEGINNING and b"\n" not in beginning:
                beginning += lines.readline(_LONGEST_LINE)
    except (OSError, EOFError, ClaraError):
        return []
    for line in beginning.split(b"\n")[:50]:
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return [one for one in found if isinstance(one, dict)]


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The lines of a file; Codex compresses old ones with zstd."""
    if file.suffix != ".zst":
        with file.open("rb") as lines:
            yield lines
        return
    try:
        import zstandard
    except ImportError as error:
        raise ClaraError(
            f'{file}: it is compressed; `pip install "clara-mlx[serve]"` brings what reads it'
        ) from error
    import io

    try:
        with (
            file.open("rb") as compressed,
            zstandard.ZstdDecompressor().stream_reader(compressed) as plain,
            io.BufferedReader(plain) as lines,
        ):
            yield lines
    except zstandard.ZstdError as error:
        raise ClaraError(f"{file}: {error}") from error


def seconds(time: Any) -> float | None:
    """Seconds since 1970 from ISO 8601, or from milliseconds since 1970."""
    if isinstance(time, int | float) and not isinstance(time, bool):
        return time / 1000
    if not isinstance(time, str):
        return None
    try:
        return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return None


def folder_or_none(value: Any) -> str | None:
    """The folder of a project, if that is what the value is."""
    return value if isinstance(value, str) and value else None


def text(value: Any) -> str:
    """A value as text: strings as they are, ``None`` as nothing, all else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def parts_text(content: Any) -> str:
    """The text of a content: a string, or a list of parts of which some have text."""
    if not isinstance(content, list):
        return text(content)
    texts = [one if isinstance(one, str) else one.get("text") for one in content if _is_part(one)]
    return "\n".join(one for one in texts if isinstance(one, str))


def _is_part(part: Any) -> bool:
    return isinstance(part, str | dict)


def call_message(identifier: str, name: str, arguments: str) -> Message:
    """An assistant's message with one call."""
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": identifier, "type": "function", "function": function}],
    }


def result_message(identifier: str, content: str) -> Message:
    """The result of a call."""
    return {"role": "tool", "tool_call_id": identifier, "content": content}
