"""Blocks are drafted while nobody waits; a compaction finds them, and comes to the same without."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import pytest
from trajectories import SMALL, trajectory

from clara_mlx.context import Context, drafts, wording
from clara_mlx.context.messages import Message, Piece
from clara_mlx.context.view import session_of
from clara_mlx.memory import Memory


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts whose blocks were worded, in order."""
    texts: list[str] = []

    def describe(piece: Piece, handle: str, excerpt: int = 0) -> str:
        texts.append(piece.text)
        return worded(piece, handle, excerpt)

    worded = wording.describe
    monkeypatch.setattr(wording, "describe", describe)
    yield texts


def test_a_compaction_finds_what_was_drafted_ahead(memory: Memory, described: list[str]) -> None:
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(20) for message in added]
    context.observe(messages)
    assert not described
    context.draft_blocks(session_of(messages))
    assert len(described) == 20
    assert context.prepare(messages).compacted
    context.draft_blocks(session_of(messages))
    assert len(described) == 20


def test_it_comes_to_the_same_without(memory: Memory, tmp_path: Path) -> None:
    with Memory.open(tmp_path / "other.db") as other:
        ahead, late = Context(memory, budget=SMALL), Context(other, budget=SMALL)
        compactions = 0
        for messages in accumulate(trajectory(24)):
            assert ahead.observe(messages) == late.observe(messages)
            ahead.draft_blocks(session_of(messages))
            late.freezer.drafts = drafts.Drafts(late.freezer.table, late.freezer.handle_of)
            sent = ahead.prepare(messages)
            assert sent == late.prepare(messages)
            compactions += bool(sent.compacted)
        assert compactions > 1


def test_a_conversation_that_is_far_from_its_trigger_has_no_drafts(
    memory: Memory, described: list[str]
) -> None:
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(2) for message in added]
    context.observe(messages)
    context.draft_blocks(session_of(messages))
    assert not described


def test_whoever_has_no_time_to_spare_drafts_with_the_next_request(
    memory: Memory, described: list[str]
) -> None:
    context = Context(memory, budget=SMALL)
    messages: list[Message] = [message for added in trajectory(12) for message in added]
    context.observe(messages[:-2])
    context.observe(messages)
    assert len(described) == 11


def test_texts_of_conversations_that_are_left_wait_no_longer(
    memory: Memory, monkeypatch: pytest.MonkeyPatch, described: list[str]
) -> None:
    monkeypatch.setattr(drafts, "_CHARACTERS", 60_000)
    context = Context(memory, budget=SMALL)
    messages = [message for added in trajectory(20) for message in added]
    for session in ("left", "new"):
        context.observe(messages, session)
    context.draft_blocks("left")
    assert not described
    context.draft_blocks("new")
    assert len(described) == 20
