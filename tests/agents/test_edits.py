"""Edits of settings files: what is set is set, nothing else changes, and undoing is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_settings import odd_env, odd_json, odd_toml, odd_yaml
from sizes import sized

from clara_mlx.agents.agent import Gateway, Machine, Setting
from clara_mlx.agents.edits import make_edits, undo_edits
from clara_mlx.agents.formats import FORMATS
from clara_mlx.agents.formats.format import ITEM, Unreadable, plain, value_at, with_value, without
from clara_mlx.agents.known import AGENTS

GATEWAY = Gateway("http://127.0.0.1:8100", "reasoner", 65_536, token='a "token"')

#: By format: what the agents set in files of it, given the data of a file.
WANTED = {
    kind: [
        file.settings
        for agent in AGENTS.values()
        for file in agent.files(Machine(Path("/home/a")), GATEWAY)
        if file.format == kind
    ]
    for kind in FORMATS
}

TEXTS = {"json": odd_json(), "yaml": odd_yaml(), "toml": odd_toml(), "env": odd_env()}


def edited(text: str, kind: str, number: int) -> tuple[str, list[Any], list[Setting]] | None:
    """A text with the settings of an agent, or None if it is refused in words."""
    try:
        wanted = WANTED[kind][number % len(WANTED[kind])](FORMATS[kind].parse(text))
        return *make_edits(text, wanted, kind), wanted
    except Unreadable as error:
        assert len(str(error)) > 10
        return None


@pytest.mark.parametrize("kind", list(FORMATS))
def test_connecting_sets_what_is_wanted_and_undoing_is_exact(kind: str) -> None:
    refused = []

    @settings(max_examples=sized(12, 300), deadline=None, derandomize=True, database=None)
    @given(TEXTS[kind], st.integers(0, 9))
    def check(text: str, number: int) -> None:
        done = edited(text, kind, number)
        refused.append(done is None)
        if done is None:
            return
        new, edits, wanted = done
        data = FORMATS[kind].parse(text)
        for one in reversed(wanted):
            if value_at(data, one.path, plain(one.value)) != (True, plain(one.value)):
                data = with_value(data, one.path, plain(one.value))
        assert FORMATS[kind].parse(new) == data
        assert undo_edits(new, edits, kind) == (text, [])
        assert make_edits(new, wanted, kind) == (new, [])  # twice is once

    check()
    assert sum(refused) < len(refused) / 2


@pytest.mark.parametrize("kind", list(FORMATS))
def test_what_others_changed_since_stays(kind: str) -> None:
    """A program that writes the file anew, or a user who adds to it, loses nothing by undoing."""

    @settings(max_examples=sized(12, 300), deadline=None, derandomize=True, database=None)
    @given(TEXTS[kind], st.integers(0, 9), st.sampled_from(["mine", "A_MINE"]), st.booleans())
    def check(text: str, number: int, name: str, dropped: bool) -> None:
        done = edited(text, kind, number)
        before = FORMATS[kind].parse(text)
        if done is None or (kind == "env" and name == "mine"):
            return
        new, edits, _ = done
        try:
            later = FORMATS[kind].set(new, (name,), "x").apply(new)
            wanted = with_value(before, (name,), "x")
            top = next((key for key in before if key not in {e.path[0] for e in edits}), None)
            if dropped and top is not None:
                later = FORMATS[kind].drop(later, (top,), before[top]).apply(later)
                wanted = without(wanted, (top,))
            FORMATS[kind].parse(later)
        except Unreadable:
            return
        undone, changed = undo_edits(later, edits, kind)
        assert not changed
        assert FORMATS[kind].parse(undone) == wanted

    check()


def test_what_was_empty_may_be_of_another_kind() -> None:
    """An object without members, in which an agent takes a list, is that again."""
    text = "mcpServers: {}\n"
    new, edits = make_edits(text, [Setting(("mcpServers", ITEM), {"name": "a"})], "yaml")
    assert undo_edits(new, edits, "yaml") == (text, [])
    assert undo_edits("mine: x\n" + new, edits, "yaml") == ("mine: x\n" + text, [])
