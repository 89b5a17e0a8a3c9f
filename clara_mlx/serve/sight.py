"""What a conversation may see of the memory: what is its own, and what it was shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from clara_mlx.context import Context, tools
from clara_mlx.context.messages import Message, calls_by_result
from clara_mlx.errors import ClaraError
from clara_mlx.serve.conversations import Course, Courses
from clara_mlx.serve.desk import Desk, handles_of_groups
from clara_mlx.serve.renamed import Renamed

logger = logging.getLogger(__name__)

# The most texts that are searched; a search can be limited to 30,000 at most.
_MOST = 20_000

# What the log says of a conversation whose first message changes.
_ANOTHER_NAME = (
    "%s: this conversation was %s before, under another first message; is there a time in it? Each "
    "request is compacted anew then. Have the client send the header x-clara-session with a name "
    "of the conversation, or leave the first message as it is"
)


@dataclass
class Sight:
    """What one conversation may see. A handle that merely stands in somebody's text is not seen.

    Attributes:
        context: Keeps the memory and the blocks.
        desk: The conversation.
        course: What the conversation has had; None if its name is its own, so that all memories of
            the session are.
        everything: Whether it sees the whole memory.
    """

    context: Context
    desk: Desk
    course: Course | None = None
    everything: bool = False

    @property
    def session(self) -> str:
        """The conversation's name."""
        return self.desk.name.text

    @property
    def own(self) -> list[str] | None:
        """The handles that are searched; None if `where` says enough."""
        if self.course is None:
            return None
        return list(dict.fromkeys([*sorted(self.desk.folds), *self.course.handles]))[-_MOST:]

    @property
    def where(self) -> Mapping[str, Any] | None:
        """The filter of what is searched."""
        if self.everything:
            return None
        own = self.own
        return {"session": self.session, **({} if own is None else {"handle": own})}

    def sees(self, handle: str) -> bool:
        """Whether the conversation may read what is behind a handle."""
        own = self.own
        if self.everything or (own is not None and handle in own):
            return True
        memory = self.context.memory
        if own is None and any(memory.list({"handle": handle, "session": self.session})):
            return True
        return (
            handle in self.desk.folds
            or handle in self.context.handles_of_blocks(self.desk.chains())
            or handle in self._shown_by_tools()
        )

    def _shown_by_tools(self) -> set[str]:
        """The handles that the memory's tools named in hidden rounds."""
        hidden = self.desk.hidden
        return {
            handle
            for index, (name, _) in calls_by_result(hidden).items()
            for handle in tools.handles_in_result(name, str(hidden[index].get("content")))
        }


class Sights:
    """Gives conversations their sight. Its methods block: call them in a thread."""

    def __init__(self, context: Context, *, everything: bool) -> None:
        self._context = context
        self._everything = everything
        self._courses = Courses()
        self._renamed = Renamed()

    def of(self, desk: Desk) -> Sight:
        """The sight of a conversation."""
        name = desk.name
        sight = Sight(self._context, desk, everything=self._everything)
        if name.certain:
            return sight
        landmarks = desk.landmarks()
        if before := self._renamed.look(name.text, landmarks):
            logger.warning(_ANOTHER_NAME, name.text, before)
        if not self._everything:
            try:
                sight.course = self._courses.follow(name.text, landmarks, desk.handles)
            except ClaraError as error:
                sight.course = Course(())
                logger.warning("%s: sees nothing of the memory: %s", name.text, error)
        return sight

    def add_answer(
        self, sight: Sight, answer: Message, group: list[Message], compacted: Sequence[str]
    ) -> None:
        """Add an answer to what a conversation has had.

        Args:
            sight: The conversation's sight.
            answer: The answer as its client got it.
            group: What the reasoner knows in its place.
            compacted: The handles of the blocks and folds that were made for it.
        """
        if sight.course is None:
            return
        try:
            (handles,) = handles_of_groups(self._context, sight.session, [group], [0])
            self._courses.add_answer(sight.session, sight.course, answer, (*handles, *compacted))
        except ClaraError as error:
            logger.warning("%s: an answer may be lost from sight: %s", sight.session, error)
