"""Tool outputs from the logs of agents: SWE-agent, CompyMac, and any log of chat messages.

The formats, whatever the file is called:

- SWE-agent's ``.traj``: a JSON object whose ``trajectory`` lists steps with action and observation;
- chat messages in OpenAI's form: a JSON list, ``{"messages": [...]}``, or JSON lines of either;
- CompyMac's saved runs (``{"session": {"messages": [...]}}``) and traces (``traces.db`` beside its
  ``artifacts`` folder); CompyMac's envelopes around outputs are removed.

Secrets are masked here, before a text reaches anything else.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clara_mlx.agents.sessions import source_of
from clara_mlx.agents.sessions.session import Broken, Source
from clara_mlx.errors import ClaraError, reason
from clara_mlx.tool_outputs.classify import classify
from clara_mlx.tool_outputs.secrets import mask


class TrajectoryError(ClaraError):
    """A log can't be read, or holds a record that is damaged."""


@dataclass(frozen=True)
class ToolOutput:
    """The output of a tool during an agent's run."""

    where: str  # ``file:line`` of the record that holds it
    command: str | None  # that was run, as far as the log says
    text: str  # the output with its secrets masked
    tool: str | None  # the kind of output, one of `tool_outputs.rules.RULES`, if it is clear
    secrets: int  # number of secrets that were masked in the text


@dataclass(frozen=True)
class Trajectory:
    """The outputs of one file, and the records that were left out."""

    outputs: tuple[ToolOutput, ...]
    problems: tuple[str, ...]


def read(file: Path, *, skip_damaged: bool = False) -> Trajectory:
    """Read the tool outputs of a log.

    Args:
        file: A log in a format above; for CompyMac's traces, ``traces.db`` or its folder.
        skip_damaged: Leave damaged records out and list them in ``problems``.

    Raises:
        TrajectoryError: The file can't be read, has no known format, or has a damaged record. The
            message names file and line.
    """
    reader = _Reader(file, skip_damaged)
    if file.is_file() and (source := source_of(file)):
        reader.read_session(source)
    elif file.is_dir() or file.suffix == ".db":
        reader.read_traces(file / "traces.db" if file.is_dir() else file)
    else:
        reader.read_json()
    return Trajectory(tuple(reader.outputs), tuple(reader.problems))


class _Damaged(Exception):
    """A record is not as it should be; the reader adds where it is."""


class _Reader:
    """Collects the outputs of one log and the problems in it."""

    def __init__(self, file: Path, skip_damaged: bool) -> None:
        self._file = file
        self._skip = skip_damaged
        self.outputs: list[ToolOutput] = []
        self.problems: list[str] = []

    def read_json(self) -> None:
        """Read steps or messages one by one, each with the line that it starts on."""
        try:
            text = self._file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise TrajectoryError(f"{self._file}: {reason(error)}") from error
        conversation = _Conversation()
        for line, record in _records(text, lines=self._file.suffix == ".jsonl"):
            where = f"{self._file}:{line}"
            try:
                if isinstance(record, ValueError):
                    raise _Damaged(f"not JSON: {record}")
                if not isinstance(record, dict):
                    raise _Damaged("not a JSON object")
                for command, printed in conversation.outputs(record):
                    self._add(where, command, printed)
            except _Damaged as damage:
                self._report(where, str(damage))
        if not self.outputs and not self.problems:
            raise TrajectoryError(
                f"{self._file}: has no tool outputs; name a SWE-agent trajectory, chat messages "
                "with role 'tool', or a CompyMac run"
            )

    def read_session(self, source: Source) -> None:
        """Read what an agent has kept of its sessions."""
        conversation = _Conversation()
        for turn in source.read(self._file):
            if isinstance(turn, Broken):
                self._report(turn.where, turn.why)
                continue
            for message in turn.messages:
                try:
                    for command, printed in conversation.outputs(message):
                        self._add(turn.where, command, printed)
                except _Damaged as damage:
                    self._report(turn.where, str(damage))

    def read_traces(self, database: Path) -> None:
        """Read CompyMac's traces: spans are events, inputs and outputs are files named by hash."""
        if not database.is_file():
            raise TrajectoryError(f"{database}: there is no such file")
        artifacts = database.parent / "artifacts"
        try:
            with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as db:
                events = db.execute(
                    "SELECT rowid, event_type, span_id, data FROM trace_events ORDER BY rowid"
                ).fetchall()
        except sqlite3.Error as error:
            raise TrajectoryError(f"{database}: {error}") from error
        commands: dict[str, str] = {}
        for row, event, span, data in events:
            where = f"{database}:{row}"
            try:
                fields = _object(data)
                if event == "span_start" and fields.get("kind") == "tool_call":
                    name = str(_object(fields.get("attributes") or {}).get("tool_name", ""))
                    given = _artifact(artifacts, fields.get("input_artifact_hash"))
                    commands[span] = _command(name, given)
                elif event == "span_end" and span in commands:
                    printed = fields.get("output_artifact_hash")
                    self._add(where, commands[span], _artifact(artifacts, printed))
            except _Damaged as damage:
                self._report(where, str(damage))

    def _report(self, where: str, what: str) -> None:
        """Raise an error for a damaged record, or note it if damaged records are skipped."""
        if not self._skip:
            raise TrajectoryError(
                f"{where}: {what}; repair the record, or use --skip-damaged"
            ) from None
        self.problems.append(f"{where}: {what}")

    def _add(self, where: str, command: str | None, printed: str) -> None:
        command, printed = _unwrap(command, printed)
        text, secrets = mask(printed)
        command = mask(command)[0] if command else None
        if text.strip():
            tool = classify(text, command)
            self.outputs.append(ToolOutput(where, command, text, tool, len(secrets)))


def _records(text: str, lines: bool) -> Iterator[tuple[int, Any]]:
    """The records of a file with their lines; a record that can't be decoded is its error."""
    start = _skip_space(text, 0)
    if text.startswith("[", start):
        return _elements(text, start)
    first, _, rest = text[start:].partition("\n")
    if lines or (rest.strip() and isinstance(_decode(first), dict)):
        return (
            (number, _decode(line))
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        )
    for path in (("trajectory",), ("messages",), ("session", "messages"), ("history",)):
        found = _find_member(text, start, path)
        if found is not None and text.startswith("[", found):
            return _elements(text, found)
    return iter([(1, _decode(text))])


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error if isinstance(error, ValueError) else ValueError("nested too deeply")


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _elements(text: str, at: int) -> Iterator[tuple[int, Any]]:
    """The elements of the list at ``at`` with their lines, up to the first damaged one."""
    line = 1
    counted = 0  # the position up to which line feeds have been counted
    at = _skip_space(text, at + 1)
    while not text.startswith("]", at):
        line += text.count("\n", counted, at)
        counted = at
        try:
            element, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield line, ValueError(str(error))
            return
        yield line, element
        at = _skip_space(text, at)
        if text.startswith(",", at):
            at = _skip_space(text, at + 1)
        elif not text.startswith("]", at):
            yield line, ValueError("the list is cut off after this record")
            return


def _find_member(text: str, at: int, path: tuple[str, ...]) -> int | None:
    """The position of the value that ``path`` names in the object at ``at``, if it has one."""
    if not path:
        return at
    if not text.startswith("{", at):
        return None
    at = _skip_space(text, at + 1)
    try:
        while text.startswith('"', at):
            key, at = _DECODER.raw_decode(text, at)
            at = _skip_space(text, _skip_space(text, at) + 1)
            if key == path[0]:
                return _find_member(text, at, path[1:])
            _, at = _DECODER.raw_decode(text, at)
            at = _skip_space(text, at)
            if text.startswith(",", at):
                at = _skip_space(text, at + 1)
    except (ValueError, RecursionError):
        pass  # damaged before the value; the caller reports where
    return None


class _Conversation:
    """Remembers the commands of calls, because messages with their results come later."""

    def __init__(self) -> None:
        self._commands: dict[str, str] = {}

    def outputs(self, record: dict[str, Any]) -> Iterator[tuple[str | None, str]]:
        """The outputs of a message, of a step, or of a whole conversation on one line."""
        if "observation" in record:
            action = record.get("action")
            yield (
                (action.strip() if isinstance(action, str) else None),
                _content(record, "observation"),
            )
        elif inner := record.get("messages", record.get("trajectory")):
            if not isinstance(inner, list) or not all(isinstance(one, dict) for one in inner):
                raise _Damaged("its messages are not a list of objects")
            conversation = _Conversation()
            for message in inner:
                yield from conversation.outputs(message)
        elif isinstance(record.get("role"), str):
            yield from self._message(record)
        else:
            raise _Damaged("neither a message with a role nor a step with an observation")

    def _message(self, message: dict[str, Any]) -> Iterator[tuple[str | None, str]]:
        for call in message.get("tool_calls") or ():
            function = call.get("function", call) if isinstance(call, dict) else None
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise _Damaged("a tool call without a name")
            arguments = function.get("arguments") or {}
            self._commands[str(call.get("id"))] = _command(function["name"], arguments)
        observed = message.get("message_type") == "observation"  # SWE-agent's history
        if message["role"] in ("tool", "function") or observed:
            ids = message.get("tool_call_ids") or [message.get("tool_call_id")]
            name = message.get("name")
            command = self._commands.get(str(ids[0]), name if isinstance(name, str) else None)
            yield command, _content(message, "content")


def _content(record: dict[str, Any], field: str) -> str:
    """A record's text: a string, or a list of parts of which some are text."""
    value = record.get(field)
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        value = "\n".join(str(part["text"]) for part in value if "text" in part)
    if not isinstance(value, str | None):
        raise _Damaged(f"{field} is not text")
    return value or ""


def _object(value: Any) -> dict[str, Any]:
    """An object, given as it is or as JSON."""
    decoded = _decode(value) if isinstance(value, str) else value
    if not isinstance(decoded, dict):
        raise _Damaged("not a JSON object")
    return decoded


def _command(name: str, arguments: Any) -> str:
    """A call as a shell command, from which the kind of output can be recognised."""
    given = _object(arguments) if arguments else {}
    for key in ("command", "cmd"):
        if isinstance(given.get(key), str):
            return str(given[key])
    for key in ("file_path", "path"):
        if "read" in name.lower() and isinstance(given.get(key), str):
            return f"cat {given[key]}"
    return name.replace("_", " ") if name.startswith("git_") else name


def _artifact(folder: Path, digest: Any) -> str:
    """The text of an artifact; empty if there is none, as for a call that failed."""
    if digest is None:
        return ""
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise _Damaged(f"{digest!r} is not the hash of an artifact")
    try:
        return (folder / digest[:2] / digest).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise _Damaged(f"artifact {digest[:12]} can't be read: {error.strerror}") from error


# The envelopes that CompyMac puts around outputs.
_SHELL = re.compile(
    r"<shell-output>\n"
    r"The command `(?>(?P<command>.*?)` \(started [\d.]+s ago\) has finished running in )"
    r"(?>.*?\n\nThe latest output is:\n\n```\n)(?P<output>.*)\n```\n</shell-output>",
    re.DOTALL,
)
_FILE_VIEW = re.compile(
    r"<full-file-view path=\"(?P<path>[^\"\n]+)\"[^>\n]*>\n(?P<output>.*)\n</full-file-view>",
    re.DOTALL,
)
_LINE_NUMBER = re.compile(r"^ *\d+→", re.MULTILINE)
_RESULT = re.compile(
    r"<(?P<tag>tool-result|commands-errored)[^>\n]*>\n(?P<output>.*)\n</(?P=tag)>", re.DOTALL
)


def _unwrap(command: str | None, printed: str) -> tuple[str | None, str]:
    """Command and output without CompyMac's envelope; other outputs are left as they are."""
    if shell := _SHELL.match(printed):
        return shell["command"], shell["output"]
    if view := _FILE_VIEW.match(printed):
        return f"cat {view['path']}", _LINE_NUMBER.sub("", view["output"])
    if result := _RESULT.match(printed):
        return command, result["output"]
    return command, printed
