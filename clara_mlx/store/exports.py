"""Export and import of memories as JSON lines, one memory with its original on each line.

Latents are left out: they can always be computed again from the originals.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from clara_mlx.errors import Progress, StorageFailed, StoreError
from clara_mlx.store import fields, salvage
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import DatabaseUrl
from clara_mlx.store.stored import StoredMemory


class Incomplete(StoreError):
    """Some memories could not be exported; all others were.

    Attributes:
        written: The number of memories that were written.
        problems: What is said of each of the others.
    """

    def __init__(self, path: Path | DatabaseUrl, written: int, problems: list[str]) -> None:
        self.written = written
        self.problems = problems
        super().__init__(
            f"{path}: damaged memories that could not be exported: {len(problems)}; all others, "
            f"{written}, were"
        )


def export(
    store: Originals,
    file: IO[str],
    where: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the memories that match a filter to a file; returns their number.

    Raises:
        Incomplete: Some are damaged; all others were written.
    """
    store.settle()
    memories, problems = salvage.memories(store, where)
    written = 0
    for number, memory in enumerate(memories, 1):
        try:
            line = _write_line(store, memory)
        except (StoreError, TypeError, ValueError) as error:
            if not salvage.is_damage(error):
                raise
            problems.append(f"memory {memory.handle}: {error}")
        else:
            file.write(line)
            written += 1
        if progress:
            progress(number, len(memories), "memories")
    if problems:
        raise Incomplete(store.path, written, problems)
    return written


def _write_line(store: Originals, memory: StoredMemory) -> str:
    """A memory with its original as a line of JSON."""
    fields.check_name("handle", memory.handle)
    original, kind = store.original(memory.handle)
    line: dict[str, Any] = {
        "handle": memory.handle,
        "source": memory.source,
        "session": memory.session,
        "created_at": memory.created_at,
        "metadata": memory.metadata,
        "sha256": hashlib.sha256(original).hexdigest(),
    }
    try:
        line["text" if kind == "text" else "base64"] = (
            original.decode("utf-8")
            if kind == "text"
            else base64.b64encode(original).decode("ascii")
        )
    except UnicodeDecodeError:  # a text with lone surrogates, which JSON readers may refuse
        line["surrogates"] = base64.b64encode(original).decode("ascii")
    return json.dumps(line, ensure_ascii=True) + "\n"


def import_(
    lines: Iterable[str],
    name: str,
    has: Callable[[str], bool],
    keep: Callable[[dict[str, Any]], Any],
) -> int:
    """Keep the memories of an export whose handles are new; returns how many those are.

    Raises:
        StoreError: A line is damaged, or could not be kept; those before it have been.
    """
    new = 0
    for place, given in read_export(lines, name):
        if has(given["handle"]):
            continue
        try:
            keep(given)
        except StorageFailed:
            raise
        except StoreError as error:
            raise StoreError(f"{place}: {error}") from error
        new += 1
    return new


def read_export(lines: Iterable[str], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the memories of an export.

    Gives each line's place, for errors, and the arguments of `Store.remember` that are on it, which
    are all but text and spans.

    Raises:
        StoreError: A line is not an exported memory, or its original is damaged; the message has
            the export's name and the line's number.
    """
    for number, line in enumerate(lines, 1):
        if not isinstance(line, str):
            raise StoreError(f"{name}, line {number}: it is no text: {type(line).__name__}")
        if line.strip():
            place = f"{name}, line {number}"
            try:
                yield place, _read_line(line)
            except RecursionError as error:
                raise StoreError(f"{place}: not an exported memory: nested too deeply") from error
            except StoreError as error:
                raise StoreError(f"{place}: {error}") from error
            except (ValueError, KeyError, TypeError) as error:
                problem = f"it has no {error}" if isinstance(error, KeyError) else error
                raise StoreError(f"{place}: not an exported memory: {problem}") from error


def _read_line(line: str) -> dict[str, Any]:
    """The arguments of `Store.remember` that a line holds; its fields are checked."""
    given = json.loads(line)
    if not isinstance(given, dict):
        raise ValueError("it is not an object")
    memory = {
        "handle": given["handle"],
        "source": given.get("source"),
        "session": given.get("session"),
        "created_at": given["created_at"],
        "metadata": {} if given.get("metadata") is None else given["metadata"],
    }
    fields.check_name("handle", memory["handle"])
    for field in ("source", "session"):
        if memory[field] is not None:
            fields.check_name(field, memory[field])
    fields.check_time(memory["created_at"])
    fields.write_metadata(memory["metadata"])
    kind = next((kind for kind in ("text", "base64", "surrogates") if kind in given), None)
    if kind is None:
        raise ValueError("it has no text")
    content = given[kind]
    if not isinstance(content, str):
        raise ValueError(f"its {kind} must be a string")
    original = content.encode() if kind == "text" else base64.b64decode(content, validate=True)
    if hashlib.sha256(original).hexdigest() != given.get("sha256"):
        raise StoreError("the original is damaged (its SHA-256 differs)")
    return {**memory, "original": original, "kind": "bytes" if kind == "base64" else "text"}
