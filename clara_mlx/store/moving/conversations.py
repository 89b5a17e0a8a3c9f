"""Moving blocks, edits of conversations by them, and the ledger: conversations go on there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clara_mlx.store.ledger import DELETED_UNTIL, KEYS, SUMS
from clara_mlx.store.moving.memories import same_memories
from clara_mlx.store.moving.tally import PAGE, Both, marks, pages

_BLOCK = ("digest", "kind", "issued", "text", "handle", "body")
_EDIT = ("chain", "part", "block", "explains")
_ROUND = (
    *("at", "session", "project", "agent", "api", "model", "served_by", "number", "seconds"),
    *("tokens_in", "tokens_sent", "cached_expected", "cached_reported", "completion_tokens"),
    *("cache", "why", "compacted", "reason", "before", "after", "lost", "memory_calls", "error"),
)
_DAY = (*KEYS, "first_at", "last_at", *SUMS)


def move_blocks(both: Both) -> None:
    """Move blocks with the memories that they mention; one is chosen once, and never rewritten."""
    for page in pages(both.source, ", ".join(_BLOCK), "blocks", "digest", b""):
        digests = [row["digest"] for row in page]
        has = _rows(both.target, _BLOCK, "blocks", "digest", digests)
        mentions: dict[bytes, set[str]] = {digest: set() for digest in digests}
        for row in both.source.read(
            f"SELECT block, handle FROM mentions WHERE block IN {marks(digests)}", digests
        ):
            mentions[row["block"]].add(row["handle"])
        known = same_memories(both, set().union(*mentions.values())) if both.writes else None
        fresh = []
        for row in page:
            digest = row["digest"]
            if other := has.get(digest):
                if tuple(other) == tuple(row):
                    both.tally.of("blocks").there += 1
                else:
                    both.tally.conflict(
                        "blocks", f"block {digest.hex()}: the target has chosen another text for it"
                    )
            elif known is not None and not mentions[digest] <= known:
                both.tally.leave(
                    "blocks", f"block {digest.hex()}: a memory that it mentions was not moved"
                )
            else:
                fresh.append(row)
        both.tally.of("blocks").moved += len(fresh)
        if both.writes and fresh:
            with both.target.write() as connection:
                connection.executemany(
                    f"{_insert('blocks', _BLOCK)} ON CONFLICT DO NOTHING",
                    [tuple(row) for row in fresh],
                )
                connection.executemany(
                    "INSERT INTO mentions (handle, block) VALUES (?, ?) ON CONFLICT DO NOTHING",
                    [
                        (handle, row["digest"])
                        for row in fresh
                        for handle in sorted(mentions[row["digest"]])
                    ],
                )


def move_edits(both: Both) -> None:
    """Move which block stands where in which conversation."""
    last: tuple[bytes, str] = (b"", "")
    while page := both.source.read(
        f"SELECT {', '.join(_EDIT)} FROM edits WHERE (chain, part) > (?, ?) "
        f"ORDER BY chain, part LIMIT {PAGE}",
        last,
    ):
        last = (page[-1]["chain"], page[-1]["part"])
        chains = [row["chain"] for row in page]
        has = {
            (row["chain"], row["part"]): row
            for row in both.target.read(
                f"SELECT {', '.join(_EDIT)} FROM edits WHERE chain IN {marks(chains)}", chains
            )
        }
        blocks = _rows(both.target, ("digest",), "blocks", "digest", [row["block"] for row in page])
        fresh = []
        for row in page:
            if other := has.get((row["chain"], row["part"])):
                if tuple(other) == tuple(row):
                    both.tally.of("edits").there += 1
                else:
                    both.tally.conflict(
                        "edits", f"edit of {row['chain'].hex()}: the target has another block there"
                    )
            elif both.writes and row["block"] not in blocks:
                both.tally.of("edits").left += 1  # as its block was, which was said
            else:
                fresh.append(tuple(row))
        both.tally.of("edits").moved += len(fresh)
        if both.writes and fresh:
            with both.target.write() as connection:
                connection.executemany(f"{_insert('edits', _EDIT)} ON CONFLICT DO NOTHING", fresh)


def move_rounds(both: Both) -> None:
    """Move the prompts that were sent, with what they did with which memory."""
    columns = ", ".join(("id", *_ROUND))
    for page in pages(both.source, columns, "rounds", "id", 0):
        times = list({row["at"] for row in page})
        has = {
            tuple(row)
            for row in both.target.read(
                f"SELECT {', '.join(_ROUND)} FROM rounds WHERE at IN {marks(times)}", times
            )
        }
        fresh = [row for row in page if tuple(row)[1:] not in has]
        both.tally.of("rounds").there += len(page) - len(fresh)
        both.tally.of("rounds").moved += len(fresh)
        if not (both.writes and fresh):
            continue
        ids = [row["id"] for row in fresh]
        uses = both.source.read(
            f"SELECT handle, round, how FROM uses WHERE round IN {marks(ids)}", ids
        )
        with both.target.write() as connection:
            named = {}
            for row in fresh:
                new = connection.execute(
                    f"{_insert('rounds', _ROUND)} RETURNING id", tuple(row)[1:]
                ).fetchone()
                named[row["id"]] = new[0]
            connection.executemany(
                "INSERT INTO uses (handle, round, how) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                [(use["handle"], named[use["round"]], use["how"]) for use in uses],
            )


def move_days(both: Both) -> None:
    """Move the sums of days; where the target has sums of its own for the same, it keeps them."""
    for (day,) in both.source.read("SELECT DISTINCT day FROM days ORDER BY day"):
        of_day = f"SELECT {', '.join(_DAY)} FROM days WHERE day = ?"
        has = {tuple(row)[: len(KEYS)]: tuple(row) for row in both.target.read(of_day, (day,))}
        fresh = []
        for row in map(tuple, both.source.read(of_day, (day,))):
            other = has.get(row[: len(KEYS)])
            if other is None:
                fresh.append(row)
            elif other == row:
                both.tally.of("days").there += 1
            else:
                both.tally.conflict(
                    "days",
                    f"sums of {day}, session {row[1]!r}: the target has others; it keeps them",
                )
        both.tally.of("days").moved += len(fresh)
        if both.writes and fresh:
            with both.target.write() as connection:
                connection.executemany(f"{_insert('days', _DAY)} ON CONFLICT DO NOTHING", fresh)
    kept = both.source.read("SELECT value FROM meta WHERE key = ?", (DELETED_UNTIL,))
    if both.writes and kept:  # the time of the newest round that is known by its sums only
        with both.target.write() as connection:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (DELETED_UNTIL, str(kept[0]["value"])),
            )


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {marks(columns)}"


def _rows(
    file: Any, columns: Sequence[str], table: str, key: str, values: Sequence[Any]
) -> dict[Any, Any]:
    """Rows by a key."""
    rows = file.read(
        f"SELECT {', '.join(columns)} FROM {table} WHERE {key} IN {marks(values)}", values
    )
    return {row[key]: row for row in rows}
