"""Which texts of a conversation are replaced with blocks, in which order, and how many of them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from clara_mlx.context import folds, wording
from clara_mlx.context.counting import Counter
from clara_mlx.context.freezer import Freezer, digest_of, is_recalled
from clara_mlx.context.messages import Message, Piece, content_text, is_instruction, units
from clara_mlx.context.table import Block, Edit
from clara_mlx.context.view import View, fold_part
from clara_mlx.errors import ClaraError

# Texts are replaced by rank, the lowest first: by role, and last of all what is in use.
_RANK_OF_ROLE = {"tool": 0, "assistant": 1}
_RANK_OF_OTHER_ROLES = 2
_RANK_IN_USE = 3

# Characters that a fold needs for each of its messages, about: a handle and a command.
_FOLDED_CHARACTERS = 65

# A block must have at most this share of the tokens of its text; if not, the text itself is sent.
_LARGEST_SHARE = 0.6


@dataclass(frozen=True)
class Candidate:
    """A text that could be sent as a block.

    Attributes:
        index: The index of its message.
        piece: The text and its place in the message.
        saved: Tokens that would become free, about.
        excerpt: Characters of the text to show in the block; 0: none.
    """

    index: int
    piece: Piece
    saved: int
    excerpt: int = 0


class Compaction:
    """Steps of compacting one view; nothing is saved until `Compaction.commit`.

    Args:
        view: The conversation; it is not changed.
        freezer: Makes the blocks.
        counter: Counts the tokens of texts.
    """

    def __init__(self, view: View, freezer: Freezer, counter: Counter) -> None:
        self.view = view.copy()
        self.freezer = freezer
        self._counter = counter
        self._before = set(view.all_edits())
        spans = units(view.messages, view.head)
        self._spans = [span for span in spans if view.fold_at(span[0]) is None]

    def copy(self) -> Compaction:
        """The same steps so far, to continue from separately."""
        other = copy.copy(self)
        other.view = self.view.copy()
        return other

    @property
    def edits(self) -> list[Edit]:
        """The edits that were made so far."""
        return [edit for edit in self.view.all_edits() if edit not in self._before]

    def commit(self) -> None:
        """Save the edits, so that they are the same in every later request."""
        self.freezer.table.save_edits(self.edits)

    def replace_with_blocks(
        self,
        keep: int,
        tokens_to_free: float = math.inf,
        *,
        in_use: bool = False,
        again: bool = False,
    ) -> None:
        """Send old texts as blocks until about ``tokens_to_free`` tokens are free.

        Tool results go first, oldest first; then what the assistant wrote; then what users wrote
        after the task.

        Args:
            keep: The number of newest units that stay.
            tokens_to_free: Where to stop.
            in_use: Replace also what the memory's tools gave, and what was read again after it had
                been compacted: the agent is likely to fetch those once more.
            again: Replace also excerpts, by shorter blocks: the server has read them once.
        """
        for candidate in self._candidates(keep, in_use, again):
            if tokens_to_free <= 0:
                break
            if self._replace(candidate):
                tokens_to_free -= candidate.saved

    def replace_with_excerpts(self, longer_than: int) -> bool:
        """Send results of the newest unit that have more tokens than this as excerpts.

        Returns whether there were any.
        """
        done = False
        for index in range(*self._spans[-1]) if self._spans else ():
            for piece in self.view.pieces(index):
                edited = piece.part in self.view.edits.get(index, {})
                if piece.role != "tool" or edited or is_recalled(piece):
                    continue
                now = self._counter.text(piece.text)
                # With header and identifiers it is about half of what is let through whole.
                excerpt = max(wording.LEAST_CHARACTERS, longer_than // 2)
                text = self.freezer.draft(self.view.session, piece, excerpt)
                if now > longer_than and self._counter.text(text) <= _LARGEST_SHARE * now:
                    done = self._replace(Candidate(index, piece, 0, excerpt)) or done
        return done

    def fold(self, keep: int, characters: int, *, whole: bool = True) -> bool:
        """Send what is between the task and the newest units as one message.

        Instructions in between stay where they are, so that there is one message before and one
        after them. Returns whether there was something to fold.

        Args:
            keep: The number of newest units that stay.
            characters: Characters that such a message may have, about.
            whole: Fold earlier folds, too. Otherwise they stay as they are, so that the server
                keeps its cache of them, and only what came after them is folded.
        """
        if len(self._spans) <= keep:
            return False
        last = self._spans[-keep][0]
        done = False
        for end in (*filter(self._is_instruction, range(self.view.head, last)), last):
            if end > self.view.head and not self._is_instruction(end - 1):
                start = self.view.stretch_start(end - 1)
                while not whole and start < end and (fold := self.view.fold_at(start)) is not None:
                    start = fold + 1
                done = self._fold_span(start, end, characters) or done
        return done

    def _fold_span(self, start: int, end: int, characters: int) -> bool:
        """Send the messages from ``start`` to before ``end`` as one, if there are several."""
        indices = [i for i in self.view.sent_indices() if start <= i < end]
        if len(indices) < 2:
            return False
        for index in indices:
            for piece in self.view.pieces(index):
                # The transcript must not be where recalled text is kept; and of an output that is
                # hardly longer than its block, the fold must show a handle, too.
                short = piece.role == "tool" and piece.part not in self.view.edits.get(index, {})
                if is_recalled(piece) or (short and len(piece.text) >= wording.LEAST_CHARACTERS):
                    self._replace(Candidate(index, piece, 0))
        sent = self.view.render(start, end, notes=False)
        transcript = json.dumps(sent, ensure_ascii=False, sort_keys=True)
        find_block = partial(self.freezer.block_shown, self.view.session)
        entries = folds.fold_entries(sent, find_block, self._earlier_folds(indices, sent))
        handles = [
            edit.block.handle
            for index in range(start, end)
            for edit in self.view.edits.get(index, {}).values()
            if edit.block.handle
        ]
        characters = min(characters, _FOLDED_CHARACTERS * (end - start))
        block = self.freezer.freeze_as(
            self.view.session,
            Piece("assistant", "fold", transcript),
            lambda handle: folds.describe_fold(entries, handle, end - start, characters),
            handles,
            kind="fold",
        )
        self._add(end - 1, fold_part(end - start), block)
        return True

    def _earlier_folds(self, indices: list[int], sent: list[Message]) -> set[int]:
        """Which of the sent messages are folds.

        They are the view's own and, before those, the folds of a client that keeps what it was
        sent. A model that repeats a fold later only quotes it.
        """
        found = {place for place, index in enumerate(indices) if self.view.fold_at(index) == index}
        if indices[0] == self.view.stretch_start(indices[0]):
            for place, message in enumerate(sent):
                text = content_text(message)
                role = str(message.get("role"))
                block = self.freezer.block_shown(self.view.session, role, text)
                if place in found or block is None or block.kind != "fold":
                    break
                found.add(place)
        return found

    # -- candidates ------------------------------------------------------------------------------

    def _candidates(self, keep: int, in_use: bool, again: bool) -> Iterator[Candidate]:
        """The texts before the newest units whose blocks would be short enough, by rank."""
        old = [i for span in self._spans[: max(0, len(self._spans) - keep)] for i in range(*span)]
        seen = {
            edit.block.digest: edit.chain
            for edit in self.view.all_edits()
            if edit.block.kind == "piece"
        }
        waiting: list[tuple[int, int, Piece]] = []
        for index in old:
            if self._is_instruction(index):
                continue
            for piece in self.view.pieces(index):
                if len(piece.text) >= wording.LEAST_CHARACTERS:
                    rank = self._rank(index, piece, seen)
                    if in_use or rank < _RANK_IN_USE:
                        waiting.append((rank, index, piece))
        for _, index, piece in sorted(waiting, key=lambda one: one[:2]):
            edit = self.view.edits.get(index, {}).get(piece.part)
            if (edit and not again) or self.freezer.block_with_text(piece.text):
                continue
            text = self.freezer.draft(self.view.session, piece)
            if edit and edit.block.text == text:
                continue
            now = self._counter.text(edit.block.text if edit else piece.text)
            then = self._counter.text(text)
            if then <= _LARGEST_SHARE * now:
                yield Candidate(index, piece, now - then)

    def _is_instruction(self, index: int) -> bool:
        return is_instruction(self.view.messages[index])

    def _rank(self, index: int, piece: Piece, seen: dict[bytes, bytes]) -> int:
        """When to replace a piece; ``seen`` has the chain of each piece that is a block already."""
        digest = digest_of(self.view.session, piece)
        read_again = seen.get(digest, self.view.chains[index]) != self.view.chains[index]
        if is_recalled(piece) or read_again:
            return _RANK_IN_USE
        return _RANK_OF_ROLE.get(piece.role, _RANK_OF_OTHER_ROLES)

    def _replace(self, candidate: Candidate) -> bool:
        """Send a candidate as a block, unless its original could not be given back."""
        piece = candidate.piece
        try:
            block = self.freezer.freeze(self.view.session, piece, candidate.excerpt)
        except ClaraError:
            return False
        self._add(candidate.index, piece.part, block)
        return True

    def _add(self, index: int, part: str, block: Block) -> None:
        """Send a part of a message as a block.

        It also explains how originals come back, unless that is said elsewhere in what is sent.
        Arguments can't explain it: they must stay JSON.
        """
        chain = self.view.chains[index]
        self.view.add([Edit(chain, part, block)])
        if not part.startswith("arguments") and not self.view.explains:
            self.view.add([Edit(chain, part, block, explains=True)])
