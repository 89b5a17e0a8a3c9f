"""The one view of a text that everything looks at which analyses texts: what a reader sees of it.

Tools print for terminals: colours, progress bars, backspaces. None of that is the text. `undress`
takes it off, once for each text, and keeps a map back to the original's characters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from threading import Lock

from clara_mlx.tool_outputs import terminal
from clara_mlx.tool_outputs.decoding import decode as decode
from clara_mlx.tool_outputs.edits import Edit, Edited
from clara_mlx.tool_outputs.json_text import json_strings
from clara_mlx.tool_outputs.prefixes import (
    Found,
    line_numbers,
    marks,
    names,
    places_in_code,
    records,
    times,
)

# Texts whose undressed views are kept, and the characters that they may have together. One larger
# text is kept all the same, until the next one comes.
_KEPT_TEXTS = 16
_KEPT_CHARACTERS = 4_000_000


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
        layers: tuple[Edited, ...],
        numbers: Mapping[int, Mapping[int, int]] | None = None,
    ) -> None:
        self.original = original
        self.text = layers[-1].text if layers else original
        self._layers = layers
        # The numbers of lines, by the layer that took them off and the place before it.
        self._numbers = numbers or {}
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
            if depth in self._numbers:
                line = layer.text.rfind("\n", 0, position) + 1
                number = self._numbers[depth].get(layer.before(line, line)[0])
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
                if not edits:
                    continue
                if found:
                    numbers[len(layers)] = dict(found)
                layers.append(Edited(text, edits))
                text = layers[-1].text
            if len(layers) == before:
                break
            # A line of JSON may follow a prefix.
            layers += _take_off(text)
            text = layers[-1].text
        if len(layers) == len(self._layers):
            return self
        return Undressed(self.original, tuple(layers), numbers)

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
    view = Undressed(text, _take_off(text))
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
    terminal.codes,
    terminal.lost_colours,
    terminal.invisible,
    terminal.line_ends,
    terminal.overstruck,
    terminal.backspaces,
    terminal.carriage_returns,
)


# What is set aside, in this order, and how often: a container can stand before a time.
_PREFIXES = (records, times, marks, names, line_numbers)
_MOST_PREFIXES = 2

# JSON in JSON in JSON; each time the backslashes double.
_MOST_ROUNDS = 6


def _take_off(text: str) -> tuple[Edited, ...]:
    layers: list[Edited] = []
    for _ in range(_MOST_ROUNDS):
        for layer in _LAYERS:
            if edits := layer(text):
                layers.append(Edited(text, edits))
                text = layers[-1].text
        # What was in JSON may be dressed again.
        if "\\" not in text or not (edits := json_strings(text)):
            break
        layers.append(Edited(text, edits))
        text = layers[-1].text
    return tuple(layers)
