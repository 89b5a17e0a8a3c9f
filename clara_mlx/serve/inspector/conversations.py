"""Conversations: what was sent of each against what there was, round by round."""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.memory import Memory
from clara_mlx.store import browsing
from clara_mlx.store.browsing import Listed
from clara_mlx.store.ledger import Round
from clara_mlx.store.sums import Sums

#: Conversations of one page.
ON_A_PAGE = 50

#: Rounds of one page.
ROUNDS = 60

# Sessions that are listed though nothing of them went through a gateway.
_MOST_OTHERS = 200


@dataclass(frozen=True)
class Sessions:
    """A page of the list of conversations."""

    counted: list[Sums]  # those in the ledger, latest first
    others: list[browsing.Group]  # sessions of memories that no gateway has seen; on the first page
    memories: dict[str, int]  # by session, the number of memories, as far as they are listed
    number: int  # of the page, from 1
    pages: int


@dataclass(frozen=True)
class Bar:
    """How many tokens of a prompt were read, were in the cache, and were not sent, in per mille."""

    read: int
    cached: int
    saved: int


@dataclass(frozen=True)
class Step:
    """A round as the timeline shows it."""

    round: Round
    bar: Bar  # as parts of the largest prompt of the page


@dataclass(frozen=True)
class Timeline:
    """A page of a conversation's rounds, latest first."""

    session: str
    sums: Sums | None  # of the whole conversation; None if no gateway has counted any of it
    agents: list[str]
    projects: list[str]
    models: list[str]
    steps: list[Step]
    older: int | None  # where the next page begins: the id of the last round; None if it is last
    memories: int  # of this session
    titles: dict[str, Listed]  # the memories that the rounds name


def read_sessions(memory: Memory, number: int) -> Sessions:
    """A page of the conversations, latest first."""
    total = memory.ledger.count_sessions()
    pages = max(1, -(-total // ON_A_PAGE))
    number = min(max(1, number), pages)
    counted = memory.ledger.sums(["session"], most=ON_A_PAGE, skip=(number - 1) * ON_A_PAGE)
    groups = browsing.groups(memory.file, "session", _MOST_OTHERS)
    sums = {one.session: one for one in memory.ledger.sums(["session"])} if number == 1 else {}
    others = [one for one in groups if one.name and one.name not in sums] if number == 1 else []
    memories = {one.name: one.memories for one in groups if one.name}
    return Sessions(counted, others, memories, number, pages)
