"""Every public function and method that takes a text, each with arguments made of one text.

Nothing is listed by hand but the rooms and what a parameter's name stands for: a new function is
found by itself, and one that can't be fed is named by tests/test_growth.py.
"""

from __future__ import annotations

import inspect
import itertools
import json
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from types import ModuleType
from typing import Any

from tokenizers_of_all_kinds import tokenizer

import clara_mlx.context
import clara_mlx.tool_outputs
from clara_mlx.compressors import looks, question, ranking
from clara_mlx.compymac import facts as compymac_facts
from clara_mlx.context import Budget, Context, folds, messages
from clara_mlx.context.compaction import Compaction
from clara_mlx.context.counting import Estimate
from clara_mlx.context.drafts import Drafts
from clara_mlx.context.fold_form import CALLED
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.kept import digest_of
from clara_mlx.context.observed import Observer
from clara_mlx.context.project import Projects
from clara_mlx.context.recent import Recent
from clara_mlx.context.search import Found
from clara_mlx.context.table import Block
from clara_mlx.context.view import View
from clara_mlx.memory import Memory, cutting
from clara_mlx.model import chunking
from clara_mlx.store import asked, forms, seen, words
from clara_mlx.tool_outputs.facts import Facts
from clara_mlx.tool_outputs.lines import split_lines

_numbers = itertools.count()


def modules() -> list[ModuleType]:
    """The modules whose public functions meet texts of others."""
    rooms = (clara_mlx.tool_outputs, clara_mlx.context)
    names = [
        f"{room.__name__}.{one.name}"
        for room in rooms
        for one in pkgutil.iter_modules(room.__path__)
    ]
    return [import_module(name) for name in names] + [
        looks,
        question,
        ranking,
        words,
        forms,
        asked,
        seen,
        cutting,
        chunking,
        compymac_facts,
    ]


class Given:
    """A text in all the forms in which functions take it; all its names are new."""

    def __init__(self, text: str, memory: Memory) -> None:
        self.text = text
        self.memory = memory
        self.session = f"s{next(_numbers)}"
        self.arguments = json.dumps({"command": text})

    @cached_property
    def handle(self) -> str:
        return self.memory.remember(self.text, session=self.session)

    @cached_property
    def piece(self) -> messages.Piece:
        return messages.Piece("tool", "content", self.text, "bash", '{"command": "make"}')

    @cached_property
    def message(self) -> messages.Message:
        return {"role": "tool", "tool_call_id": "c", "content": self.text}

    @cached_property
    def conversation(self) -> list[messages.Message]:
        call = {"id": "c", "function": {"name": "bash", "arguments": '{"command": "make"}'}}
        return [
            {"role": "user", "content": f"Task {self.session}: make it work."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            self.message,
            {"role": "assistant", "content": "I see."},
            {"role": "user", "content": "Go on."},
        ]

    @cached_property
    def tell(self) -> folds.Tell:
        return partial(self.context.freezer.told, self.session)

    @cached_property
    def context(self) -> Context:
        return Context(self.memory, budget=Budget(window=400_000, keep=1, fold=False))

    @cached_property
    def view(self) -> View:
        return View(self.conversation, self.session)


#: What a parameter is given, by its name; these hold the text.
TEXTS: dict[str, Callable[[Given], Any]] = {
    "text": lambda given: given.text,
    "command": lambda given: given.text,
    "arguments": lambda given: given.arguments,
    "question": lambda given: given.text,
    "find": lambda given: given.text[-2_000:],
    "piece": lambda given: given.piece,
    "message": lambda given: given.message,
    "messages": lambda given: given.conversation,
    "said": lambda given: [("assistant", given.text)],
    "old": lambda given: given.conversation,
    "new": lambda given: given.conversation[:2],
    "rounds": lambda given: json.dumps(given.conversation[1:3]),
    "texts": lambda given: {"content": given.text},
    "note": lambda given: given.text,
    "value": lambda given: given.text,
    "line": lambda given: given.text,
    "blocks": lambda given: given.text,
    "entries": lambda given: folds.fold_entries(given.conversation, given.tell),
    "lines": lambda given: given.text.split("\n"),
}

#: And these don't.
OTHERS: dict[str, Callable[[Given], Any]] = {
    "after": lambda given: 10,
    "alternating": lambda given: True,
    "before": lambda given: 10,
    "cached": lambda given: 0,
    "calls": lambda given: [("bash", '{"command": "make"}')],
    "characters": lambda given: 3_000,
    "clara": lambda given: None,
    "context": lambda given: 4_096,
    "count": lambda given: lambda message: 10,
    "counter": lambda given: Estimate(),
    "digest": lambda given: digest_of("s", given.piece),
    "ends": lambda given: given.view.chains,
    "excerpt": lambda given: 300,
    "end": lambda given: len(given.text) // 2 + 700,
    "facts": lambda given: Facts(),
    "block": lambda given: Block(b"d", "fold", given.text, "m-0123456789ab"),
    "form": lambda given: CALLED,
    "span": lambda given: (1, 3),
    "unit_spans": lambda given: [(0, 1), (1, 3)],
    "found": lambda given: Found(None, [], []),
    "tell": lambda given: given.tell,
    "freezer": lambda given: given.context.freezer,
    "handle": lambda given: given.handle,
    "handles": lambda given: [given.handle],
    "index": lambda given: 0,
    "indices": lambda given: [2],
    "limit": lambda given: 256,
    "measure": lambda given: None,
    "memory": lambda given: given.memory,
    "mentions": lambda given: (),
    "most": lambda given: 2_000,
    "name": lambda given: "ask_memory",
    "edits": lambda given: [(at, at + 1, "") for at in range(0, len(given.text), 2)],
    "number": lambda given: "r-1",
    "page": lambda given: 4_000,
    "pattern": lambda given: re.compile(r"a|\n"),
    "role": lambda given: "tool",
    "seen": lambda given: given.conversation[3],
    "same": lambda given: 2,
    "session": lambda given: given.session,
    "sessions": lambda given: [given.session],
    "start": lambda given: len(given.text) // 2,
    "compact": lambda given: "now",
    "describe": lambda given: str,
    "tokenizer": lambda given: tokenizer(),
    "tokens": lambda given: 1_000,
    "spans": lambda given: [(0, len(given.text))],
    "tools": lambda given: None,
    "where": lambda given: None,
    "chain": lambda given: given.session.encode(),
    "view": lambda given: given.view,
}

#: Makes the object whose methods are called, by its class.
OBJECTS: dict[str, Callable[[Given], Any]] = {
    "Asked": lambda given: asked.read(given.text),
    "BlockTable": lambda given: given.context.freezer.table,
    "Compaction": lambda given: Compaction(given.view, given.context.freezer, Estimate()),
    "Context": lambda given: given.context,
    "Drafts": lambda given: Drafts(given.context.freezer.table, lambda session, piece: "m-01"),
    "Estimate": lambda given: Estimate(),
    "Freezer": lambda given: Freezer(given.memory),
    "HiddenRounds": lambda given: given.context.hidden_rounds,
    "MemoryFacts": lambda given: compymac_facts.MemoryFacts(),
    "MemoryState": lambda given: compymac_facts.MemoryState(),
    "Projects": lambda given: Projects(),
    "Observer": lambda given: Observer(given.context.freezer),
    "Recent": lambda given: Recent(),
    "View": lambda given: given.view,
}

#: Classes whose methods get no text as it came, and why.
NOT_FED = {
    "ChatTemplate": "the reasoner's own tokenizer and template",
    "CountingProcess": "they run in a process that can be ended",
    "Facts": "rules call it, with a line at most",
}


@dataclass(frozen=True)
class Entry:
    """A public function or method that takes a text."""

    name: str
    function: Callable[..., Any]
    owner: str | None = None  # the class that it is a method of

    @property
    def parameters(self) -> list[inspect.Parameter]:
        """Its parameters that have no default, or are always a text."""
        found = list(inspect.signature(self.function).parameters.values())[bool(self.owner) :]
        return [
            one
            for one in found
            if one.default is one.empty or _holds_text(one) or one.name == "compact"
        ]

    @property
    def takes_text(self) -> bool:
        return any(map(_holds_text, self.parameters))

    @property
    def missing(self) -> list[str]:
        """Parameters, or the class, for which there is nothing to give."""
        known = {**TEXTS, **OTHERS}
        unknown = [one.name for one in self.parameters if one.name not in known]
        return unknown + [self.owner] * bool(self.owner and self.owner not in OBJECTS)  # type: ignore[list-item]

    def prepare(self, text: str, memory: Memory) -> Callable[[], None]:
        """Make the arguments; the function that is returned calls the entry with them."""
        given = Given(text, memory)
        values = {one.name: self._value(one, given) for one in self.parameters}
        function = self.function
        if self.owner:
            function = getattr(OBJECTS[self.owner](given), function.__name__)

        def act() -> None:
            result = function(**values)
            if isinstance(result, Iterator):
                for _ in result:
                    pass

        return act

    def _value(self, parameter: inspect.Parameter, given: Given) -> Any:
        if "Callable" in str(parameter.annotation):
            return OTHERS[parameter.name](given) if parameter.name in OTHERS else len
        if parameter.name == "rounds" and "str" not in str(parameter.annotation):
            return given.conversation[1:3]
        if parameter.name == "lines" and "tool_outputs" in self.name:
            return split_lines(given.text)
        return {**TEXTS, **OTHERS}[parameter.name](given)


def _holds_text(parameter: inspect.Parameter) -> bool:
    kind = str(parameter.annotation)
    return parameter.name in TEXTS and kind != "int" and "Callable" not in kind


def entries() -> list[Entry]:
    """Every entry that takes a text."""
    found = []
    for module in modules():
        for name, one in vars(module).items():
            if name.startswith("_") or getattr(one, "__module__", None) != module.__name__:
                continue
            where = f"{module.__name__.removeprefix('clara_mlx.')}.{name}"
            if inspect.isfunction(one):
                found.append(Entry(where, one))
            elif (
                inspect.isclass(one)
                and name not in NOT_FED
                and not getattr(one, "_is_protocol", False)
            ):
                found += [
                    Entry(f"{where}.{method}", function, name)
                    for method, function in vars(one).items()
                    if inspect.isfunction(function) and not method.startswith("_")
                ]
    return [entry for entry in found if entry.takes_text]
