"""Makes of the sessions that your agents keep on disk what `real.py --trajectories` measures.

    python bench/own_sessions.py claude --to FOLDER
    python bench/real.py --trajectories FOLDER

The sessions are those of an agent (claude, codex, opencode, qwen-code), or at a path. A need is a
name that the agent used again: a path, a test, an error or another identifier in one of its
messages that had not been in sight for some messages. Secrets are masked; the folder is yours, and
nothing leaves this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from real_trajectories import text_of

from clara_mlx.agents.agent import Machine
from clara_mlx.agents.sessions import SOURCES, conversations, files_below
from clara_mlx.agents.sessions.session import Message, Source
from clara_mlx.errors import ClaraError
from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.secrets import mask

# Messages that must be between a name and its use: what is nearer is in sight in any case.
_FAR = 6

# Characters of a name that says something.
_LEAST = 5

# Messages of a session that is worth measuring.
_LEAST_MESSAGES = 20


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("origin", help="claude, codex, opencode, qwen-code, or a path")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--newest", type=int, default=20, help="at most so many sessions")
    options = parser.parse_args()
    try:
        files = list(files_of(options.origin))
    except ClaraError as error:
        sys.exit(str(error))
    files.sort(key=lambda each: each[1].stat().st_mtime, reverse=True)
    needs: dict[str, list[dict[str, Any]]] = {}
    options.to.mkdir(parents=True, exist_ok=True)
    for source, file in files:
        for session, messages in conversations(source.read(file)).items():
            if len(messages) < _LEAST_MESSAGES or len(needs) >= options.newest:
                continue
            name = f"{source.name}-{session.replace('/', '-')}"
            messages = [masked(message) for message in messages]
            needs[name] = list(needs_of(messages))
            write(options.to / f"{name}.json", messages)
            print(f"{name}: {len(messages)} messages, {len(needs[name])} needs")
    if not needs:
        sys.exit(f"{options.origin}: no session of {_LEAST_MESSAGES} messages or more")
    write(options.to / "needs.json", needs)


def files_of(origin: str) -> Iterator[tuple[Source, Path]]:
    """The files of an agent's sessions, or those at a path."""
    if source := SOURCES.get(origin):
        return ((source, file) for file in source.files(Machine.here()))
    return files_below(Path(origin).expanduser())


def masked(message: Message) -> Message:
    """A message without secrets."""
    copy = dict(message)
    if isinstance(copy.get("content"), str):
        copy["content"] = mask(copy["content"])[0]
    if calls := copy.get("tool_calls"):
        copy["tool_calls"] = [
            {**call, "function": call["function"] | {"arguments": masked_arguments(call)}}
            for call in calls
        ]
    return copy


def masked_arguments(call: dict[str, Any]) -> str:
    """The arguments of a call, still the JSON that they were."""
    arguments: str = call["function"]["arguments"]
    try:
        given = json.loads(arguments)
    except ValueError:
        return mask(arguments)[0]
    if isinstance(given, dict):
        given = {k: mask(v)[0] if isinstance(v, str) else v for k, v in given.items()}
    return json.dumps(given, ensure_ascii=False)


def needs_of(messages: list[Message]) -> Iterator[dict[str, Any]]:
    """What the agent used again of what was no longer near."""
    texts = [text_of(message) for message in messages]
    task = next((i for i, one in enumerate(messages) if one["role"] == "user"), 0)
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        for found in identifiers(texts[i]):
            if len(found.text) < _LEAST:
                continue
            before = [j for j in range(i) if found.text in texts[j]]
            if not before or i - before[-1] < _FAR or task in before:
                continue
            yield {
                "i": i,
                "lit": found.text,
                "where": before[-1],
                "kind": found.kind,
                "cls": class_of([messages[j]["role"] for j in before]),
            }


def class_of(roles: list[str]) -> str:
    """Who had a name before: only tools, the agent after a tool, or the agent by itself."""
    if "assistant" not in roles:
        return "strict"
    return "restated" if roles[0] == "tool" else "own"


def write(file: Path, content: Any) -> None:
    """Write JSON."""
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
