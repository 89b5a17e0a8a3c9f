"""What is known of one memory: where it came from, where it was used, what stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clara_mlx.errors import NotFound
from clara_mlx.store import browsing
from clara_mlx.store.browsing import Listed, Standing
from clara_mlx.store.sums import Use

if TYPE_CHECKING:
    from clara_mlx.memory.memory import Memory

# The most texts that stand for a memory, other memories of the same text, and uses that are given.
_MOST_STANDING = 20
_MOST_TWINS = 10
_MOST_USES = 100


@dataclass(frozen=True)
class Description:
    """What is known of one memory.

    Attributes:
        memory: What it is, where it came from, and the beginning of its text.
        lines: The number of lines of its text.
        chunks: The number of chunks that it is cut into.
        tokens: The tokens of these; None if it was cut without a tokenizer.
        twins: Handles of other memories of the same content, newest first.
        uses: When it left a prompt and when it was asked back, latest first.
        standing: The texts that are sent in its place, or that tell of it; its own block first.
    """

    memory: Listed
    lines: int
    chunks: int
    tokens: int | None
    twins: list[str]
    uses: list[Use]
    standing: list[Standing]

    @property
    def sent(self) -> list[str]:
        """The texts that are sent in its place; notes only repeat lines of it."""
        return [one.text for one in self.standing if one.kind != "note"]


def describe(memory: Memory, handle: str) -> Description:
    """What is known of a memory.

    Raises:
        NotFound: There is no such memory.
    """
    text = memory.text(handle)
    memory.file.bring([handle])
    row = browsing.by_handle(memory.file, [handle]).get(handle)
    if row is None:  # it has just been forgotten
        raise NotFound(f"{memory.path}: no memory {handle!r}")
    chunks, tokens = browsing.chunk_sizes(memory.file, handle)
    return Description(
        memory=row,
        lines=text.count("\n") + (not text.endswith("\n") and bool(text)),
        chunks=chunks,
        tokens=tokens,
        twins=browsing.same_content(memory.file, handle, _MOST_TWINS),
        uses=memory.ledger.uses(handle, _MOST_USES),
        standing=browsing.standing(memory.file, handle, _MOST_STANDING),
    )
