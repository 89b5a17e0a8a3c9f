"""As much of a text as a budget of tokens holds, whatever counts them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from clara_mlx.compressors.compressor import Tokens

#: What stands where a part of a text was left out.
GAP = "\n...\n"


def count(text: str, tokens: Tokens) -> int:
    """The number of tokens of a text."""
    return len(tokens.encode(text))


def fits(text: str, budget: int, tokens: Tokens) -> bool:
    """Whether a text has at most ``budget`` tokens."""
    return count(text, tokens) <= budget


def beginning(text: str, budget: int, tokens: Tokens) -> str:
    """The longest beginning of a text with at most ``budget`` tokens."""
    ends = tokens.ends(text)
    return (
        text
        if len(ends) <= budget
        else _longest(ends[:budget], lambda end: text[:end], budget, tokens)
    )


def both_ends(text: str, budget: int, tokens: Tokens) -> str:
    """A text's beginning and its end, each of about half of the budget, with `GAP` between them."""
    ends = tokens.ends(text)
    if len(ends) <= budget:
        return text

    def keep(half: int) -> str:
        return f"{text[: ends[half - 1]]}{GAP}{text[ends[-half - 1] :]}"

    return _longest(range(1, budget // 2 + 1), keep, budget, tokens) or beginning(
        text, budget, tokens
    )


def lines_in_order(
    lines: Sequence[str], best_first: Iterable[int], budget: int, tokens: Tokens
) -> str:
    """As many lines as fit, chosen by their numbers, the best first, in their own order.

    The line that exceeds the budget is cut to the longest beginning that still fits, and is the
    last to be chosen.
    """
    chosen: dict[int, str] = {}
    text = ""
    for number in best_first:
        with_all = _join({**chosen, number: lines[number]})
        if fits(with_all, budget, tokens):
            chosen[number] = lines[number]
            text = with_all
            continue

        def keep(end: int, number: int = number) -> str:
            return _join({**chosen, number: lines[number][:end]})

        ends = tokens.ends(lines[number])[:budget]
        return _longest(ends, keep, budget, tokens) or text
    return text


def _join(lines: dict[int, str]) -> str:
    return "\n".join(lines[number] for number in sorted(lines))


def _longest(steps: Sequence[int], keep: Callable[[int], str], budget: int, tokens: Tokens) -> str:
    """What is kept at the last step whose text fits; empty if none does.

    More of a text nearly always has more tokens; where two of them become one, a step may be lost.
    """
    place = bisect_left(steps, True, key=lambda step: not fits(keep(step), budget, tokens))
    while place and not fits(keep(steps[place - 1]), budget, tokens):
        place -= 1
    return keep(steps[place - 1]) if place else ""
