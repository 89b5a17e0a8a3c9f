"""Sessions of Claude Code: files of JSON lines, one for each session and each of its subagents."""

from __future__ import annotations

import json
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


def _files(machine: Machine) -> list[Path]:
    folder = machine.folder_named("CLAUDE_CONFIG_DIR", ".claude") / "projects"
    return sorted(folder.glob("*/**/*.jsonl"))


def _recognises(found: list[Any]) -> bool:
    return any(
        "sessionId" in one and ("isSidechain" in one or "content" in _message(one)) for one in found
    )


def _message(record: dict[str, Any]) -> dict[str, Any]:
    message = record.get("message")
    return message if isinstance(message, dict) else {}


def _read(file: Path) -> Iterator[Turn | Broken]:
    for where, record in records(file):
        if isinstance(record, Broken):
            yield record
            continue
        kind = record.get("type") if isinstance(record, dict) else None
        if kind not in ("user", "assistant") or record.get("isMeta"):
            continue  # the state of the program, and notes that it adds itself
        message = _message(record)
        key, session = record.get("uuid"), record.get("sessionId")
        if not isinstance(key, str) or not isinstance(session, str) or "content" not in message:
            yield Broken(where, "a message without uuid, sessionId or content")
            continue
        agent = record.get("agentId") if record.get("isSidechain") else None
        yield Turn(
            _messages(kind, message["content"]),
            key,
            f"{session}/{agent}" if agent else session,
            folder_or_none(record.get("cwd")),
            seconds(record.get("timestamp")),
            where,
            message.get("id") if kind == "assistant" else None,
        )


def _messages(role: str, content: Any) -> list[Message]:
    found: list[Message] = []
    if not isinstance(content, list):
        return [{"role": role, "content": text(content)}]
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            found.append({"role": role, "content": text(part.get("text"))})
        elif kind == "tool_use":
            arguments = json.dumps(part.get("input") or {}, ensure_ascii=False)
            found.append(call_message(text(part.get("id")), text(part.get("name")), arguments))
        elif kind == "tool_result":
            printed = parts_text(part.get("content"))
            found.append(result_message(text(part.get("tool_use_id")), printed))
    return found


CLAUDE = Source("claude", "Claude Code", _files, _recognises, _read)
