"""Methods to make an agent's history fit: each turns the whole history into what is sent."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from clara_mlx.context import Budget, ChatTemplate, Context
from clara_mlx.context.freezer import HANDLE
from clara_mlx.context.messages import Message, calls_by_result, content_text, head_length, units
from clara_mlx.context.pages import PAGE_CHARACTERS, PAGE_LINES
from clara_mlx.context.tools import SCHEMAS, call
from clara_mlx.memory import Memory

#: Counts the tokens of a prompt.
Count = Callable[[list[Message], list[Any]], int]

#: The tool and the arguments of a memory call, and its result.
Called = tuple[str, dict[str, Any], str]

BASH = {
    "type": "function",
    "function": {
        "name": "bash",
        "description": "Run a command and read what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"command": {"type": "string"}},
            "required": ["command"],
        },
    },
}
# The name in a question: a word with a mark or a digit inside, or the last one, after "of".
_NAMED = re.compile(
    r"(?<![\w./:@-])[./:@-]*+"
    r"(\w(?:[^\W\d_]*+[\d_]|[^\W\d_]*+[./:@-]++(?=\w))[\w./:@-]*\w)|\bof (\w+)\?$"
)
_EXPAND = next(tool for tool in SCHEMAS if tool["function"]["name"] == "expand")


class Everything:
    """Sends the whole history, even if it exceeds the window."""

    tools: ClassVar[list[Any]] = [BASH]

    def prepare(self, history: list[Message]) -> list[Message]:
        """The messages to send for a history."""
        return history

    def recover(self, command: str, question: str, sent: list[Message]) -> Called | None:
        """Make the one memory call for what a command printed; None if no call is possible."""
        return None

    def close(self) -> None:
        """Close the memory file, if there is one."""


class Truncation(Everything):
    """Drops the oldest units after the task until the rest fits; more and more as it grows."""

    def __init__(self, budget: Budget, count: Count) -> None:
        self._limit = budget.limit
        self._count = count
        self._dropped = 0  # units

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        while not self._fits(sent := self._undropped(history)):
            self._dropped += 1
        return sent

    def _undropped(self, history: list[Message]) -> list[Message]:
        head = head_length(history)
        spans = units(history, head)
        first = spans[self._dropped][0] if self._dropped < len(spans) else len(history)
        return history[:head] + history[first:]

    def _fits(self, sent: list[Message]) -> bool:
        return self._count(sent, self.tools) <= self._limit


class Masking(Truncation):
    """Replaces old outputs with pointers that `expand` follows.

    If the rest is too long, all but the newest output are masked; only then are the oldest units
    dropped.

    Args:
        budget: The budget that the history must fit.
        count: Counts the tokens of a prompt.
        path: The memory file that keeps the originals.
        keep: The number of newest outputs that are sent whole.
        batch: The number of outputs that are masked together; with 1, one more at each step.
    """

    tools: ClassVar[list[Any]] = [BASH, _EXPAND]

    def __init__(self, budget: Budget, count: Count, path: Path, keep: int, batch: int) -> None:
        super().__init__(budget, count)
        self._memory = Memory.open(path)
        self._keep = keep
        self._batch = batch
        self._masked = 0  # outputs
        self._pointers: dict[int, str] = {}

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        outputs = [i for i, message in enumerate(history) if message["role"] == "tool"]
        old = max(0, len(outputs) - self._keep) // self._batch * self._batch
        self._masked = max(self._masked, old)
        sent = list(history)
        for index in outputs[: self._masked]:
            sent[index] = {**history[index], "content": self._pointer(index, history)}
        while self._masked < len(outputs) - 1 and not self._fits(self._undropped(sent)):
            more = outputs[:-1][self._masked : self._masked + self._batch]
            for index in more:
                sent[index] = {**history[index], "content": self._pointer(index, history)}
            self._masked += len(more)
        return super().prepare(sent)

    def _pointer(self, index: int, history: list[Message]) -> str:
        if index not in self._pointers:
            text = history[index]["content"]
            calls = calls_by_result(history)
            if calls[index][0] == "expand":  # its original is kept already
                handle = json.loads(calls[index][1])["handle"]
            else:
                handle = self._memory.remember(text)
            lines = text.count("\n") + 1
            pointer = f"[{lines} lines left out; expand {handle} gives them back]"
            self._pointers[index] = min(pointer, text, key=len)
        return self._pointers[index]

    def recover(self, command: str, question: str, sent: list[Message]) -> Called | None:
        """See `Everything`."""
        return expand_shown(self._memory, command, question, sent)

    def close(self) -> None:
        """See `Everything`."""
        self._memory.close()


class CompyMac(Everything):
    """The real program's MemoryManager and ToolOutputSummarizer, as its agent loop uses them.

    Args:
        checkout: A checkout of its repository.
        budget: The budget that it is configured with.
        characters: Characters per token; its own guess is 4, and this is the real figure here.
    """

    def __init__(self, checkout: Path, budget: Budget, characters: float) -> None:
        source = str(checkout / "src")
        if source not in sys.path:
            sys.path.insert(0, source)
        from compymac.config import ContextConfig
        from compymac.memory import MemoryManager, ToolOutputSummarizer
        from compymac.types import Message as Theirs

        self._message, self._summarizer = Theirs, ToolOutputSummarizer
        self._manager = MemoryManager(
            ContextConfig(
                budget.window, chars_per_token=characters, reserved_for_response=budget.reserve
            )
        )
        self._messages: list[Any] = []
        self._seen = 0

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        calls = calls_by_result(history)
        for index in range(self._seen, len(history)):
            message = dict(history[index])
            if message["role"] == "tool":
                tool = calls[index][0]
                message["content"] = self._summarizer.summarize(tool, message["content"])
            self._messages.append(self._message(**message))
        self._seen = len(history)
        sent = self._manager.process_messages(self._messages)
        if len(sent) < len(self._messages):
            self._messages = sent
        return [message.to_dict() for message in sent]


class Ours(Everything):
    """`Context` over a `Memory`, with the two memory tools.

    Without a model `ask_memory` gives exact lines; with one, also an answer from memory tokens.
    """

    tools: ClassVar[list[Any]] = [BASH, *SCHEMAS]

    def __init__(
        self, budget: Budget, counter: ChatTemplate, path: Path, clara: Any = None
    ) -> None:
        self.memory = Memory.open(path, clara)
        self.context = Context(self.memory, counter, budget)

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        self.context.observe(history)
        return self.context.prepare(history, tools=self.tools).messages

    def recover(self, command: str, question: str, sent: list[Message]) -> Called | None:
        """Ask about the handle that is shown, or about everything."""
        return self.ask(command, question, handle_shown(command, sent))

    def ask(self, command: str, question: str, handle: str | None = None) -> Called:
        """Ask about everything that was seen, or about the original behind a handle."""
        if self.memory.clara is not None:
            self.memory.flush()
        arguments = {"question": question, "handle": handle}
        if handle is None:
            arguments = {"question": f"{question} ({command})"}
        return "ask_memory", arguments, call(self.memory, "ask_memory", arguments)

    def close(self) -> None:
        """See `Everything`."""
        self.memory.close()


def expand_shown(memory: Memory, command: str, question: str, sent: list[Message]) -> Called | None:
    """Expand the handle that is shown for a command; masking has no better tool.

    The original is read whole if it has one page. Else it is the lines around what the question
    names, such as a path, or the last page, where most commands say how they went.
    """
    handle = handle_shown(command, sent)
    if handle is None:
        return None
    arguments: dict[str, Any] = {"handle": handle}
    original = str(memory.original(handle))
    lines = original.count("\n") + 1
    if _has_pages(original):
        if named := _NAMED.search(question):
            arguments["find"] = named[1] or named[2]
        else:
            arguments["start_line"] = lines - _last_page(original) + 1
    return "expand", arguments, call(memory, "expand", arguments)


def _has_pages(text: str) -> bool:
    return text.count("\n") >= PAGE_LINES or len(text) > PAGE_CHARACTERS


def _last_page(text: str) -> int:
    """The number of last lines that fit on a page."""
    room, count = PAGE_CHARACTERS, 0
    for line in reversed(text.split("\n")):
        room -= len(line) + 1
        if room < 0 or count == PAGE_LINES:
            break
        count += 1
    return max(1, count)


def handle_shown(command: str, sent: list[Message]) -> str | None:
    """The handle in a command's result, or in a block or a fold that names the command."""
    calls = calls_by_result(sent)
    for index, (_, arguments) in calls.items():
        if json.loads(arguments or "{}").get("command") == command:
            found = HANDLE.search(content_text(sent[index]).partition("\n")[0])
            return found[0] if found else None
    named = re.compile(
        rf"\[clara ({HANDLE.pattern})(?:: [^\[\]\n]*)?\](?: \| |\n *command: )"
        rf"{re.escape(command)}(?![\w.-])"
    )
    found = next(filter(None, (named.search(content_text(one)) for one in sent)), None)
    return found[1] if found else None
