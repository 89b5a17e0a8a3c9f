"""Freezing: a text is remembered, and a block that is chosen once and for all stands for it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice

from clara_mlx.context import wording
from clara_mlx.context.messages import Piece
from clara_mlx.context.quoting import MARKER
from clara_mlx.context.table import Block, BlockTable, Kind
from clara_mlx.context.tools import MEMORY_TOOLS
from clara_mlx.errors import ClaraError, StoreError
from clara_mlx.memory import Memory
from clara_mlx.store.fields import LONGEST_NAME

#: How handles look. Looking like one proves nothing: `Freezer.can_restore` asks the memory.
HANDLE = re.compile(r"\bm-[0-9a-f]{10,64}\b")

# Texts of which it is known that they were observed; the oldest are dropped. Each takes 200 bytes.
_MOST_OBSERVED = 100_000

# Hexadecimal digits of a handle; more if another original has it.
_DIGITS = 12


class Freezer:
    """Makes blocks, and finds those that were made. Safe to use from several threads.

    Attributes:
        memory: The memory that keeps the originals.
        table: The blocks and edits in the memory's file.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.table = BlockTable(memory.file)
        # Handles whose originals were read back in this process; each is read back once.
        self._verified: set[str] = set()
        # Handles of what was observed in this process. What is forgotten stays forgotten.
        self._observed: dict[bytes, str] = {}

    def draft(self, session: str, piece: Piece, excerpt: int = 0) -> str:
        """The text that `freeze` would choose, without keeping anything."""
        block = self.table.block(digest_of(session, piece, excerpt))
        if block:
            return block.text
        return _wording_of(session, piece, excerpt)(self._handle_for(session, piece))

    def freeze(self, session: str, piece: Piece, excerpt: int = 0) -> Block:
        """Choose the block of a piece; its original is remembered and read back.

        What the memory's own tools gave is kept beside its block and not remembered again.

        Args:
            session: The conversation's name.
            piece: The text.
            excerpt: Characters of the text to show in the block; 0: none.

        Raises:
            StoreError: The memory can't keep the original or does not give it back exactly.
        """
        describe = _wording_of(session, piece, excerpt)
        if not is_recalled(piece):
            return self.freeze_as(session, piece, describe, excerpt=excerpt)
        digest = digest_of(session, piece, excerpt)
        mentions = self.known_handles(f"{piece.arguments}\n{piece.text}")
        return self.table.keep(Block(digest, "piece", describe(""), None, piece.text), mentions)

    def freeze_as(
        self,
        session: str,
        piece: Piece,
        describe: Callable[[str], str],
        mentions: Iterable[str] = (),
        *,
        kind: Kind = "piece",
        excerpt: int = 0,
    ) -> Block:
        """As `freeze`, with the caller's wording.

        Args:
            session: The conversation's name.
            piece: The text.
            describe: Makes the block's text, given the original's handle.
            mentions: Other handles that the text names.
            kind: What the block stands for.
            excerpt: Characters of the original in the block's text.
        """
        digest = digest_of(session, piece, excerpt)
        known = self.table.block(digest)
        if known and self.can_restore(known, piece.text):
            return known
        handle = self._handle_for(session, piece)
        self._remember(session, piece, handle)
        block = self.table.keep(Block(digest, kind, describe(handle), handle), mentions)
        if not self.can_restore(block, piece.text):
            raise StoreError(
                f"{self.memory.path}: the original of {handle} is not what was remembered"
            )
        return block

    def freeze_note(self, chain: bytes, text: str, mentions: Iterable[str]) -> Block:
        """Choose the note of the message at which a chain ends; it stands for no original."""
        return self.table.keep(Block(_sha256(b"note", chain), "note", text, None), mentions)

    def observe(self, session: str, piece: Piece) -> str | None:
        """Remember a long piece before any block is needed, so that it is compressed by then.

        Returns its handle; None if it is short, is the memory's own, or was forgotten.
        """
        digest = digest_of(session, piece)
        if digest in self._observed:
            handle = self._observed[digest]
            return handle if self.memory.has(handle) else None
        short = len(piece.text) < wording.LEAST_CHARACTERS
        if short or is_recalled(piece) or self.block_with_text(piece.text):
            return None
        handle = self._handle_for(session, piece)
        self._remember(session, piece, handle)
        self._observed[digest] = handle
        for oldest in list(islice(self._observed, max(0, len(self._observed) - _MOST_OBSERVED))):
            self._observed.pop(oldest, None)
        return handle

    def handles(self, session: str, pieces: Iterable[Piece]) -> tuple[str, ...]:
        """The handles that pieces have, or will have when they are remembered.

        Short pieces and what the memory itself gave have none.
        """
        return tuple(
            self._observed.get(digest_of(session, piece)) or self._handle_for(session, piece)
            for piece in pieces
            if len(piece.text) >= wording.LEAST_CHARACTERS and not is_recalled(piece)
        )

    def block_with_text(self, text: str) -> Block | None:
        """The block that a text is, if this memory's file chose exactly this text."""
        return self.table.block_with_text(text.removesuffix(wording.EXPLANATION))

    def block_shown(self, session: str, role: str, text: str) -> Block | None:
        """The block or fold that a text of a message is; nothing else counts as ours.

        This memory's file must have chosen it, to the byte, for this session and this role: a block
        that a tool prints, because it read one, is only what a tool printed.

        Args:
            session: The conversation's name.
            role: The role of the message.
            text: Its content, a part of its content, or the arguments of a call.
        """
        block = self.block_with_text(text) if MARKER in text else None
        if block is None or block.kind == "note":
            return None
        if block.handle is None:  # what the memory's tools gave
            return block if role == "tool" else None
        # A text of which no block would be shorter stands for itself, and may say anything.
        own = f"{MARKER}{block.handle}:" in text
        return block if own and self._is_from(block.handle, session, role) else None

    def original_piece(self, session: str, piece: Piece) -> Piece:
        """The piece that a block's text stands for; of any other text, the piece itself.

        A block of another session is only text in this one, so that it gives nothing away.
        """
        block = self.block_with_text(piece.text)
        if block is None or block.kind != "piece":
            return piece
        if block.handle and not self._is_from(block.handle, session, piece.role):
            return piece
        return replace(piece, text=self.original(block))

    def _is_from(self, handle: str, session: str, role: str) -> bool:
        """Whether a handle's original was a text of this role in this session."""
        found = self.memory.list({"handle": handle, "session": session})
        return any(one.metadata.get("role") == role for one in found)

    def can_restore(self, block: Block, original: str | None = None) -> bool:
        """Whether a block's original comes back, and is ``original`` if that is given.

        Without it, an original that came back once in this process is not read again: the table's
        `edits` checks that it still exists.
        """
        if block.handle is None or (original is None and block.handle in self._verified):
            return True
        try:
            given = self.memory.original(block.handle)
        except ClaraError:
            self._verified.discard(block.handle)
            return False
        if original is not None and given != original:
            return False
        self._verified.add(block.handle)
        return True

    def original(self, block: Block) -> str:
        """The text that a block stands for.

        Raises:
            StoreError: It was forgotten, or is damaged.
        """
        if block.handle is None:
            return block.body or ""
        given = self.memory.original(block.handle)
        assert isinstance(given, str)
        return given

    def known_handles(self, text: str) -> list[str]:
        """The handles in a text that the memory knows, each once.

        They say only what goes when one of them is forgotten. So a foreign text that names handles
        gains nothing by it, and loses its own block with them.
        """
        return [handle for handle in dict.fromkeys(HANDLE.findall(text)) if self.memory.has(handle)]

    def _handle_for(self, session: str, piece: Piece) -> str:
        """The piece's handle, from its digest: the same in every file that remembers it."""
        digest = digest_of(session, piece).hex()
        for length in range(_DIGITS, len(digest) + 1):
            handle = f"m-{digest[:length]}"
            if not self.memory.has(handle) or self._is_original(handle, piece):
                return handle
        raise AssertionError("two texts have one SHA-256")

    def _is_original(self, handle: str, piece: Piece) -> bool:
        try:
            return self.memory.original(handle) == piece.text
        except StoreError:
            return False

    def _remember(self, session: str, piece: Piece, handle: str) -> None:
        """Remember a piece under its handle, unless it already is."""
        if self.memory.has(handle):
            return
        metadata = {"role": piece.role, "command": wording.short_command(piece.arguments)}
        if piece.part == "fold":
            metadata["fold"] = "blocks and turns"  # `ask_memory` leaves it out
        try:
            self.memory.remember(
                piece.text,
                source=(piece.tool or piece.role)[:LONGEST_NAME],
                session=session,
                metadata=metadata,
                handle=handle,
            )
        except StoreError:
            if not self.memory.has(handle):  # if it has, another thread was faster
                raise


def is_recalled(piece: Piece) -> bool:
    """Whether a piece is what one of the memory's own tools gave.

    Agents that reach them by MCP put the server's name before the tool's: ``mcp__clara__expand``.
    """
    return piece.role == "tool" and (piece.tool or "").rpartition("__")[2] in MEMORY_TOOLS


def digest_of(session: str, piece: Piece, excerpt: int = 0) -> bytes:
    """What identifies a piece's block: within a session, equal texts of equal calls share one."""
    kind = piece.part.partition(".")[0]
    identity = (session, piece.role, kind, piece.tool, piece.arguments, piece.text, excerpt)
    return _sha256(*(str(part).encode("utf-8", "surrogatepass") for part in identity))


def _wording_of(session: str, piece: Piece, excerpt: int) -> Callable[[str], str]:
    """The function that makes the text of a piece's block from its handle."""
    if is_recalled(piece):
        number = f"r-{digest_of(session, piece).hex()[:_DIGITS]}"
        return lambda handle: wording.describe_recalled(piece, number)
    return lambda handle: wording.describe(piece, handle, excerpt)


def _sha256(*parts: bytes) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
