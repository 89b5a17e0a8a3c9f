"""What the gateway counts: totals for Prometheus, and what it did for each conversation."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from clara_mlx.context.counting import ToolsText, message_tokens
from clara_mlx.context.messages import Message
from clara_mlx.serve.reasoner_cache import ReasonerCache

#: The media type of `Figures.page`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Conversations whose figures are kept; the least recently used go first.
_MOST_CONVERSATIONS = 256

# Handles of compacted texts that a conversation's figures name, the newest.
_MOST_HANDLES = 50

#: The parts of a prompt in order, the tools, then each message: a digest and about its tokens.
PromptParts = list[tuple[bytes, int]]


@dataclass
class Conversation:
    """Figures of one conversation since the gateway started; figures of tokens are sums."""

    session: str  # the conversation's name
    requests: int = 0  # of the client
    rounds: int = 0  # prompts that were sent for them
    tokens_in: int = 0  # of the client's prompts; about
    tokens_sent: int = 0  # of the prompts that were sent, by the server's count if it gave one
    peak_in: int = 0  # tokens of the largest of the client's prompts
    peak_sent: int = 0  # tokens of the largest prompt that was sent
    cached_expected: int = 0  # tokens at the start of prompts that had been sent before; about
    cached_reported: int = 0  # tokens that the server says it had cached
    completion_tokens: int = 0  # of the answers
    compactions: int = 0
    last_compaction: str | None = None  # why the newest one was done
    compacted: list[str] = field(default_factory=list)  # handles of texts sent as blocks, newest 50
    memory_calls: int = 0  # that the reasoner made and the gateway answered
    fallbacks: int = 0  # rounds that the fallback answered
    updated: float = 0.0  # time of the newest request, in seconds since 1970
    prompt: PromptParts = field(default_factory=list, repr=False)  # the newest, with its answer

    def for_status(self) -> dict[str, Any]:
        """All figures but the prompt's digests."""
        return {key: value for key, value in asdict(self).items() if key != "prompt"}

    def in_common(self, prompt: PromptParts) -> tuple[int, bool]:
        """The tokens at the start of a prompt that the last one had, about.

        Also whether nothing of the last one was changed, its answer aside, which many clients give
        back in a form of their own.
        """
        common = same = 0
        for (old, _), (new, tokens) in zip(self.prompt, prompt, strict=False):
            if old != new:
                break
            common += tokens
            same += 1
        return common, same >= len(self.prompt) - 1


class Figures:
    """Totals in a registry of their own, and the newest conversations.

    Labels have few values each, whatever clients send. Used from the event loop only.

    Args:
        cache: What the reasoner's server keeps of a prompt that changes; by default it is learnt.
    """

    def __init__(self, cache: ReasonerCache | None = None) -> None:
        self.cache = cache or ReasonerCache()
        self.conversations: OrderedDict[str, Conversation] = OrderedDict()
        registry = self._registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"clara_{name}", help, labels, registry=registry)

        def gauge(name: str, help: str) -> Gauge:
            return Gauge(f"clara_{name}", help, registry=registry)

        self.requests = counter("requests", "HTTP requests.", "route", "status")
        self.tokens = counter(
            "prompt_tokens",
            "Tokens of prompts: in (from clients), sent (to the reasoner or the fallback), "
            "cached_expected and cached_reported (sent before, as counted here and by the server).",
            "what",
        )
        self.completion_tokens = counter("completion_tokens", "Tokens of answers.")
        self.compactions = counter("compactions", "Times that old turns were compacted.")
        self.memory_calls = counter("memory_calls", "Calls of the memory's tools.", "tool", "by")
        self.fallbacks = counter("fallbacks", "Answers that the fallback gave.", "reason")
        self.coalesced = counter("coalesced", "Requests that shared another request's answer.")
        self.broken_calls = counter(
            "unreadable_calls", "Tool calls of the reasoner that its server could not read."
        )
        self.memory_errors = counter(
            "memory_errors", "Prompts that were sent as they came because the memory failed."
        )
        self.seconds = Histogram(
            "clara_prepare_seconds",
            "Seconds from the arrival of a chat request until it can be sent on.",
            registry=registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2, 10),
        )
        self.running = gauge("answers_running", "Answers that are being made.")
        self.breaker = gauge(
            "breaker_open", "1 while the reasoner is not asked because it failed, 0 otherwise."
        )
        self.pending = gauge("memory_pending", "Texts that wait for compression.")
        self._cache = Gauge(
            "clara_reasoner_cache",
            "1 for what the reasoner keeps of a prompt that changes, and how that is known.",
            ("kind", "known_by"),
            registry=registry,
        )

    def for_another_namespace(self) -> Figures:
        """Figures of the same totals, with conversations of their own."""
        other = copy.copy(self)
        other.conversations = OrderedDict()
        return other

    def page(self) -> bytes:
        """All totals in Prometheus's text format."""
        self._cache.clear()
        self._cache.labels(self.cache.kind, self.cache.known_by).set(1)
        return generate_latest(self._registry)

    def conversation(self, session: str) -> Conversation:
        """A conversation by its name, new if it isn't known; it becomes the newest."""
        found = self.conversations.setdefault(session, Conversation(session))
        self.conversations.move_to_end(session)
        found.updated = time.time()
        if len(self.conversations) > _MOST_CONVERSATIONS:
            self.conversations.popitem(last=False)
        return found

    def newest(self, session: str | None = None, most: int = 20) -> list[dict[str, Any]]:
        """The figures of the newest conversations, newest first; or those of one."""
        newest_first = reversed(self.conversations.values())
        chosen = [one for one in newest_first if session in (None, one.session)]
        return [conversation.for_status() for conversation in chosen[:most]]

    def count_compaction(self, to: Conversation, handles: Sequence[str], reason: str) -> None:
        """Count a compaction."""
        self.compactions.inc()
        to.compactions += 1
        to.last_compaction = reason
        to.compacted = list(dict.fromkeys([*to.compacted, *handles]))[-_MOST_HANDLES:]

    def count_round(self, to: Conversation, tokens_in: int, sent: int, completion: int) -> None:
        """Count the tokens of one prompt, as it came and as it was sent, and of its answer."""
        to.rounds += 1
        to.tokens_in += tokens_in
        to.tokens_sent += sent
        to.peak_in = max(to.peak_in, tokens_in)
        to.peak_sent = max(to.peak_sent, sent)
        to.completion_tokens += completion
        self.tokens.labels("in").inc(tokens_in)
        self.tokens.labels("sent").inc(sent)
        self.completion_tokens.inc(completion)

    def expected_cached(self, of: Conversation, prompt: PromptParts) -> int:
        """The tokens of a prompt that the reasoner's server should have, about."""
        common, appended = of.in_common(prompt)
        return self.cache.expected(common, appended=appended)

    def count_cached(self, to: Conversation, prompt: PromptParts, reported: int | None) -> None:
        """Count the tokens of a prompt that the reasoner's server should have and says it had.

        ``reported`` is None if it does not say.
        """
        expected = self.expected_cached(to, prompt)
        if to.prompt and reported is not None:
            common, appended = to.in_common(prompt)
            self.cache.observe(common, reported, appended=appended)
        to.cached_expected += expected
        to.cached_reported += reported or 0
        self.tokens.labels("cached_expected").inc(expected)
        self.tokens.labels("cached_reported").inc(reported or 0)


def prompt_parts(
    messages: Sequence[Message], tools: Sequence[Any], count: Callable[[str], int]
) -> PromptParts:
    """A prompt's parts; ``count`` counts the tokens of a text."""
    written = ToolsText.of(tools)
    parts = [(_digest(written), count(written) if tools else 0)]
    for message in messages:
        # Templates drop old reasoning; whether it is there says nothing about the rest.
        said = {key: value for key, value in message.items() if key != "reasoning_content"}
        tokens = message_tokens(said, count)
        # Most of a message is its text, which need not be escaped for a digest.
        text = said.pop("content") if isinstance(said.get("content"), str) else ""
        only_role = said.keys() == {"role"}
        rest = _only_role(str(said["role"])) if only_role else json.dumps(said, sort_keys=True)
        parts.append((_digest(f"{rest}\n{text}"), tokens))
    return parts


@lru_cache(maxsize=32)
def _only_role(role: str) -> str:
    """What is left of most messages without their texts, as JSON."""
    return json.dumps({"role": role})


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
