"""Recorded runs of agents through a method: what is sent, and whether what is needed can be had.

A folder holds NAME.json, a run as a list of chat messages, and needs.json: by NAME, a list of
needs, of which each has

- ``i``: the number of an assistant's message, which the agent wrote next;
- ``lit``: what it used in that message, exactly;
- ``where``: the number of the message in which that stood last;
- ``kind``: what it is, such as a path, an identifier or a line;
- ``cls``: ``strict`` if it stood in a tool's output only, ``restated`` if the agent has repeated it
  since, ``own`` if the agent wrote it itself.

Before each of the agent's messages the method says what to send. A need is *present* if it is in
that text. Else one memory call is made: ``ask_memory`` with the words of the agent's next message,
from which all that is needed was removed (*asked* counts these and those present), or the first
page of each handle in sight. *One call away* is what is there after any of these. A token is four
characters; each message costs eight more.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from replay_methods import Everything

from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError

#: Tokens that a message costs beside its text.
OVERHEAD = 8

#: Characters of a token.
PER_TOKEN = 4

#: The classes of needs, by how hard they are to keep.
CLASSES = ("strict", "restated", "own")

# Characters of the question that the agent asks.
_QUESTION = 600

# Words of three letters that make a message a question.
_LEAST_WORDS = 3

_HANDLE = re.compile(r"m-[0-9a-f]{6,}")

#: Asks the memory of a method; None if it has none.
Ask = Callable[[str], str]


@dataclass(frozen=True)
class Run:
    """A recorded run."""

    name: str
    messages: list[Message]
    needs: dict[int, list[dict[str, Any]]]  # by the number of the message


def read_runs(folder: Path, only: list[str]) -> Iterator[Run]:
    """The runs of a folder, in the order of their names.

    Raises:
        SystemExit: A file is missing or has another format.
    """
    file = folder / "needs.json"
    try:
        needs = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(needs, dict):
            raise TypeError("is not an object with the names of runs")
        names = sorted(name for name in needs if not only or name in only)
        if missing := set(only) - set(names):
            sys.exit(f"{file}: has no needs of {', '.join(sorted(missing))}")
        for name in names:
            file = folder / f"{name}.json"
            messages = json.loads(file.read_text(encoding="utf-8"))
            wanted: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
            for need in needs[name]:
                wanted[need["i"]].append(need)
            yield Run(name, messages, dict(wanted))
    except (OSError, ValueError, LookupError, TypeError) as error:
        sys.exit(f"{file}: {error}; bench/README.md describes the format")


def text_of(message: Message) -> str:
    """A message's text, and the values of its calls' arguments."""
    content = message.get("content")
    if not isinstance(content, str):
        content = "\n".join(
            part.get("text", "") for part in content or () if isinstance(part, dict)
        )
    calls = message.get("tool_calls") or ()
    return content + "".join(f"\n{_arguments(call)}" for call in calls)


def _arguments(call: Any) -> str:
    arguments: str = call["function"]["arguments"]
    try:
        return "\n".join(_leaves(json.loads(arguments)))
    except ValueError:
        return arguments


def _leaves(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one)]
    return [str(value)]


def tokens_of(messages: list[Message]) -> int:
    """An estimate of the tokens of messages."""
    return sum(OVERHEAD + len(text_of(message)) // PER_TOKEN for message in messages)


@dataclass
class Figures:
    """What a method did in some runs.

    Attributes:
        tokens: Sent and prefilled, and what sending everything would have cost. A server whose
            cache is whole prefills all of a prompt in which anything before its end has changed;
            any other, what follows the first change.
        needs: By class and by kind, the number of needs (``n``), and how those were met.
        seconds: The time to prepare each request.
        alternating: Requests in which the roles take turns, and those where the client's did.
        errors: What failed, with the run and the message.
    """

    tokens: Counter[str] = field(default_factory=Counter)
    needs: dict[str, dict[str, Counter[str]]] = field(
        default_factory=lambda: {"class": defaultdict(Counter), "kind": defaultdict(Counter)}
    )
    seconds: list[float] = field(default_factory=list)
    alternating: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def count(self, need: dict[str, Any], how: str) -> None:
        """Count a need, and how it was met."""
        for by in (self.needs["class"][need["cls"]], self.needs["kind"][need["kind"]]):
            by.update(("n", how))

    def summary(self) -> dict[str, Any]:
        """The figures as shares in percent, and milliseconds."""
        classes = self.needs["class"]
        everything = sum(classes.values(), Counter())
        milliseconds = [1e3 * seconds for seconds in self.seconds] or [0.0]
        cuts = quantiles(milliseconds, n=20) if len(milliseconds) > 1 else milliseconds
        return {
            "requests": len(self.seconds),
            "needs": everything["n"],
            "sent": percent(self.tokens["sent"], self.tokens["all"]),
            "prefill": percent(self.tokens["prefilled"], self.tokens["all prefilled"]),
            "prefill_whole": percent(self.tokens["prefilled whole"], self.tokens["all prefilled"]),
            **_shares(everything),
            "by_class": {name: _shares(classes[name]) for name in CLASSES if name in classes},
            "by_kind": {kind: _shares(how) for kind, how in sorted(self.needs["kind"].items())},
            "alternating": percent(self.alternating["kept"], self.alternating["given"]),
            "errors": self.errors,
            "ms_p50": round(median(milliseconds), 1),
            "ms_p95": round(cuts[-1], 1),
        }


def _shares(how: Counter[str]) -> dict[str, Any]:
    """What is in view, found by asking as well, and one call away in any way."""
    in_view = how["present"]
    asked = in_view + how["asked"]
    return {
        "n": how["n"],
        "present": percent(in_view, how["n"]),
        "asked": percent(asked, how["n"]),
        "one_call_away": percent(asked + how["expanded"], how["n"]),
    }


def percent(part: int, whole: int) -> float:
    """A share in percent."""
    return round(100 * part / max(1, whole), 1)


def replay(run: Run, method: Everything, figures: Figures) -> None:
    """Send one run through one method, and add up what it did in ``figures``."""
    before: list[Message] = []
    given = 0  # messages that the client has sent
    for number, message in enumerate(run.messages):
        if message["role"] != "assistant":
            continue
        history = run.messages[:number]
        figures.tokens["all"] += tokens_of(history)
        begun = time.perf_counter()
        try:
            sent = method.prepare(history)
        except Exception as error:  # any failure counts, and the next message is another request
            figures.errors.append(
                f"{run.name}, message {number}: {type(error).__name__}: {str(error)[:200]}"
            )
            before = []
            for need in run.needs.get(number, ()):
                figures.count(need, "lost")
            continue
        figures.seconds.append(time.perf_counter() - begun)
        same = _common(before, sent)
        figures.tokens["sent"] += tokens_of(sent)
        figures.tokens["prefilled"] += tokens_of(sent[same:])
        appended = same == len(before)
        figures.tokens["prefilled whole"] += tokens_of(sent[same:] if appended else sent)
        figures.tokens["all prefilled"] += tokens_of(history[given:])
        given, before = len(history), sent
        if _alternates(history):
            figures.alternating["given"] += 1
            figures.alternating["kept"] += _alternates(sent)
        if needs := run.needs.get(number):
            _meet(needs, message, "\n".join(map(text_of, sent)), method, figures)


def _common(before: list[Message], sent: list[Message]) -> int:
    """The messages at the beginning that are those of the request before."""
    pairs = zip(before, sent, strict=False)
    different = (number for number, (one, other) in enumerate(pairs) if one != other)
    return next(different, min(len(before), len(sent)))


def _alternates(messages: list[Message]) -> bool:
    """Whether user and assistant take turns where they speak."""
    turns = [
        message["role"]
        for message in messages
        if message["role"] in ("user", "assistant") and not message.get("tool_calls")
    ]
    return all(one != other for one, other in pairwise(turns))


def _meet(
    needs: list[dict[str, Any]],
    message: Message,
    text: str,
    method: Everything,
    figures: Figures,
) -> None:
    """Count how each need of a message is met."""
    told: str | None = None
    pages: list[str] | None = None
    for need in needs:
        literal = need["lit"]
        if literal in text:
            figures.count(need, "present")
            continue
        if told is None:
            told = _tell(method, question(message, [one["lit"] for one in needs]))
        if literal in told:
            figures.count(need, "asked")
            continue
        if pages is None:
            pages = list(_first_pages(method, text))
        figures.count(need, "expanded" if any(literal in page for page in pages) else "lost")


def question(message: Message, needed: list[str]) -> str:
    """What the agent would ask in its own words: its next message without what it needs."""
    words = _without(needed, text_of({"content": message.get("content") or ""}))
    if len(re.findall(r"\w{3,}", words)) >= _LEAST_WORDS:
        return words
    calls = message.get("tool_calls") or ()
    named = " ".join(f"{call['function']['name']} {_arguments(call)}" for call in calls)
    return _without(needed, named) or "?"


def _without(needed: list[str], text: str) -> str:
    for literal in sorted(set(needed), key=len, reverse=True):
        text = text.replace(literal, " ")
    return " ".join(text.split())[:_QUESTION]


def _tell(method: Everything, asked: str) -> str:
    ask = getattr(method, "tell", None)
    return ask(asked) if ask else ""


def _first_pages(method: Everything, text: str) -> Iterator[str]:
    page: Callable[[str], str] | None = getattr(method, "first_page", None)
    if page is None:
        return
    for handle in dict.fromkeys(_HANDLE.findall(text)):
        with suppress(ClaraError):  # a handle that the agent made up
            yield page(handle)
