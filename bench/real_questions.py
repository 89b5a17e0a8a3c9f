"""Outputs of real tools with questions: what search, a frozen block and `ask_memory` give.

A file has one JSON object a line: ``kind``, ``source``, ``command`` (may be null), ``text``, and
``questions``, of which each has ``question``, ``answer`` and ``evidence``. An answer counts as
found only if it is there exactly:

- *recall1*, *recall3*: in the first, or in one of the first three hits that come from that output;
- *block*: in what a conversation keeps of the output once it is old;
- *ask*: in what `ask_memory` says about everything; *inside*: about that output's handle;
- *summary*: in what CompyMac's summariser keeps of the output.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_trajectories import percent

from clara_mlx.context import Budget, Context
from clara_mlx.context.tools import call
from clara_mlx.memory import Memory

#: What is measured, in the order of the table.
MEASURES = ("recall1", "recall3", "block", "ask", "inside")

# A window in which nothing has to be compacted, so that it is done when it is asked for.
_BUDGET = Budget(window=400_000, keep=1, fold=False)


def read_outputs(file: Path) -> list[dict[str, Any]]:
    """The rows of a file.

    Raises:
        SystemExit: The file is missing or has another format.
    """
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
        for row in rows:
            assert isinstance(row["text"], str) and isinstance(row["kind"], str)
            assert all(one["question"] and one["answer"] for one in row["questions"])
            row.setdefault("command", None)
        return rows
    except (OSError, ValueError, LookupError, TypeError, AssertionError) as error:
        sys.exit(f"{file}: {error!r}; bench/README.md describes the format")


def measure(
    rows: list[dict[str, Any]],
    path: Path,
    summarise: Callable[[str, str], str] | None,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Ask every question.

    Args:
        rows: The outputs.
        path: A memory file to make.
        summarise: CompyMac's summariser of a tool's output, if there is one.
        progress: Is told what is done.
    """
    found: Counter[str] = Counter()
    kinds: defaultdict[str, Counter[str]] = defaultdict(Counter)
    missed: list[dict[str, str]] = []
    with Memory.open(path) as memory:
        handles = [_remember(memory, row) for row in rows]
        context = Context(memory, budget=_BUDGET)
        blocks = [_block(context, number, row) for number, row in enumerate(rows)]
        for number, row in enumerate(rows):
            progress(f"output {number + 1} of {len(rows)}")
            for one in row["questions"]:
                how = _ask(memory, row["text"], handles[number], one)
                how["block"] = one["answer"] in blocks[number]
                if summarise is not None:
                    how["summary"] = one["answer"] in summarise("bash", row["text"])
                for counts in (found, kinds[row["kind"]]):
                    counts.update(["n", *(name for name, is_there in how.items() if is_there)])
                names = [name for name in MEASURES if not how[name]]
                missed += [
                    {"measure": name, "kind": row["kind"], "question": one["question"]}
                    for name in names
                ]
    names = [*MEASURES, *(["summary"] if summarise is not None else [])]
    return {
        "outputs": len(rows),
        "questions": found["n"],
        **{name: percent(found[name], found["n"]) for name in names},
        "by_kind": {
            kind: {"n": each["n"], **{name: percent(each[name], each["n"]) for name in names}}
            for kind, each in sorted(kinds.items())
        },
        "missed": missed,
    }


def _remember(memory: Memory, row: dict[str, Any]) -> str:
    command = row["command"] or row["kind"]
    return memory.remember(row["text"], source="bash", metadata={"command": command})


def _block(context: Context, number: int, row: dict[str, Any]) -> str:
    """What a conversation keeps of an output that is compacted."""
    arguments = json.dumps({"command": row["command"] or row["kind"]})
    function = {"name": "bash", "arguments": arguments}
    called = {"id": f"c{number}", "type": "function", "function": function}
    conversation: list[dict[str, Any]] = [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": f"Task {number}: fix the build."},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": row["text"]},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": "Go on."},
    ]
    sent = context.prepare(conversation, session=f"s{number}", compact="now").messages
    content = next((one["content"] for one in sent if one.get("role") == "tool"), "")
    return content if isinstance(content, str) else json.dumps(content)


def _ask(memory: Memory, text: str, handle: str, one: dict[str, str]) -> dict[str, bool]:
    """Where a question's answer is found."""
    hits = memory.recall(one["question"], 3, mode="text")
    right = [one["answer"] in hit.text and memory.original(hit.handle) == text for hit in hits]
    whole = call(memory, "ask_memory", {"question": one["question"]})
    inside = call(memory, "ask_memory", {"question": one["question"], "handle": handle})
    return {
        "recall1": right[:1] == [True],
        "recall3": any(right),
        "ask": one["answer"] in whole,
        "inside": one["answer"] in inside,
    }
