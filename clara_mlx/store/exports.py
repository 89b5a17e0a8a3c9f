"""Export and import of memories as JSON lines, one memory with its original on each line.

Latents are left out: they can always be computed again from the originals.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

from clara_mlx.errors import Progress, StoreError
from clara_mlx.store.store import Store


def export(
    store: Store,
    file: IO[str],
    where: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the memories that match a filter to a file; returns their number."""
    memories = list(store.memories(where))
    for number, memory in enumerate(memories, 1):
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
        file.write(json.dumps(line, ensure_ascii=True) + "\n")
        if progress:
            progress(number, len(memories), "memories")
    return len(memories)


def read_export(lines: Iterable[str], name: str) -> Iterator[dict[str, Any]]:
    """Read the memories of an export, as the arguments of `Store.remember` without text and spans.

    Raises:
        StoreError: A line is not an exported memory, or its original is damaged; the message has
            the export's name and the line's number.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            fields = json.loads(line)
            kind = "bytes" if "base64" in fields else "text"
            if "text" in fields:
                original = fields["text"].encode("utf-8")
            else:
                original = base64.b64decode(
                    fields.get("base64") or fields.get("surrogates", ""), validate=True
                )
            memory = {
                "handle": str(fields["handle"]),
                "original": original,
                "kind": kind,
                "source": fields.get("source"),
                "session": fields.get("session"),
                "created_at": float(fields["created_at"]),
                "metadata": dict(fields.get("metadata") or {}),
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"it has no {error}" if isinstance(error, KeyError) else error
            raise StoreError(f"{where}: not an exported memory: {problem}") from error
        if hashlib.sha256(original).hexdigest() != fields.get("sha256"):
            raise StoreError(f"{where}: the original is damaged (its SHA-256 differs)")
        yield memory
