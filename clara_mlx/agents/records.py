"""What was changed to connect an agent: kept below the user's home, and a copy beside each file.

The record is written before a settings file is replaced, and says what the file was and what it
will be. So a process that dies between the two leaves nothing that can't be undone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clara_mlx.agents.agent import Machine
from clara_mlx.agents.edits import Edit, as_json, from_json
from clara_mlx.errors import ClaraError, reason
from clara_mlx.store.atomic import clear_leftovers, partial_file

#: The end of the name of the copy that is kept beside a settings file.
COPY = ".before-clara-mlx"

# Bytes of a record; more is no record of ours.
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class FileRecord:
    """What was changed in one settings file."""

    path: str
    format: str
    existed: bool  # whether there was a file
    copy: str | None  # the file as it was
    before: str  # the SHA-256 of the file as it was
    after: str  # and as it became
    edits: list[Edit]
    folders: list[str]  # that were made for it, the innermost first


@dataclass(frozen=True)
class Record:
    """What was changed to connect an agent to a gateway."""

    agent: str
    url: str
    files: list[FileRecord]


def digest_of(content: bytes) -> str:
    """What identifies a file's content."""
    return hashlib.sha256(content).hexdigest()


def record_path(agent: str, machine: Machine) -> Path:
    """Where an agent's record is kept."""
    return machine.home / ".clara-mlx" / "connected" / f"{agent}.json"


def read_record(agent: str, machine: Machine) -> Record | None:
    """The record of an agent; None if it is not connected.

    Raises:
        ClaraError: There is one that can't be read.
    """
    path = record_path(agent, machine)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        files = [FileRecord(**{**one, "edits": from_json(one["edits"])}) for one in found["files"]]
        return Record(found["agent"], found["url"], files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ClaraError(
            f"{path}: the record of what was changed can't be read ({reason(error)}); copies of "
            f"the settings as they were lie beside them and end in {COPY}"
        ) from error


def write_record(record: Record, machine: Machine) -> None:
    """Keep a record; only its owner can read it, because settings hold keys."""
    path = record_path(record.agent, machine)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps(
        {
            "agent": record.agent,
            "url": record.url,
            "files": [{**vars(file), "edits": as_json(file.edits)} for file in record.files],
        },
        indent=1,
    )
    clear_leftovers(path)
    with partial_file(path, private=True) as partial:
        partial.write_text(text, encoding="utf-8")


def forget_record(agent: str, machine: Machine) -> None:
    """Remove a record, and the folders that are then empty."""
    path = record_path(agent, machine)
    path.unlink(missing_ok=True)
    remove_empty([path.parent, path.parent.parent])


def remove_empty(folders: Sequence[Path | str]) -> None:
    """Remove folders, the innermost first, as far as they are empty."""
    for folder in map(Path, folders):
        try:
            folder.rmdir()
        except OSError:
            return


def missing_folders(path: Path) -> list[str]:
    """The folders above a file that are not there, the innermost first."""
    found = []
    folder = path.parent
    while not folder.exists():
        found.append(str(folder))
        folder = folder.parent
    return found


def free_copy(path: Path, content: bytes) -> Path:
    """The name for a copy of a file: one that is free, or has this very content."""
    number = 1
    while True:
        copy = path.with_name(f"{path.name}{COPY}{'' if number == 1 else f'-{number}'}")
        if not copy.exists() or copy.read_bytes() == content:
            return copy
        number += 1
