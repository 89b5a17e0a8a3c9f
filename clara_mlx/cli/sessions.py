"""What `remember --from` does: the sessions that agents keep on disk into the memory."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clara_mlx.cli.options import open_memory
from clara_mlx.cli.output import emit, progress_bar
from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from clara_mlx.agents.backfill import Backfilled
    from clara_mlx.agents.sessions.session import Source

# Broken records that are listed for people; --json lists all.
_MOST_LISTED = 20


def remember_sessions(origin: str, db: str, dry_run: bool, masked: bool, as_json: bool) -> None:
    """Remember, or only count, the sessions of an agent or at a path; prints what was done.

    Raises:
        ClaraError: There is no such agent or path, or there are no sessions.
    """
    from clara_mlx.agents.backfill import backfill

    files = list(_files_of(origin))
    from clara_mlx.store.opening import place_of

    place = place_of(db)
    there = not isinstance(place, Path) or place.exists()
    opened = nullcontext() if dry_run and not there else open_memory(db, make=not dry_run)
    with opened as memory, progress_bar("reading", in_bytes=True) as progress:
        done = backfill(files, memory, dry_run=dry_run, masked=masked, progress=progress)
    emit(
        {
            "dry_run": dry_run,
            "files": len(files),
            "sessions": [dataclasses.asdict(one) for one in done.sessions],
            "new": done.new,
            "secrets_masked": done.secrets,
            "left_out": [f"{one.where}: {one.why}" for one in done.broken],
        },
        [_table(done), *_lines(done, dry_run, masked)],
        as_json,
    )


def _files_of(origin: str) -> Iterable[tuple[Source, Path]]:
    from clara_mlx.agents.agent import Machine
    from clara_mlx.agents.sessions import SOURCES, files_below

    if source := SOURCES.get({"qwen": "qwen-code"}.get(origin, origin)):
        files = list(source.files(Machine.here()))
        if not files:
            raise ClaraError(f"{source.title} has no sessions on this machine")
        return [(source, file) for file in files]
    path = Path(origin).expanduser()
    if not path.exists():
        raise ClaraError(
            f"{origin}: neither a path nor an agent whose sessions can be read: "
            f"{', '.join(SOURCES)}"
        )
    return files_below(path)


def _table(done: Backfilled) -> Table:
    from rich.table import Table

    table = Table("agent", "project", "session", "from", "to", "texts", "new")
    for one in done.sessions:
        table.add_row(
            one.agent,
            one.project or "",
            one.session,
            _time(one.first),
            _time(one.last),
            f"{one.texts:,}",
            f"{one.new:,}",
        )
    return table


def _time(seconds: float | None) -> str:
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


def _lines(done: Backfilled, dry_run: bool, masked: bool) -> list[str]:
    characters = sum(one.characters for one in done.sessions)
    lines = [f"left out: {one.where}: {one.why}" for one in done.broken[:_MOST_LISTED]]
    if len(done.broken) > _MOST_LISTED:
        lines.append(f"left out: {len(done.broken) - _MOST_LISTED:,} more; --json lists all")
    act = "would be remembered" if dry_run else "remembered"
    lines.append(f"{act}: {done.new:,} texts, {characters:,} characters")
    if masked and not dry_run:
        lines.append(f"secrets masked: {done.secrets:,}")
    return lines
