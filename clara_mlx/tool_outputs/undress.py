"""The one view of a text that everything looks at which analyses texts: what a reader sees of it.

Tools print for terminals: colours, progress bars, backspaces. None of that is the text. `undress`
takes it off, once for each text, and keeps a map back to the original's characters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock
from typing import NamedTuple

from clara_mlx.tool_outputs import overwritten, terminal
from clara_mlx.tool_outputs.edits import Edit, Origins, edit
from clara_mlx.tool_outputs.json_text import json_strings
from clara_mlx.tool_outputs.prefixes import (
    Found,
    line_numbers,
    marks,
    names,
    places_in_code,
    records,
    times,
    wrappers,
)

# Texts whose undressed views are kept, and the characters that they may have together. One larger
# text is kept all the same, until the next one comes.
_KEPT_TEXTS = 64
_KEPT_CHARACTERS = 4_000_000


class _Numbers(NamedTuple):
    """The numbers of lines that one layer set aside, by the place where each line went on."""

    text: str  # without them
    by_place: dict[int, int]


class Undressed:
    """A text as a reader sees it, with a map to the characters of the original.

    The text is in the order of the original, and each of its characters comes from one or several
    of the original's. It is never changed.

    Attributes:
        original: The text as it came.
        text: The text without the codes of a terminal, overwritten states of progress bars and
            characters that nobody sees; lines end with a line feed alone.
    """

    __slots__ = ("_bare", "_code", "_layers", "_numbers", "original", "text")

    def __init__(
        self,
        original: str,
        text: str,
        layers: tuple[Origins, ...],
        numbers: Mapping[int, _Numbers] | None = None,
    ) -> None:
        self.original = original
        self.text = text
        self._layers = layers
        self._numbers = numbers or {}  # by the layer that set them aside
        self._bare: Undressed | None = None
        self._code: Undressed | None = None

    @property
    def bare(self) -> Undressed:
        """The same without what others put before its lines: times, names of containers, numbers.

        `text` still has all of that, so that it is found; rules read lines that begin as the
        program began them.
        """
        if self._bare is None:
            self._bare = self.set_aside(_PREFIXES, _MOST_PREFIXES)
        return self._bare

    @property
    def code(self) -> Undressed:
        """The bare text also without ``path:12:``, signs of diffs and marks of quotations.

        This is for finding names of code, not for reading.
        """
        if self._code is None:
            self._code = self.bare.set_aside((places_in_code,))
        return self._code

    def line_number(self, position: int) -> int | None:
        """The number that stood before the line with the character at ``position`` of `text`.

        Only `bare` and `code` have set numbers aside.
        """
        for depth in reversed(range(len(self._layers))):
            layer = self._layers[depth]
            if numbers := self._numbers.get(depth):
                line = numbers.text.rfind("\n", 0, position) + 1
                number = numbers.by_place.get(layer.before(line, line)[0])
                if number is not None:
                    return number
            position, _ = layer.before(position, position)
        return None

    def set_aside(self, kinds: Iterable[Callable[[str], Found]], most: int = 1) -> Undressed:
        """The view without prefixes of several kinds, each found by a function.

        Args:
            kinds: The functions.
            most: How often they look, because one prefix can stand behind another.
        """
        text = self.text
        layers = list(self._layers)
        numbers = dict(self._numbers)
        for _ in range(most):
            before = len(layers)
            for kind in kinds:
                edits, found = kind(text)
                if edits:
                    text, origins = edit(text, edits)
                    if found:
                        numbers[len(layers)] = _Numbers(text, dict(found))
                    layers.append(origins)
            if len(layers) == before:
                break
            # A line of JSON may follow a prefix.
            text, new = _take_off(text)
            layers += new
        if len(layers) == len(self._layers):
            return self
        return Undressed(self.original, text, tuple(layers), numbers)

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the original the characters of `text` from ``start`` to ``end`` came from.

        What was taken off around them is not included, what was taken off between them is.
        """
        for layer in reversed(self._layers):
            start, end = layer.before(start, end)
        return start, end

    def seen(self, start: int, end: int) -> str:
        """The part of `text` that was made of the original's characters from ``start`` to ``end``.

        The parts of adjoining spans make up the whole text.
        """
        for layer in self._layers:
            start, end = layer.after(start), layer.after(end)
        return self.text[start:end]


def undress(text: str) -> Undressed:
    """The undressed view of a text; that of the last few texts is kept.

    A text that wears nothing costs a look at it, and the view's text is the same object.
    """
    with _lock:
        if (kept := _views.get(text)) is not None:
            _views.move_to_end(text)
            return kept
    view = Undressed(text, *_take_off(text))
    with _lock:
        _views[text] = view
        while len(_views) > _KEPT_TEXTS or (
            len(_views) > 1 and sum(map(len, _views)) > _KEPT_CHARACTERS
        ):
            _views.popitem(last=False)
    return view


_views: OrderedDict[str, Undressed] = OrderedDict()
_lock = Lock()

# What is taken off, in this order: each function gives its edits.
_LAYERS: tuple[Callable[[str], list[Edit]], ...] = (
    overwritten.redrawn_lines,
    terminal.codes,
    terminal.lost_colours,
    terminal.invisible,
    terminal.line_ends,
    overwritten.overstruck,
    overwritten.backspaces,
    overwritten.carriage_returns,
)


# What is set aside, in this order, and how often: a container can stand before a time.
_PREFIXES = (wrappers, records, times, marks, names, line_numbers)
_MOST_PREFIXES = 2

# JSON in JSON in JSON; each time the backslashes double.
_MOST_ROUNDS = 6


def _take_off(text: str) -> tuple[str, tuple[Origins, ...]]:
    """What is seen of a text, and the layers that were taken off, each with its way back."""
    layers: list[Origins] = []
    for _ in range(_MOST_ROUNDS):
        for layer in _LAYERS:
            if edits := layer(text):
                text, origins = edit(text, edits)
                layers.append(origins)
        # What was in JSON may be dressed again.
        if "\\" not in text or not (edits := json_strings(text)):
            break
        text, origins = edit(text, edits)
        layers.append(origins)
    return text, tuple(layers)
