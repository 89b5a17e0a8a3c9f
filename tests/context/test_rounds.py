"""Hidden rounds: kept behind an answer, put back in its place, gone with what they quote."""

from __future__ import annotations

from pathlib import Path

from trajectories import step

from clara_mlx.context import Context
from clara_mlx.memory import Memory

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where was it?"}]
SEEN = {"role": "assistant", "content": "In src/kernel.py."}


def test_rounds_are_put_back_where_they_belong(memory: Memory) -> None:
    rounds = [*step(0, ["line 31"]), SEEN]
    context = Context(memory)
    context.hidden_rounds.keep(TALK, SEEN, rounds, "mine")
    more = {"role": "user", "content": "And then?"}
    with Memory.open(memory.path) as again:
        put_back = Context(again).hidden_rounds.put_back
        assert put_back([*TALK, SEEN, more], "mine") == [*TALK, *rounds, more]
        assert put_back([*TALK, SEEN, more], "other") == [*TALK, SEEN, more]
        assert put_back(TALK, "mine") == TALK
    # What a reasoner is sent has nothing of them but what was put back.
    assert context.prepare([*TALK, SEEN, more], session="mine").messages == [*TALK, SEEN, more]


def test_rounds_go_with_a_memory_that_they_quote(memory: Memory) -> None:
    handle = memory.remember("the kernel is in src/kernel.py")
    rounds = [*step(0, [f"[{handle}: 1 of 1 lines]"]), SEEN]
    hidden = Context(memory).hidden_rounds
    hidden.keep(TALK, SEEN, rounds, "mine")
    assert hidden.put_back([*TALK, SEEN], "mine") == [*TALK, *rounds]
    memory.forget(handle)
    assert hidden.put_back([*TALK, SEEN], "mine") == [*TALK, SEEN]


def test_the_rows_of_files_that_exist_are_read(tmp_path: Path) -> None:
    """As the first version wrote them: a change of these digests would lose what is kept."""
    with Memory.open(tmp_path / "memory.db") as memory:
        Context(memory).hidden_rounds.keep(TALK, SEEN, [SEEN], "mine")
        (row,) = memory.file.read(
            "SELECT e.chain, e.part, b.* FROM edits e JOIN blocks b ON b.digest = e.block"
        )
    assert (row["part"], row["kind"], row["handle"]) == ("rounds", "note", None)
    assert row["text"] == f"[clara rounds {row['chain'].hex()[:12]}]"
    chain = "d6f8075b1b3020b6d5f04fd64ac21bfd29249d6844764061e1e7c409939fc1a2"
    digest = "85b9244d8f9c11667fba2443eda423fb500220cdacccb837d411275913d156b8"
    assert (row["chain"].hex(), row["digest"].hex()) == (chain, digest)
