"""Counting in a process that can be ended: a chat template is a program, and may not end itself.

The sandbox of a template stops code and files, but not loops. In the gateway's own process one
endless template would hold every conversation. Here it holds a process that is ended after some
seconds, and prompts are then counted by the sum of their parts.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clara_mlx.context.child_process import start_child
from clara_mlx.context.counting import CountCache, Estimate, Refused
from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError

logger = logging.getLogger(__name__)

#: Seconds that one count may take. The longest prompt takes less than three on slow cores.
SECONDS = 5.0

# Bytes of a prompt above which it is counted by the sum of its parts: it would take too long.
_LONGEST_PROMPT = 1_000_000

# Characters of a text that are counted at once; of a longer one, the counts of its parts are added.
_PART_OF_TEXT = 250_000

# Seconds to load the tokenizer, which imports transformers; on a busy machine that takes long.
_LOAD_SECONDS = 120.0

# Seconds for which counts of a kind are left alone after one that did not end; twice as long after
# each further one, so that not every request waits.
_PAUSE = 10.0

# The most of those seconds.
_LONGEST_PAUSE = 600.0

# The most bytes of an answer, which is a number or a short error.
_LONGEST_ANSWER = 65_536

# What the process runs; its code is found where this process finds it.
_CHILD = "clara_mlx.context.counting_child"


class _Unavailable(ClaraError):
    """The process can't count now."""


class CountingProcess:
    """A `ChatTemplate` in a process of its own; the gateway's counter.

    A count that takes too long ends the process, another is started in the background, and until
    it is there texts are estimated. `prompt` then raises, so that the sum of the parts is taken.
    Safe to use from several threads; `close` it.

    Args:
        folder: The reasoner's model folder.
        options: What the server was given as ``--chat-template-args``.
        seconds: Seconds that one count may take.

    Raises:
        ClaraError: The folder has no tokenizer or no chat template, or the template does not end.
    """

    exact = True

    def __init__(
        self,
        folder: str | Path,
        options: Mapping[str, Any] | None = None,
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._folder = folder
        self._options = dict(options or {})
        self._seconds = seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._estimate = Estimate().text
        self._counts = CountCache(lambda text: self._ask("text", _written({"text": text})))
        # One request counts the same prompt several times, and so does one that is tried again.
        self._prompts = CountCache(lambda written: self._ask("prompt", written))
        self._pauses = {"text": _Pause(), "prompt": _Pause()}
        self._child: _Child | None = self._start()
        #: Whether the template accepts a system message that is not the first; found out once.
        self.takes_late_system_message = self._child.takes_late_system_message
        #: Whether it accepts two messages of a user's in a row.
        self.takes_users_in_a_row = self._child.takes_users_in_a_row
        #: Whether it accepts a call with both a text and a thought.
        self.takes_thought_beside_text = self._child.takes_thought_beside_text

    def __enter__(self) -> CountingProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process; later counts are estimates."""
        self._closed.set()
        child = self._child
        if child is not None:
            child.end()

    def text(self, text: str) -> int:
        """Tokens of a text by itself; recent counts are kept. An estimate if there is none now."""
        starts = range(0, max(1, len(text)), _PART_OF_TEXT)
        try:
            return sum(self._counts(text[start : start + _PART_OF_TEXT]) for start in starts)
        except ClaraError:
            return self._estimate(text)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of the rendered prompt with the opening of the answer.

        Raises:
            Refused: The template refuses these messages.
            ClaraError: They are too long, or it does not end.
        """
        given = {"messages": list(messages), "tools": list(tools) if tools else None}
        return self._prompts(_written(given))

    def _ask(self, kind: str, written: str) -> int:
        """The tokens that the process counts, in at most the seconds it has."""
        pause = self._pauses[kind]
        if pause.lasts:
            raise _Unavailable(f"counts of {kind}s are left alone for a while")
        line = written.encode("utf-8", "surrogatepass") + b"\n"
        if kind == "prompt" and len(line) > _LONGEST_PROMPT:
            raise _Unavailable(f"a prompt of {len(line)} bytes takes too long to be rendered")
        if not self._lock.acquire(timeout=self._seconds):
            raise _Unavailable("the process that counts is busy")
        try:
            child = self._child
            if child is None:
                raise _Unavailable("the process that counts is being started")
            try:
                answer = child.ask(line, self._seconds)
            except (OSError, ValueError) as error:
                self._child = None
                child.end()
                self._start_again(kind, pause, error)
                raise _Unavailable(f"the process that counts was ended: {error}") from error
        finally:
            self._lock.release()
        pause.over()
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "error" in answer:
            raise ClaraError(answer["error"])
        return int(answer["tokens"])

    def _start(self) -> _Child:
        return _Child(self._folder, self._options, self._seconds)

    def _start_again(self, kind: str, pause: _Pause, error: Exception) -> None:
        """Start another process in the background, and leave this kind of count alone."""
        if self._closed.is_set():
            return
        seconds = pause.begin()
        logger.warning(
            "%s: counting a %s did not end well (%s); its process was ended, and %ss are "
            "estimated for %.0f s",
            self._folder,
            kind,
            error,
            kind,
            seconds,
        )
        threading.Thread(target=self._keep_starting, daemon=True).start()

    def _keep_starting(self) -> None:
        wait = _Pause()
        while not self._closed.is_set():
            try:
                child = self._start()
            except ClaraError as error:
                logger.warning("%s; it is tried again later", error)
                self._closed.wait(wait.begin())
                continue
            self._child = child
            if self._closed.is_set():
                child.end()
            return


def _written(request: Mapping[str, Any]) -> str:
    """What is to be counted, as a line of JSON."""
    try:
        return json.dumps(request, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ClaraError(f"this can't be counted: {error}") from error


class _Pause:
    """How long something that failed is left alone."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    @property
    def lasts(self) -> bool:
        return time.monotonic() < self._until

    def begin(self) -> float:
        """Begin a pause and return its seconds."""
        seconds = min(_LONGEST_PAUSE, _PAUSE * 2.0 ** min(self._failures, 9))
        self._failures += 1
        self._until = time.monotonic() + seconds
        return seconds

    def over(self) -> None:
        """Something has succeeded."""
        self._failures = 0


class _Child:
    """One process, and the socket to it; see `start_child`."""

    def __init__(self, folder: str | Path, options: Mapping[str, Any], seconds: float) -> None:
        self._process, self._socket = start_child(_CHILD)
        self._received = b""
        start = {
            "folder": str(folder),
            "options": options,
            "seconds": seconds,
            "load_seconds": _LOAD_SECONDS,
        }
        try:
            answer = self.ask(json.dumps(start).encode() + b"\n", _LOAD_SECONDS)
        except (OSError, ValueError) as error:
            self.end()
            raise ClaraError(f"{folder}: the tokenizer could not be loaded: {error}") from error
        try:
            if "loaded" in answer:
                answer = self._read(time.monotonic() + seconds)
        except (OSError, ValueError) as error:
            self.end()
            raise ClaraError(
                f"{folder}: the chat template was not rendered within {seconds:g} s for five words "
                f"({error}); name another folder as --tokenizer"
            ) from error
        if "error" in answer:
            self.end()
            raise ClaraError(answer["error"])
        self.takes_late_system_message = bool(answer["takes_late_system_message"])
        self.takes_users_in_a_row = bool(answer["takes_users_in_a_row"])
        self.takes_thought_beside_text = bool(answer["takes_thought_beside_text"])

    def ask(self, line: bytes, seconds: float) -> dict[str, Any]:
        """The answer to a line.

        Raises:
            OSError: There is none within these seconds, or the process has ended.
            ValueError: It is no answer.
        """
        deadline = time.monotonic() + seconds
        self._socket.settimeout(seconds)
        self._socket.sendall(line)
        return self._read(deadline)

    def _read(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                received = self._socket.recv(_LONGEST_ANSWER)
            except TimeoutError:
                raise TimeoutError("it took too long") from None
            if not received or len(self._received) > _LONGEST_ANSWER:
                raise ConnectionError("it has ended")
            self._received += received
        line, _, self._received = self._received.partition(b"\n")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("it answered nonsense")
        return answer

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._socket.close()
