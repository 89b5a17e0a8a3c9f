"""The process in which heavy conversations are prepared, as the gateway sees it.

To read, describe and remember texts of a megabyte takes seconds of the interpreter, of which each
process has one. Here these seconds are another process's: it does one thing at a time, gives way
to all others, and is ended if it takes too long or the gateway stops. What it loses by that is in
the memory's file, or in the body of the request, which is kept here and is then read once more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

from clara_mlx.context import Counter
from clara_mlx.context.child_process import start_child
from clara_mlx.context.counting import Refused
from clara_mlx.errors import ClaraError, OtherModel
from clara_mlx.memory import Memory
from clara_mlx.serve import wire
from clara_mlx.serve.channel import Channel
from clara_mlx.serve.errors import ApiError
from clara_mlx.serve.settings import Settings

logger = logging.getLogger(__name__)

#: Seconds that one step of a conversation may take: many times what the largest one takes.
SECONDS = 60.0

# Seconds that the process may take to start, on a machine that is busy.
_START_SECONDS = 60.0

# Seconds that the process may take to receive what it has asked for.
_HELP_SECONDS = 10.0

# Seconds that a thread which does something for the process may take to notice that it has ended.
_LAST_SECONDS = 1.0

# What a client is told to wait, in seconds, before it sends a request again.
_RETRY_AFTER = "10"

# What the process runs; its code is found where this process finds it.
_CHILD = "clara_mlx.serve.preparing_child"


class PreparingFailed(Exception):
    """The process met an error of ours; its log has it."""


class PreparingProcess:
    """Does in another process what is asked of it; started when it is first needed.

    It counts with the gateway's counter, and asks the gateway's models: see `_Child`. Safe to use
    from several threads; `close` it.

    Args:
        settings: The settings of the gateway.
        memories: The memories whose conversations it prepares.
        counter: Counts the reasoner's tokens; None: they are estimated.
        seconds: Seconds that one step may take.
    """

    def __init__(
        self,
        settings: Settings,
        memories: Iterable[Memory],
        counter: Counter | None,
        seconds: float = SECONDS,
    ) -> None:
        self._memories = {str(memory.path): memory for memory in memories}
        self._counter = counter
        self._seconds = seconds
        #: What the reasoner's server keeps of a prompt that changes, as far as it is known now.
        self.cache = settings.budget.cache
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._is_closed = False
        self._start: wire.Value = {
            "budget": asdict(settings.budget),
            "offer": settings.offer,
            "obeys": settings.reasoner.obeys,
            # By path, what each memory cuts by; those are the ones that have a model.
            "measures": {
                path: memory.measure.to_json()
                for path, memory in self._memories.items()
                if memory.measure
            },
            "counter": counter
            and [
                counter.exact,
                counter.takes_late_system_message,
                getattr(counter, "takes_users_in_a_row", True),
                getattr(counter, "takes_thought_beside_text", True),
            ],
            "seconds": seconds,
        }

    def close(self) -> None:
        """End the process, whatever it does; what is asked from now on is refused."""
        self._is_closed = True
        child = self._child
        if child is None:
            return
        child.kill()
        if self._lock.acquire(timeout=_LAST_SECONDS):  # whoever waits for it has noticed
            child.end()
            self._lock.release()

    def ask(self, question: wire.Value, content: bytes = b"") -> Any:
        """What the process answers.

        Raises:
            ApiError: It refuses the request; or it took too long, or ended twice.
            ClaraError: What was asked for can't be done.
            PreparingFailed: It met an error of ours.
        """
        with self._lock:
            for is_last in (False, True):
                if self._is_closed:
                    break
                try:
                    return self._started().ask(question, content, self._seconds)
                except TimeoutError:
                    self._end(f"it took longer than {self._seconds:g} s ({question['do']})")
                    raise ApiError(
                        503,
                        f"to prepare this conversation took longer than {self._seconds:g} seconds, "
                        f"so it was ended; try again in {_RETRY_AFTER} seconds, or shorten it",
                        code="preparing_took_too_long",
                        retry=True,
                        retry_after=_RETRY_AFTER,
                    ) from None
                except (OSError, ValueError) as error:
                    self._end(str(error))
                    if is_last:
                        raise ApiError(
                            503,
                            "the process that prepares large conversations has ended twice; try "
                            f"again in {_RETRY_AFTER} seconds, or shorten the conversation",
                            code="preparing_failed",
                            retry=True,
                            retry_after=_RETRY_AFTER,
                        ) from error
        raise ApiError(503, "the gateway is shutting down", code="shutting_down", retry=True)

    def _started(self) -> _Child:
        """The process, which is started if there is none."""
        if self._child is None:
            self._child = _Child(self._memories, self._counter)
            if self._is_closed:  # `close` may not have seen it
                raise ConnectionError("the gateway is shutting down")
            self._child.begin(self._start)
        return self._child

    def _end(self, why: str) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()
        if not self._is_closed:
            logger.warning("the process that prepares large conversations was ended: %s", why)


class _Child:
    """One process, and the socket to it; see `start_child`.

    Before it answers it may ask in return: for a count of the reasoner's tokens, or for what a
    memory with a model says to a question.
    """

    def __init__(self, memories: dict[str, Memory], counter: Counter | None) -> None:
        self._memories = memories
        self._counter = counter
        self._process, ours = start_child(_CHILD)
        self._channel = Channel(ours)

    def begin(self, start: wire.Value) -> None:
        """Say what it needs to know, and wait until it is ready.

        Raises:
            OSError: It has ended, or takes too long.
        """
        try:
            self._channel.send(start, seconds=_START_SECONDS)
            self._channel.receive(_START_SECONDS)
        except TimeoutError:
            raise ConnectionError(f"it did not start within {_START_SECONDS:g} s") from None

    def ask(self, question: wire.Value, content: bytes, seconds: float) -> Any:
        """The answer to a question.

        Raises:
            TimeoutError: There is none within these seconds of its own work.
            OSError: It has ended.
        """
        self._channel.send(question, content, seconds)
        left = seconds
        while True:
            begun = time.monotonic()
            answer, _ = self._channel.receive(left)
            left -= time.monotonic() - begun
            match answer:
                case {"counts": kind, "given": given}:
                    self._help(partial(self._count, kind, given))
                case {"asks": path, "given": given}:
                    self._help(partial(self._ask_memory, path, given))
                case {"refused": error}:
                    raise wire.read_api_error(error)
                case {"impossible": message}:
                    raise ClaraError(message)
                case {"failed": message}:
                    raise PreparingFailed(message)
                case _:
                    return answer["answer"]

    def kill(self) -> None:
        """Kill the process, whatever it does; may be called from any thread."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """Kill the process, and close the socket."""
        self.kill()
        self._channel.close()

    def _help(self, help: Callable[[], wire.Value]) -> None:
        """Send what the process has asked for, or why it can't be had; it waits for one of them."""
        try:
            given = help()
        except Refused as error:
            given = {"refused": str(error)}
        except ClaraError as error:
            given = {"error": str(error), "is_other_model": isinstance(error, OtherModel)}
        except Exception as error:
            logger.exception("a question of the process that prepares conversations failed")
            given = {"error": f"{type(error).__name__}: {error}", "is_other_model": False}
        self._channel.send(given, seconds=_HELP_SECONDS)

    def _ask_memory(self, path: str, given: wire.Value) -> wire.Value:
        return wire.write_answer(self._memories[path].ask(**given))

    def _count(self, kind: str, given: wire.Value) -> wire.Value:
        assert self._counter is not None
        if kind == "text":
            return {"tokens": self._counter.text(given["text"])}
        return {"tokens": self._counter.prompt(given["messages"], given["tools"])}
