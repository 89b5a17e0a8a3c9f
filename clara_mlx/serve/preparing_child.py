"""The process in which heavy conversations are prepared; see `preparing_process`.

It answers one question after the other, from a socket on its standard input. It ends when the
socket does: with the gateway, however that ended.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from os import _exit as exit_at_once
from typing import Any

from clara_mlx.context import Budget, Context, Counter, Estimate
from clara_mlx.context.counting import CountCache, Refused
from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError, OtherModel
from clara_mlx.memory import Memory
from clara_mlx.memory.asking import Answer
from clara_mlx.memory.cutting import Measure
from clara_mlx.serve import wire
from clara_mlx.serve.channel import Channel
from clara_mlx.serve.desk import NearDesk, read_desk
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.log import quieten
from clara_mlx.serve.preparing import Preparer
from clara_mlx.serve.settings import Remote, Settings
from clara_mlx.store.filters import Where

logger = logging.getLogger(__name__)

# How far this process gives way to others, of 19. With more, the locks on the memory's file that it
# holds would keep others waiting who have work to do.
_NICENESS = 5

# Characters of a text that keeps the memory's file locked for some milliseconds when it is
# remembered, which others may notice.
_LONG = 128 << 10

# How many times as long as such a text took no other is remembered; others then find the file
# locked in less than a twentieth of the time.
_PAUSE = 4

# The most seconds of such a pause.
_LONGEST_PAUSE = 2.0

# Bytes of the bodies of the conversations that lie here; of those used least recently, the gateway
# sends the body again if need be. In memory, a body takes about twice its size.
_MOST_BYTES = 64 << 20

# Seconds after the gateway's own limit at which this process ends by itself, if the gateway is
# gone.
_GRACE = 5.0

# Characters of a text whose tokens are counted at once; of a longer one, the counts are added. The
# gateway's interpreter is kept no longer than that takes.
_PART_OF_TEXT = 100_000

#: Sends the gateway a question, and gives its answer.
Asks = Callable[[wire.Value], Any]


def main() -> None:
    """Answer questions until the gateway closes the socket."""
    connection = socket.socket(fileno=os.dup(0))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    channel = Channel(connection)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    quieten(logging.getLogger().handlers[0])
    os.nice(_NICENESS)
    start, _ = channel.receive()
    seconds = start["seconds"] + _GRACE
    received: queue.SimpleQueue[tuple[Any, bytes]] = queue.SimpleQueue()

    def ask_gateway(question: wire.Value) -> Any:
        _end_after(0)
        channel.send(question)
        answer, _ = received.get()
        _end_after(seconds)
        return answer

    desks = Conversations(start, ask_gateway)
    threading.Thread(target=_receive, args=(channel, received), daemon=True).start()
    gc.collect()
    gc.freeze()
    channel.send({"ready": True})
    while True:
        question, content = received.get()
        _end_after(seconds)
        answer = desks.answer(question, content)
        _end_after(0)
        channel.send(answer)


def _receive(channel: Channel, received: queue.SimpleQueue[tuple[Any, bytes]]) -> None:
    """Receive all that the gateway sends; end this process at once when there will be no more."""
    try:
        while True:
            received.put(channel.receive())
    finally:
        exit_at_once(0)  # SQLite undoes what was not committed


def _end_after(seconds: float) -> None:
    """Have the system end this process after some seconds, whatever it does then; 0: never."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class Conversations:
    """The conversations that lie here, and what is done with them.

    Args:
        start: What `PreparingProcess` says at the start.
        ask_gateway: Asks the gateway in return.
    """

    def __init__(self, start: wire.Value, ask_gateway: Asks) -> None:
        self._settings = Settings(
            reasoner=Remote("http://none.invalid", obeys=start["obeys"]),
            budget=Budget(**start["budget"]),
            offer=start["offer"],
        )
        self._counter: Counter = Estimate()
        if start["counter"]:
            self._counter = _CountedByGateway(ask_gateway, *start["counter"])
        self._measures = start["measures"]
        self._ask_gateway = ask_gateway
        self._contexts: dict[str, Context] = {}
        self._desks: OrderedDict[int, NearDesk] = OrderedDict()  # the most recently used last

    def answer(self, question: wire.Value, content: bytes) -> wire.Value:
        """The answer to a question, or the error in its place."""
        try:
            if question["do"] == "open":
                return {"answer": self._open(question, content)}
            desk = self._desks.get(question["desk"])
            if desk is None:  # it was dropped, or has lain in a process that is no more
                return {"answer": None}
            self._desks.move_to_end(question["desk"])
            return {"answer": {"done": _do(desk, question["do"], question["given"])}}
        except ApiError as error:
            return {"refused": wire.write_api_error(error)}
        except ClaraError as error:
            return {"impossible": str(error)}
        except Exception as error:
            logger.exception("a conversation could not be prepared")
            return {"failed": f"{type(error).__name__}: {error}"[:1000]}

    def _open(self, question: wire.Value, content: bytes) -> wire.Value:
        context = self._context(question["memory"])
        context.keep_in_mind(cache=question["cache"])
        preparer = Preparer(self._settings, context)
        caller = wire.read_caller(question["caller"])
        desk = read_desk(preparer, context, question["api"], content, caller)
        self._desks[question["desk"]] = desk
        size = sum(one.size for one in self._desks.values())
        while size > _MOST_BYTES and len(self._desks) > 1:
            _, dropped = self._desks.popitem(last=False)
            size -= dropped.size
        return wire.write_outline(desk)

    def _context(self, path: str) -> Context:
        if path not in self._contexts:
            memory = MemoryBeside.open(path)
            if path in self._measures:
                memory.measure = Measure.from_json(self._measures[path])
                memory.ask_gateway = self._ask_gateway
            self._contexts[path] = Context(memory, self._counter, self._settings.budget)
        return self._contexts[path]


def _do(desk: NearDesk, what: str, given: wire.Value) -> Any:
    """Do something with a conversation; what it gives is a JSON value."""
    match what:
        case "look":
            desk.look()
            return [desk.hidden, [chain.hex() for chain in desk.chains()], sorted(desk.folds)]
        case "count":
            return desk.count()
        case "handles":
            return desk.handles(**given)
        case "prepare":
            return wire.write_prompt(desk.prepare(**given))
        case "full":
            return desk.full(**given)
        case "summarize":
            return asdict(desk.summarize())
        case "keep":
            return desk.keep(**given)
        case "observe":
            before = wire.read_remembered(given["before"])
            after, has_more = desk.observe(given["hidden"], before)
            return [wire.write_remembered(after), has_more]
    raise ValueError(f"nothing is called {what}")


class MemoryBeside(Memory):
    """A memory that the gateway has open, too: it leaves the file to others for most of the time.

    Attributes:
        ask_gateway: Where questions go if the memory has a model there.
    """

    ask_gateway: Asks | None = None
    _free_at = 0.0  # when the next long text may be remembered, by `time.monotonic`

    def remember(self, text: str | bytes, **given: Any) -> str:
        """Keep a text and return its handle; some time after the last one if both are long."""
        if len(text) < _LONG:
            return super().remember(text, **given)
        time.sleep(max(0.0, self._free_at - time.monotonic()))
        begun = time.thread_time()
        try:
            return super().remember(text, **given)
        finally:
            taken = time.thread_time() - begun
            self._free_at = time.monotonic() + min(_LONGEST_PAUSE, _PAUSE * taken)

    @property
    def answers(self) -> bool:
        """Whether `ask` has a model."""
        return self.ask_gateway is not None

    def ask(
        self, question: str, k: int = 5, where: Where = None, *, max_tokens: int = 128
    ) -> Answer:
        """What the gateway's memory answers."""
        assert self.ask_gateway is not None
        given = {"question": question, "k": k, "where": where, "max_tokens": max_tokens}
        answer = self.ask_gateway({"asks": str(self.path), "given": given})
        if "error" in answer:
            raise (OtherModel if answer["is_other_model"] else ClaraError)(answer["error"])
        return wire.read_answer(answer)


class _CountedByGateway:
    """A counter that asks the gateway's."""

    def __init__(
        self,
        ask_gateway: Asks,
        exact: bool,
        takes_late_system_message: bool,
        takes_users_in_a_row: bool,
        takes_thought_beside_text: bool,
    ) -> None:
        self.exact = exact
        self.takes_late_system_message = takes_late_system_message
        self.takes_users_in_a_row = takes_users_in_a_row
        self.takes_thought_beside_text = takes_thought_beside_text
        self._ask_gateway = ask_gateway
        self._counts = CountCache(lambda text: self._ask("text", {"text": text}))

    def text(self, text: str) -> int:
        """Tokens of a text by itself."""
        starts = range(0, max(1, len(text)), _PART_OF_TEXT)
        return sum(self._counts(text[start : start + _PART_OF_TEXT]) for start in starts)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the whole prompt."""
        given = {"messages": list(messages), "tools": list(tools) if tools else None}
        return self._ask("prompt", given)

    def _ask(self, kind: str, given: wire.Value) -> int:
        answer = self._ask_gateway({"counts": kind, "given": given})
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "error" in answer:
            raise ClaraError(answer["error"])
        return int(answer["tokens"])


if __name__ == "__main__":
    sys.exit("this is a part of clara-mlx serve, which starts it")
