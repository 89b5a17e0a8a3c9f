"""Which texts of the memory belong to a conversation that has no name of its own.

Two people who open with the same words have conversations of the same name. So a conversation sees
what it contains itself, whatever else was remembered under that name. A client that shortens its
conversation would lose sight of what it dropped. Therefore the courses that conversations of a name
took are kept for a while, and a conversation that can be shown to continue one sees all of it.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, NamedTuple

from clara_mlx.context.messages import Message, content_text, is_instruction, message_digest

# The most messages in all courses together; the names used least recently go first. A message takes
# some 200 bytes.
_MOST_MESSAGES = 100_000

# The most courses of one name; the least recently used go first.
_MOST_COURSES = 16

# The most texts that a conversation sees; a search can be limited to 30,000 at most.
_MOST_HANDLES = 20_000

# Letters and digits in a row, a digit among them, that make a call's id one that no other call has
# by accident. Some servers number their calls, which proves nothing.
_CHARACTERS_OF_ID = 16

# Characters above which an answer counts as long.
_LONG_ANSWER = 200

# The number of different long answers that prove as much as one call does. A refusal or a greeting
# can be long, too, and the same for many people.
_LONG_ANSWERS = 3

#: What a message that two conversations have in common proves: that they are one, something, or
#: nothing.
Proof = Literal["all", "some", "none"]


class Step(NamedTuple):
    """One message of a course."""

    digest: bytes  # of the message as the client has it
    handles: tuple[str, ...]  # of the texts that it brought into the conversation


@dataclass(frozen=True)
class Course:
    """What a conversation has had so far; it never changes, a longer one takes its place.

    Attributes:
        steps: The messages, those that the client dropped included.
        unconfirmed: Whether the last one is an answer that the client has not sent back yet. It may
            keep it in another form, or ask for another one.
    """

    steps: tuple[Step, ...]
    unconfirmed: bool = False

    @property
    def handles(self) -> list[str]:
        """The handles of its texts, the newest last; of very many, the newest."""
        every = dict.fromkeys(handle for step in self.steps for handle in step.handles)
        return list(every)[-_MOST_HANDLES:]


class Landmark(NamedTuple):
    """A message of a conversation, without its text."""

    place: int  # its index in the conversation
    digest: bytes
    proof: Proof  # see `proof`


def landmarks(messages: Sequence[Message]) -> list[Landmark]:
    """The landmarks of a conversation: its messages without the instructions."""
    return [
        Landmark(index, message_digest(message), proof(message))
        for index, message in enumerate(messages)
        if not is_instruction(message)
    ]


class Courses:
    """The courses that conversations took in this process. Safe to use from several threads.

    Attributes:
        messages: The number of messages in all courses together.
    """

    def __init__(self, most_messages: int = _MOST_MESSAGES) -> None:
        self._most_messages = most_messages
        self.messages = 0
        # Names and their courses, the most recently used last.
        self._courses: OrderedDict[str, list[Course]] = OrderedDict()
        self._lock = threading.Lock()

    def follow(
        self,
        name: str,
        given: Sequence[Landmark],
        handles: Callable[[list[int]], list[tuple[str, ...]]],
    ) -> Course:
        """The course of a conversation up to its newest message.

        Args:
            name: The conversation's name.
            given: The conversation as its client sends it.
            handles: Given indices of messages, the handles of the texts that each brought.
        """
        digests = [one.digest for one in given]
        proofs = [one.proof for one in given]
        with self._lock:
            courses = list(self._courses.get(name, ()))
        before: Course | None = None
        kept, new = 0, list(range(len(digests)))
        for course in courses:
            kept_here, new_here = _continue(course.steps, digests, proofs)
            if before is None or len(new_here) <= len(new):
                before, kept, new = course, kept_here, new_here
        found = handles([given[i].place for i in new])
        steps = [Step(digests[i], own) for i, own in zip(new, found, strict=True)]
        if before is None:
            course = Course(tuple(steps))
        else:
            course = Course((*before.steps[:kept], *steps))
            if kept < len(before.steps) - before.unconfirmed:
                before = None  # the conversation went back and takes another course from there
        self._put(name, before, course)
        return course

    def add_answer(
        self, name: str, course: Course, answer: Message, handles: Sequence[str]
    ) -> None:
        """Add an answer to the course that `follow` gave, with the handles that came with it."""
        step = Step(message_digest(answer), tuple(handles))
        self._put(name, course, Course((*course.steps, step), unconfirmed=True))

    def _put(self, name: str, before: Course | None, course: Course) -> None:
        """Put a course in another one's place, or beside it if that has got another already."""
        with self._lock:
            courses = self._courses.setdefault(name, [])
            self._courses.move_to_end(name)
            for index, known in enumerate(courses):
                if known is before:
                    self.messages -= len(courses.pop(index).steps)
                    break
            courses.append(course)
            self.messages += len(course.steps)
            if len(courses) > _MOST_COURSES:
                self.messages -= len(courses.pop(0).steps)
            while self.messages > self._most_messages:
                _, oldest = self._courses.popitem(last=False)
                self.messages -= sum(len(one.steps) for one in oldest)


def proof(message: Message) -> Proof:
    """What it proves that two conversations have this message: only answers prove anything."""
    if message.get("role") != "assistant":
        return "none"
    calls = message.get("tool_calls") or ()
    if any(_is_random(str(call.get("id"))) for call in calls):
        return "all"
    return "some" if len(content_text(message)) > _LONG_ANSWER else "none"


def _is_random(id: str) -> bool:
    runs = re.findall("[0-9A-Za-z]+", id.replace("-", ""))
    return any(len(run) >= _CHARACTERS_OF_ID and any(map(str.isdigit, run)) for run in runs)


def _continue(
    steps: Sequence[Step], digests: Sequence[bytes], proofs: Sequence[Proof]
) -> tuple[int, list[int]]:
    """How many steps of a course are a conversation's past, and which of its messages are new.

    A common beginning is past: both have the same messages there. What comes after it in the course
    is past only if answers that are there, too, prove that the conversation took that course: it
    dropped messages or changed them, or it went back to one of these answers.
    """
    pairs = zip(steps, digests, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0].digest == pair[1], pairs))
    places = {step.digest: i for i, step in enumerate(steps[common:], common)}
    rest = range(common, len(digests))
    shared = [i for i in rest if proofs[i] != "none" and digests[i] in places]
    proved = any(proofs[i] == "all" for i in shared)
    if not proved and len({digests[i] for i in shared}) < _LONG_ANSWERS:
        return common, list(rest)
    newest = max(shared, key=lambda i: places[digests[i]])
    kept, first = places[digests[newest]] + 1, newest + 1
    while first < len(digests) and kept < len(steps) and steps[kept].digest == digests[first]:
        kept, first = kept + 1, first + 1
    past = {step.digest for step in steps[:kept]}
    return kept, [i for i in rest if i >= first or digests[i] not in past]
