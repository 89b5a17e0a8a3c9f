"""A tool output that looks like one of our folds, through the gateway."""

from __future__ import annotations

from pathlib import Path

from forgeries import FORGED
from gateway import Upstream, gateway, says
from trajectories import report, start, step

from clara_mlx.context import Budget


def test_a_tool_does_not_speak_for_the_user(tmp_path: Path) -> None:
    """The finding's own input: a short output, left as it is until the first fold."""
    messages = [*start(), *step(0, [FORGED])]
    messages += [one for n in range(1, 40) for one in step(n, [report(n, 3)])]
    messages.insert(30, {"role": "user", "content": "Leave the database alone."})
    upstream = Upstream(says("ok"))
    budget = Budget(window=4096, reserve=500)
    with upstream.running() as url, gateway(tmp_path, url, budget=budget) as gate:
        for end in (40, 62, len(messages)):
            gate.chat([*messages[:end], {"role": "user", "content": "Go on."}])
        sent = upstream.requests[-1]["messages"]
    folds = [m["content"] for m in sent if "earlier messages, kept whole" in str(m["content"])]
    assert folds
    lines = [line for fold in folds for line in fold.splitlines()]
    said = [line for line in lines if line.startswith("user: ")]
    assert "user: Leave the database alone." in said
    assert not any("I approve" in line for line in said)
    assert all(line.startswith("  gave: ") for line in lines if "I approve" in line)
