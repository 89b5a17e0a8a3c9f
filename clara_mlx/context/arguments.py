"""What a call was given: the block in its place, and the text by which it is remembered."""

from __future__ import annotations

import json
from typing import Any

from clara_mlx.context.commands import middle, only_what_changed, parse_arguments, texts_of
from clara_mlx.context.messages import Piece
from clara_mlx.context.wording import LEAST_CHARACTERS, excerpt_of, size_of
from clara_mlx.tool_outputs.identifier_lines import IDENTIFIERS, identifier_lines
from clara_mlx.tool_outputs.quoting import MARKER, plain_name, quote_markers, replace_surrogates

# Characters of a long string that its block shows, from its beginning and its end.
_SHOWN = 160

# It shows no more than this part of the string, a third.
_SHOWN_PART = 3


def describe_arguments(piece: Piece, handle: str, excerpt: int = 0) -> str:
    """The arguments of a call with a block in place of each long string; still JSON.

    Each shows how its string begins and ends, or what an edit changes; the same for the same
    input, always. Arguments that are no JSON stay as they are: no shorter form is sure to be read.

    Args:
        piece: The arguments.
        handle: The handle by which they are remembered.
        excerpt: Characters of each long string to show as they are; 0: a line.
    """

    def shorten(value: Any, changed: str | None = None) -> Any:
        if isinstance(value, str) and len(value) >= LEAST_CHARACTERS:
            short = _block(value, value if changed is None else changed, handle, excerpt)
            return short if len(short) < len(value) else value
        if isinstance(value, dict):
            return {key: shorten(one) for key, one in value.items()}
        if isinstance(value, list):
            return [shorten(one) for one in value]
        return value

    try:
        given = json.loads(piece.text)
        if isinstance(given, dict):
            changed = only_what_changed(texts_of(given))
            short: Any = {key: shorten(one, changed[key]) for key, one in given.items()}
        else:
            short = shorten(given)
    except (ValueError, RecursionError):
        return replace_surrogates(piece.text)
    if short == given:
        return replace_surrogates(piece.text)
    return replace_surrogates(json.dumps(short, ensure_ascii=False))


def _block(value: str, changed: str, handle: str, excerpt: int) -> str:
    heading = f"{MARKER}{handle}: {size_of(value)} of this call, kept whole"
    if excerpt:
        parts = [quote_markers(part) for part in excerpt_of(value, excerpt)]
        return "\n".join([f"{heading}]", *parts])
    shown = middle(changed, min(_SHOWN, len(value) // _SHOWN_PART))
    about = "; ".join(identifier_lines(changed, IDENTIFIERS // 4, shown))
    return f"{heading}{f': {about}' if about else ''}] {shown}"


def readable_arguments(piece: Piece) -> str:
    """The arguments of a call as text in lines, to be remembered, searched and read in pages."""
    name = plain_name(piece.tool or "tool")
    parsed = parse_arguments(piece.text)
    if parsed is None:
        return f"called {name}:\n{piece.text}"
    values = texts_of(parsed)
    if len(values) == 1:
        return "\n".join([f"called {name}:", *values.values()])
    lines = [f"called {name}"]
    for key, value in values.items():
        gap = "\n" if "\n" in value else " "
        lines.append(f"{' '.join(key.split())}:{gap}{value}")
    return "\n".join(lines)
