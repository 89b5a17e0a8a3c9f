"""Sessions of Qwen Code: JSON lines with messages in Gemini's form."""

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
    records,
    result_message,
    seconds,
    text,
)


def _files(machine: Machine) -> list[Path]:
    folder = machine.folder_named("QWEN_HOME", ".qwen")
    return sorted(folder.glob("projects/*/chats/*.jsonl"))


def _parts(record: dict[str, Any]) -> list[Any]:
    message = record.get("message")
    parts = message.get("parts") if isinstance(message, dict) else None
    return parts if isinstance(parts, list) else []


def _recognises(found: list[Any]) -> bool:
    return any("sessionId" in one and _parts(one) for one in found)


def _read(file: Path) -> Iterator[Turn | Broken]:
    for where, record in records(file):
        if isinstance(record, Broken):
            yield record
        elif isinstance(record, dict) and (parts := _parts(record)):
            key, session = record.get("uuid"), record.get("sessionId")
            if not isinstance(key, str) or not isinstance(session, str):
                yield Broken(where, "a message without uuid or sessionId")
                continue
            role = "assistant" if record.get("type") == "assistant" else "user"
            time = seconds(record.get("timestamp"))
            yield Turn(
                _messages(role, parts),
                key,
                session,
                folder_or_none(record.get("cwd")),
                time,
                where,
                key,
            )


def _messages(role: str, parts: list[Any]) -> list[Message]:
    found: list[Message] = []
    for part in parts:
        if not isinstance(part, dict) or part.get("thought"):
            continue
        if isinstance(call := part.get("functionCall"), dict):
            arguments = json.dumps(call.get("args") or {}, ensure_ascii=False)
            found.append(call_message(text(call.get("id")), text(call.get("name")), arguments))
        elif isinstance(result := part.get("functionResponse"), dict):
            response = result.get("response")
            printed = response.get("output", response) if isinstance(response, dict) else response
            found.append(result_message(text(result.get("id")), text(printed)))
        elif isinstance(part.get("text"), str):
            found.append({"role": role, "content": part["text"]})
    return found


QWEN = Source("qwen-code", "Qwen Code", _files, _recognises, _read)
