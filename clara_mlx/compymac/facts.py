"""The state of CompyMac's manager: facts of a conversation, found by rules, and counts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clara_mlx.context.commands import short_command
from clara_mlx.tool_outputs import outcomes
from clara_mlx.tool_outputs.identifiers import identifiers
from clara_mlx.tool_outputs.paths import without_place
from clara_mlx.tool_outputs.quoting import quote_markers
from clara_mlx.tool_outputs.undress import undress

#: CompyMac recognises a message that stands for earlier ones by this beginning.
SUMMARY_BEGINS = "[MEMORY SUMMARY"

_TITLE = f"{SUMMARY_BEGINS} - what came before, kept whole outside this conversation]"
_NOTHING = "No facts recorded yet."

_VERBS = re.compile(
    r"\b(?:(?P<created>creat|wrote|written|saved)|(?P<modified>modif|edit|updat|chang|patch))",
    re.IGNORECASE,
)
_COMMANDS = re.compile(
    r"<shell-output[^<>]{0,400}\bcommand=\"([^\"]{1,400})\"|^(?:<[^<>]{0,80}>\s*)?"
    r"The command `([^`]{1,400})` \(started",
    re.MULTILINE,
)

# The most characters of a fact.
_FACT = 200

# The most characters of the task.
_TASK = 400

# Characters of a message that rules look at.
_LOOK = 32_768


# Words of a report that a step is done.
_DONE = ("completed", "done", "finished", "success", "passes", "passed")

# Words of a report of trouble.
_TROUBLED = ("error", "failed", "issue", "cannot", "unable")


def progress(said: Sequence[tuple[str, str]]) -> str:
    """One sentence about what was done, by rules, from the roles and texts of messages."""
    counts = {role: sum(one == role for one, _ in said) for role in ("user", "tool")}
    parts = [f"{counts['tool']} tool results and {counts['user']} user messages so far"]
    for role, text in reversed(said):
        words = [word for word in _DONE + _TROUBLED if word in text.lower()]
        if role == "assistant" and words:
            troubled = any(word in _TROUBLED for word in words)
            parts.append("the last report was of trouble" if troubled else "the last step done")
            break
    return "; ".join(parts) + "."


def _remember(known: list[str], fact: str) -> None:
    if fact and fact not in known:
        known.append(fact)


def _flatten(text: str) -> str:
    return quote_markers(" ".join(text.split()))


def _verb(text: str, start: int, end: int) -> str:
    """What was done to the path between two positions: the last verb before it, or one after it."""
    before = list(_VERBS.finditer(text, max(text.rfind("\n", 0, start) + 1, start - _FACT), start))
    after = _VERBS.search(text[end : end + _FACT].partition("\n")[0])
    verb = before[-1] if before else after
    return (verb.lastgroup or "") if verb else ""


@dataclass
class MemoryFacts:
    """Facts of a conversation, oldest first; the names are those of CompyMac's own."""

    files_created: list[str] = field(default_factory=list)
    files_modified: list[str] = field(default_factory=list)
    files_read: list[str] = field(default_factory=list)
    commands_executed: list[str] = field(default_factory=list)
    errors_encountered: list[str] = field(default_factory=list)
    user_requirements: list[str] = field(default_factory=list)
    decisions_made: list[str] = field(default_factory=list)
    contract_goal: str = ""
    current_plan: list[str] = field(default_factory=list)
    repo_facts: dict[str, str] = field(default_factory=dict)
    open_questions: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The newest facts of each kind; goal, plan, repository and questions if there are any."""
        newest = {name: getattr(self, name)[-most:] for name, _, most in _KINDS}
        extra = {name: getattr(self, name) for name in _STRUCTURED if getattr(self, name)}
        return {**newest, "user_requirements": self.user_requirements, **extra}

    def to_string(self) -> str:
        """The facts as lines, one for each kind, what the user wants first."""
        given = [
            ("Goal", self.contract_goal),
            ("Plan", " -> ".join(self.current_plan)),
            ("Open questions", "; ".join(self.open_questions)),
            ("Repo", ", ".join(f"{key}: {value}" for key, value in self.repo_facts.items())),
            *((label, ", ".join(getattr(self, name)[-most:])) for name, label, most in _KINDS),
            ("Requirements", "; ".join(self.user_requirements)),
        ]
        # What a fact quotes must not go on in a line that reads as a fact of another kind.
        lines = [f"{label}: {_flatten(text)}" for label, text in given if text]
        return "\n".join(lines) or _NOTHING

    def add_message(self, role: str, text: str, calls: list[tuple[str, str]]) -> None:
        """Add the facts of a message: files, commands, errors, and the task of the first user.

        Args:
            role: The role of the message.
            text: Its content.
            calls: The names and arguments (JSON) of the tools that it calls.
        """
        text = undress(text[:_LOOK]).text
        for one in identifiers(text):
            if one.kind == "path":
                verb = _verb(text, one.start, one.end)
                files = {"created": self.files_created, "modified": self.files_modified}
                _remember(files.get(verb, self.files_read), without_place(one.text))
        for match in _COMMANDS.finditer(text):
            _remember(self.commands_executed, (match[1] or match[2])[:_FACT])
        for name, arguments in calls:
            if "command" in arguments:
                _remember(self.commands_executed, short_command(arguments) or name)
        if role == "tool":
            for line in outcomes.trouble_lines(text):
                _remember(self.errors_encountered, line[:_FACT])
        if role == "user" and not self.user_requirements:
            _remember(self.user_requirements, text.strip()[:_TASK])


# Attribute, label, and the number of newest facts that are shown.
_KINDS = (
    ("files_created", "Files created", 5),
    ("files_modified", "Files modified", 5),
    ("files_read", "Files read", 10),
    ("commands_executed", "Commands run", 5),
    ("errors_encountered", "Errors", 3),
    ("decisions_made", "Decisions", 5),
)
_STRUCTURED = ("contract_goal", "current_plan", "repo_facts", "open_questions")


@dataclass
class MemoryState:
    """The manager's knowledge at one moment; the names are those of CompyMac's own."""

    summary: str = ""
    facts: MemoryFacts = field(default_factory=MemoryFacts)
    compression_count: int = 0
    total_messages_compressed: int = 0

    def to_memory_message(self, blocks: str = "") -> str:
        """The content of the one message that stands for earlier ones.

        Args:
            blocks: The frozen texts of what is no longer shown.
        """
        facts = self.facts.to_string()
        parts = [
            _TITLE,
            blocks,
            f"Progress: {_flatten(self.summary)}" if self.summary else "",
            f"Key facts:\n{facts}" if facts != _NOTHING else "",
            f"(Compressed {self.total_messages_compressed} earlier messages)"
            if self.compression_count
            else "",
        ]
        return "\n\n".join(part for part in parts if part)
