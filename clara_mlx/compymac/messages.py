"""CompyMac's messages, its context settings and its way of counting, without importing them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from clara_mlx.context.counting import Counter, count_prompt
from clara_mlx.context.messages import Message, content_text

# Tokens that a message takes beside its text, by CompyMac's count.
_MESSAGE_TOKENS = 4

# No template renders tools alone.
_ANY_PROMPT: list[Message] = [{"role": "user", "content": "."}]

# The fields of a message beside role and content.
_FIELDS = ("name", "tool_call_id", "tool_calls")


@dataclass
class ContextConfig:
    """The fields of CompyMac's ContextConfig, from the same environment variables."""

    token_budget: int = 128_000
    chars_per_token: float = 4.0
    reserved_for_response: int = 4_096

    @classmethod
    def from_env(cls) -> ContextConfig:
        """The settings of the environment; what is not set has its default."""
        return cls(
            int(os.environ.get("CONTEXT_TOKEN_BUDGET", cls.token_budget)),
            float(os.environ.get("CONTEXT_CHARS_PER_TOKEN", cls.chars_per_token)),
            int(os.environ.get("CONTEXT_RESERVED_FOR_RESPONSE", cls.reserved_for_response)),
        )

    @property
    def available_budget(self) -> int:
        """Tokens for the prompt."""
        return self.token_budget - self.reserved_for_response


class ConfigCounter:
    """Counts as CompyMac does: a constant number of characters per token, four more a message."""

    exact = False
    takes_late_system_message = True
    takes_users_in_a_row = True
    takes_thought_beside_text = True

    def __init__(self, characters_per_token: float) -> None:
        self._characters = characters_per_token

    def text(self, text: str) -> int:
        """Tokens of a text, rounded down."""
        return int(len(text) / self._characters)

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of messages with their names and calls, and of the tools."""
        total = self.text(str(list(tools))) if tools else 0
        for message in messages:
            total += (
                _MESSAGE_TOKENS
                + self.text(content_text(message))
                + self.text(message.get("name") or "")
            )
            if message.get("tool_calls"):
                total += self.text(str(message["tool_calls"]))
        return total


def count_tools(counter: Counter, tools: Sequence[Any]) -> int:
    """Tokens that offering tools adds to a prompt."""
    offered, none = (count_prompt(counter, _ANY_PROMPT, given).tokens for given in (tools, None))
    return offered - none


def role_of(message: Any) -> str:
    """The role of a message as a string, which may be given as an enumeration."""
    role = message["role"] if isinstance(message, dict) else message.role
    return str(role.value if isinstance(role, Enum) else role)


def as_dict(message: Any) -> Message:
    """A message as a dict in OpenAI's form; a dict is copied."""
    if isinstance(message, dict):
        return dict(message)
    found = {field: getattr(message, field, None) for field in _FIELDS}
    given = {field: value for field, value in found.items() if value is not None}
    return {"role": role_of(message), "content": message.content or "", **given}


def like(sample: Any, message: Message) -> Any:
    """A message of the sample's type, whose role is of the sample's type, too."""
    if isinstance(sample, dict):
        return message
    role: Any = message["role"]
    if isinstance(sample.role, Enum):
        role = type(sample.role)(role)
    fields = {field: message.get(field) for field in _FIELDS}
    content = message.get("content") or ""
    make: Any = type(sample)
    return make(role=role, content=content, **fields)
