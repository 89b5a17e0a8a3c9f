"""The projects that conversations work in, as far as their agents say so.

Agents tell the model in which folder it works: in their instructions, or beside the first message.
No folder is looked at: what a client writes is a name, and nothing else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clara_mlx.context.messages import Message, content_text
from clara_mlx.store.fields import LONGEST_NAME

# What stands before the folder in a line. Claude Code, opencode, crush and pi write the first,
# qwen-code and gemini-cli the second, Codex the third.
_LEADS = ("working directory:", "working in the directory:", "<cwd>")

# Messages in which it is looked for: instructions, and what comes with the first question.
_FIRST_MESSAGES = 4

# Characters of each of them that are looked at: the folder may stand behind long instructions.
_MOST_CHARACTERS = 200_000

# Characters of a line that can say it.
_LONGEST_LINE = LONGEST_NAME + 100


# Conversations whose projects are known; the least recently seen go first.
_MOST_KNOWN = 4_096


class Projects:
    """The projects of conversations, each found out once. Safe to use from several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()  # by session
        self._lock = threading.Lock()

    def look(self, session: str, messages: Sequence[Message], told: str = "") -> str:
        """The project of a conversation: what was told of it, or what its messages say."""
        known = self.of(session)
        project = told or known or project_of(messages)
        with self._lock:
            self._known[session] = project
            self._known.move_to_end(session)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        return project

    def of(self, session: str) -> str:
        """What is known of a conversation; empty if nothing is."""
        return self._known.get(session, "")

    def add_to(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What `Memory.remember` is given, with the project of its session in the metadata."""
        project = self.of(given["session"])
        return (
            {**given, "metadata": {**given["metadata"], "project": project}} if project else given
        )


def project_of(messages: Sequence[Message]) -> str:
    """The folder that a conversation's agent says it works in; empty if it does not say."""
    for message in messages[:_FIRST_MESSAGES]:
        if message.get("role") in ("system", "developer", "user"):
            for folder in _folders_in(content_text(message)[:_MOST_CHARACTERS]):
                return folder
    return ""


def _folders_in(text: str) -> Iterator[str]:
    for line in text.splitlines():
        lowered = line.lower()
        if len(line) > _LONGEST_LINE or len(lowered) != len(line):
            continue
        for lead in _LEADS:
            place = lowered.find(lead)
            if place < 0:
                continue
            folder = line[place + len(lead) :].partition("</cwd>")[0].strip().strip("`'\"")
            if _is_folder(folder):
                yield folder.rstrip("/") or folder


def _is_folder(text: str) -> bool:
    """Whether a text looks like an absolute path, of this system or of Windows."""
    is_absolute = text.startswith(("/", "~/")) or text[1:3] in (":\\", ":/")
    return is_absolute and text.isprintable() and len(text) <= LONGEST_NAME
