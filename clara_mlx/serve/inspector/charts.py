"""Columns of a chart, as a template draws them: what was read, what was cached, what was saved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Width and height of the drawing, which is stretched to the page.
WIDTH, HEIGHT = 1000.0, 200.0

# The share of a column that is left free between two.
_GAP = 0.22

# Units of the drawing that a column is wide at most.
_WIDEST = 44.0


@dataclass(frozen=True)
class Amount:
    """Tokens of prompts: there were, of which some were sent, of which some were cached."""

    there: int
    sent: int
    cached: int

    @property
    def parts(self) -> tuple[tuple[str, int], ...]:
        """What was read, what was in the cache, and what did not have to be sent."""
        cached = min(max(0, self.cached), max(0, self.sent))
        saved = max(0, self.there - self.sent)
        return ("read", max(0, self.sent - cached)), ("cached", cached), ("saved", saved)

    @property
    def height(self) -> int:
        """Tokens that the column stands for."""
        return sum(tokens for _, tokens in self.parts)


@dataclass(frozen=True)
class Part:
    """A rectangle of the drawing."""

    kind: str  # read, cached or saved
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Column:
    """One column, with what it says of itself."""

    parts: list[Part]
    says: str
    marked: Part | None  # what is drawn behind it, where something happened


@dataclass(frozen=True)
class Chart:
    """A chart of stacked columns."""

    columns: list[Column]
    top: int  # tokens at the upper edge
    first: str  # what stands below its left end
    last: str  # what stands below its right end


def draw(
    amounts: Sequence[Amount], says: Sequence[str], ends: tuple[str, str], marked: Sequence[bool]
) -> Chart:
    """A chart of amounts in their order.

    Args:
        amounts: One for each column.
        says: What each column says of itself.
        ends: What stands below the left and the right end.
        marked: Whether something happened there.
    """
    top = round_up(max((one.height for one in amounts), default=0))
    step = WIDTH / max(1, len(amounts))
    width = min(_WIDEST, step * (1 - _GAP))
    columns = []
    for number, (amount, text, mark) in enumerate(zip(amounts, says, marked, strict=True)):
        x = number * step + (step - width) / 2
        behind = Part("cut", x + width / 2 - step / 2, 0, step, HEIGHT) if mark else None
        y = HEIGHT
        parts = []
        for kind, tokens in amount.parts:
            height = HEIGHT * tokens / top
            y -= height
            parts += [Part(kind, round(x, 2), round(y, 2), round(width, 2), round(height, 2))]
        columns.append(Column([part for part in parts if part.height], text, behind))
    return Chart(columns, top, *ends)


def bar(amount: Amount, most: int) -> list[Part]:
    """A horizontal bar, ``most`` tokens of which fill the width."""
    x = 0.0
    parts = []
    for kind, tokens in amount.parts:
        width = WIDTH * tokens / max(1, most)
        parts.append(Part(kind, round(x, 2), 0, round(width, 2), 1))
        x += width
    return [part for part in parts if part.width]


def round_up(number: int) -> int:
    """The next number that is read easily: 1, 2, 3, 4, 5, 6 or 8 and zeros."""
    unit = 1
    while number > 10 * unit:
        unit *= 10
    return next(step * unit for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * unit >= number)
