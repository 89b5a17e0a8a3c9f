"""The sessions that agents keep on disk, read as chat messages with their session and time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from clara_mlx.agents.sessions.claude import CLAUDE
from clara_mlx.agents.sessions.codex import CODEX
from clara_mlx.agents.sessions.opencode import OPENCODE
from clara_mlx.agents.sessions.qwen import QWEN
from clara_mlx.agents.sessions.session import Broken, Message, Source, Turn, first_records
from clara_mlx.errors import ClaraError

#: The agents whose sessions can be read, by name.
SOURCES: dict[str, Source] = {one.name: one for one in (CLAUDE, CODEX, OPENCODE, QWEN)}


def source_of(file: Path) -> Source | None:
    """The agent that has written a file, as its beginning shows; None if it is none of them."""
    if file.suffix == ".db":
        return OPENCODE if file.name.startswith("opencode") else None
    found = first_records(file)
    return next((one for one in SOURCES.values() if one.recognises(found)), None)


def files_below(path: Path) -> Iterator[tuple[Source, Path]]:
    """The files of sessions at a path: itself, or those anywhere below a folder.

    Raises:
        ClaraError: It is a file of no agent that is known, or there is none below the folder.
    """
    if path.is_file():
        source = source_of(path)
        if source is None:
            raise ClaraError(
                f"{path}: not a session of {', '.join(one.title for one in SOURCES.values())}"
            )
        yield source, path
        return
    ends = tuple(end for source in SOURCES.values() for end in source.ends)
    found = False
    for file in sorted(path.rglob("*")):
        if file.name.endswith(ends) and file.is_file() and (source := source_of(file)):
            found = True
            yield source, file
    if not found:
        raise ClaraError(f"{path}: there is no session of an agent in it")


def conversations(turns: Iterable[Turn | Broken]) -> dict[str, list[Message]]:
    """The conversations in turns, by session; the parts of one answer are one message."""
    found: dict[str, list[Message]] = {}
    last: dict[str, str | None] = {}  # the answer that a session's last message is a part of
    for turn in turns:
        if isinstance(turn, Broken):
            continue
        conversation = found.setdefault(turn.session, [])
        for message in turn.messages:
            is_part = (
                turn.reply is not None
                and message["role"] == "assistant"
                and last.get(turn.session) == turn.reply
                and conversation[-1]["role"] == "assistant"
            )
            if is_part:
                conversation[-1] = _joined(conversation[-1], message)
            else:
                conversation.append(message)
            last[turn.session] = turn.reply
    return found


def _joined(first: Message, second: Message) -> Message:
    """Two parts of one answer as one message."""
    texts = [one["content"] for one in (first, second) if one.get("content")]
    calls = [*first.get("tool_calls", ()), *second.get("tool_calls", ())]
    joined: Message = {"role": "assistant", "content": "\n".join(texts) or None}
    return joined | ({"tool_calls": calls} if calls else {})
