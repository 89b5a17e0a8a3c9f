"""Remembers the sessions that agents keep on disk, with the times at which they took place.

Each text has a handle that its place in the session gives. So what is remembered already is passed
over: to run it twice adds nothing, and of a session that has grown only what is new.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
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
    done = Backfilled()
    counts: dict[tuple[str, str], SessionCount] = {}
    seen: set[str] = set()  # handles: agents copy records into the files of later sessions
    files = list(files)
    sizes = [_size(file) for _, file in files]
    for number, (source, file) in enumerate(files):
        if progress:
            progress(sum(sizes[:number]), sum(sizes), file.name)
        commands: dict[str, tuple[str, str]] = {}  # by call: the tool, and what it was to do
        try:
            for turn in source.read(file):
                if isinstance(turn, Broken):
                    done.broken.append(turn)
                    continue
                key = source.name, turn.session
                count = counts.get(key)
                if count is None:
                    count = counts[key] = SessionCount(source.name, turn.session, turn.project)
                    done.sessions.append(count)
                for text in _texts(source, turn, commands):
                    if text.handle not in seen:
                        seen.add(text.handle)
                        _take(text, turn, count, memory, done, dry_run, masked)
        except StorageFailed:
            raise
        except ClaraError as error:
            done.broken.append(Broken(str(file), str(error).removeprefix(f"{file}: ")))
    if progress:
        progress(sum(sizes), sum(sizes))
    return done


def _take(
    text: _Text,
    turn: Turn,
    count: SessionCount,
    memory: Memory | None,
    done: Backfilled,
    dry_run: bool,
    masked: bool,
) -> None:
    """Count a text, and remember it if it is new."""
    count.texts += 1
    if turn.time is not None:
        count.first = min(turn.time, count.first or turn.time)
        count.last = max(turn.time, count.last or turn.time)
    if memory is not None and memory.has(text.handle):
        return
    count.new += 1
    count.characters += len(text.text)
    if dry_run or memory is None:
        return
    content = text.text
    if masked:
        content, secrets = mask(content)
        done.secrets += len(secrets)
    try:
        memory.import_([_as_export(text, content, turn)], turn.where)
    except StorageFailed:
        raise
    except StoreError as error:  # of the text: the others can be kept
        count.new -= 1
        done.broken.append(Broken(turn.where, str(error)))


def _as_export(text: _Text, content: str, turn: Turn) -> str:
    """A text as a line of an export, by which a memory takes handles and times over."""
    original = content.encode("utf-8", "surrogatepass")
    try:
        form = {"text": original.decode("utf-8")}
    except UnicodeDecodeError:  # half a character, which a file of JSON may hold
        form = {"surrogates": base64.b64encode(original).decode("ascii")}
    return json.dumps(
        {
            "handle": text.handle,
            "source": text.source,
            "session": turn.session[:_NAME],
            "created_at": time.time() if turn.time is None else turn.time,
            "metadata": text.metadata,
            "sha256": hashlib.sha256(original).hexdigest(),
            **form,
        }
    )


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
