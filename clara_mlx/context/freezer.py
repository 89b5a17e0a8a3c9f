"""Freezing: a text is remembered, and a block that is chosen once and for all stands for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from clara_mlx.context import wording
from clara_mlx.context.drafts import Drafts
from clara_mlx.context.folds import Told, ToldUnits
from clara_mlx.context.kept import (
    DIGITS,
    Folded,
    as_given,
    body_of,
    digest_of,
    is_recalled,
    remembered_text,
    sha256,
)
from clara_mlx.context.messages import Piece
from clara_mlx.context.project import Projects
from clara_mlx.context.steps import is_long
from clara_mlx.context.table import Block, BlockTable, Kind
from clara_mlx.errors import ClaraError, StoreError
from clara_mlx.memory import Memory
from clara_mlx.tool_outputs.quoting import MARKER

#: How handles look. Looking like one proves nothing: `Freezer.can_restore` asks the memory.
HANDLE = re.compile(r"\bm-[0-9a-f]{10,64}\b")

# Texts of which it is known that they were observed; the oldest are dropped. Each takes 200 bytes.
_MOST_OBSERVED = 100_000

# Characters of texts that are remembered in one transaction, about.
_REMEMBERED_TOGETHER = 50_000

# The number of units of which it is kept at hand what folds can say of them.
_MOST_TOLD = 8_192


class Freezer:
    """Makes blocks, and finds those that were made. Safe to use from several threads.

    Attributes:
        memory: The memory that keeps the originals.
        table: The blocks and edits in the memory's file.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.table = BlockTable(memory.file)
        #: The projects of conversations; their texts are remembered with them.
        self.projects = Projects()
        # Handles whose originals were read back in this process; each is read back once.
        self._verified: set[str] = set()
        # Handles of what was observed in this process. What is forgotten stays forgotten.
        self._observed: dict[bytes, str] = {}
        #: The texts of blocks, before they are chosen.
        self.drafts = Drafts(self.table, self.handle_of)
        #: What folds can say of units; see `folds.ToldUnits`.
        self.told_units = ToldUnits(_MOST_TOLD)

    def draft(self, session: str, piece: Piece, excerpt: int = 0) -> str:
        """The text that `freeze` would choose, without keeping anything."""
        return self.drafts.text(session, piece, excerpt, digest_of(session, piece, excerpt))

    def choose(self, session: str, piece: Piece, excerpt: int = 0) -> Block:
        """As `freeze`, but the block is not kept yet: `BlockTable.save_edits` does that.

        Raises:
            StoreError: The memory can't keep the original or does not give it back exactly.
        """
        digest = digest_of(session, piece, excerpt)
        text = self.drafts.text(session, piece, excerpt, digest)
        if is_recalled(piece):
            return Block(digest, "piece", text, None, piece.text)
        block = self.table.block(digest)
        if block is None:
            handle = self.handle_of(session, piece)
            block = Block(digest, "piece", text, handle, body_of(piece))
            if self.can_restore(block, piece.text):
                return block
            self._remember(session, piece, handle)
        self._check(block, piece)
        return block

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
        block = self.choose(session, piece, excerpt)
        return self.table.keep(block, self.mentions(piece))

    def mentions(self, piece: Piece) -> list[str]:
        """The handles, other than its own, whose texts a piece's block may repeat."""
        return self.known_handles(f"{piece.arguments}\n{piece.text}") if is_recalled(piece) else []

    def freeze_as(
        self,
        session: str,
        piece: Piece,
        describe: Callable[[str], str],
        mentions: Iterable[str] = (),
        *,
        kind: Kind = "piece",
    ) -> Block:
        """As `freeze`, with the caller's wording.

        Args:
            session: The conversation's name.
            piece: The text.
            describe: Makes the block's text, given the original's handle.
            mentions: Other handles that the text names.
            kind: What the block stands for.
        """
        digest = digest_of(session, piece)
        known = self.table.block(digest)
        if known and self.can_restore(known, piece.text):
            return known
        handle = self.handle_of(session, piece)
        self._remember(session, piece, handle)
        block = Block(digest, kind, describe(handle), handle, body_of(piece))
        block = self.table.keep(block, mentions)
        self._check(block, piece)
        return block

    def choose_fold(self, session: str, folded: Folded, describe: Callable[[str], str]) -> Block:
        """The block of a fold, not kept yet: that takes `remember_fold` and `save_edits`."""
        digest = digest_of(session, folded.piece)
        known = self.table.block(digest)
        if known and self.can_restore(known, folded.piece.text):
            return known
        handle = self._first_handle(digest)
        if self.memory.has(handle):
            handle = self._handle_for(digest, folded.with_transcript)
        return Block(digest, "fold", describe(handle), handle, folded.piece.text)

    def remember_fold(self, session: str, block: Block, folded: Folded) -> None:
        """Remember the transcript of a fold, before its block is kept with its edit.

        Raises:
            StoreError: The memory can't keep it.
        """
        assert block.handle is not None
        if not self.memory.has(block.handle):
            self._remember(session, folded.with_transcript, block.handle, synced=False)
        self._check(block, folded.piece)

    def is_own(self, session: str, block: Block) -> bool:
        """Whether a fold was made in this session."""
        return block.handle is not None and self._is_from(block.handle, session, "assistant")

    def _check(self, block: Block, piece: Piece) -> None:
        if not self.can_restore(block, piece.text):
            raise StoreError(
                f"{self.memory.path}: the original of {block.handle} is not what was remembered"
            )

    def freeze_note(self, chain: bytes, text: str, mentions: Iterable[str]) -> Block:
        """Choose the note of the message at which a chain ends; it stands for no original."""
        return self.table.keep(Block(sha256(b"note", chain), "note", text, None), mentions)

    def observe(self, session: str, piece: Piece) -> str | None:
        """Remember a long piece before any block is needed, so that it is compressed by then.

        Returns its handle; None if it is short, is the memory's own, or was forgotten.
        """
        if not is_long(piece):
            return None
        handle = self.observe_all(session, [piece]).get(0)
        self.drafts.make(session, 0)
        return handle

    def observe_all(self, session: str, pieces: Sequence[Piece]) -> dict[int, str]:
        """Remember pieces, in one step, and let the long ones wait for their drafts.

        Returns the handles, by the index of the piece, without those that were forgotten and those
        of what the memory itself gave.
        """
        handles: dict[int, str] = {}
        new: dict[str, tuple[bytes, Piece]] = {}
        to_draft: dict[bytes, Piece] = {}
        for index, piece in enumerate(pieces):
            if is_recalled(piece):
                if is_long(piece):
                    to_draft[digest_of(session, piece)] = piece
                continue
            if MARKER in piece.text and self.block_with_text(piece.text):
                continue
            digest = digest_of(session, piece)
            if digest in self._observed:
                handles[index] = self._observed[digest]
            else:
                handles[index] = self._first_handle(digest)
                new[handles[index]] = (digest, piece)
        taken = self.table.existing(list(new))
        given = []
        for handle, (digest, piece) in new.items():
            if handle in taken:
                other = self._handle_for(digest, piece)
                if other != handle:
                    handles = {i: other if h == handle else h for i, h in handles.items()}
                    given += [] if self.memory.has(other) else [as_given(session, piece, other)]
                self._observed[digest] = other
            else:
                given.append(as_given(session, piece, handle))
                self._observed[digest] = handle
        # The client has these texts, too, until a block takes their place: that is synced.
        self._remember_all(given, synced=False)
        for oldest in list(islice(self._observed, max(0, len(self._observed) - _MOST_OBSERVED))):
            self._observed.pop(oldest, None)
        to_draft.update((digest, piece) for digest, piece in new.values() if is_long(piece))
        self.drafts.let_wait(session, to_draft)
        old = [handle for handle in handles.values() if handle not in new]
        there = self.table.existing(old) | new.keys() if old else new.keys()
        return {index: handle for index, handle in handles.items() if handle in there}

    def handles(self, session: str, pieces: Iterable[Piece]) -> tuple[str, ...]:
        """The handles that pieces have, or will have when they are remembered.

        What the memory itself gave has none.
        """
        return tuple(self.handle_of(session, one) for one in pieces if not is_recalled(one))

    def handle_of(self, session: str, piece: Piece) -> str:
        """The handle that a piece has, or will have when it is remembered."""
        digest = digest_of(session, piece)
        return self._observed.get(digest) or self._handle_for(digest, piece)

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

    def told(self, session: str, piece: Piece) -> Told:
        """How a fold tells of a text: with its block and its handle, if it is long or a block."""
        block = self.block_shown(session, piece.role, piece.text)
        if block is not None and block.kind == "piece":
            text = piece.text if piece.role == "tool" else self.original(block)
            return Told(text, block.handle, block.text)
        if not is_recalled(piece) and not is_long(piece):
            return Told(piece.text)
        digest = digest_of(session, piece)
        if is_recalled(piece):
            fold = self.block_with_text(piece.text) if MARKER in piece.text else None
            if fold and fold.kind == "fold" and self.is_own(session, fold):
                return Told(piece.text)  # it has the form of a result, and lines of ours
            return Told(piece.text, None, self.drafts.text(session, piece, 0, digest))
        handle = self._observed.get(digest) or self._handle_for(digest, piece)
        if not self.table.existing([handle]):
            return Told(piece.text)
        return Told(piece.text, handle, self.drafts.text(session, piece, 0, digest))

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
        if original is not None and original != (given if block.body is None else block.body):
            return False
        self._verified.add(block.handle)
        return True

    def original(self, block: Block) -> str:
        """The text that a block stands for.

        Raises:
            StoreError: It was forgotten, or is damaged.
        """
        if block.handle is None or block.body is not None:
            return block.body or ""
        given = self.memory.original(block.handle)
        assert isinstance(given, str)
        return given

    def known_handles(self, text: str) -> list[str]:
        """The handles in a text that the memory knows, each once.

        They say only what goes when one of them is forgotten. So a foreign text that names handles
        gains nothing by it, and loses its own block with them.
        """
        named = list(dict.fromkeys(HANDLE.findall(text)))
        there = self.table.existing(named) if named else ()
        return [handle for handle in named if handle in there]

    def _handle_for(self, digest: bytes, piece: Piece) -> str:
        """The piece's handle, from its digest: the same in every file that remembers it."""
        digits = digest.hex()
        for length in range(DIGITS, len(digits) + 1):
            handle = f"m-{digits[:length]}"
            if not self.table.existing([handle]) or self._is_original(handle, piece):
                return handle
        raise AssertionError("two texts have one SHA-256")

    def _first_handle(self, digest: bytes) -> str:
        return f"m-{digest.hex()[:DIGITS]}"

    def _is_original(self, handle: str, piece: Piece) -> bool:
        try:
            return self.memory.original(handle) == remembered_text(piece)
        except StoreError:
            return False

    def _remember(self, session: str, piece: Piece, handle: str, *, synced: bool = True) -> None:
        """Remember a piece under its handle, unless it already is."""
        if not self.memory.has(handle):
            self._remember_all([as_given(session, piece, handle)], synced=synced)

    def _remember_all(self, given: Sequence[Mapping[str, Any]], *, synced: bool = True) -> None:
        """Remember texts that have handles; few large ones together, as others write, too."""
        together: list[Mapping[str, Any]] = []
        for number, one in enumerate(given, 1):
            together.append(self.projects.add_to(one))
            size = sum(len(other["text"]) for other in together)
            if size < _REMEMBERED_TOGETHER and number < len(given):
                continue
            try:
                self.memory.remember_many(together, synced=synced)
            except StoreError:
                # If it has some of them by now, another thread was faster.
                for other in together:
                    if not self.memory.has(other["handle"]):
                        self.memory.remember(**other)
            together = []
