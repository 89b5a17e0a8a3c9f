"""Remembers the sessions that agents keep on disk, with the times at which they took place.

Each text has a handle that its place in the session gives. So what is remembered already is passed
over: to run it twice adds nothing, and of a session that has grown only what is new.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clara_mlx.agents.sessions.session import Broken, Source, Turn
from clara_mlx.errors import ClaraError, Progress, StorageFailed, StoreError
from clara_mlx.memory import Memory
from clara_mlx.tool_outputs.secrets import mask

# Instructions of the agent itself are the same in every session, and not what was seen.
_ROLES = ("user", "assistant", "tool")

# Characters of a call's arguments from which on they are remembered, too: files that were written.
_LONG_ARGUMENTS = 400

# Characters of a command that are kept as metadata; as with what the gateway remembers.
_COMMAND = 200

# Texts and characters that are remembered together: each batch waits for the disk once.
_BATCH = 200
_BATCH_CHARACTERS = 2 << 20

# Characters of names in the memory; longer ones are cut.
_NAME = 200


@dataclass
class SessionCount:
    """What a session has.

    Attributes:
        agent, session, project: Where it is from.
        first, last: The times of its first and last text, in seconds since 1970.
        texts: Texts with something in them.
        new: Those of them that were not remembered yet.
        characters: Of the new ones.
    """

    agent: str
    session: str
    project: str | None
    first: float | None = None
    last: float | None = None
    texts: int = 0
    new: int = 0
    characters: int = 0


@dataclass
class Backfilled:
    """What was found, and what of it was new."""

    sessions: list[SessionCount] = field(default_factory=list)
    secrets: int = 0  # that were masked
    broken: list[Broken] = field(default_factory=list)

    @property
    def new(self) -> int:
        """The texts that were not remembered yet."""
        return sum(one.new for one in self.sessions)


@dataclass(frozen=True)
class _Text:
    """A text of a session, as it is to be remembered."""

    handle: str
    text: str
    source: str
    metadata: dict[str, Any]


def backfill(
    files: Iterable[tuple[Source, Path]],
    memory: Memory | None,
    *,
    dry_run: bool = False,
    masked: bool = False,
    progress: Progress | None = None,
) -> Backfilled:
    """Remember the sessions in files.

    Args:
        files: The files with their agents.
        memory: The memory; None counts all as new, and is for a dry run only.
        dry_run: Count what is there and what is new, and remember nothing.
        masked: Mask secrets before anything is remembered; the agent's file keeps them.
        progress: Called with the bytes of the files that are done, and of all.

    Raises:
        StorageFailed: The memory can't be written. What was remembered before stays.
    """
    files = list(files)
    sizes = [_size(file) for _, file in files]
    reading = _Reading(None if dry_run else memory, memory, masked)
    for number, (source, file) in enumerate(files):
        if progress:
            progress(sum(sizes[:number]), sum(sizes), file.name)
        try:
            reading.read(source, file)
        except ClaraError as error:
            if isinstance(error, StorageFailed):
                raise
            reading.done.broken.append(Broken(str(file), str(error).removeprefix(f"{file}: ")))
    reading.remember()
    if progress:
        progress(sum(sizes), sum(sizes))
    return reading.done


class _Reading:
    """Reads one file after the other, and remembers what is new in batches."""

    def __init__(self, to: Memory | None, known: Memory | None, masked: bool) -> None:
        self.done = Backfilled()
        self._to = to  # what is written to; None in a dry run
        self._known = known
        self._masked = masked
        self._counts: dict[tuple[str, str], SessionCount] = {}
        self._seen: set[str] = set()  # handles: agents copy records into files of later sessions
        self._batch: list[tuple[dict[str, Any], SessionCount, str]] = []
        self._characters = 0  # in the batch

    def read(self, source: Source, file: Path) -> None:
        """Take the texts of a file."""
        commands: dict[str, tuple[str, str]] = {}  # by call: the tool, and what it was to do
        for turn in source.read(file):
            if isinstance(turn, Broken):
                self.done.broken.append(turn)
                continue
            count = self._count_of(source, turn)
            for text in _texts(source, turn, commands):
                if text.handle not in self._seen:
                    self._seen.add(text.handle)
                    self._take(text, turn, count)

    def _count_of(self, source: Source, turn: Turn) -> SessionCount:
        key = source.name, turn.session
        if key not in self._counts:
            self._counts[key] = SessionCount(source.name, turn.session, turn.project)
            self.done.sessions.append(self._counts[key])
        return self._counts[key]

    def _take(self, text: _Text, turn: Turn, count: SessionCount) -> None:
        """Count a text; if it is new, it is remembered with its batch."""
        count.texts += 1
        if turn.time is not None:
            count.first = min(turn.time, count.first or turn.time)
            count.last = max(turn.time, count.last or turn.time)
        if self._known is not None and self._known.has(text.handle):
            return
        count.new += 1
        count.characters += len(text.text)
        if self._to is None:
            return
        content = text.text
        if self._masked:
            content, secrets = mask(content)
            self.done.secrets += len(secrets)
        given = {
            "text": content,
            "handle": text.handle,
            "source": text.source,
            "session": turn.session[:_NAME],
            "metadata": text.metadata,
            "created_at": turn.time,
        }
        self._batch.append((given, count, turn.where))
        self._characters += len(content)
        if len(self._batch) >= _BATCH or self._characters >= _BATCH_CHARACTERS:
            self.remember()

    def remember(self) -> None:
        """Remember what waits: together, or one by one if something is wrong with one of them."""
        batch, self._batch, self._characters = self._batch, [], 0
        if self._to is None or not batch:
            return
        try:
            self._to.remember_many([given for given, _, _ in batch])
        except StorageFailed:
            raise
        except StoreError:
            for given, count, where in batch:
                self._remember_one(given, count, where)

    def _remember_one(self, given: dict[str, Any], count: SessionCount, where: str) -> None:
        assert self._to is not None  # else nothing waits
        try:
            self._to.remember_many([given])
        except StorageFailed:
            raise
        except StoreError as error:  # another process was faster, or the text has an odd field
            count.new -= 1
            if not self._to.has(given["handle"]):
                self.done.broken.append(Broken(where, str(error)))


def _texts(source: Source, turn: Turn, commands: dict[str, tuple[str, str]]) -> Iterator[_Text]:
    """The texts of a turn; ``commands`` learns its calls, whose results come later."""
    for number, message in enumerate(turn.messages):
        for call in message.get("tool_calls") or ():
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            commands[call["id"]] = name, _command(arguments)
            if len(arguments) >= _LONG_ARGUMENTS:
                about = _metadata(source, turn, "assistant", _command(arguments))
                handle = _handle(source, turn, number, call["id"])
                yield _Text(handle, _readable(arguments), name[:_NAME] or "call", about)
        content = message.get("content")
        if message["role"] not in _ROLES or not isinstance(content, str) or not content.strip():
            continue
        tool, command = commands.get(str(message.get("tool_call_id")), ("", ""))
        about = _metadata(source, turn, message["role"], command)
        kind = (tool or message["role"])[:_NAME]
        yield _Text(_handle(source, turn, number, ""), content, kind, about)


def _metadata(source: Source, turn: Turn, role: str, command: str) -> dict[str, Any]:
    about = {"agent": source.name, "project": turn.project, "role": role, "command": command}
    return {key: value for key, value in about.items() if value}


def _handle(source: Source, turn: Turn, number: int, call: str) -> str:
    """The handle of a text: the same whenever its session is read."""
    place = json.dumps([source.name, turn.key, number, call]).encode()
    return f"m-{hashlib.sha256(place).hexdigest()[:12]}"


def _arguments(given: str) -> dict[str, Any]:
    try:
        found = json.loads(given)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _command(given: str) -> str:
    """What a call does, in short: its command or path."""
    arguments = _arguments(given)
    for key in ("command", "cmd", "file_path", "filePath", "path", "pattern", "url"):
        value = arguments.get(key)
        if isinstance(value, list):
            value = " ".join(map(str, value))
        if isinstance(value, str) and value:
            return value[:_COMMAND]
    return ""


def _readable(given: str) -> str:
    """A call's arguments as lines to read and search; as they came if they are no object."""
    arguments = _arguments(given)
    if not arguments:
        return given
    texts = (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in arguments.values()
    )
    return "\n".join(f"{key}:\n{value}" for key, value in zip(arguments, texts, strict=True))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0
