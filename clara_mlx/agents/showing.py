"""Shows what would be changed in settings files, without showing anybody's secrets."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from clara_mlx.agents.connecting import Change
from clara_mlx.tool_outputs.secrets import mask


def difference(change: Change, token: str | None = None) -> Iterator[str]:
    """The lines that would go and come in a file; secrets in them are masked, and so is a token."""
    if change.is_none:
        yield f"{change.path}: would stay as it is"
        return
    if change.after is None:
        yield f"{change.path}: would be removed; there was no such file before"
    elif change.before is None:
        yield f"{change.path}: would be made"
    else:
        yield f"{change.path}: would be changed"
    before = (change.before or b"").decode("utf-8", "replace").splitlines()
    after = (change.after or b"").decode("utf-8", "replace").splitlines()
    for line in difflib.unified_diff(before, after, n=0, lineterm=""):
        if not line.startswith(("---", "+++", "@@")):
            shown = mask(line)[0]
            yield f"  {shown.replace(token, '[masked: token]') if token else shown}"
