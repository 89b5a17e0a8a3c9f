"""CompyMac's types in our own words, for tests without it.

test_checkout.py runs the real ones where a checkout is present.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any

from trajectories import report, start, step


class Role(str, Enum):  # noqa: UP042 (as CompyMac has it)
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass
class Message:
    role: Any
    content: str
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


@dataclass
class ToolSchema:
    name: str
    required_params: list[str]
    optional_params: list[str]
    param_types: dict[str, str]


@dataclass
class Result:
    tool_call_id: str
    content: str
    success: bool = True


class Harness:
    def __init__(self) -> None:
        self.tools: dict[str, tuple[ToolSchema, Any]] = {}

    def register_tool(self, name: str, schema: ToolSchema, handler: Any) -> None:
        self.tools[name] = schema, handler

    def get_tool_schemas(self) -> list[dict[str, Any]]:
        return [{"type": "function", "function": {"name": name}} for name in self.tools]

    def execute(self, call: Any) -> Result:
        if call.name in self.tools:
            return Result(call.id, self.tools[call.name][1](**call.arguments))
        return Result(call.id, report(int(call.arguments["n"]), 300 if call.name == "long" else 3))


@dataclass
class Loop:
    harness: Harness = field(default_factory=Harness)
    llm_client: Any = None
    config: Any = field(
        default_factory=lambda: SimpleNamespace(
            memory_keep_recent_turns=3, memory_compression_threshold=0.6, summarize_tool_output=True
        )
    )


def conversation(steps: int, lines: int = 60) -> list[Any]:
    messages = start()
    for number in range(steps):
        messages += step(number, [report(number, lines)])
    return [Message(**message) for message in messages]
