"""Options that several commands share, the filters built from them, and opening the memory."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clara_mlx.cli.times import FORMS, read_time
from clara_mlx.errors import ClaraError
from clara_mlx.memory.settings import COMPRESSOR, MEMORY, MODEL

if TYPE_CHECKING:
    from clara_mlx.memory import Memory

DEFAULT_DB = MEMORY.default
Db = Annotated[
    str, typer.Option("--db", envvar=MEMORY.name, metavar="FILE|URL", help=MEMORY.purpose)
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar=MODEL.name,
        help=f"{MODEL.purpose} Without one there is text search only.",
    ),
]
NeededModel = Annotated[str | None, typer.Option("--model", envvar=MODEL.name, help=MODEL.purpose)]
Compressor = Annotated[
    str | None,
    typer.Option(
        "--compressor",
        envvar=COMPRESSOR.name,
        metavar="NAME",
        help=f"{COMPRESSOR.purpose} Some need no model: extractive, bm25, head-tail, verbatim.",
    ),
]
Source = Annotated[
    str | None, typer.Option("-s", "--source", help="Where it came from, e.g. pytest.")
]
Session = Annotated[str | None, typer.Option("--session", help="The session that it belongs to.")]
Meta = Annotated[
    list[str] | None,
    typer.Option(
        "-m", "--meta", help="Metadata as key=value; a value may be a number, true, null or [...]."
    ),
]
After = Annotated[
    datetime | None,
    typer.Option(
        "--after",
        parser=read_time,
        metavar="TIME",
        help=f"Only what was remembered at this time or later: {FORMS}.",
    ),
]
Before = Annotated[
    datetime | None,
    typer.Option(
        "--before",
        parser=read_time,
        metavar="TIME",
        help="Only what was remembered before this time, written as with --after.",
    ),
]
Count = Annotated[int, typer.Option("--count", "-k", min=1, help="The number of chunks to find.")]

Most = Annotated[int, typer.Option("-n", "--most", min=1, help="The number of rows to show.")]
Skip = Annotated[int, typer.Option("--skip", min=0, help="The number of rows to leave out before.")]

# Keys that mean something other than metadata in a filter.
_RESERVED = ("handle", "source", "session", "after", "before")


@contextmanager
def open_memory(
    db: str,
    model: str | None = None,
    compressor: str | None = None,
    *,
    make: bool = False,
    compress: bool = False,
    floor: float | None = None,
    lend: bool = False,
) -> Iterator[Memory]:
    """Open the memory for a block; a missing file is an error unless ``make`` allows a new one.

    Args:
        db: The file; or the URL of a team's database, in which a memory is made if need be.
        model: The model's folder or hub id.
        compressor: The compressor's name.
        make: Whether to make a file that is missing.
        compress: Whether to compress in the background.
        floor: See `Memory.open`.
        lend: Open the model here and lend it to other commands; without it, it is borrowed from a
            process that lends it.
    """
    from clara_mlx.store.opening import place_of

    name = place_of(db)
    if not make and isinstance(name, Path) and not name.exists():
        raise ClaraError(f"{name}: there is no memory file; `clara-mlx remember` makes one")
    opened = open_compressor(model, compressor, borrow=not lend)
    from clara_mlx.memory import Memory

    with Memory.open(name, opened, floor=floor, compress=compress) as memory:
        if not lend or model is None:
            yield memory
            return
        from clara_mlx.compressors.lending import lent

        with lent(opened, memory.model_thread, model):
            yield memory


def open_compressor(model: str | None, compressor: str | None, *, borrow: bool = False) -> Any:
    """The compressor that was named, or the one that a model's folder is for; None without both.

    Args:
        model: The model's folder or hub id.
        compressor: The compressor's name.
        borrow: Whether a process that has the model open may do the work.
    """
    if model is None and compressor is None:
        return None
    if borrow and model is not None:
        from clara_mlx.compressors import borrowing

        borrowed = borrowing.borrow(model)
        if borrowed and compressor in (None, borrowed.name):
            return borrowed
    from clara_mlx.compressors import registry  # its compressors bring in MLX

    if compressor is not None:
        return registry.open_compressor(compressor, model)
    assert model is not None
    return registry.load(model)


def require_model(model: str | None, act: str) -> str:
    """The model that was named, or an error that says how to name one."""
    if model is None:
        raise ClaraError(f"{act} needs a model: use --model FOLDER, or set {MODEL.name}")
    return model


def require_compressor(model: str | None, compressor: str | None, act: str) -> None:
    """Refuse to go on without a compressor, and say how to name one.

    Raises:
        ClaraError: Neither it nor a model was named.
    """
    if model is None and compressor is None:
        raise ClaraError(
            f"{act} needs a model: use --model FOLDER, or set {MODEL.name}; or name a compressor "
            "that needs none, with --compressor"
        )


def with_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose memories, in place of its argument ``where``.

    Typer reads options from a function's signature, so the five are put into it.
    """

    def filters(
        *,
        source: Source = None,
        session: Session = None,
        meta: Meta = None,
        after: After = None,
        before: Before = None,
    ) -> dict[str, Any]:
        where = {
            "source": source,
            "session": session,
            "after": after and after.timestamp(),
            "before": before and before.timestamp(),
        }
        where = {key: value for key, value in where.items() if value is not None}
        return where | parse_metadata(meta)

    options = inspect.signature(filters, eval_str=True).parameters

    @wraps(command)
    def run(**given: Any) -> None:
        where = filters(**{name: given.pop(name) for name in options})
        command(where=where, **given)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += options.values() if parameter.name == "where" else [parameter]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def parse_metadata(meta: list[str] | None) -> dict[str, Any]:
    """Metadata given as key=value.

    Raises:
        BadParameter: a pair has no key, or one that means something else in a filter.
    """
    found: dict[str, Any] = {}
    for pair in meta or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise typer.BadParameter(f"{pair!r} has no key: write key=value", param_hint="--meta")
        if key in _RESERVED:
            raise typer.BadParameter(
                f"{key!r} can't be a metadata key, because filters use it; choose another key",
                param_hint="--meta",
            )
        found[key] = _parse_value(value)
    return found


def _parse_value(text: str) -> Any:
    """JSON, except numbers that JSON would write otherwise: 12345e6 may be a commit."""
    try:
        value = json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text
    if isinstance(value, int | float) and (json.dumps(value) != text or abs(value) >= 2**63):
        return text
    return value
