"""What is done with a whole conversation, and where: in this process, or in one beside it.

A conversation of ordinary size is read, prepared and remembered in the gateway's own process
(`NearDesk`). A heavy one would keep the interpreter from all others; it lies in another process
(`distant_desk.DistantDesk`), and only what is sent to the reasoner ever comes here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from itertools import accumulate, chain, islice
from typing import Protocol

from clara_mlx.context import Context
from clara_mlx.context.counting import count_prompt
from clara_mlx.context.messages import Message, chains, content_text
from clara_mlx.context.summary import Summary
from clara_mlx.serve.apis import APIS
from clara_mlx.serve.bodies import parse_object
from clara_mlx.serve.callers import Caller, Name, name_conversation
from clara_mlx.serve.conversations import Landmark
from clara_mlx.serve.preparing import Preparer, Prompt
from clara_mlx.serve.request import ChatRequest, call_ids

#: How far a conversation has been remembered: the number of its messages, a digest of the last.
Remembered = tuple[int, bytes]

#: Nothing of it.
NOTHING: Remembered = (0, b"")

# Characters of messages that are remembered before others get their turn.
_AT_ONE_GO = 200_000

#: The texts of a message: their handles.
Handles = tuple[str, ...]


class Desk(Protocol):
    """The conversation of one request. Its methods block: call them in a thread.

    Attributes:
        request: The request; if the conversation lies elsewhere, without its messages.
        name: The conversation's name.
        caller: Who sends it.
        project: The folder that the conversation works in; empty if nobody says so.
        size: Bytes of the request's body.
        is_distant: Whether it lies in another process, whose work comes one after the other.
        call_ids: The ids of the calls in the client's messages.
    """

    request: ChatRequest
    name: Name
    caller: Caller
    project: str
    size: int
    is_distant: bool
    call_ids: frozenset[str]

    def look(self) -> None:
        """Find the hidden rounds of the conversation; comes before all else."""

    @property
    def hidden(self) -> list[Message]:
        """The messages of earlier requests' hidden rounds."""

    @property
    def folds(self) -> set[str]:
        """The handles that folds name which the client was given and sends back."""

    def landmarks(self) -> list[Landmark]:
        """What is known of the client's messages without their texts."""

    def chains(self) -> list[bytes]:
        """The chain that ends with each message, hidden rounds included."""

    def handles(self, indices: Sequence[int]) -> list[Handles]:
        """For the client's messages with these indices, the handles of what is in their place."""

    def count(self) -> int:
        """Tokens of the request as it came: its messages and its tools."""

    def prepare(
        self,
        hidden: list[Message],
        *,
        offered: bool,
        bring_back: bool,
        among: Collection[str] | None,
    ) -> Prompt:
        """The prompt of a round; see `Preparer.compact_and_render`.

        ``hidden`` are the hidden rounds of this answer so far.
        """

    def full(self, hidden: list[Message]) -> list[Message]:
        """The conversation without any compaction, with all hidden rounds."""

    def keep(self, seen: Message, rounds: list[Message]) -> None:
        """Keep the ``rounds`` that take the place of the answer that the client has ``seen``."""

    def summarize(self) -> Summary:
        """One text that stands for the conversation.

        Raises:
            ClaraError: The memory can't keep what it stands for.
        """

    def observe(self, hidden: list[Message], before: Remembered) -> tuple[Remembered, bool]:
        """Remember some of the long texts that are new since ``before``.

        Returns how far that is now, and whether there are more, which have to wait for others.

        Raises:
            ClaraError: They could not be remembered.
        """


class NearDesk:
    """A conversation in this process."""

    is_distant = False

    def __init__(
        self,
        preparer: Preparer,
        context: Context,
        request: ChatRequest,
        name: Name,
        caller: Caller,
        size: int,
    ) -> None:
        self.request = request
        self.name = name
        self.caller = caller
        self.project = context.project(name.text, request.messages, caller.project)
        self.size = size
        self.call_ids = call_ids(request.messages)
        self._preparer = preparer
        self._context = context
        self._groups = [[message] for message in request.messages]
        self.folds: set[str] = set()

    def look(self) -> None:
        """Find the hidden rounds and the folds."""
        messages, session = self.request.messages, self.name.text
        self._groups = self._preparer.restore_hidden_rounds(messages, session)
        sessions = (session, *self.name.before)
        self.folds = self._context.handles_of_folds(messages, sessions)

    @property
    def hidden(self) -> list[Message]:
        """The messages of earlier requests' hidden rounds."""
        pairs = zip(self.request.messages, self._groups, strict=True)
        return [m for message, group in pairs if group[0] is not message for m in group]

    def landmarks(self) -> list[Landmark]:
        """What is known of the client's messages without their texts."""
        return self._preparer.landmarks(self.request.messages, self.name.text)

    def chains(self) -> list[bytes]:
        """The chain that ends with each message."""
        return chains(self.full([]), self.name.text)

    def handles(self, indices: Sequence[int]) -> list[Handles]:
        """The handles of what is in the place of the client's messages."""
        return handles_of_groups(self._context, self.name.text, self._groups, indices)

    def count(self) -> int:
        """Tokens of the request as it came."""
        request = self.request
        return count_prompt(self._context.counter, request.messages, request.tools).tokens

    def prepare(
        self,
        hidden: list[Message],
        *,
        offered: bool,
        bring_back: bool,
        among: Collection[str] | None,
    ) -> Prompt:
        """The prompt of a round."""
        return self._preparer.compact_and_render(
            self.request,
            self.full(hidden),
            self.name.text,
            offered=offered,
            bring_back=bring_back,
            among=among,
        )

    def full(self, hidden: list[Message]) -> list[Message]:
        """The conversation without any compaction."""
        return [*chain.from_iterable(self._groups), *hidden]

    def keep(self, seen: Message, rounds: list[Message]) -> None:
        """Keep hidden rounds."""
        messages = self.request.messages
        self._preparer.keep_hidden_rounds(messages, seen, rounds, self.name.text)

    def summarize(self) -> Summary:
        """One text that stands for the conversation."""
        return self._context.summarize(self.full([]), self.name.text)

    def observe(self, hidden: list[Message], before: Remembered) -> tuple[Remembered, bool]:
        """Remember some of the long texts that are new."""
        messages = self.full(hidden)
        start = _first_new(messages, before)
        end = _end_of_some(messages, start)
        self._context.observe(messages[start:end], self.name.text)
        self._context.draft_blocks(self.name.text)
        return (end, _digest(messages[end - 1])), end < len(messages)


def read_desk(
    preparer: Preparer, context: Context, api: str, content: bytes, caller: Caller
) -> NearDesk:
    """The desk of a request that is read here.

    Args:
        preparer: Prepares the conversation.
        context: Its memory.
        api: The name of the API that it came by.
        content: The body of the request.
        caller: Who sends it.

    Raises:
        ApiError: The request is refused.
    """
    request = APIS[api].read(parse_object(content), caller.key)
    name = name_conversation(caller, request.options, request.messages)
    return NearDesk(preparer, context, request, name, caller, len(content))


def handles_of_groups(
    context: Context,
    session: str,
    groups: Sequence[list[Message]],
    wanted: Sequence[int],
) -> list[Handles]:
    """The handles of the texts in each of the groups with these indices."""
    restored = [message for group in groups for message in group]
    starts = [0, *accumulate(map(len, groups))]
    spans = [range(starts[index], starts[index + 1]) for index in wanted]
    flat = [index for span in spans for index in span]
    found = iter(context.handles(restored, session, flat))
    return [tuple(chain.from_iterable(islice(found, len(span)))) for span in spans]


def _first_new(messages: list[Message], before: Remembered) -> int:
    """The index of the first message to look at; a call comes with its results."""
    count, last = before
    if not 0 < count <= len(messages) or _digest(messages[count - 1]) != last:
        return 0
    while 0 < count < len(messages) and messages[count]["role"] == "tool":
        count -= 1
    return count


def _end_of_some(messages: list[Message], start: int) -> int:
    """Where those end that are remembered at one go: a call comes with all its results."""
    characters = 0
    for end, message in enumerate(messages[start:], start):
        if characters > _AT_ONE_GO and message["role"] != "tool":
            return end
        characters += len(content_text(message))
    return len(messages)


def _digest(message: Message) -> bytes:
    return hashlib.sha256(json.dumps(message, sort_keys=True).encode()).digest()
