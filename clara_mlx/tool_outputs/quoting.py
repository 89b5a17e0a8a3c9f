"""Text of others inside our own: it begins no line, and has no marker of ours.

Blocks, folds, notes and summaries quote what tools, files, models and clients said. A reader tells
our words from theirs by how a line begins (``user: ``, ``called ...``) and by the marker of our
blocks, ``[clara ...``. So what is quoted begins no line of its own, and its markers are changed
into ``[quoted clara ...``: visible, the same words, and no longer ours. Originals are never
changed, nor is a text that is sent under its own role.
"""

from __future__ import annotations

import re

#: How every block, fold and note begins.
MARKER = "[clara "

# What stands in the place of its bracket in foreign text.
_QUOTED = "[quoted "

# Characters that are not seen: soft hyphen, joiners, marks of direction, the byte order mark.
_UNSEEN = r"\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"

# The marker as a reader takes it, however it is spaced, in small or large letters, and also at a
# text's end, where more may follow. Letters that only look like these are not looked for.
# [ CLARA m-0123456789ab
_MARKERS = re.compile(
    rf"\[(?=[\s{_UNSEEN}]*" + "".join(f"{one}[{_UNSEEN}]*" for one in "clara") + r"(?:\s|\Z))",
    re.IGNORECASE,
)

# What templates look for in the text of an assistant: at these they cut it, or refuse it.
_TAGS = ("<think>", "</think>", "<|channel|>")

# What ends a line for `str.splitlines`, for terminals or for editors, other than a line feed.
# one\r\ntwo
_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")

# What stands for such a line end where a line of an original is quoted exactly.
_VISIBLE_LINE_END = "⏎"

# What a name has; anything else could pass for the text around it.
_NOT_IN_NAMES = re.compile(r"[^\w.:/@+-]+")

# Characters of a name that are shown.
_NAME = 80

# The roles of OpenAI's API; clients make up others.
_ROLES = frozenset(("user", "assistant", "tool", "function", "system", "developer"))


def quote_markers(text: str, own: str = "") -> str:
    """A text whose markers read as quotations; equal to the text if it has none.

    Args:
        text: Foreign text.
        own: How the one marker begins that is ours and stays.
    """
    if "[" not in text:
        return text
    return _MARKERS.sub(
        lambda match: match[0] if own and text.startswith(own, match.start()) else _QUOTED, text
    )


def spell_out_tags(text: str) -> str:
    """A text that a template takes as an assistant's, whatever it quotes."""
    for tag in _TAGS:
        text = text.replace(tag, f"{tag[0]} {tag[1:]}")
    return text


def one_line(text: str, most: int, own: str = "") -> str:
    """A text as one line of at most ``most`` characters, each run of white space as one space.

    ``own`` is that of `quote_markers`.
    """
    flat = quote_markers(" ".join(text[: 4 * most].split()), own)
    return flat if len(flat) <= most and len(text) <= 4 * most else flat[: most - 3] + "..."


def exact_line(text: str) -> str:
    """A line of an original as it is, but for line ends inside it, which become visible."""
    return quote_markers(_LINE_ENDS.sub(_VISIBLE_LINE_END, text.removesuffix("\r")))


def even_line_ends(text: str) -> str:
    """A text in which every line ends with a line feed."""
    return _LINE_ENDS.sub("\n", text)


def indent(text: str) -> str:
    """A text whose lines, but for the first, are indented, so that none passes for another's."""
    return even_line_ends(text).replace("\n", "\n  ")


def plain_name(given: str) -> str:
    """The name of a tool or a role without anything that could pass for the text around it."""
    return _NOT_IN_NAMES.sub("_", given)[:_NAME]


def role_label(role: str) -> str:
    """What a line of this role begins with; a role that a client made up is called one."""
    if role in _ROLES:
        return role
    # A colon ends what a line begins with.
    return f"role {plain_name(role).replace(':', '_')}"


def replace_surrogates(text: str) -> str:
    """Lone surrogates can't be sent; the original keeps them."""
    return text.encode("utf-8", "replace").decode()
