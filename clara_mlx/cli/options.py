"""What the memory's commands share: their options, the filters, opening the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.errors import ClaraError

if TYPE_CHECKING:
    from clara_mlx.memory import Memory

DEFAULT_DB = Path("~/.clara-mlx/memory.db")
Db = Annotated[
    Path,
    typer.Option("--db", envvar="CLARA_MLX_MEMORY", help="The memory file; `remember` makes it."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", envvar="CLARA_MLX_MODEL", help="Model folder or hub id; none: text search only."
    ),
]
NeededModel = Annotated[
    str | None,
    typer.Option("--model", envvar="CLARA_MLX_MODEL", help="Model folder or hub id."),
]
Source = Annotated[str | None, typer.Option("-s", "--source", help="What it came from.")]
Session = Annotated[str | None, typer.Option("--session", help="The session it belongs to.")]
Meta = Annotated[
    list[str] | None,
    typer.Option("-m", "--meta", help="Metadata as key=value; numbers, true, null and [...] too."),
]
After = Annotated[datetime | None, typer.Option("--after", help="Remembered then or later.")]
Before = Annotated[datetime | None, typer.Option("--before", help="Remembered before then.")]
Count = Annotated[int, typer.Option("-k", min=1, help="How many chunks.")]

# What `where` reads as something else than a key of the metadata.
_RESERVED = ("handle", "source", "session", "after", "before")


@contextmanager
def opened(
    db: Path,
    model: str | None = None,
    *,
    make: bool = False,
    compress: bool = False,
    floor: float | None = None,
) -> Iterator[Memory]:
    """The memory; a file that is not there is an error, unless it may be made."""
    db = db.expanduser()
    if not make and not db.exists():
        raise ClaraError(f"{db}: no memory there; `clara-mlx remember` makes one")
    clara = None
    if model is not None:
        from clara_mlx.model.clara import load

        clara = load(model)
    from clara_mlx.memory import Memory
    from clara_mlx.memory.asking import SCORE_FLOOR

    floor = SCORE_FLOOR if floor is None else floor
    with Memory.open(db, clara, floor=floor, compress=compress) as memory:
        yield memory


def needed(model: str | None, what: str) -> str:
    """The model that was named; an error that says how to name one without it."""
    if model is None:
        raise ClaraError(f"{what} needs a model: --model FOLDER, or set CLARA_MLX_MODEL")
    return model


def pairs(meta: list[str] | None) -> dict[str, Any]:
    """Metadata that was given as key=value.

    Raises:
        BadParameter: a pair has no key, or one that means something else in a filter.
    """
    found: dict[str, Any] = {}
    for pair in meta or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r}: write key=value", param_hint="--meta")
        if key in _RESERVED:
            raise typer.BadParameter(f"{key} has a meaning of its own", param_hint="--meta")
        found[key] = _value(value)
    return found


def _value(text: str) -> Any:
    """JSON, but never a number that is written otherwise: the commit 12345e6 is no number."""
    try:
        value = json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text
    if isinstance(value, int | float) and (json.dumps(value) != text or abs(value) >= 2**63):
        return text
    return value


def where_of(
    source: str | None,
    session: str | None,
    meta: list[str] | None,
    after: datetime | None,
    before: datetime | None,
) -> dict[str, Any]:
    """Which memories a command is about, as `Memory` takes it."""
    named = {
        "source": source,
        "session": session,
        "after": after and after.timestamp(),
        "before": before and before.timestamp(),
    }
    return {key: value for key, value in named.items() if value is not None} | pairs(meta)
