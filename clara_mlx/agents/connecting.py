"""Connects agents to the gateway and disconnects them again, byte for byte.

The main line: read each settings file, take out what an earlier `connect` set, set what is wanted,
keep a copy and a record, and replace the files. A process that dies on the way loses nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from clara_mlx.agents.agent import Agent, Gateway, Machine, SettingsFile
from clara_mlx.agents.edits import make_edits, undo_edits
from clara_mlx.agents.formats import FORMATS
from clara_mlx.agents.formats.format import Unreadable
from clara_mlx.agents.known import AGENTS, is_found
from clara_mlx.agents.records import (
    FileRecord,
    Record,
    digest_of,
    forget_record,
    free_copy,
    missing_folders,
    read_record,
    remove_empty,
    write_record,
)
from clara_mlx.errors import ClaraError, reason
from clara_mlx.store.atomic import clear_leftovers, partial_file

_BOM = "\ufeff"


@dataclass(frozen=True)
class Change:
    """What happens to one settings file."""

    path: Path
    before: bytes | None  # None: there is no file
    after: bytes | None
    settings: list[str]  # the names of ours
    base: bytes | None = None  # the file as it would be without us
    copy: Path | None = None  # where that is kept
    changed: list[str] = field(default_factory=list)  # ours that were changed since, and stay

    @property
    def is_none(self) -> bool:
        """Whether the file stays as it is."""
        return self.before == self.after


def plan_connection(
    agent: Agent, gateway: Gateway, machine: Machine
) -> tuple[list[Change], Record]:
    """What `connect` would change, and the record of it; nothing is written.

    Raises:
        ClaraError: A file can't be read, or can't be edited safely.
    """
    record = read_record(agent.name, machine)
    known = {file.path: file for file in record.files} if record else {}
    changes, files = [], []
    wanted = agent.files(machine, gateway)
    for file in wanted:
        earlier = known.pop(str(file.path), None)
        change, recorded = _plan_file(file, earlier)
        changes.append(change)
        files.append(recorded)
    for earlier in known.values():  # set by an earlier connect, and not wanted any more
        changes.append(_plan_removal(earlier))
    return changes, Record(agent.name, gateway.url, files)


def connect(agent: Agent, gateway: Gateway, machine: Machine) -> list[Change]:
    """Connect an agent to a gateway; returns what was changed.

    Raises:
        ClaraError: A file can't be read, edited or written; it is as it was.
    """
    changes, record = plan_connection(agent, gateway, machine)
    earlier = read_record(agent.name, machine)
    if earlier == record and all(change.is_none for change in changes):
        return changes
    for change in changes:
        _write_copy(change)
    # Each file is first what it would be without us: with one record the other's edits could not
    # be taken out.
    for change in changes:
        _replace(change.path, change.before, change.base)
    write_record(record, machine)
    for change in changes:
        _replace(change.path, change.base, change.after)
    copies = {file.copy for file in record.files}
    for file in earlier.files if earlier else ():
        if file.copy and file.copy not in copies:
            Path(file.copy).unlink(missing_ok=True)
    return changes


def plan_disconnection(agent: Agent, machine: Machine) -> list[Change]:
    """What `disconnect` would change; nothing is written.

    Raises:
        ClaraError: The agent is not connected, or a file can't be edited safely.
    """
    record = read_record(agent.name, machine)
    if record is None:
        raise ClaraError(f"{agent.name} is not connected: nothing was changed")
    return [_plan_removal(file) for file in record.files]


def disconnect(agent: Agent, machine: Machine) -> list[Change]:
    """Take out what `connect` set; returns what was changed.

    Raises:
        ClaraError: The agent is not connected, or a file can't be edited or written.
    """
    changes = plan_disconnection(agent, machine)
    record = read_record(agent.name, machine)
    assert record is not None  # else planning has raised
    for change in changes:
        _replace(change.path, change.before, change.after)
    for file, change in zip(record.files, changes, strict=True):
        if file.copy and not change.changed:
            Path(file.copy).unlink(missing_ok=True)
        if change.after is None:
            remove_empty(file.folders)
    forget_record(agent.name, machine)
    return changes


@dataclass(frozen=True)
class State:
    """How an agent stands on this machine."""

    name: str
    found: bool  # whether it is installed, or has been used
    connected: str  # to which URL, or "no"
    files: list[str]  # that connect has changed


def states(machine: Machine) -> list[State]:
    """How each known agent stands."""
    found = []
    for agent in AGENTS.values():
        connected, record = "no", None
        try:
            record = read_record(agent.name, machine)
        except ClaraError as error:
            connected = f"not known: {error}"
        if record:
            connected = record.url + ("" if _is_intact(record) else ", but changed since")
        files = [file.path for file in record.files] if record else []
        found.append(State(agent.name, is_found(agent, machine), connected, files))
    return found


def _is_intact(record: Record) -> bool:
    """Whether all that was set is still so."""
    for file in record.files:
        try:
            content = _read(Path(file.path))
            if content is None:
                return False
            data = FORMATS[file.format].parse(_decode(content, file.path)[1])
        except ClaraError:
            return False
        if not all(edit.stands_in(data) for edit in file.edits):
            return False
    return True


def _plan_file(file: SettingsFile, earlier: FileRecord | None) -> tuple[Change, FileRecord]:
    """What happens to a file that is to have settings."""
    content = _read(file.path)
    base: bytes | None = content
    existed, folders = content is not None, missing_folders(file.path)
    if earlier is not None:
        base = _without_edits(content, earlier)[0]
        existed, folders = earlier.existed or base is not None, earlier.folders
        if not earlier.existed and not (base or b"").strip():
            base, existed = None, False
    bom, text = _decode(base or b"", str(file.path))
    try:
        settings = file.settings(FORMATS[file.format].parse(text))
        new, edits = make_edits(text, settings, file.format)
    except Unreadable as error:
        raise ClaraError(
            f"{file.path}: {error}; nothing was changed. Repair the file, or make the settings "
            "that --print shows by hand"
        ) from error
    after = (bom + new).encode("utf-8")
    copy = free_copy(file.path, base) if base is not None else None
    if earlier and earlier.copy and base is not None and digest_of(base) == earlier.before:
        copy = Path(earlier.copy)
    recorded = FileRecord(
        path=str(file.path),
        format=file.format,
        existed=existed,
        copy=str(copy) if copy else None,
        before=digest_of(base or b""),
        after=digest_of(after),
        edits=edits,
        folders=folders,
    )
    names = [".".join(one.path).removesuffix(".[+]") for one in settings]
    return Change(file.path, content, after, names, base, copy), recorded


def _plan_removal(file: FileRecord) -> Change:
    path = Path(file.path)
    content = _read(path)
    after, changed = _without_edits(content, file)
    names = [edit.name for edit in reversed(file.edits)]
    copy = Path(file.copy) if file.copy else None
    return Change(path, content, after, names, after, copy, changed)


def _without_edits(content: bytes | None, file: FileRecord) -> tuple[bytes | None, list[str]]:
    """A file's content with our edits taken out, None if there was no file; and what stays."""
    if content is None or digest_of(content) == file.before:
        return (content if file.existed else None), []
    if digest_of(content) == file.after:  # as we left it: exactly what it was
        if not file.existed:
            return None, []
        if file.copy and Path(file.copy).is_file():
            copy = Path(file.copy).read_bytes()
            if digest_of(copy) == file.before:
                return copy, []
    bom, text = _decode(content, file.path)
    try:
        text, changed = undo_edits(text, file.edits, file.format)
    except Unreadable as error:
        raise ClaraError(
            f"{file.path}: {error}; nothing was changed. Take these settings out by hand: "
            f"{', '.join(edit.name for edit in file.edits)}"
            + (f"; the file as it was is {file.copy}" if file.copy else "")
        ) from error
    if not file.existed and text.strip() in ("", "{}"):
        return None, changed
    return (bom + text).encode("utf-8"), changed


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if path.is_symlink():
            raise ClaraError(f"{path}: the link leads to no file; repair it first") from None
        return None
    except OSError as error:
        raise ClaraError(f"{path}: {reason(error)}; nothing was changed") from error


def _decode(content: bytes, path: str) -> tuple[str, str]:
    """The byte order mark, if there is one, and the text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ClaraError(
            f"{path}: it is not UTF-8 ({error.reason}); nothing was changed"
        ) from error
    return (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)


def _write_copy(change: Change) -> None:
    """Keep the file as it is without us, readable only for those who can read the file."""
    if change.copy is None or change.base is None or change.copy.exists():
        return  # a copy that is there has this content: see `free_copy`
    clear_leftovers(change.copy)
    with partial_file(change.copy, private=True) as partial:
        partial.write_bytes(change.base)
        os.chmod(partial, change.path.stat().st_mode & 0o7777)


def _replace(path: Path, before: bytes | None, after: bytes | None) -> None:
    """Give a file its new content at once, or leave it; links and permissions stay."""
    if before == after:
        return
    target = path.resolve()
    try:
        if _read(path) != before:
            raise ClaraError(f"{path}: another program has just changed it; run this command again")
        if after is None:
            target.unlink()
            return
        clear_leftovers(target)
        with partial_file(target, private=True) as partial:
            partial.write_bytes(after)
            # Settings hold keys: a file of ours is for its owner only.
            mode = target.stat().st_mode & 0o7777 if target.exists() else 0o600
            os.chmod(partial, mode)
    except OSError as error:
        raise ClaraError(
            f"{path}: {reason(error)}; it is as it was. Files before it have been changed: run "
            "this command again, or with --remove"
        ) from error
