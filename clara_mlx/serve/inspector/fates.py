"""What became of the facts of a text that a block stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from clara_mlx.context.pages import expand
from clara_mlx.memory import Memory
from clara_mlx.tool_outputs import rules
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.undress import undress

#: Where the reasoner has a fact: in what it was sent; on the page that one call of `expand` gives;
#: or further on, where it has to be looked for.
Fate = Literal["shown", "near", "behind"]

# Characters of a text's beginning that tell which tool has printed it.
_LOOK = 28_672

# The most facts of a page that are followed.
_MOST_FACTS = 600


@dataclass(frozen=True)
class Followed:
    """A fact of a text, with its place and what became of it."""

    name: str  # what it states, such as failed test
    text: str
    start: int  # characters of the text
    end: int
    fate: Fate


def first_page_end(memory: Memory, handle: str, text: str) -> int:
    """The character at which the page ends that one call of `expand` gives."""
    page = expand(memory, handle)
    body = page.partition("\n")[2]
    differ = (i for i, (one, other) in enumerate(zip(body, text, strict=False)) if one != other)
    return next(differ, min(len(body), len(text)))


def follow(text: str, start: int, end: int, sent: str | None, first_page: int) -> list[Followed]:
    """The facts of a part of a text, in its order.

    Args:
        text: The whole original.
        start: Where the part begins.
        end: Where it ends.
        sent: The text that is sent in its place; None if it is sent as it is.
        first_page: See `first_page_end`.
    """
    part = text[start:end]
    tool = classify(text[:_LOOK])
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for fact in rules.facts(part, tool):
        found.setdefault((fact.start, fact.end), (fact.name.replace("_", " "), fact.text))
    for one in identifiers(part, _MOST_FACTS):
        found.setdefault((one.start, one.end), (one.kind, one.text))
    view = None if sent is None else undress(sent).text
    texts = {said for _, said in found.values()}
    shown = texts if view is None else {said for said in texts if _stands_in(view, said)}
    fates: list[Followed] = []
    for (first, last), (name, said) in sorted(found.items())[:_MOST_FACTS]:
        fate: Fate = (
            "shown" if said in shown else "near" if start + last <= first_page else "behind"
        )
        fates += [Followed(name, said, start + first, start + last, fate)] if last > first else []
    return fates


def tally(facts: Iterable[Followed]) -> Counter[Fate]:
    """The number of facts by what became of them."""
    return Counter(fact.fate for fact in facts)


def _stands_in(view: str, said: str) -> bool:
    """Whether a text says something, not only as a part of another word or number."""
    place = view.find(said)
    while place >= 0:
        before, after = view[place - 1 : place], view[place + len(said) : place + len(said) + 1]
        if not (_joins(before, said[:1]) or _joins(said[-1:], after)):
            return True
        place = view.find(said, place + 1)
    return False


def _joins(left: str, right: str) -> bool:
    return (left.isalnum() or left == "_") and (right.isalnum() or right == "_")
