"""Care of a memory file: verify, compact, export and import, and keeping it within a size."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from clara_mlx.errors import ClaraError, StoreError
from clara_mlx.store import sketch_table
from clara_mlx.store.codec import codec as make_codec
from clara_mlx.store.sketch import Sketcher
from clara_mlx.store.store import Store

# Sketches made anew at a time.
_SKETCHES = 256

#: Called with (what is being done, done, in all).
Progress = Callable[[str, int, int], None]


@dataclass
class Findings:
    """What `verify` found; ``problems`` is empty when all is well."""

    checked: dict[str, int] = field(default_factory=dict)  # by kind of row
    problems: list[str] = field(default_factory=list)
    damaged_contents: list[int] = field(default_factory=list)
    damaged_chunks: list[int] = field(default_factory=list)  # latents to be made again


def verify(store: Store, progress: Progress | None = None) -> Findings:
    """Check every original, span, latent and index entry of a file; reads all of it.

    Goes on after damage, so that all of it is reported.
    """
    findings = Findings()
    _check(_integrity, store, findings, progress)
    with store.snapshot():
        for check in (_contents, _chunks, _latents, _sketches):
            _check(check, store, findings, progress)
    return findings


def _check(
    check: Callable[[Store, Findings, Progress | None], None],
    store: Store,
    findings: Findings,
    progress: Progress | None,
) -> None:
    try:
        check(store, findings, progress)
    except (ClaraError, TypeError, ValueError) as error:  # damaged rows can hold anything
        findings.problems.append(f"{check.__name__.strip('_')}: {error}")


def _integrity(store: Store, findings: Findings, progress: Progress | None) -> None:
    rows = store.read("PRAGMA integrity_check")
    findings.problems += [f"SQLite: {row[0]}" for row in rows if row[0] != "ok"]
    rows = store.read("PRAGMA foreign_key_check")
    findings.problems += [f"{row[0]} row {row[1]} refers to a missing {row[2]}" for row in rows]
    try:
        store.read("INSERT INTO chunk_text (chunk_text, rank) VALUES ('integrity-check', 0)")
    except StoreError as error:
        findings.problems.append(f"full-text index: {error}")


def _contents(store: Store, findings: Findings, progress: Progress | None) -> None:
    ids = [row[0] for row in store.read("SELECT id FROM contents ORDER BY id")]
    for number, id in enumerate(ids, 1):
        try:
            store.content(id)
        except StoreError as error:
            findings.damaged_contents.append(id)
            findings.problems.append(str(error))
        if progress:
            progress("originals", number, len(ids))
    findings.checked["originals"] = len(ids)
    orphans = store.read(
        "SELECT id FROM contents WHERE id NOT IN (SELECT content_id FROM memories)"
    )
    findings.problems += [f"content {row[0]} belongs to no memory" for row in orphans]


def _chunks(store: Store, findings: Findings, progress: Progress | None) -> None:
    """Spans of each content follow one another and cover its text."""
    rows = store.read("SELECT content_id, start, end FROM chunks ORDER BY content_id, start")
    ends: dict[int, int] = {}
    for row in rows:
        if row["start"] != ends.get(row["content_id"], 0) or row["end"] <= row["start"]:
            findings.problems.append(f"content {row['content_id']}: its chunks leave a gap")
        ends[row["content_id"]] = row["end"]
    for content_id, end in ends.items():
        if content_id not in findings.damaged_contents and len(store.text(content_id)) != end:
            findings.problems.append(f"content {content_id}: its chunks do not cover it")
    findings.checked["chunks"] = len(rows)
    (indexed,) = store.read("SELECT count(*) FROM chunk_text")
    if indexed[0] != len(rows):
        findings.problems.append(f"{len(rows)} chunks, but {indexed[0]} in the full-text index")


def _latents(store: Store, findings: Findings, progress: Progress | None) -> None:
    ids = [row[0] for row in store.read("SELECT id FROM latents ORDER BY id")]
    for number, id in enumerate(ids, 1):
        rows = store.read("SELECT chunk_id, crc, data FROM latents WHERE id = ?", (id,))
        if not rows:
            findings.problems.append(f"the latents of row {id} are out of reach")
            continue
        (row,) = rows
        if zlib.crc32(row["data"]) != row["crc"]:
            findings.damaged_chunks.append(row["chunk_id"])
            findings.problems.append(f"the latents of chunk {row['chunk_id']} are damaged")
        if progress:
            progress("latents", number, len(ids))
    findings.checked["latents"] = len(ids)


def _sketches(store: Store, findings: Findings, progress: Progress | None) -> None:
    for space in store.read("SELECT * FROM spaces"):
        name = f"sketches_{space['id']}"
        wanted = "SELECT chunk_id AS id FROM latents WHERE space_id = ?"
        kept = f"SELECT rowid AS id FROM {name}"
        for rows, text in (
            (store.read(f"{wanted} EXCEPT {kept}", (space["id"],)), "has no sketch"),
            (store.read(f"{kept} EXCEPT {wanted}", (space["id"],)), "has a sketch without latents"),
        ):
            findings.problems += [f"chunk {row[0]} {text}" for row in rows]
            findings.damaged_chunks += [row[0] for row in rows]
        ids = [row[0] for row in store.read(f"{kept} ORDER BY id")]
        findings.checked["sketches"] = findings.checked.get("sketches", 0) + len(ids)
        _compare_sketches(store, findings, space, sorted(set(ids) - set(findings.damaged_chunks)))


def _compare_sketches(store: Store, findings: Findings, space: Any, ids: list[int]) -> None:
    """Sketches against those of the stored latents, which differ by rounding; strangers by half."""
    shape = space["memory_tokens"], space["hidden"]
    codec = make_codec(space["codec"], *shape)
    mean = None if space["mean"] is None else np.frombuffer(space["mean"], "<f4")
    sketcher = Sketcher(shape[0] * shape[1], space["sketch_bits"], space["sketch_seed"], mean)
    for start in range(0, len(ids), _SKETCHES):
        some = ids[start : start + _SKETCHES]
        rows = store.read(
            f"SELECT l.chunk_id, l.data, s.bits FROM latents l JOIN sketches_{space['id']} s "
            "ON s.rowid = l.chunk_id WHERE l.space_id = ? "
            f"AND l.chunk_id IN ({','.join('?' * len(some))})",
            [space["id"], *some],
        )
        if not rows:
            continue
        latents = codec.decode([row["data"] for row in rows]).reshape(len(rows), -1)
        for row, sketch in zip(rows, sketcher.sketch(latents), strict=True):
            differing = np.bitwise_count(np.frombuffer(row["bits"], np.uint8) ^ sketch).sum()
            if differing > space["sketch_bits"] / 4:
                findings.damaged_chunks.append(row["chunk_id"])
                findings.problems.append(f"the sketch of chunk {row['chunk_id']} is damaged")


def repair(store: Store, findings: Findings) -> int:
    """Drop damaged latents and mark their contents pending again; returns how many chunks."""
    chunks = sorted(set(findings.damaged_chunks))
    with store.write() as connection:
        for chunk_id in chunks:
            connection.execute(
                "INSERT OR IGNORE INTO pending (content_id) "
                "SELECT content_id FROM chunks WHERE id = ?",
                (chunk_id,),
            )
            connection.execute("DELETE FROM latents WHERE chunk_id = ?", (chunk_id,))
        for (space_id,) in connection.execute("SELECT id FROM spaces").fetchall():
            sketch_table.remove(connection, space_id, chunks)
    return len(chunks)


def compact(store: Store) -> tuple[int, int]:
    """Give free pages back to the disk; returns the file's bytes before and after."""
    before = store.path.stat().st_size
    with store.write() as connection:
        for row in connection.execute("SELECT id, sketch_bits FROM spaces").fetchall():
            sketch_table.rebuild(connection, row["id"], row["sketch_bits"])
        connection.execute("INSERT INTO chunk_text (chunk_text) VALUES ('optimize')")
    with store.errors():
        store.connection.execute("VACUUM")
    store.empty_log()
    return before, store.path.stat().st_size


# -- export and import ---------------------------------------------------------------------------


def export(
    store: Store,
    file: IO[str],
    where: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Write memories as JSON lines, originals included; returns how many.

    Latents are not exported: they can always be made again from the originals.
    """
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
            progress("memories", number, len(memories))
    return len(memories)


@dataclass(frozen=True)
class Imported:
    """A line of an export: an original and what is known of it."""

    handle: str
    original: bytes
    kind: str
    source: str | None
    session: str | None
    created_at: float
    metadata: dict[str, Any]


def read_export(lines: Iterable[str]) -> Iterator[Imported]:
    """The memories of an export.

    Raises:
        StoreError: a line is not one, or its original is not the one that was exported; the
            message has the line's number.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
            kind = "bytes" if "base64" in fields else "text"
            if "text" in fields:
                original = fields["text"].encode("utf-8")
            else:
                original = base64.b64decode(
                    fields.get("base64") or fields.get("surrogates", ""), validate=True
                )
            imported = Imported(
                str(fields["handle"]),
                original,
                kind,
                fields.get("source"),
                fields.get("session"),
                float(fields["created_at"]),
                dict(fields.get("metadata") or {}),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"line {number} is not an exported memory: {error!r}") from error
        if hashlib.sha256(original).hexdigest() != fields.get("sha256"):
            raise StoreError(f"line {number}: its original is damaged (its SHA-256 differs)")
        yield imported


# -- size ----------------------------------------------------------------------------------------


def evict(store: Store, most_bytes: int) -> list[str]:
    """Forget the oldest memories until the file's used pages are within a size; their handles.

    Never called unless a limit was set.
    """
    forgotten: list[str] = []
    while (excess := _used_bytes(store) - most_bytes) > 0:
        # Enough of the oldest to free the excess, by their originals alone; latents free more.
        handles: list[str] = []
        for row in store.read(
            "SELECT m.handle, length(c.data) AS size FROM memories m "
            "JOIN contents c ON c.id = m.content_id ORDER BY m.created_at, m.id LIMIT 1000"
        ):
            handles.append(row["handle"])
            excess -= row["size"]
            if excess <= 0:
                break
        if not handles:
            break
        store.forget({"handle": handles})
        forgotten += handles
    return forgotten


def _used_bytes(store: Store) -> int:
    pages, free, size = (
        store.read(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
