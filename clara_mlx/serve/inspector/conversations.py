"""Conversations: what was sent of each against what there was, round by round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from clara_mlx.memory import Memory
from clara_mlx.serve.inspector.charts import Amount, Chart, Part, bar, draw
from clara_mlx.serve.inspector.listing import Item, items_of
from clara_mlx.store import browsing
from clara_mlx.store.ledger import Round
from clara_mlx.store.sums import Sums

#: Conversations of one page.
ON_A_PAGE = 50

#: Rounds of one page.
ROUNDS = 60

# Sessions that are listed though nothing of them went through a gateway.
_MOST_OTHERS = 200

# Values of a kind that are named: a conversation seldom has more than one agent.
_NAMED = 5


@dataclass(frozen=True)
class Counted:
    """A conversation of the ledger, in the list."""

    sums: Sums
    bar: list[Part]  # as a part of the page's largest
    about: list[str]  # its agents and projects


@dataclass(frozen=True)
class Sessions:
    """A page of the list of conversations."""

    counted: list[Counted]  # those in the ledger, latest first
    others: list[browsing.Group]  # sessions of memories that no gateway has seen; on the first page
    memories: dict[str, int]  # by session, the number of memories, as far as it was counted
    number: int  # of the page, from 1
    more: bool  # whether there is another page


@dataclass(frozen=True)
class Step:
    """A round as the timeline shows it."""

    round: Round
    bar: list[Part]  # as a part of the page's largest prompt
    compacted: list[tuple[str, Item | None]]  # handles, with their memories unless they are gone
    asked: list[tuple[str, str, Item | None]]  # handles, and by which tool


@dataclass(frozen=True)
class Timeline:
    """A page of a conversation's rounds, latest first."""

    session: str
    sums: Sums | None  # of the whole conversation; None if no gateway has counted any of it
    about: list[tuple[str, list[str]]]  # its agents, projects and models
    steps: list[Step]
    chart: Chart | None  # of the rounds of this page, in the order in which they came
    older: int | None  # where the next page begins: the id of the last round; None if it is last
    is_newest: bool
    memories: int  # of this session


def read_sessions(memory: Memory, number: int) -> Sessions:
    """A page of the conversations, latest first."""
    number = max(1, number)
    skip = (number - 1) * ON_A_PAGE
    sums = memory.ledger.sums(["session"], most=ON_A_PAGE + 1, skip=skip)
    more, sums = len(sums) > ON_A_PAGE, sums[:ON_A_PAGE]
    most = max((max(one.tokens_in, one.tokens_sent) for one in sums), default=0)
    about = _about(memory, [str(one.session) for one in sums])
    counted = [
        Counted(one, bar(_amount_of_sums(one), most), about.get(str(one.session), []))
        for one in sums
    ]
    groups = [one for one in browsing.groups(memory.file, "session", _MOST_OTHERS) if one.name]
    memories = {str(one.name): one.memories for one in groups}
    others: list[browsing.Group] = []
    if number == 1 and groups:
        known = {
            one.session for one in memory.ledger.sums(["session"], {"session": list(memories)})
        }
        others = [one for one in groups if one.name not in known]
    return Sessions(counted, others, memories, number, more)


def read_timeline(memory: Memory, session: str, before: int | None) -> Timeline | None:
    """A page of a conversation; None if neither the ledger nor a memory knows it."""
    where = {"session": session}
    sums = memory.ledger.sums((), where)
    memories = browsing.count(memory.file, where)
    if not sums and not memories:
        return None
    found = memory.ledger.rounds(where, most=ROUNDS + 1, before_id=before)
    rounds = found[:ROUNDS]
    handles = [handle for one in rounds for handle in one.compacted]
    handles += [handle for one in rounds for handle, _ in one.asked]
    items = {
        item.memory.handle: item
        for item in items_of(list(browsing.by_handle(memory.file, handles).values()))
    }
    most = max((_amount(one).height for one in rounds), default=0)
    steps = [
        Step(
            one,
            bar(_amount(one), most),
            [(handle, items.get(handle)) for handle in one.compacted],
            [(handle, tool, items.get(handle)) for handle, tool in one.asked],
        )
        for one in rounds
    ]
    about = [
        (f"{name}s", values)
        for name in ("agent", "project", "model")
        if (values := _values(memory, name, session))
    ]
    return Timeline(
        session=session,
        sums=sums[0] if sums else None,
        about=about,
        steps=steps,
        chart=_chart(rounds) if len(rounds) > 1 else None,
        older=rounds[-1].id if len(found) > ROUNDS else None,
        is_newest=before is None,
        memories=memories,
    )


def _about(memory: Memory, sessions: list[str]) -> dict[str, list[str]]:
    """By conversation, its agents and its projects."""
    about: dict[str, list[str]] = {}
    for one in memory.ledger.sums(["session", "agent", "project"], {"session": sessions}):
        known = about.setdefault(str(one.session), [])
        known += [value for value in (one.agent, one.project) if value and value not in known]
    return {session: values[:_NAMED] for session, values in about.items() if session}


def _values(memory: Memory, name: str, session: str) -> list[str]:
    """The agents, projects or models of a conversation that are known."""
    found = memory.ledger.sums([name], {"session": session}, most=_NAMED)
    return [value for one in found if (value := getattr(one, name))]


def _chart(rounds: Sequence[Round]) -> Chart:
    """The prompts of some rounds, which are latest first."""
    ordered = list(reversed(rounds))
    said = [
        f"{_time(one.at)}: {one.tokens_in:,} tokens without compaction, {one.tokens_sent:,} sent, "
        f"{one.cached:,} of them cached" + ("; compacted" if one.before is not None else "")
        for one in ordered
    ]
    return draw(
        [_amount(one) for one in ordered],
        said,
        _ends(ordered[0].at, ordered[-1].at),
        [one.before is not None for one in ordered],
    )


def _amount(one: Round) -> Amount:
    return Amount(one.tokens_in, one.tokens_sent, one.cached)


def _amount_of_sums(one: Sums) -> Amount:
    return Amount(one.tokens_in, one.tokens_sent, one.cached)


def _ends(first: float, last: float) -> tuple[str, str]:
    """The times of a first and a last round, with the day if it differs."""
    begun, ended = datetime.fromtimestamp(first), datetime.fromtimestamp(last)
    if begun.date() == ended.date():
        return begun.strftime("%H:%M:%S"), ended.strftime("%H:%M:%S")
    return _time(first), _time(last)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%-d %b %H:%M")
