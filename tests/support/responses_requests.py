"""Requests of OpenAI's Responses, with tools and items of many kinds."""

from __future__ import annotations

from typing import Any

#: A tool's output that is long enough for a block.
OUTPUT = "\n".join(f"step {n}: built module_{n * 7919 % 1009}.c" for n in range(60))

#: A function, a free-form tool, a namespace, and a tool that only OpenAI's servers run.
TOOLS: list[Any] = [
    {"type": "function", "name": "bash", "parameters": {"type": "object"}, "strict": False},
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edits files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: LINE+"},
    },
    {
        "type": "namespace",
        "name": "crm",
        "description": "Customers.",
        "tools": [{"type": "function", "name": "find", "parameters": {"type": "object"}}],
    },
    {"type": "web_search"},
]

COMPACTION = f"[clara m-1f2e3d4c5b6a: 4 earlier messages, kept whole]\n{OUTPUT}"
PART = {"type": "input_text", "text": "Fix it."}
INPUT: list[Any] = [
    {"role": "developer", "content": "Be brief."},
    {"type": "message", "role": "user", "content": [PART]},
    {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}], "content": None},
    {"role": "assistant", "content": [{"type": "output_text", "text": "Yes", "annotations": []}]},
    {"type": "function_call", "call_id": "c1", "name": "y", "namespace": "mcp", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
    {"type": "function_call_output", "call_id": "c1", "output": OUTPUT},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": [PART]},
    {"type": "local_shell_call", "id": "l1", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "id": "l1", "output": "a"},
    {"type": "mcp_call", "id": "x", "server_label": "s", "name": "n", "arguments": "{}"},
    {"type": "web_search_call", "id": "w", "status": "completed"},
    {"type": "compaction", "encrypted_content": COMPACTION},
    {"role": "user", "content": "Sure?"},
]
RESPONSES: dict[str, Any] = {
    "model": "reasoner",
    "input": INPUT,
    "instructions": "Be exact.",
    "tools": TOOLS,
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "bash"}]},
    "text": {"format": {"type": "text"}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "max_output_tokens": 20,
    "temperature": 0.0,
    "context_management": [{"type": "compaction", "compact_threshold": 1000}],
    "metadata": {"user_id": "u"},
    "store": False,
}
