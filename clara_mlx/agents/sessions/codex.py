"""Sessions of Codex: one file of JSON lines for each, with the items of the Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clara_mlx.agents.agent import Machine
from clara_mlx.agents.sessions.session import (
    Broken,
    Message,
    Source,
    Turn,
    call_message,
    folder_or_none,
    parts_text,
    records,
    result_message,
    seconds,
    text,
)

# How the texts begin that Codex itself writes as the user.
_OF_CODEX = ("<environment_context>", "<user_instructions>", "# AGENTS.md instructions")


def _files(machine: Machine) -> list[Path]:
    folder = machine.folder_named("CODEX_HOME", ".codex")
    places = (folder / "sessions", folder / "archived_sessions")
    found = {file for place in places for file in place.glob("**/rollout-*.jsonl*")}
    return sorted(file for file in found if file.suffix in (".jsonl", ".zst"))


def _recognises(found: list[Any]) -> bool:
    return any(one.get("type") == "session_meta" for one in found) or any(
        isinstance(one.get("payload"), dict) and one.get("type") == "response_item" for one in found
    )


def _read(file: Path) -> Iterator[Turn | Broken]:
    session, project, number = file.name.removesuffix(".zst").removesuffix(".jsonl"), None, 0
    for where, record in records(file):
        if isinstance(record, Broken):
            yield record
            continue
        payload = record.get("payload") if isinstance(record, dict) else None
        if not isinstance(payload, dict):
            continue
        if record.get("type") == "session_meta":
            session = text(payload.get("id")) or session
            project = folder_or_none(payload.get("cwd")) or project
        elif record.get("type") == "response_item":
            number += 1
            try:
                messages = _messages(payload)
            except (TypeError, AttributeError) as error:
                yield Broken(where, f"an item of another form: {error}")
                continue
            if messages:
                time = seconds(record.get("timestamp"))
                yield Turn(messages, f"{session}:{number}", session, project, time, where)


def _messages(item: dict[str, Any]) -> list[Message]:
    kind, call = item.get("type"), text(item.get("call_id"))
    if kind == "message":
        content = parts_text(item.get("content"))
        role = text(item.get("role"))
        if role == "user" and content.startswith(_OF_CODEX):
            role = "developer"
        return [{"role": role, "content": content}]
    if kind in ("function_call", "custom_tool_call"):
        # What a custom tool gets is free text, which chat completions have as an object.
        custom = kind == "custom_tool_call"
        arguments = text({"input": item.get("input")} if custom else item.get("arguments"))
        return [call_message(call, text(item.get("name")), arguments)]
    if kind == "local_shell_call":
        action = item.get("action") or {}
        return [call_message(call, "shell", text({"command": action.get("command")}))]
    if kind in ("function_call_output", "custom_tool_call_output"):
        output = item.get("output")
        if isinstance(output, dict):
            output = output.get("content", output)
        return [result_message(call, parts_text(output))]
    return []  # reasoning, searches by the server, and what comes later


CODEX = Source("codex", "Codex CLI", _files, _recognises, _read, (".jsonl", ".jsonl.zst"))
