"""Care of a memory file: verify and repair it, vacuum it, and keep it within a size."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clara_mlx.errors import ClaraError, Progress, StoreError
from clara_mlx.store import fields, salvage
from clara_mlx.store.opening import is_url
from clara_mlx.store.originals import Originals

if TYPE_CHECKING:  # numpy is not needed before there is something to check
    from clara_mlx.store.latents import LatentTable

# Latents decoded at a time, to compare their sketches: bounds the memory.
_SKETCH_BATCH = 256

# The most memories that one step of `evict` forgets.
_EVICT_BATCH = 1000


@dataclass
class Findings:
    """The result of `verify`; ``problems`` is empty when all is well."""

    checked: dict[str, int] = field(default_factory=dict)  # number of rows, by their kind
    problems: list[str] = field(default_factory=list)
    damaged_contents: list[int] = field(default_factory=list)
    damaged_chunks: list[int] = field(default_factory=list)  # what was made of them is remade
    can_be_exported: int | None = None  # memories, if originals or rows are damaged


def verify(store: Originals, progress: Progress | None = None) -> Findings:
    """Check every original, span, latent and index entry of a file, which reads all of it.

    Continues after damage, so that all of it is reported.
    """
    findings = Findings()

    def run(name: str, check: Callable[[Originals, Findings, Progress | None], None]) -> None:
        try:
            # Each check sees the database as it is at one moment, and harms no other if it fails.
            with store.snapshot():
                check(store, findings, progress)
        except (ClaraError, TypeError, ValueError) as error:  # damaged rows can hold anything
            findings.problems.append(f"{name}: {error}")

    store.settle()
    store.read("SELECT 1")  # of a memory that is closed, nothing can be said
    try:
        findings.problems += store.damage()
    except StoreError as error:
        findings.problems.append(f"integrity: {error}")
    run("contents", _check_contents)
    run("memories", _check_memories)
    run("chunks", _check_chunks)
    run("latents", _check_latents)
    run("sketches", _check_sketches)
    run("shortened texts", _check_shortened)
    if findings.damaged_contents or store.obstacle or salvage.is_damaged(store):
        run("export", _count_exported)
    return findings


def _check_contents(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Check that each original is what was remembered, and belongs to a memory."""
    ids = salvage.ids(store, "contents")
    for number, id in enumerate(ids, 1):
        try:
            store.content(id)
        except StoreError as error:
            findings.damaged_contents.append(id)
            findings.problems.append(str(error))
        if progress:
            progress(number, len(ids), "originals")
    findings.checked["originals"] = len(ids)
    orphans = store.read(
        "SELECT id FROM contents WHERE id NOT IN (SELECT content_id FROM memories)"
    )
    findings.problems += [f"content {row[0]} belongs to no memory" for row in orphans]


def _count_exported(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Count the memories that an export would give back."""
    memories, _ = salvage.memories(store, None)
    findings.can_be_exported = 0
    for number, memory in enumerate(memories, 1):
        with contextlib.suppress(StoreError):
            store.original(memory.handle)
            findings.can_be_exported += 1
        if progress:
            progress(number, len(memories), "memories")


def _check_memories(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Check that each memory's metadata can be read."""
    for row in store.read("SELECT handle, metadata FROM memories ORDER BY id"):
        try:
            fields.parse_metadata(row["metadata"])
        except ValueError as error:
            findings.problems.append(f"memory {row['handle']}: its metadata is damaged: {error}")


def _check_chunks(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Check that the spans of each content follow one another and cover its text."""
    rows = store.read('SELECT content_id, start, "end" FROM chunks ORDER BY content_id, start')
    ends: dict[int, int] = {}
    for row in rows:
        if row["start"] != ends.get(row["content_id"], 0) or row["end"] <= row["start"]:
            findings.problems.append(
                f"content {row['content_id']}: its chunks leave a gap or overlap"
            )
        ends[row["content_id"]] = row["end"]
    for content_id, end in ends.items():
        if content_id not in findings.damaged_contents and len(store.text(content_id)) != end:
            findings.problems.append(f"content {content_id}: its chunks do not cover its text")
    findings.checked["chunks"] = len(rows)
    (indexed,) = store.read(f"SELECT count(*) FROM {store.dialect.indexed_chunks}")
    if indexed[0] != len(rows):
        findings.problems.append(f"{len(rows)} chunks, but {indexed[0]} in the full-text index")


def _check_latents(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Check that each blob has the checksum it was stored with."""
    ids = [row[0] for row in store.read("SELECT id FROM latents ORDER BY id")]
    for number, id in enumerate(ids, 1):
        rows = store.read("SELECT chunk_id, crc, data FROM latents WHERE id = ?", (id,))
        if not rows:
            findings.problems.append(f"the latents of row {id} can't be read")
            continue
        (row,) = rows
        if zlib.crc32(row["data"]) != row["crc"]:
            findings.damaged_chunks.append(row["chunk_id"])
            findings.problems.append(f"the latents of chunk {row['chunk_id']} are damaged")
        if progress:
            progress(number, len(ids), "latents")
    findings.checked["latents"] = len(ids)


def _check_shortened(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Check that each shortened text has the checksum it was stored with."""
    rows = store.read("SELECT chunk_id, crc, data FROM shortened ORDER BY id")
    for chunk_id, crc, data in rows:
        if zlib.crc32(data) != crc:
            findings.damaged_chunks.append(chunk_id)
            findings.problems.append(f"the shortened text of chunk {chunk_id} is damaged")
    findings.checked["shortened texts"] = len(rows)


def _check_sketches(store: Originals, findings: Findings, progress: Progress | None) -> None:
    """Check that each latent has its own sketch, and that no chunk without latents has one."""
    from clara_mlx.store.latents import LatentTable

    for space in store.read("SELECT * FROM spaces"):
        table = LatentTable(store, space)
        rows = store.read("SELECT chunk_id FROM latents WHERE space_id = ?", (table.id,))
        with_latents = {row[0] for row in rows}
        with_sketch = store.dialect.sketches.ids(store, table.id)
        for chunks, text in (
            (with_latents - with_sketch, "has no sketch"),
            (with_sketch - with_latents, "has a sketch without latents"),
        ):
            findings.problems += [f"chunk {id} {text}" for id in sorted(chunks)]
            findings.damaged_chunks += sorted(chunks)
        findings.checked["sketches"] = findings.checked.get("sketches", 0) + len(with_sketch)
        _compare_sketches(table, findings, sorted(with_sketch - set(findings.damaged_chunks)))


def _compare_sketches(table: LatentTable, findings: Findings, ids: list[int]) -> None:
    """Compare stored sketches with those of the stored latents.

    They differ in few bits, because stored latents are rounded; unrelated ones differ in half.
    """
    import numpy as np

    _, sketcher = table.sketcher()
    for start in range(0, len(ids), _SKETCH_BATCH):
        some = ids[start : start + _SKETCH_BATCH]
        dialect = table.file.dialect
        sketches = dialect.sketches.read(table.file, table.id, some)
        rows = table.file.read(
            "SELECT chunk_id, data FROM latents "
            f"WHERE space_id = ? AND {dialect.is_among('chunk_id')} ORDER BY chunk_id",
            (table.id, dialect.many(some)),
        )
        rows = [row for row in rows if row["chunk_id"] in sketches]
        if not rows:
            continue
        vectors = table.codec.search_vectors([row["data"] for row in rows])
        for row, sketch in zip(rows, sketcher.sketch(vectors), strict=True):
            differing = np.bitwise_count(
                np.frombuffer(sketches[row["chunk_id"]], np.uint8) ^ sketch
            ).sum()
            if differing > table.sketch_bits / 4:
                findings.damaged_chunks.append(row["chunk_id"])
                findings.problems.append(f"the sketch of chunk {row['chunk_id']} is damaged")


def repair(store: Originals, findings: Findings) -> int:
    """Drop damaged latents and shortened texts, and put their contents back into the backlogs.

    Returns:
        The number of chunks of which they were dropped.
    """
    chunks = sorted(set(findings.damaged_chunks))
    with store.write() as connection:
        for chunk_id in chunks:
            connection.execute(
                "INSERT INTO pending (content_id) SELECT content_id FROM chunks WHERE id = ? "
                "ON CONFLICT DO NOTHING",
                (chunk_id,),
            )
            connection.execute("DELETE FROM latents WHERE chunk_id = ?", (chunk_id,))
            connection.execute(
                "INSERT INTO pending_texts (content_id) SELECT c.content_id "
                "FROM chunks c JOIN shortened s ON s.chunk_id = c.id WHERE c.id = ? "
                "ON CONFLICT DO NOTHING",
                (chunk_id,),
            )
            connection.execute("DELETE FROM shortened WHERE chunk_id = ?", (chunk_id,))
        for (space_id,) in connection.execute("SELECT id FROM spaces").fetchall():
            store.dialect.sketches.remove(connection, space_id, chunks)
    return len(chunks)


def vacuum(store: Originals) -> tuple[int, int]:
    """Give free pages back to the disk; returns the file's size in bytes before and after."""
    store.settle()
    return store.vacuum()


# -- size ----------------------------------------------------------------------------------------


def check_limit(place: object, most_bytes: int) -> None:
    """Check a size that a memory is to be kept within.

    Raises:
        StoreError: It is no such number; or the memory is a team's, whose oldest memories one of
            those who share it must not forget for all.
    """
    fields.check_number("most_bytes", most_bytes)
    if is_url(place):
        raise StoreError(
            "most_bytes is for a file: a team's database would lose what others remember; forget "
            "what is old with `clara-mlx forget --before TIME`"
        )


def evict(store: Originals, most_bytes: int) -> list[str]:
    """Forget the oldest memories until the used pages of the file are within a size.

    Returns:
        The handles of the forgotten memories.
    """
    forgotten: list[str] = []
    while (excess := store.used_bytes() - most_bytes) > 0:
        # Enough of the oldest to free the excess, by their originals alone; latents free more.
        handles: list[str] = []
        for row in store.read(
            "SELECT m.handle, length(c.data) AS size FROM memories m "
            "JOIN contents c ON c.id = m.content_id ORDER BY m.created_at, m.id LIMIT ?",
            (_EVICT_BATCH,),
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
