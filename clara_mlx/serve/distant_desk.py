"""A conversation that lies in the process beside the gateway."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from itertools import count
from typing import Any

from clara_mlx.context.messages import Message
from clara_mlx.context.summary import Summary
from clara_mlx.errors import ClaraError
from clara_mlx.serve import wire
from clara_mlx.serve.callers import Caller
from clara_mlx.serve.conversations import Landmark
from clara_mlx.serve.desk import Handles, Remembered
from clara_mlx.serve.preparing import Prompt
from clara_mlx.serve.preparing_process import PreparingProcess

logger = logging.getLogger(__name__)

_numbers = count(1)


class DistantDesk:
    """The conversation of one heavy request; see `desk.Desk`.

    The body is kept here, so that the conversation can be opened again if the process was ended.

    Args:
        process: Where it lies.
        memory: The path of the memory's file.
        api: The name of the API that the request came by.
        content: The body of the request.
        caller: Who sends it.

    Raises:
        ApiError: The request is refused, or could not be read in time.
    """

    is_distant = True

    def __init__(
        self, process: PreparingProcess, memory: str, api: str, content: bytes, caller: Caller
    ) -> None:
        self._process = process
        self._memory = memory
        self._api = api
        self._content = content
        self.caller = caller
        self._number = next(_numbers)
        self.size = len(content)
        outline = self._open()
        self.request = wire.read_request(outline)
        self.name = wire.read_name(outline)
        self.project = str(outline["project"])
        self.call_ids = frozenset(outline["call_ids"])
        self._landmarks = wire.read_landmarks(outline)
        self.hidden: list[Message] = []
        self.folds: set[str] = set()
        self._chains: list[bytes] = []

    def look(self) -> None:
        """Find the hidden rounds and the folds."""
        self.hidden, chains, folds = self._do("look")
        self.folds = set(folds)
        self._chains = [bytes.fromhex(chain) for chain in chains]

    def landmarks(self) -> list[Landmark]:
        """What is known of the client's messages without their texts."""
        return self._landmarks

    def chains(self) -> list[bytes]:
        """The chain that ends with each message."""
        return self._chains

    def handles(self, indices: Sequence[int]) -> list[Handles]:
        """The handles of what is in the place of the client's messages."""
        return [tuple(one) for one in self._do("handles", indices=list(indices))]

    def count(self) -> int:
        """Tokens of the request as it came."""
        return int(self._do("count"))

    def prepare(
        self,
        hidden: list[Message],
        *,
        offered: bool,
        bring_back: bool,
        among: Collection[str] | None,
    ) -> Prompt:
        """The prompt of a round."""
        among = None if among is None else list(among)
        return wire.read_prompt(
            self._do("prepare", hidden=hidden, offered=offered, bring_back=bring_back, among=among)
        )

    def full(self, hidden: list[Message]) -> list[Message]:
        """The conversation without any compaction."""
        messages: list[Message] = self._do("full", hidden=hidden)
        return messages

    def keep(self, seen: Message, rounds: list[Message]) -> None:
        """Keep hidden rounds; that they can't be kept is no reason to fail."""
        try:
            self._do("keep", seen=seen, rounds=rounds)
        except ClaraError as error:
            logger.warning("%s: hidden rounds could not be kept: %s", self.name.text, error)

    def summarize(self) -> Summary:
        """One text that stands for the conversation."""
        return Summary(**self._do("summarize"))

    def observe(self, hidden: list[Message], before: Remembered) -> tuple[Remembered, bool]:
        """Remember some of the long texts that are new."""
        given = wire.write_remembered(before)
        after, has_more = self._do("observe", hidden=hidden, before=given)
        return wire.read_remembered(after), has_more

    def _open(self) -> wire.Value:
        question = {
            "do": "open",
            "desk": self._number,
            "memory": self._memory,
            "api": self._api,
            "caller": wire.write_caller(self.caller),
            "cache": self._process.cache,
        }
        outline: wire.Value = self._process.ask(question, self._content)
        return outline

    def _do(self, what: str, **given: Any) -> Any:
        """Have something done, and open the conversation again first if it lies there no more."""
        question = {"do": what, "desk": self._number, "given": given}
        answer = self._process.ask(question)
        if answer is None:
            self._open()
            if what != "look":
                self._process.ask({"do": "look", "desk": self._number, "given": {}})
            answer = self._process.ask(question)
        return answer["done"]
