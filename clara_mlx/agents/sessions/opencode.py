"""Sessions of opencode: a SQLite file, and in earlier versions a folder of JSON files."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from clara_mlx.agents.agent import Machine
from clara_mlx.agents.sessions.session import (
    Broken,
    Message,
    Source,
    Turn,
    call_message,
    folder_or_none,
    result_message,
    seconds,
    text,
)
from clara_mlx.errors import ClaraError

_ROWS = """
SELECT part.id, part.data, part.time_created, message.data, message.id, session.id,
    session.directory
FROM part JOIN message ON message.id = part.message_id JOIN session ON session.id = part.session_id
ORDER BY session.time_created, session.id, message.time_created, message.id, part.id
"""


def _files(machine: Machine) -> list[Path]:
    folder = machine.folder_named("XDG_DATA_HOME", ".local/share") / "opencode"
    return [
        *sorted(folder.glob("opencode*.db")),
        *sorted((folder / "storage" / "session").glob("*/ses_*.json")),
    ]


def _recognises(found: list[Any]) -> bool:
    return any(str(one.get("id", "")).startswith("ses_") and "projectID" in one for one in found)


def _read(file: Path) -> Iterator[Turn | Broken]:
    yield from _read_database(file) if file.suffix == ".db" else _read_folder(file)


def _read_database(file: Path) -> Iterator[Turn | Broken]:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as db:
            for part, data, time, about, message, session, folder in db.execute(_ROWS):
                where = f"{file}:{part}"
                try:
                    role = json.loads(about)["role"]
                    messages = _messages(role, json.loads(data))
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    yield Broken(where, f"a part of another form: {error}")
                    continue
                yield from _turn(messages, part, session, folder, seconds(time), where, message)
    except sqlite3.Error as error:
        raise ClaraError(f"{file}: {error}") from error


def _read_folder(file: Path) -> Iterator[Turn | Broken]:
    """A session of an earlier version: its messages and their parts are files in other folders."""
    storage = file.parents[2]
    session = file.stem
    folder = folder_or_none((_load(file) or {}).get("directory"))
    for described in sorted((storage / "message" / session).glob("*.json")):
        about = _load(described)
        for where in sorted((storage / "part" / described.stem).glob("*.json")):
            part = _load(where)
            if about is None or part is None or "role" not in about:
                yield Broken(str(where), "not a part of a message")
                continue
            created = about.get("time")
            time = seconds(created.get("created")) if isinstance(created, dict) else None
            messages = _messages(about["role"], part)
            key = where.stem
            yield from _turn(messages, key, session, folder, time, str(where), described.stem)


def _load(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _turn(
    messages: list[Message],
    key: str,
    session: str,
    folder: str | None,
    time: float | None,
    where: str,
    message: str,
) -> Iterator[Turn]:
    """The turn of a part; none if it holds nothing that was said or printed."""
    if messages:
        yield Turn(messages, key, session, folder, time, where, message)


def _messages(role: str, part: dict[str, Any]) -> list[Message]:
    if part.get("type") == "text" and not part.get("synthetic"):
        return [{"role": role, "content": text(part.get("text"))}]
    state = part.get("state")
    if part.get("type") == "tool" and isinstance(state, dict):
        if state.get("status") not in ("completed", "error"):
            return []  # it is running: the next time it is complete
        call = text(part.get("callID"))
        arguments = json.dumps(state.get("input") or {}, ensure_ascii=False)
        printed = text(state.get("output") or state.get("error"))
        return [
            call_message(call, text(part.get("tool")), arguments),
            result_message(call, printed),
        ]
    return []


OPENCODE = Source("opencode", "opencode", _files, _recognises, _read, (".db", ".json"))
