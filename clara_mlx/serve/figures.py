"""What the gateway did for each conversation: tokens in and sent, what the server had cached."""

from __future__ import annotations

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clara_mlx.context.counting import message_tokens
from clara_mlx.context.messages import Message

# Conversations whose figures are kept; the least recently used go first.
_MOST = 256

#: The parts of a prompt in order: the tools, then each message; a digest and about its tokens.
Prompt = list[tuple[bytes, int]]


@dataclass
class Conversation:
    """Figures of one conversation since the gateway started.

    Attributes:
        session: its name.
        requests: of the client.
        rounds: prompts that were sent for them.
        tokens_in: of the clients' prompts, summed; about.
        tokens_sent: of the prompts that were sent, as the server counted them where it said so.
        peak_in: the largest of the clients' prompts.
        peak_sent: the largest prompt sent.
        cached_expected: tokens of prompts that had been sent before, from their start; about.
        cached_reported: tokens that the server says it had cached.
        completion_tokens: that came back.
        compactions: how often old turns became blocks, and the reason for the last one.
        compacted: handles of what is sent as blocks, the newest 50.
        memory_calls: that the reasoner made and the gateway answered.
        fallbacks: answers that the fallback gave.
        updated: when, in seconds since 1970.
    """

    session: str
    requests: int = 0
    rounds: int = 0
    tokens_in: int = 0
    tokens_sent: int = 0
    peak_in: int = 0
    peak_sent: int = 0
    cached_expected: int = 0
    cached_reported: int = 0
    completion_tokens: int = 0
    compactions: int = 0
    last_compaction: str | None = None
    compacted: list[str] = field(default_factory=list)
    memory_calls: int = 0
    fallbacks: int = 0
    updated: float = 0.0
    prompt: Prompt = field(default_factory=list, repr=False)

    def figures(self) -> dict[str, Any]:
        """All of it but the prompt's digests, for the status."""
        return {key: value for key, value in asdict(self).items() if key != "prompt"}

    def common(self, prompt: Prompt) -> int:
        """About the tokens of a prompt that the server has from the last one, answer included."""
        same = 0
        for (old, _), (new, tokens) in zip(self.prompt, prompt, strict=False):
            if old != new:
                break
            same += tokens
        return same

    def compacted_more(self, handles: Sequence[str], reason: str) -> None:
        """Note a compaction."""
        self.compactions += 1
        self.last_compaction = reason
        self.compacted = list(dict.fromkeys([*self.compacted, *handles]))[-50:]


class Conversations:
    """The newest conversations. Used from the event loop only."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Conversation] = OrderedDict()

    def of(self, session: str) -> Conversation:
        """A conversation by its name, new if it isn't known."""
        found = self._known.setdefault(session, Conversation(session))
        self._known.move_to_end(session)
        found.updated = time.time()
        if len(self._known) > _MOST:
            self._known.popitem(last=False)
        return found

    def figures(self, session: str | None = None, most: int = 20) -> list[dict[str, Any]]:
        """The figures of the newest ones, newest first; or of one."""
        chosen = [c for c in reversed(self._known.values()) if session in (None, c.session)]
        return [conversation.figures() for conversation in chosen[:most]]


def prompt_of(
    messages: Sequence[Message], tools: Sequence[Any], text: Callable[[str], int]
) -> Prompt:
    """A prompt's parts; ``text`` counts tokens."""
    written = json.dumps(tools)
    parts = [(_digest(written), text(written) if tools else 0)]
    for message in messages:
        # Templates drop old reasoning; whether it is there says nothing about the rest.
        said = {key: value for key, value in message.items() if key != "reasoning_content"}
        parts.append((_digest(json.dumps(said, sort_keys=True)), message_tokens(message, text)))
    return parts


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:8]
