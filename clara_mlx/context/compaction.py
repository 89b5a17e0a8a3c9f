"""Which texts of a conversation are replaced with blocks, in which order, and how many of them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

from clara_mlx.context import folds, wording
from clara_mlx.context.counting import Counter, for_template
from clara_mlx.context.fold_form import choose_form, fold_part, turn_before
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.kept import Folded, digest_of, is_recalled
from clara_mlx.context.messages import Piece, is_instruction, units
from clara_mlx.context.rebuild import fold_at
from clara_mlx.context.steps import is_long, pieces_to_keep
from clara_mlx.context.table import Block, Edit
from clara_mlx.context.view import View
from clara_mlx.errors import ClaraError
from clara_mlx.tool_outputs.quoting import MARKER

# Texts are replaced by rank, the lowest first: by role, and last of all what is in use.
_RANK_OF_ROLE = {"tool": 0, "assistant": 1}
_RANK_OF_OTHER_ROLES = 2
_RANK_IN_USE = 3

# Characters that a fold may have for each of its messages.
_FOLDED_CHARACTERS = 200

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


@dataclass(frozen=True)
class New:
    """What is needed to keep the blocks of a compaction, by their digest.

    Attributes:
        mentions: Other handles that they name.
        folds: What is folded.
    """

    mentions: dict[bytes, list[str]]
    folds: dict[bytes, Folded]

    def copy(self) -> New:
        """The same, to add to separately."""
        return New(dict(self.mentions), dict(self.folds))


class Compaction:
    """Steps of compacting one view; nothing is saved until `Compaction.commit`.

    Args:
        view: The conversation; it is not changed.
        freezer: Makes the blocks.
        counter: Counts the tokens of texts.

    Attributes:
        view: The conversation with the edits that were made so far.
        new: What is needed to keep their blocks.
    """

    def __init__(self, view: View, freezer: Freezer, counter: Counter) -> None:
        self.view = view.copy()
        self.freezer = freezer
        self._counter = counter
        self._before = view
        self.new = New({}, {})
        # How folds tell of texts; the attempts at one compaction share it.
        self._told: dict[Piece, folds.Told] = {}
        # The blocks that they chose, by the piece and the characters of its excerpt.
        self._blocks: dict[tuple[Piece, int], Block] = {}
        spans = units(view.messages, view.head)
        outside = view.outside_folds()
        self._spans = [span for span in spans if span[0] in outside]

    def copy(self) -> Compaction:
        """The same steps so far, to continue from separately."""
        other = copy.copy(self)
        other.view = self.view.copy()
        other.new = self.new.copy()
        return other

    @property
    def edits(self) -> list[Edit]:
        """The edits that were made so far."""
        return self.view.edits_since(self._before)

    def commit(self) -> None:
        """Save the edits, so that they are the same in every later request."""
        with self.freezer.table.asked_once():
            edits = self.edits
            blocks = {e.block.digest: e.block for e in edits if e.block.kind != "note"}
            for digest in self.new.folds.keys() & blocks.keys():
                self.freezer.remember_fold(
                    self.view.session, blocks[digest], self.new.folds[digest]
                )
            new = [(block, self.new.mentions.get(digest, [])) for digest, block in blocks.items()]
            self.freezer.table.save_edits(edits, new)

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

    def replace_with_excerpts(self, longer_than: int, *, calls: bool = False) -> bool:
        """Send results of the newest unit that have more tokens than this as excerpts.

        Args:
            longer_than: The tokens.
            calls: The same for what its calls were given. The server has read that already.

        Returns whether there were any.
        """
        done = False
        for index in range(*self._spans[-1]) if self._spans else ():
            for piece in self.view.pieces(index):
                edited = piece.part in self.view.edits.get(index, {})
                wanted = piece.role == "tool" or (calls and piece.part.startswith("arguments"))
                if not wanted or edited or is_recalled(piece):
                    continue
                now = self._counter.text(piece.text)
                # With header and identifiers it is about half of what is let through whole.
                excerpt = max(wording.LEAST_CHARACTERS, longer_than // 2)
                text = self.freezer.draft(self.view.session, piece, excerpt)
                if now > longer_than and self._counter.text(text) <= _LARGEST_SHARE * now:
                    done = self._replace(Candidate(index, piece, 0, excerpt)) or done
        return done

    def fold(
        self, keep: int, characters: int, *, whole: bool = True, form: str | None = None
    ) -> bool:
        """Send what is between the task and the newest units as one message.

        Instructions in between stay where they are, so that there is one message before and one
        after them. Returns whether there was something to fold.

        Args:
            keep: The number of newest units that stay.
            characters: Characters that such a message may have, about.
            whole: Fold earlier folds, too. Otherwise they stay as they are, so that the server
                keeps its cache of them, and only what came after them is folded.
            form: One of `fold_form.FORMS`; None: that in which roles alternate best.
        """
        if len(self._spans) <= keep:
            return False
        last = self._end_of_fold(self._spans[-keep][0])
        done = False
        for end in (*filter(self._is_instruction, range(self.view.head, last)), last):
            if end > self.view.head and not self._is_instruction(end - 1):
                start = self.view.stretch_start(end - 1)
                while not whole and start < end and (fold := self.view.fold_at(start)) is not None:
                    start = fold + 1
                done = self._fold_span(start, end, characters, whole, form) or done
        return done

    def _end_of_fold(self, last: int) -> int:
        """Where to end a fold, at ``last`` or before it.

        Without calls every message is a turn, so the fold must end with the assistant's.
        """
        messages = self.view.messages
        if any(message.get("tool_calls") for message in messages[:last]):
            return last
        earlier = [start for start, _ in self._spans if start <= last]
        return next(
            (start for start in reversed(earlier) if turn_before(messages[:start]) == "assistant"),
            last,
        )

    def _fold_span(
        self, start: int, end: int, characters: int, whole: bool, form: str | None
    ) -> bool:
        """Send the messages from ``start`` to before ``end`` as one, if there are several."""
        sent = sum(start <= index < end for index in self.view.sent_indices())
        best, alternates = self.choose_form(start, end)
        if sent < 2 or not (form or alternates or whole):
            return False
        part = fold_part(form or best, end - start)
        characters = min(characters, _FOLDED_CHARACTERS * (end - start))
        self._add(end - 1, part, self.fold_block(start, end, characters))
        return True

    def fold_block(self, start: int, end: int, characters: int, unread: str = "") -> Block:
        """The block that stands for the messages from ``start`` to before ``end``.

        Args:
            start: The index of the first message.
            end: The index after the last.
            characters: Characters that its lines may have, about.
            unread: Further lines, see `summary`.
        """
        for index in [i for i in self.view.sent_indices() if start <= i < end]:
            for piece in self.view.pieces(index):
                # The transcript must not be where recalled text is kept.
                edited = piece.part in self.view.edits.get(index, {})
                if is_recalled(piece) or (not edited and is_long(piece)):
                    self._replace(Candidate(index, piece, 0))
        session = self.view.session
        sent = self.view.render(start, end, notes=False)
        body = json.dumps(sent, ensure_ascii=False, sort_keys=True)
        folded = Folded(body, lambda: folds.transcript(sent, self._tell))
        earlier = self._earlier_folds(start, end)
        entries, handles = self._entries(start, end, earlier)
        block = self.freezer.choose_fold(
            session,
            folded,
            lambda handle: folds.describe_fold(entries, handle, end - start, characters) + unread,
        )
        self.new.folds[block.digest] = folded
        self.new.mentions[block.digest] = handles
        return block

    def choose_form(self, start: int, end: int) -> tuple[str, bool]:
        """The best form of a fold between two indices, and whether roles then alternate."""
        messages = self.view.messages
        return choose_form(
            self.view.render(0, start),
            messages[start:end],
            messages[end:],
            lambda sent: for_template(self._counter, sent),
        )

    def _entries(
        self, start: int, end: int, earlier: set[int]
    ) -> tuple[list[folds.Entry], list[str]]:
        """What a fold can say of messages, whatever of them is folded already, and its handles."""
        messages = self.view.messages
        first = max(earlier, default=start - 1) + 1
        entries = folds.fold_entries(
            messages[start:first], self._tell, {index - start for index in earlier}
        )
        handles: list[str] = []
        for a, b in units(messages, self.view.head):
            if first < b <= end:
                told = self._told_unit(max(a, first), b)
                entries += told.entries
                handles += told.handles
        there = self.freezer.table.existing(handles)
        return entries, [handle for handle in handles if handle in there]

    def _told_unit(self, start: int, end: int) -> folds.ToldUnit:
        """What folds can say of a unit, which is found out once."""
        messages, session = self.view.messages, self.view.session
        key = (self.view.chains[end - 1], end - start)
        told = self.freezer.told_units.get(key)
        if told is None:
            kept = pieces_to_keep(messages, [(start, end)])
            pieces = [piece for some in kept for piece in some if not is_recalled(piece)]
            handles = self.freezer.handles(session, pieces)
            short = [h for h, piece in zip(handles, pieces, strict=True) if not is_long(piece)]
            own = {0: short[-1]} if self.freezer.table.existing(short[-1:]) else {}
            found = folds.fold_entries(messages[start:end], self._tell, (), own)
            told = self.freezer.told_units[key] = folds.ToldUnit(found, handles)
        return told

    def _tell(self, piece: Piece) -> folds.Told:
        """How a fold tells of a text."""
        told = self._told.get(piece)
        if told is None:
            told = self._told[piece] = self.freezer.told(self.view.session, piece)
        return told

    def _earlier_folds(self, start: int, end: int) -> set[int]:
        """Which messages are folds that a client keeps, because it keeps what it was sent.

        They stand where a stretch begins. A model that repeats a fold later only quotes it.
        """
        found: set[int] = set()
        index = start
        while index < end and start == self.view.stretch_start(start):
            block, count = fold_at(self.view.messages, index, self.freezer)
            if block is None or not self.freezer.is_own(self.view.session, block):
                break
            found.update(range(index, index + count))
            index += count
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
                edited = piece.part in self.view.edits.get(index, {})
                if is_long(piece) and (again or not edited):
                    rank = self._rank(index, piece, seen)
                    if in_use or rank < _RANK_IN_USE:
                        waiting.append((rank, index, piece))
        for _, index, piece in sorted(waiting, key=lambda one: one[:2]):
            edit = self.view.edits.get(index, {}).get(piece.part)
            is_block = MARKER in piece.text and self.freezer.block_with_text(piece.text)
            if (edit and not again) or is_block:
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
        key = (piece, candidate.excerpt)
        try:
            if key not in self._blocks:
                self._blocks[key] = self.freezer.choose(self.view.session, *key)
        except ClaraError:
            return False
        block = self._blocks[key]
        self.new.mentions[block.digest] = self.freezer.mentions(piece)
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
