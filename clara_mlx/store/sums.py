"""Reading the ledger: sums by session, day or agent, single rounds, and the uses of a memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from clara_mlx.errors import StoreError
from clara_mlx.store.fields import check_number
from clara_mlx.store.ledger import DELETED_UNTIL, KEYS, SUMS, Round
from clara_mlx.store.protocol import Database

#: Conditions on day, session, project, agent and model (each a value or a list), on after and
#: before (a datetime, or seconds since 1970), and on the handle of a memory that was used; None
#: matches all.
LedgerWhere = Mapping[str, Any] | None

# The number of rows that stands for all of them.
_ALL = 2**62

# By what sums can be sorted.
_ORDERS = {"first_at", "last_at", *KEYS, *SUMS}


@dataclass(frozen=True)
class Sums:
    """Sums over rounds; all figures of tokens are those of prompts, but ``completion_tokens``.

    Of the keys, those that were not summed by are None; an empty text is one that is not known, or
    the session of conversations that were forgotten.
    """

    day: str | None  # date where it was written, such as 2026-11-30
    session: str | None
    project: str | None
    agent: str | None
    model: str | None
    first_at: float  # seconds since 1970
    last_at: float
    requests: int  # of clients
    rounds: int  # prompts that were sent for them
    tokens_in: int  # that there were, without compaction; about
    tokens_sent: int
    cached: int  # that servers had, as they say, or if they do not, as expected
    prefilled: int  # sent and not cached
    estimated: int  # rounds of which the server does not say what it had
    cached_expected: int
    cached_reported: int
    completion_tokens: int  # of the answers
    compactions: int
    compacted: int  # texts that were compacted
    memory_calls: int  # calls of the memory's tools: facts asked back
    fallbacks: int  # rounds that the fallback answered
    failures: int  # rounds without an answer

    @property
    def saved(self) -> int:
        """Tokens that there were and that did not have to be sent."""
        return self.tokens_in - self.tokens_sent


@dataclass(frozen=True)
class Use:
    """What a round did with a memory."""

    round: int  # its id
    at: float  # seconds since 1970
    session: str
    how: str  # compacted, or the tool that asked it back


def sums(
    file: Database,
    by: Sequence[str] = (),
    where: LedgerWhere = None,
    *,
    sort: str = "last_at",
    most: int | None = None,
    skip: int = 0,
) -> list[Sums]:
    """Sums over the rounds that match, largest or latest first; one row if ``by`` is empty.

    Args:
        file: The memory file.
        by: What each row belongs to: day, session, project, agent, model.
        where: A filter. Between times, rounds are summed one by one as far back as they are kept;
            before that, ``after`` and ``before`` count by whole days.
        sort: The field by which rows are sorted: ``first_at``, ``last_at``, a key or a sum.
        most: The number of rows, all by default.
        skip: Rows to leave out before.

    Raises:
        StoreError: A name is none of these.
    """
    if wrong := [name for name in by if name not in KEYS]:
        raise StoreError(f"sums are by {', '.join(KEYS)}, not by {wrong[0]!r}")
    if sort not in _ORDERS:
        raise StoreError(f"sums are sorted by one of {', '.join(sorted(_ORDERS))}, not {sort!r}")
    if sort in KEYS and sort not in by:
        sort = "last_at"
    after = (where or {}).get("after")
    if (where or {}).keys() & {"after", "before", "handle"} and _reaches_back(file, after):
        day = file.dialect.local_date("at")
        source, condition, parameters = "rounds", *_condition(where, day)
        first, last, columns = "min(at)", "max(at + seconds)", SUMS
    else:
        day, source = "day", "days"
        condition, parameters = _condition(_by_days(where), day)
        first, last = "min(first_at)", "max(last_at)"
        columns = {name: f"sum({name})" for name in SUMS}
    keys = [day if key == "day" else key for key in by]
    select = [
        *((day if key == "day" else key) if key in by else "NULL" for key in KEYS),
        f"{first} AS first_at",
        f"{last} AS last_at",
        *(f"{how} AS {name}" for name, how in columns.items()),
    ]
    order = str(1 + KEYS.index(sort)) if sort in KEYS else sort
    rows = file.read(
        f"SELECT {', '.join(select)} FROM {source} WHERE {condition} "
        f"{'GROUP BY ' + ', '.join(keys) if keys else ''} HAVING count(*) > 0 "
        f"ORDER BY {', '.join([f'{order} DESC', 'last_at DESC', *keys])} "
        f"LIMIT ? OFFSET ?",
        [*parameters, _ALL if most is None else check_number("most", most), max(0, skip)],
    )
    whole = len(KEYS) + 2  # what follows are whole numbers, in whatever type a database sums them
    return [Sums(*tuple(row)[:whole], *map(int, tuple(row)[whole:])) for row in rows]


def rounds(
    file: Database,
    where: LedgerWhere = None,
    *,
    most: int = 100,
    before_id: int | None = None,
) -> list[Round]:
    """The rounds that match and are still kept one by one, latest first.

    Args:
        file: The memory file.
        where: A filter.
        most: The number of rounds.
        before_id: Only rounds with smaller ids than this: where the page before ended.
    """
    condition, parameters = _condition(where, file.dialect.local_date("at"))
    if before_id is not None:
        condition += " AND id < ?"
        parameters.append(before_id)
    columns = [one.name for one in fields(Round) if one.name not in ("compacted", "asked")]
    rows = file.read(
        f"SELECT {', '.join(columns)} FROM rounds WHERE {condition} ORDER BY id DESC LIMIT ?",
        [*parameters, check_number("most", most)],
    )
    handles: dict[int, list[tuple[str, str]]] = {row["id"]: [] for row in rows}
    for use in file.read(
        f"SELECT handle, round, how FROM uses WHERE {file.dialect.is_among('round')}",
        (file.dialect.many(list(handles)),),
    ):
        handles[use["round"]].append((use["handle"], use["how"]))
    return [
        Round(
            **dict(row),
            compacted=tuple(one for one, how in handles[row["id"]] if how == "compacted"),
            asked=tuple(pair for pair in handles[row["id"]] if pair[1] != "compacted"),
        )
        for row in rows
    ]


def uses(file: Database, handle: str, most: int = 100) -> list[Use]:
    """What rounds did with a memory, latest first."""
    rows = file.read(
        "SELECT r.id, r.at, r.session, u.how FROM uses u JOIN rounds r ON r.id = u.round "
        "WHERE u.handle = ? ORDER BY r.id DESC LIMIT ?",
        [handle, check_number("most", most)],
    )
    return [Use(*row) for row in rows]


def _seconds(value: Any) -> Any:
    """A time in seconds since 1970; anything else as it is."""
    return value.timestamp() if isinstance(value, datetime) else value


def _reaches_back(file: Database, after: Any) -> bool:
    """Whether all rounds since a time are kept one by one."""
    rows = file.read("SELECT value FROM meta WHERE key = ?", (DELETED_UNTIL,))
    return not rows or (after is not None and _seconds(after) > float(rows[0][0]))


def _by_days(where: LedgerWhere) -> dict[str, Any]:
    """A filter whose times are the first and the last day in it."""
    found = dict(where or {})
    found.pop("handle", None)
    for key, inside in (("after", 0.0), ("before", -0.001)):  # the end itself is outside
        if (seconds := found.pop(key, None)) is not None:
            day = datetime.fromtimestamp(_seconds(seconds) + inside).date()
            found[f"{key} day"] = day.isoformat()
    return found


def _condition(where: LedgerWhere, day: str) -> tuple[str, list[Any]]:
    """A filter as an SQL condition, whose days are those of an expression, and its parameters."""
    comparisons = {
        "after": "at >= ?",
        "before": "at < ?",
        "after day": f"{day} >= ?",
        "before day": f"{day} <= ?",
        "handle": "id IN (SELECT round FROM uses WHERE handle = ?)",
    }
    parts, parameters = ["TRUE"], []
    for key, value in (where or {}).items():
        if key in comparisons:
            parts.append(comparisons[key])
            parameters.append(_seconds(value))
        elif key in KEYS:
            values = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
            column = day if key == "day" else key
            # What is not known, or not named any more, is an empty text in the file.
            parts.append(f"{column} IN ({','.join('?' * len(values))})" if values else "FALSE")
            parameters += ["" if one is None else one for one in values]
        else:
            raise StoreError(f"the ledger has no {key!r} to filter by")
    return " AND ".join(parts), parameters
