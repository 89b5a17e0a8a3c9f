"""Which texts of a conversation give way to blocks, in which order, and how far it must go."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from clara_mlx.context import wording
from clara_mlx.context.counting import Counter
from clara_mlx.context.freezer import Freezer, digest_of, is_recalled
from clara_mlx.context.messages import Piece, is_instruction, units
from clara_mlx.context.table import Block, Edit
from clara_mlx.context.view import View, fold_part
from clara_mlx.errors import ClaraError

# The last of the stages in which texts go: what is being used.
_IN_USE = 3

# Of a message in a fold: about its handle and its command.
_FOLDED_CHARACTERS = 65

# A block must be this much shorter than what it stands for, in tokens, to be worth its place.
_SHORTER = 0.6


@dataclass(frozen=True)
class Candidate:
    """A text that could be sent as a block; ``saved`` is about the tokens that would free."""

    index: int
    piece: Piece
    saved: int
    excerpt: int = 0


class Compaction:
    """Steps of compacting one view; nothing is kept until `Compaction.commit`.

    Args:
        view: the conversation; it is not changed.
        freezer: makes the blocks.
        counter: counts texts.
    """

    def __init__(self, view: View, freezer: Freezer, counter: Counter) -> None:
        self.view = view.copy()
        self.freezer = freezer
        self._counter = counter
        self._before = set(view.all_edits())
        spans = units(view.messages, view.head)
        self._spans = [span for span in spans if view.fold_at(span[0]) is None]

    def copy(self) -> Compaction:
        """The same steps so far, to go on from separately."""
        other = copy.copy(self)
        other.view = self.view.copy()
        return other

    @property
    def edits(self) -> list[Edit]:
        """The edits that were made so far."""
        return [edit for edit in self.view.all_edits() if edit not in self._before]

    def commit(self) -> None:
        """Keep the edits, so that they are the same in every later request."""
        self.freezer.table.edit(self.edits)

    def blocks(
        self, keep: int, wanted: float = math.inf, *, in_use: bool = False, again: bool = False
    ) -> None:
        """Send old texts as blocks until about ``wanted`` tokens are freed.

        The newest ``keep`` units stay. Tool results go first, oldest first; then what the assistant
        wrote; then what users wrote after the task. What the memory's tools gave and what was read
        again after it had been compacted goes only if ``in_use``: it would be fetched again.
        Excerpts are sent as shorter blocks only if ``again``: the server has read them once.
        """
        for candidate in self._candidates(keep, in_use, again):
            if wanted <= 0:
                break
            if self._replace(candidate):
                wanted -= candidate.saved

    def excerpts(self, tokens: int) -> bool:
        """Send results of the newest unit that are longer than ``tokens`` as excerpts."""
        done = False
        for index in range(*self._spans[-1]) if self._spans else ():
            for piece in self.view.pieces(index):
                edited = piece.part in self.view.edits.get(index, {})
                if piece.role != "tool" or edited or is_recalled(piece):
                    continue
                now = self._counter.text(piece.text)
                # With header and identifiers it is about half of what is let through whole.
                excerpt = max(wording.LEAST_CHARACTERS, tokens // 2)
                text = self.freezer.draft(self.view.session, piece, excerpt)
                if now > tokens and self._counter.text(text) <= _SHORTER * now:
                    done = self._replace(Candidate(index, piece, 0, excerpt)) or done
        return done

    def fold(self, keep: int, characters: int, *, whole: bool = True) -> bool:
        """Send what is between the task and the newest ``keep`` units as one message.

        Instructions amid it stay where they are, so that there is one message before and one after
        them. ``characters`` is about the most that such a message may have. If it is not ``whole``,
        earlier folds stay as they are, and only what came after them is folded: the server keeps
        its cache of them.
        """
        if len(self._spans) <= keep:
            return False
        ends = [i for i in range(self.view.head, self._spans[-keep][0]) if self._instructs(i)]
        done = False
        for end in (*ends, self._spans[-keep][0]):
            if end > self.view.head and not self._instructs(end - 1):
                start = self.view.run_start(end - 1)
                while not whole and start < end and (last := self.view.fold_at(start)) is not None:
                    start = last + 1
                done = self._fold(start, end, characters) or done
        return done

    def _fold(self, start: int, end: int, characters: int) -> bool:
        indices = [i for i in self.view.indices() if start <= i < end]
        if len(indices) < 2:
            return False
        for index in indices:
            for piece in self.view.pieces(index):
                # The transcript must not be where recalled text is kept; and of an output that is
                # hardly longer than its block, the fold must show a handle, too.
                short = piece.role == "tool" and piece.part not in self.view.edits.get(index, {})
                if is_recalled(piece) or (short and len(piece.text) >= wording.LEAST_CHARACTERS):
                    self._replace(Candidate(index, piece, 0))
        kept = self.view.rendered(start, end, notes=False)
        piece = Piece("assistant", "fold", json.dumps(kept, ensure_ascii=False, sort_keys=True))
        entries = wording.fold_entries(kept)
        handles = [
            edit.block.handle
            for index in range(start, end)
            for edit in self.view.edits.get(index, {}).values()
            if edit.block.handle
        ]
        characters = min(characters, _FOLDED_CHARACTERS * (end - start))
        block = self.freezer.freeze_as(
            self.view.session,
            piece,
            lambda handle: wording.describe_fold(entries, handle, end - start, characters),
            handles,
            kind="fold",
        )
        chain = self.view.chains[end - 1]
        part = fold_part(end - start)
        self.view.add([Edit(chain, part, block)])
        self._explain(chain, part, block)
        return True

    # -- candidates ------------------------------------------------------------------------------

    def _candidates(self, keep: int, in_use: bool, again: bool) -> Iterator[Candidate]:
        old = [i for span in self._spans[: max(0, len(self._spans) - keep)] for i in range(*span)]
        seen = {
            edit.block.digest: edit.chain
            for edit in self.view.all_edits()
            if edit.block.kind == "piece"
        }
        waiting: list[tuple[int, int, Piece]] = []
        for index in old:
            if self._instructs(index):
                continue
            for piece in self.view.pieces(index):
                if len(piece.text) >= wording.LEAST_CHARACTERS:
                    stage = self._stage(index, piece, seen)
                    if in_use or stage < _IN_USE:
                        waiting.append((stage, index, piece))
        for _, index, piece in sorted(waiting, key=lambda one: one[:2]):
            edit = self.view.edits.get(index, {}).get(piece.part)
            if (edit and not again) or self.freezer.issued(piece):
                continue
            text = self.freezer.draft(self.view.session, piece)
            if edit and edit.block.text == text:
                continue
            now = self._counter.text(edit.block.text if edit else piece.text)
            then = self._counter.text(text)
            if then <= _SHORTER * now:
                yield Candidate(index, piece, now - then)

    def _instructs(self, index: int) -> bool:
        return is_instruction(self.view.messages[index])

    def _stage(self, index: int, piece: Piece, seen: dict[bytes, bytes]) -> int:
        digest = digest_of(self.view.session, piece)
        read_again = seen.get(digest, self.view.chains[index]) != self.view.chains[index]
        if is_recalled(piece) or read_again:
            return _IN_USE
        return {"tool": 0, "assistant": 1}.get(piece.role, 2)

    def _replace(self, candidate: Candidate) -> bool:
        index, piece = candidate.index, candidate.piece
        try:
            block = self.freezer.freeze(self.view.session, piece, candidate.excerpt)
        except ClaraError:
            return False  # what can't be given back is not taken away
        chain = self.view.chains[index]
        self.view.add([Edit(chain, piece.part, block)])
        if not piece.part.startswith("arguments"):  # which must stay JSON
            self._explain(chain, piece.part, block)
        return True

    def _explain(self, chain: bytes, part: str, block: Block) -> None:
        """Say with this block how originals come back, unless it is said in what is sent."""
        if not self.view.explained:
            self.view.add([Edit(chain, part, block, explains=True)])
