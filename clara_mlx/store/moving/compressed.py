"""Moving latents and shortened texts as they are stored, so that nothing is compressed again."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from clara_mlx.errors import Progress
from clara_mlx.store.latent_search import open_latents
from clara_mlx.store.moving.tally import Both, Counts, marks, pages
from clara_mlx.store.shortened import ShortenedTable

# A row x of what was made of a chunk, without the data, and where that chunk is.
_PLACED = 'x.id, c.sha256, c.kind, k.start, k."end"'
_JOINED = "{} x JOIN chunks k ON k.id = x.chunk_id JOIN contents c ON c.id = k.content_id"


@dataclass(frozen=True)
class _Made:
    """What was made of a chunk."""

    chunk_id: int | None  # in the target; None if the chunk would be moved, too
    data: bytes
    digest: bytes | None


def move_latents(both: Both, progress: Progress | None) -> None:
    """Move the latents of the source's model, if the target has none or the same model's."""
    space = next(iter(both.source.read("SELECT * FROM spaces ORDER BY id")), None)
    if space is None:
        return
    theirs = both.target.read("SELECT * FROM spaces ORDER BY id")
    same = next((one for one in theirs if one["fingerprint"] == space["fingerprint"]), None)
    if theirs and (same is None or same["codec"] != space["codec"]):
        _leave_all(both, "latents", "space_id", space["id"])
        return
    table = None
    if same or both.writes:
        table, _ = open_latents(
            both.target,
            space["fingerprint"],
            (space["memory_tokens"], space["hidden"]),
            space["codec"],
            compressor=space["compressor"],
            pooling=space["pooling"],
        )
    counts = both.tally.of("latents")
    source = f"{_JOINED.format('latents')} WHERE x.space_id = {int(space['id'])}"
    (total,) = both.source.read("SELECT count(*) FROM latents WHERE space_id = ?", (space["id"],))[
        0
    ]
    done = 0
    for page in pages(both.source, _PLACED, source, "x.id", 0):
        present = table.present if table else _none_of
        made = _read(both, counts, "latents", "digest", _wanted(both, counts, page, present))
        both.tally.latent_bytes += sum(len(one.data) for one in made)
        if both.writes and table and made:
            rows = [(one.chunk_id or 0, one.data, one.digest) for one in made]
            table.put_blobs(rows, _completed(both, "latents", "space_id", table.id, rows))
        done += len(page)
        if progress:
            progress(min(done, total), total, "latents")
    if both.writes and table:  # what has no chunks needs no latents
        empty = "SELECT id FROM contents WHERE id NOT IN (SELECT content_id FROM chunks)"
        with both.target.write() as connection:
            ids = [row[0] for row in connection.execute(empty).fetchall()]
            both.target.backlog_of(table.id).lift(connection, ids)


def move_shortened(both: Both) -> None:
    """Move the shortened texts, if the target has none or the same compressor's."""
    shortener = next(iter(both.source.read("SELECT * FROM shorteners")), None)
    if shortener is None:
        return
    theirs = both.target.read("SELECT * FROM shorteners")
    if theirs and theirs[0]["fingerprint"] != shortener["fingerprint"]:
        _leave_all(both, "shortened", "shortener_id", shortener["id"])
        return
    table = None
    if theirs or both.writes:
        named = shortener["compressor"], shortener["fingerprint"], shortener["ratio"]
        table = ShortenedTable.open(both.target, *named)
    counts = both.tally.of("shortened")
    source = f"{_JOINED.format('shortened')} WHERE x.shortener_id = {int(shortener['id'])}"
    for page in pages(both.source, _PLACED, source, "x.id", 0):
        present = table.present if table else _none_of
        made = _read(both, counts, "shortened", "NULL", _wanted(both, counts, page, present))
        if both.writes and table and made:
            (own,) = both.target.read("SELECT id FROM shorteners")
            rows = [(one.chunk_id or 0, one.data, None) for one in made]
            table.put(
                [row[0] for row in rows],
                [one.data.decode("utf-8", "surrogatepass") for one in made],
                _completed(both, "shortened", "shortener_id", own["id"], rows),
            )


def _none_of(chunk_ids: Sequence[int]) -> set[int]:
    return set()


def _leave_all(both: Both, table: str, owner: str, id: int) -> None:
    """Count rows that another model or compressor has made than the target's."""
    (count,) = both.source.read(f"SELECT count(*) FROM {table} WHERE {owner} = ?", (id,))[0]
    both.tally.of(table).other += count


def _wanted(both: Both, counts: Counts, page: list[Any], present: Any) -> dict[int, int | None]:
    """The rows of a page that the target lacks, by id, and their chunks there."""
    digests = list({row["sha256"] for row in page})
    rows = both.target.read(
        'SELECT c.sha256, c.kind, k.start, k."end", k.id FROM contents c '
        f"LEFT JOIN chunks k ON k.content_id = c.id WHERE c.sha256 IN {marks(digests)}",
        digests,
    )
    contents = {(row["sha256"], row["kind"]) for row in rows}
    places = {tuple(row)[:4]: row["id"] for row in rows}
    placed = {row["id"]: places.get(tuple(row)[1:]) for row in page}
    there = present([id for id in placed.values() if id is not None])
    wanted: dict[int, int | None] = {}
    for row in page:
        id = placed[row["id"]]
        if id is not None and id in there:
            counts.there += 1
        # When nothing is written, a chunk that would be moved is not there yet.
        elif id is not None or not (both.writes or (row["sha256"], row["kind"]) in contents):
            wanted[row["id"]] = id
        else:  # its memory was not moved, or was cut into other chunks there
            counts.left += 1
    return wanted


def _read(
    both: Both, counts: Counts, table: str, digest: str, wanted: dict[int, int | None]
) -> list[_Made]:
    """The data of rows; of those that are damaged there is none, and they are made anew."""
    if not wanted:
        return []
    ids = list(wanted)
    made = []
    for id, crc, data, named in both.source.read(
        f"SELECT id, crc, data, {digest} FROM {table} WHERE id IN {marks(ids)} ORDER BY id", ids
    ):
        if isinstance(data, bytes) and zlib.crc32(data) == crc:
            made.append(_Made(wanted[id], data, named))
    counts.moved += len(made)
    counts.left += len(wanted) - len(made)
    return made


def _completed(
    both: Both, table: str, owner: str, id: int, rows: Collection[tuple[int, bytes, Any]]
) -> list[int]:
    """The target's contents that have all of their latents, or texts, once these are there."""
    added = [row[0] for row in rows]
    lacking = both.target.read(
        f"SELECT k.content_id, k.id, x.id FROM chunks k LEFT JOIN {table} x "
        f"ON x.chunk_id = k.id AND x.{owner} = ? WHERE k.content_id IN "
        f"(SELECT content_id FROM chunks WHERE id IN {marks(added)})",
        (id, *added),
    )
    contents = {row[0] for row in lacking}
    return list(contents - {row[0] for row in lacking if row[2] is None and row[1] not in added})
