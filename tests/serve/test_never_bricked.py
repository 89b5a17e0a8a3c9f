"""What a reasoner refuses of a compacted conversation, it gets in another form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway import Gateway, Reply, Upstream, fails, gateway, says
from starlette.responses import Response
from trajectories import report

from clara_mlx.context import Budget
from clara_mlx.context.folds import FOLDED

REFUSED = "Jinja Exception: Conversation roles must alternate user/assistant/user/assistant/..."
HEADER = {"x-clara-session": "s"}


def refuses_folds(status: int) -> Reply:
    """A server whose template refuses whatever has a fold."""

    async def reply(body: dict[str, Any]) -> Response:
        refused = FOLDED in json.dumps(body["messages"])
        return await (fails(status, {"message": REFUSED}) if refused else says("ok"))(body)

    return reply


def tool_turns(count: int, lines: int = 30) -> list[dict[str, Any]]:
    talk: list[dict[str, Any]] = []
    for turn in range(count):
        function = {"name": "run", "arguments": json.dumps({"command": f"pytest -k {turn}"})}
        call = {"id": f"c{turn:08}", "type": "function", "function": function}
        talk += [
            {"role": "user", "content": f"Run {turn}."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": report(turn, lines)},
            {"role": "assistant", "content": "Done."},
        ]
    return [*talk, {"role": "user", "content": "And now?"}]


def ask(gate: Gateway, count: int, **options: Any) -> Any:
    return gate.chat(tool_turns(count), extra_headers=HEADER, **options)


@pytest.mark.parametrize("status", [404, 500])
def test_a_fold_that_is_refused_is_undone(tmp_path: Path, status: int) -> None:
    upstream = Upstream(refuses_folds(status))
    budget = Budget(window=6_000, reserve=500)
    with upstream.running() as url:
        with gateway(tmp_path, url, budget=budget, offer="never") as gate:
            for count in range(12, 19):
                assert ask(gate, count).choices[0].message.content == "ok"
        tried = len(upstream.requests)
        assert 7 < tried < 12
        with gateway(tmp_path, url, budget=budget, offer="never") as gate:
            ask(gate, 19)
            assert gate.streamed(tool_turns(20), extra_headers=HEADER)
        assert len(upstream.requests) == tried + 2
    assert all(len(r["messages"]) > 60 for r in upstream.requests[-3:])


def test_what_the_client_itself_sends_is_refused_once(tmp_path: Path) -> None:
    upstream = Upstream(fails(400, {"message": REFUSED}))
    refused = pytest.raises(openai.BadRequestError, match="must alternate")
    with upstream.running() as url, gateway(tmp_path, url, offer="never") as gate, refused:
        ask(gate, 3)
    assert len(upstream.requests) == 1


def test_other_errors_undo_nothing(tmp_path: Path) -> None:
    upstream = Upstream(says("ok"))
    budget = Budget(window=6_000, reserve=500)
    with upstream.running() as url, gateway(tmp_path, url, budget=budget, offer="never") as gate:
        ask(gate, 25)
        folded = upstream.requests[-1]["messages"]
        assert FOLDED in json.dumps(folded)
        upstream.replies = [fails(400, {"message": "temperature must be at most 2"})]
        with pytest.raises(openai.BadRequestError, match="temperature"):
            ask(gate, 25, temperature=1.9)
        assert upstream.requests[-1]["messages"] == folded and len(upstream.requests) == 2
