"""Choosing units within a budget of tokens, which the result meets and never exceeds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from clara_mlx.compressors.compressor import Tokens
from clara_mlx.compressors.llmlingua2.units import Unit

# How often the choice is corrected after its text was counted; each time the error shrinks.
_MOST_CORRECTIONS = 12

# How many single units are tried for the last free tokens.
_MOST_LAST_TRIES = 16


def choose(
    text: str,
    units: Sequence[Unit],
    budget: int,
    tokens: Tokens,
    render: Callable[[Sequence[int]], str],
) -> list[int]:
    """The numbers of the units that are kept, in their order: those of the greatest keys that fit.

    A unit's tokens depend on its neighbours, so the choice is made with estimates, its text is
    counted, and the choice corrected, until nothing that is left fits.

    Args:
        text: The text that the units are from.
        units: Its units, in their order.
        budget: The most tokens of the result.
        tokens: What they are counted by.
        render: Gives the text of some of the units, by their numbers.
    """
    ranked = sorted(range(len(units)), key=lambda i: units[i].key, reverse=True)
    costs = _estimates(text, units, tokens)
    best: set[int] = set()  # the numbers of the units that fit
    room = budget  # in estimated tokens

    def count(numbers: set[int]) -> int:
        return len(tokens.encode(render(sorted(numbers))))

    free = budget  # tokens that `best` leaves
    for _ in range(_MOST_CORRECTIONS):
        chosen = _greedy(ranked, costs, room)
        over = count(chosen) - budget
        if over <= 0 and -over <= free:
            best, free = chosen, -over
        if over == 0 or (over < 0 and len(chosen) == len(units)):
            break
        room -= over
        if room < 0:
            break
    tried = 0
    for i in ranked:
        if free == 0 or tried == _MOST_LAST_TRIES:
            break
        if i not in best and costs[i] <= free + 1:  # the estimate may be one too high
            tried += 1
            over = count(best | {i}) - budget
            if over <= 0:
                best, free = best | {i}, -over
    return sorted(best)


def _estimates(text: str, units: Sequence[Unit], tokens: Tokens) -> list[int]:
    """About how many tokens each unit has: those of the text that end in it or just before it."""
    ends = tokens.ends(text)
    costs = []
    before = 0
    for unit in units:
        upto = bisect_right(ends, unit.end, lo=before)
        costs.append(max(1, upto - before))
        before = upto
    return costs


def _greedy(ranked: Sequence[int], costs: Sequence[int], room: int) -> set[int]:
    """The units that fit one after the other, the best first, by estimates."""
    chosen: set[int] = set()
    for i in ranked:
        if costs[i] <= room:
            chosen.add(i)
            room -= costs[i]
            if not room:
                break
    return chosen
