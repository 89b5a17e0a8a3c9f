"""The ledger: which prompts were sent, what they cost, and what stood in them for what there was.

A round is one prompt with its answer. The newest rounds are kept one by one; their sums of each day
are kept for good, so that the figures outlive the gateway that counted them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from itertools import chain
from typing import Any, Literal

from clara_mlx.store.connection import Connection
from clara_mlx.store.dialect import Dialect
from clara_mlx.store.protocol import Database

#: What became of the prefix that the server had: the conversation is new to it; all it had was
#: used, or a part, or nothing of it.
CacheEffect = Literal["first", "hit", "partial", "miss"]

#: The ``api`` of a call of the memory's tools by MCP, which is no prompt and counts as none.
MCP = "mcp"

#: Rounds that are kept one by one: some weeks of an agent that works all day.
MOST_ROUNDS = 20_000

#: Rows of sums that have their session; above it, the oldest days are summed over their sessions.
MOST_SUMS = 50_000

# Rounds after which it is looked again whether there are too many: counting takes milliseconds.
_LOOK_EVERY = 100

# Rounds that are inserted by one statement, of 25 parameters each; SQLite takes 32,766.
_TOGETHER = 500

# Rounds above the most before some are deleted, so that not every write deletes.
_SLACK = 500

#: The key in the table `meta` of the time of the newest round that was deleted.
DELETED_UNTIL = "rounds deleted until"

#: What a row of sums belongs to.
KEYS = ("day", "session", "project", "agent", "model")

# Tokens of a prompt that the server had: as it says, or if it does not, as expected.
_CACHED = "coalesce(cached_reported, cached_expected)"

#: The columns of `rounds` summed up, by their names in the table `days`.
SUMS = {
    "requests": f"count(*) FILTER (WHERE number = 0 AND api <> '{MCP}')",
    "rounds": f"count(*) FILTER (WHERE api <> '{MCP}')",
    "tokens_in": "sum(tokens_in)",
    "tokens_sent": "sum(tokens_sent)",
    "cached": f"sum(CASE WHEN tokens_sent < {_CACHED} THEN tokens_sent ELSE {_CACHED} END)",
    "prefilled": f"sum(CASE WHEN tokens_sent > {_CACHED} THEN tokens_sent - {_CACHED} ELSE 0 END)",
    "estimated": "count(*) FILTER (WHERE cached_reported IS NULL AND tokens_sent > 0)",
    "cached_expected": "sum(cached_expected)",
    "cached_reported": "sum(coalesce(cached_reported, 0))",
    "completion_tokens": "sum(completion_tokens)",
    "compactions": "count(*) FILTER (WHERE compacted > 0)",
    "compacted": "sum(compacted)",
    "memory_calls": "sum(memory_calls)",
    "fallbacks": "count(*) FILTER (WHERE served_by = 'fallback')",
    "failures": "count(*) FILTER (WHERE error <> '')",
}


@dataclass(frozen=True)
class Round:
    """One prompt that was sent, and its answer.

    Of a round without an answer all tokens are 0: nobody says what was done with it.
    """

    at: float  # when its preparation began, in seconds since 1970
    session: str  # the conversation's name; empty: not known, or forgotten
    project: str = ""  # folder that the conversation works in; empty: not known
    agent: str = ""  # who asked, such as claude-cli; empty: not known
    api: str = "chat"  # by which it was asked
    model: str = ""  # as the client names it
    served_by: str = "reasoner"  # or fallback; or memory, if no model was asked
    number: int = 0  # 0 for the first round of a request; later ones answer its calls
    seconds: float = 0.0  # from ``at`` until the answer was complete
    tokens_in: int = 0  # that the prompt would have without compaction; about
    tokens_sent: int = 0  # by the server's count if it gave one
    cached_expected: int = 0  # at the prompt's start, sent before as counted here; about
    cached_reported: int | None = None  # that the server says it had; None: it does not say
    completion_tokens: int = 0  # of the answer
    cache: CacheEffect = "first"  # what became of the prefix that the server had
    why: str = ""  # of that, in a few words
    reason: str = ""  # why there was a compaction, or none
    before: int | None = None  # tokens of the prompt that was compacted; None: none was
    after: int | None = None  # tokens that became of them
    lost: int | None = None  # tokens that the server had and read again because of it
    memory_calls: int = 0  # calls of the memory's tools that were answered
    error: str = ""  # why there was no answer; empty: there was
    compacted: tuple[str, ...] = ()  # handles of the texts that were compacted for it
    asked: tuple[tuple[str, str], ...] = ()  # handle and tool of what was asked back
    id: int = field(default=0, compare=False)  # in the file; 0 before it is there

    @property
    def cached(self) -> int:
        """Tokens of the prompt that the server had: as it says, or if it does not, as expected."""
        known = self.cached_expected if self.cached_reported is None else self.cached_reported
        return min(self.tokens_sent, known)

    @property
    def prefilled(self) -> int:
        """Tokens of the prompt that the server had to read."""
        return self.tokens_sent - self.cached

    @property
    def is_estimated(self) -> bool:
        """Whether the server does not say what it had, so that `cached` is an estimate."""
        return self.cached_reported is None


# What of a round is a column of the same name.
_COLUMNS = [one.name for one in fields(Round) if one.name not in ("id", "compacted", "asked")]


def write(file: Database, rounds: Sequence[Round]) -> None:
    """Add rounds to the ledger, and to the sums of their days; all or none.

    It does not wait for the disk: a loss of power can take the newest ones.

    Raises:
        StorageFailed: The file can't be written.
    """
    if not rounds:
        return
    with file.write(synced=False) as connection:
        ids = _insert(connection, rounds)
        days: dict[str, list[int]] = {}
        for id, one in zip(ids, rounds, strict=True):
            days.setdefault(datetime.fromtimestamp(one.at).date().isoformat(), []).append(id)
        for day, some in sorted(days.items()):
            _add_sums(
                connection,
                file.dialect,
                f"SELECT ?, {', '.join(KEYS[1:])}, min(at), max(at + seconds), "
                f"{', '.join(SUMS.values())} FROM rounds WHERE {file.dialect.is_among('id')} "
                f"GROUP BY {', '.join(KEYS[1:])} ORDER BY {', '.join(KEYS[1:])}",
                (day, file.dialect.many(some)),
            )
        if any(id % _LOOK_EVERY == 0 for id in ids):
            _delete_oldest(connection, file.dialect)


def _insert(connection: Connection, rounds: Sequence[Round]) -> list[int]:
    """Add rounds, with what they did with which memory; returns their ids."""
    ids: list[int] = []
    for start in range(0, len(rounds), _TOGETHER):
        some = rounds[start : start + _TOGETHER]
        values = [[*(getattr(one, name) for name in _COLUMNS), len(one.compacted)] for one in some]
        rows = connection.execute(
            f"INSERT INTO rounds ({', '.join(_COLUMNS)}, compacted) "
            f"VALUES {', '.join(f'({_marks(row)})' for row in values)} RETURNING id",
            list(chain.from_iterable(values)),
        ).fetchall()
        ids += sorted(row[0] for row in rows)  # ids grow; the order of the answer is not promised
    uses = [
        (handle, id, how)
        for id, one in zip(ids, rounds, strict=True)
        for handle, how in (*((handle, "compacted") for handle in one.compacted), *one.asked)
    ]
    connection.executemany(
        "INSERT INTO uses (handle, round, how) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", uses
    )
    return ids


def _add_sums(
    connection: Connection, dialect: Dialect, select: str, parameters: Iterable[object]
) -> None:
    """Add rows of sums, in the order of the table's columns, to those that are there."""
    added = ", ".join(f"{name} = days.{name} + excluded.{name}" for name in SUMS)
    connection.execute(
        f"INSERT INTO days ({', '.join(KEYS)}, first_at, last_at, {', '.join(SUMS)}) {select} "
        f"ON CONFLICT ({dialect.days_key}) DO UPDATE SET {added}, "
        f"first_at = {dialect.lesser('days.first_at', 'excluded.first_at')}, "
        f"last_at = {dialect.greater('days.last_at', 'excluded.last_at')}",
        tuple(parameters),
    )


def _delete_oldest(connection: Connection, dialect: Dialect) -> None:
    """Delete the oldest rounds, and the sessions of the oldest sums, if there are too many."""
    (count,) = connection.execute("SELECT count(*) FROM rounds").fetchone()
    if count > MOST_ROUNDS + _SLACK:
        oldest = f"SELECT id FROM rounds ORDER BY id LIMIT {count - MOST_ROUNDS}"
        connection.execute(
            "INSERT INTO meta (key, value) "
            f"SELECT ?, max(at) FROM rounds WHERE id IN ({oldest}) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (DELETED_UNTIL,),
        )
        connection.execute(f"DELETE FROM rounds WHERE id IN ({oldest})")
    _merge_oldest(connection, dialect, "session <> ''", ("project", "agent", "model"))
    # Whatever names clients think of, there is an end to their number.
    _merge_oldest(connection, dialect, "session || project || agent || model <> ''", ())


def _merge_oldest(
    connection: Connection, dialect: Dialect, named: str, kept: Sequence[str]
) -> None:
    """Merge the sums of the oldest days that have names, if there are too many of these."""
    (count,) = connection.execute(f"SELECT count(*) FROM days WHERE {named}").fetchone()
    if count > MOST_SUMS + _SLACK:
        (day,) = connection.execute(
            f"SELECT day FROM days WHERE {named} ORDER BY day LIMIT 1 OFFSET ?",
            (count - MOST_SUMS,),
        ).fetchone()
        # Of one day that has too many by itself, all.
        _merge(connection, dialect, kept, f"{named} AND day <= ?", (day,))


def _merge(
    connection: Connection,
    dialect: Dialect,
    kept: Sequence[str],
    condition: str,
    parameters: tuple[object, ...],
) -> None:
    """Add the sums for which a condition holds to those that have only the ``kept`` names.

    They are read as they are deleted, so that nothing which another gateway adds is lost.
    """
    rows = connection.execute(
        f"DELETE FROM days WHERE {condition} "
        f"RETURNING {', '.join(KEYS)}, first_at, last_at, {', '.join(SUMS)}",
        parameters,
    ).fetchall()
    merged: dict[tuple[str, ...], list[Any]] = {}
    for row in rows:
        day, *names = tuple(row)[: len(KEYS)]
        names = [name if key in kept else "" for key, name in zip(KEYS[1:], names, strict=True)]
        first_at, last_at, *sums = tuple(row)[len(KEYS) :]
        so_far = merged.setdefault((day, *names), [first_at, last_at, *[0] * len(sums)])
        so_far[0], so_far[1] = min(so_far[0], first_at), max(so_far[1], last_at)
        so_far[2:] = [a + b for a, b in zip(so_far[2:], sums, strict=True)]
    for key, sums in sorted(merged.items()):
        row = (*key, *sums)
        _add_sums(connection, dialect, f"VALUES ({_marks(row)})", row)


def forget_sessions(connection: Connection, dialect: Dialect, sessions: Iterable[str]) -> None:
    """Remove the names of conversations, and what they did with which memory.

    What they cost stays in the sums, where nothing says any more whose it was.
    """
    for session in sessions:
        connection.execute(
            "DELETE FROM uses WHERE round IN (SELECT id FROM rounds WHERE session = ?)", (session,)
        )
        connection.execute(
            "UPDATE rounds SET session = '', "
            "error = CASE WHEN error = '' THEN '' ELSE 'forgotten' END WHERE session = ?",
            (session,),
        )
        _merge(connection, dialect, ("project", "agent", "model"), "session = ?", (session,))


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
