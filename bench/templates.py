"""Renders every request of agents' recorded runs with chat templates of the main families.

    python bench/templates.py --trajectories FOLDER

Whenever a template takes the client's own messages, it must take what is sent: both when the
gateway knows the reasoner's template, and when it knows none and one compaction must do for all.
The templates are those of `tests/support/templates`, used as mlx_lm.server does; see the README
there. The ids of calls become ones of nine characters, such as Mistral's templates want. Each run
is also sent as agents without tools do, calls and results as text, for templates that know no
calls. Tokens are estimated. Of the runs, ``needs.json`` gives the names only.

Results go to bench/results/templates.json; the exit status says whether all holds. With --add the
figures are added to those that are there, so that runs can be sent one after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from real_trajectories import Run, percent, read_runs, text_of
from replay import commit_of
from transformers.utils.chat_template_utils import render_jinja_template

from clara_mlx import machine
from clara_mlx.context import Budget, Context, Estimate
from clara_mlx.context.counting import (
    Refused,
    as_server_gives,
    count_prompt,
    takes_thought_beside_text,
)
from clara_mlx.context.messages import Message
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory

RESULTS = Path(__file__).parent / "results"
TEMPLATES = Path(__file__).parents[1] / "tests" / "support" / "templates"

#: Two that want roles to alternate, one that refuses late system messages, and two others.
CHOSEN = ("mistral-v0.3", "gemma", "qwen3.6", "qwen3", "gpt-oss")

# Characters of a call's id.
_ID = 9

# What names a row of the results, and what is counted in it.
_NAMES = ("form", "window", "template", "known")
_COUNTS = ("requests", "compacted", "overflowed", "taken", "kept")

# The row of what is sent when no template is known.
_NONE = "none"


class Template(Estimate):
    """A counter that refuses what a template refuses, and estimates tokens."""

    exact = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
        self.takes_late_system_message = self._takes("user", "assistant", "system", "user")
        self.takes_users_in_a_row = self._takes("user", "user")
        self.takes_thought_beside_text = takes_thought_beside_text(self.takes)

    def _takes(self, *roles: str) -> bool:
        return self.takes([{"role": role, "content": "a"} for role in roles])

    def prompt(self, messages: Sequence[Message], tools: Sequence[Any] | None = None) -> int:
        """Tokens of what the template takes, about.

        Raises:
            Refused: It does not take it.
        """
        try:
            given = [as_server_gives(message) for message in messages]
            render_jinja_template(
                [given],
                chat_template=self._template,
                tools=list(tools) if tools else None,
                add_generation_prompt=True,
                bos_token="<s>",
                eos_token="</s>",
            )
        except Exception as error:  # templates raise what they like
            raise Refused(str(error)) from error
        return super().prompt(messages, tools)

    def takes(self, messages: Sequence[Message], *, placed: bool = False) -> bool:
        """Whether the template takes messages as they are, or as the gateway places them."""
        if placed:
            return not count_prompt(self, messages, None).refused
        try:
            self.prompt(messages)
        except Refused:
            return False
        return True


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trajectories", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these runs")
    parser.add_argument("--window", type=int, nargs="+", default=[32_768, 16_384])
    parser.add_argument("--templates", nargs="+", default=list(CHOSEN), metavar="NAME")
    parser.add_argument("--known", nargs="+", metavar="NAME", help="those the gateway may know")
    parser.add_argument("--add", action="store_true", help="add to the results that are there")
    parser.add_argument("--output", type=Path, default=RESULTS / "templates.json")
    options = parser.parse_args()
    templates = {name: Template(name) for name in options.templates}
    given = [with_short_ids(run) for run in read_runs(options.trajectories, options.only)]
    begun = time.perf_counter()
    rows = []
    for form, runs in (("calls", given), ("text", list(map(as_text, given)))):
        taken = {run.name: taken_of_client(run, templates) for run in runs}
        for window in options.window:
            for known in (_NONE, *(templates if options.known is None else options.known)):
                figures: Counter[tuple[str, str]] = Counter()
                for run in runs:
                    replay(run, window, known, templates, taken[run.name], figures)
                names = templates if known == _NONE else [known]
                new = [{"form": form, **row(window, known, name, figures)} for name in names]
                print(*map(json.dumps, new), sep="\n", flush=True)
                rows += new
    results = {
        "commit": commit_of(Path(__file__).parents[1]),
        "machine": machine.describe(),
        "seconds": round(time.perf_counter() - begun),
        "runs": [run.name for run in given],
        "rows": rows,
    }
    if options.add and options.output.exists():
        results = added(json.loads(options.output.read_text(encoding="utf-8")), results)
    options.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    sys.exit(any(one["kept"] < one["taken"] for one in results["rows"]))


def added(before: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The results of all runs, from those of some and those of others."""
    rows = {tuple(one[name] for name in _NAMES): one for one in before["rows"]}
    for one in new["rows"]:
        name = tuple(one[name] for name in _NAMES)
        if name in rows:
            counts = {count: one[count] + rows[name][count] for count in _COUNTS}
            one = {**one, **counts, "percent": percent(counts["kept"], counts["taken"])}
        rows[name] = one
    runs, seconds = before["runs"] + new["runs"], before["seconds"] + new["seconds"]
    return {**new, "runs": runs, "seconds": seconds, "rows": list(rows.values())}


def with_short_ids(run: Run) -> Run:
    """A run whose calls have ids of nine characters."""
    text = json.dumps(run.messages)
    ids = [call["id"] for m in run.messages for call in m.get("tool_calls") or ()]
    for number, id in enumerate(sorted(set(ids), key=len, reverse=True)):
        text = text.replace(json.dumps(id), f'"{number:0{_ID}}"')
    return Run(run.name, json.loads(text), run.needs)


def as_text(run: Run) -> Run:
    """A run as agents without tools send it: calls in the answer, results as a user's message."""
    messages: list[Message] = []
    for message in run.messages:
        role = "user" if message["role"] == "tool" else message["role"]
        content = text_of(message)
        if messages and role == messages[-1]["role"] != "system":
            content = f"{messages.pop()['content']}\n\n{content}"
        messages.append({"role": role, "content": content})
    return Run(run.name, messages, run.needs)


def requests(run: Run) -> list[int]:
    """The numbers of messages before which the agent has asked its reasoner."""
    return [i for i, message in enumerate(run.messages) if message["role"] == "assistant"]


def taken_of_client(run: Run, templates: dict[str, Template]) -> dict[tuple[str, int], bool]:
    """Whether each template takes what the client sends, by its name and the request."""
    return {
        (name, number): template.takes(run.messages[:number])
        for name, template in templates.items()
        for number in requests(run)
    }


def replay(
    run: Run,
    window: int,
    known: str,
    templates: dict[str, Template],
    taken: dict[tuple[str, int], bool],
    figures: Counter[tuple[str, str]],
) -> None:
    """Send one run, with one template known or none, and count what the templates take of it."""
    budget = Budget(window, window // 8)
    with tempfile.TemporaryDirectory() as folder, Memory.open(Path(folder) / "m.db") as memory:
        context = Context(memory, templates.get(known), budget)
        for number in requests(run):
            given = run.messages[:number]
            try:
                sent = context.prepare(given).messages
            except ClaraError:
                figures["all", "overflowed"] += 1
                continue
            figures["all", "requests"] += 1
            figures["all", "compacted"] += sent != given
            for name in templates if known == _NONE else [known]:
                if taken[name, number]:
                    kept = sent == given or templates[name].takes(sent, placed=known != _NONE)
                    figures.update({(name, "taken"): 1, (name, "kept"): int(kept)})


def row(window: int, known: str, name: str, figures: Counter[tuple[str, str]]) -> dict[str, Any]:
    """What one template took."""
    taken, kept = figures[name, "taken"], figures[name, "kept"]
    return {
        "window": window,
        "template": name,
        "known": known != _NONE,
        "requests": figures["all", "requests"],
        "compacted": figures["all", "compacted"],
        "overflowed": figures["all", "overflowed"],
        "taken": taken,
        "kept": kept,
        "percent": percent(kept, taken),
    }


if __name__ == "__main__":
    main()
