"""The methods of `replay_methods` for recorded runs: with estimated tokens, and one memory call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_trajectories import OVERHEAD, PER_TOKEN, text_of
from replay_methods import CompyMac, Everything, Masking, Truncation

from clara_mlx.context import Budget, Context
from clara_mlx.context.messages import Message
from clara_mlx.context.tools import call
from clara_mlx.memory import Memory

# Newest outputs that masking sends whole.
_KEEP = 10

#: Makes a method from a budget, the path for its memory file, and CompyMac's checkout.
Make = Callable[[Budget, Path, Path | None], Everything]


class Estimate:
    """Counts tokens by characters; of a message that it has seen, it remembers them."""

    def __init__(self) -> None:
        self._sizes: dict[int, tuple[Message, int]] = {}  # by identity, which the message keeps

    def __call__(self, messages: list[Message], tools: list[Any]) -> int:
        """The tokens of messages; those of tools are the same in all methods."""
        return sum(map(self._size, messages))

    def _size(self, message: Message) -> int:
        known = self._sizes.get(id(message))
        if known is None or known[0] is not message:
            known = (message, OVERHEAD + len(text_of(message)) // PER_TOKEN)
            self._sizes[id(message)] = known
        return known[1]


class Plain:
    """A history whose messages have text as content, and nothing that the methods don't know."""

    def __init__(self) -> None:
        self._made: list[Message] = []

    def __call__(self, history: list[Message]) -> list[Message]:
        """The same objects for the same messages, so that they are counted once."""
        self._made += [_plain(message) for message in history[len(self._made) :]]
        return self._made[: len(history)]


def _plain(message: Message) -> Message:
    kept = ("role", "tool_calls", "tool_call_id")
    known: dict[str, Any] = {key: message[key] for key in kept if key in message}
    return {**known, "content": text_of({"content": message.get("content")})}


class RecordedTruncation(Truncation):
    """Drops the oldest steps."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget, Estimate())
        self._plain = Plain()

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        return super().prepare(self._plain(history))


class RecordedMasking(Masking):
    """Replaces old outputs with pointers; `expand` gives one back."""

    def __init__(self, budget: Budget, path: Path) -> None:
        super().__init__(budget, Estimate(), path, keep=_KEEP, batch=1)
        self._plain = Plain()

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        return super().prepare(self._plain(history))

    def first_page(self, handle: str) -> str:
        """What `expand` gives for a handle."""
        return call(self._memory, "expand", {"handle": handle})


class RecordedCompyMac(CompyMac):
    """CompyMac's own manager."""

    def __init__(self, checkout: Path, budget: Budget) -> None:
        super().__init__(checkout, budget, PER_TOKEN)
        self._plain = Plain()

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        return super().prepare(self._plain(history))


class RecordedOurs(Everything):
    """`Context` over a `Memory`, with `ask_memory` and `expand`."""

    def __init__(self, budget: Budget, path: Path) -> None:
        self._memory = Memory.open(path)
        self._context = Context(self._memory, budget=budget)

    def prepare(self, history: list[Message]) -> list[Message]:
        """See `Everything`."""
        self._context.observe(history)
        return self._context.prepare(history).messages

    def tell(self, question: str) -> str:
        """What `ask_memory` answers to a question about everything."""
        return call(self._memory, "ask_memory", {"question": question})

    def first_page(self, handle: str) -> str:
        """What `expand` gives for a handle."""
        return call(self._memory, "expand", {"handle": handle})

    def close(self) -> None:
        """See `Everything`."""
        self._memory.close()


def _compymac(budget: Budget, path: Path, checkout: Path | None) -> Everything:
    assert checkout is not None
    return RecordedCompyMac(checkout, budget)


#: All methods, by name.
METHODS: dict[str, Make] = {
    "everything": lambda budget, path, checkout: Everything(),
    "truncation": lambda budget, path, checkout: RecordedTruncation(budget),
    "masking": lambda budget, path, checkout: RecordedMasking(budget, path),
    "compymac": _compymac,
    "ours": lambda budget, path, checkout: RecordedOurs(budget, path),
}
