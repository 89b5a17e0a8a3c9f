"""list, show, search and stats: what is remembered, in a project or across all, and its costs."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from trajectories import trajectory
from typer import BadParameter

from clara_mlx.cli.scope import Scope, find_root
from clara_mlx.cli.times import read_time
from clara_mlx.context import Budget, Context
from clara_mlx.memory import Memory
from clara_mlx.store.ledger import Round

Run = Callable[..., Any]
NOW = datetime(2026, 11, 30, 14, 5).astimezone()


@pytest.fixture
def run(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with a memory of its own, in a folder that belongs to no repository."""
    monkeypatch.setenv("CLARA_MLX_MEMORY", str(tmp_path / "agent.db"))
    monkeypatch.delenv("CLARA_MLX_MODEL", raising=False)
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.fixture
def shops(tmp_path: Path) -> tuple[Path, Path]:
    """Two repositories, one beside the other; the second as a worktree has it."""
    one, two = tmp_path / "shop", tmp_path / "shop-two"
    (one / "src").mkdir(parents=True)
    (one / ".git").mkdir()
    two.mkdir()
    (two / ".git").write_text("gitdir: elsewhere\n")
    return one, two


def read(run: Run, *arguments: object, **options: Any) -> Any:
    return json.loads(run(*arguments, "--json", **options).stdout)


def handles(run: Run, *arguments: object) -> list[str]:
    return [one["handle"] for one in read(run, "list", *arguments)["memories"]]


def remember(run: Run, text: str, *options: object) -> str:
    handle: str = run("remember", *options, input=text.encode()).stdout.strip()
    return handle


# -- times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        ("30m", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("3 d", NOW - timedelta(days=3)),
        ("1W", NOW - timedelta(weeks=1)),
        ("today", NOW.replace(hour=0, minute=0)),
        ("Yesterday", NOW.replace(hour=0, minute=0) - timedelta(days=1)),
        ("2026-11-30", NOW.replace(hour=0, minute=0)),
        ("2026-11-30T14:05", NOW),
        ("2026-11-30 14:05:00", NOW),
        ("2026-11-30T00:00:00Z", datetime.fromisoformat("2026-11-30T00:00:00+00:00")),
    ],
)
def test_times_are_read_as_people_write_them(text: str, expected: datetime) -> None:
    assert read_time(text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "h", "2", "two hours", "-2h", "2y", "9" * 30 + "d", "999999w", "31.12.2026", "٢h"]
)
def test_what_is_no_time_is_refused_with_what_is(run: Run, text: str) -> None:
    with pytest.raises(BadParameter, match="yesterday"):
        read_time(text, NOW)


def test_filters_take_them(run: Run) -> None:
    handle = remember(run, "just now")
    assert handles(run, "--after", "2h") == [handle]
    assert handles(run, "--after", "today", "--before", "1h") == []
    assert handles(run, "--before", "yesterday") == []
    assert run("list", "--after", "soon", ok=False).exit_code == 2
    with Memory.open(Path("agent.db")) as memory:
        hour = datetime.now() - timedelta(hours=1)
        assert len(list(memory.list({"after": hour}))) == 1
        assert len(memory.recall("now", where={"before": hour.astimezone()})) == 0


# -- the project -------------------------------------------------------------------------------


def test_a_repository_is_found_from_below(shops: tuple[Path, Path]) -> None:
    one, two = shops
    assert find_root(one / "src") == str(one.resolve()) == find_root(one)
    assert find_root(two) == str(two.resolve())
    assert not Scope(str(one)).holds(str(two)) and Scope(str(one)).holds(f"{one}/src")


def test_a_project_shows_its_own_and_says_what_it_leaves_out(
    run: Run, shops: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = shops
    nowhere = remember(run, "a lamp of yesterday")  # outside any repository
    monkeypatch.chdir(one / "src")
    mine = remember(run, "a lamp of the shop")
    below = remember(run, "a lamp of an agent that works below", "-m", f"project={one}/src")
    monkeypatch.chdir(two)
    other = remember(run, "a lamp of the other shop")
    monkeypatch.chdir(one)
    inside, everything = {nowhere, mine, below}, {nowhere, mine, below, other}
    assert set(handles(run)) == inside
    assert set(handles(run, "--all")) == everything
    assert set(handles(run, "--project", two)) == {nowhere, other}
    for command in ("recall", "search"):
        found = run(command, "lamp", "--json")
        assert {hit["handle"] for hit in json.loads(found.stdout)} == inside
        assert "other projects, which --all has: 1" in found.stderr
        assert {hit["handle"] for hit in read(run, command, "lamp", "--all")} == everything
        missing = run(command, "other shop", "-m", f"project={two}")
        assert other in missing.stdout and "--all" not in missing.stderr
    assert run("list", "--all", "--project", two, ok=False).exit_code == 2
    monkeypatch.chdir(one.parent)
    assert set(handles(run)) == everything
    (stored,) = [m for m in read(run, "list")["memories"] if m["handle"] == mine]
    assert stored["metadata"]["project"] == str(one.resolve())


def test_a_project_that_was_given_stays(
    run: Run, shops: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shops[0])
    handle = remember(run, "x", "-m", "project=mine")
    assert read(run, "original", handle)["metadata"] == {"project": "mine"}


# -- list --------------------------------------------------------------------------------------


def test_a_list_is_sorted_filtered_and_paged(run: Run) -> None:
    kept = [remember(run, "x" * (10 - n), "-s", f"s{n % 2}", "--session", "a") for n in range(5)]
    with Memory.open(Path("agent.db")) as memory:
        for order, expected in {
            "newest": kept[::-1],
            "oldest": kept,
            "largest": kept,
            "source": [*kept[::-2], kept[3], kept[1]],
            "session": kept[::-1],
        }.items():
            found = memory.page(order=order)  # type: ignore[arg-type]
            assert [one.handle for one in found] == expected, order
        assert memory.count({"source": "s1"}) == 2
    assert handles(run, "--sort", "oldest", "-n", 2, "--skip", 1) == [kept[1], kept[2]]
    assert handles(run, "-s", "s1", "--session", "a") == [kept[3], kept[1]]
    page = run("list", "-n", 2).stdout
    assert "1 to 2 of 5; next: --skip 2" in page and kept[4] in page
    assert "nothing is remembered" in run("list", "-s", "nobody").stdout


def test_hostile_texts_are_shown_and_do_nothing(run: Run) -> None:
    remember(run, "\x1b[2J\x07evil \u202e name\nsecond", "-s", "\x1b]0;title\x07")
    for arguments in (("list",), ("search", "evil")):
        out = run(*arguments).stdout
        assert "\x1b" not in out and "\x07" not in out and "evil" in out


# -- search ------------------------------------------------------------------------------------


def test_a_search_prints_the_line_that_matches_with_its_number(run: Run) -> None:
    handle = remember(run, "\n".join(map(str, range(1, 5001))), "-s", "seq")
    found = run("search", "2999", "-k", 1)
    assert found.stdout.split() == [f"{handle}:2999", "seq", "2999"]
    assert "words only" in found.stderr
    assert read(run, "search", "2999", "-k", 1)[0]["line"] == 2999
    missing = run("search", "zzzznothing")
    assert missing.stdout == "nothing found\n" and "words only" in missing.stderr
    assert "words only" in run("recall", "zzzznothing").stderr
    assert "words only" not in run("recall", "zzzznothing", "--mode", "text").stderr


def test_a_search_with_a_model_says_what_is_not_compressed(
    run: Run, folder: Callable[..., Path]
) -> None:
    remember(run, "not compressed yet")
    said = run("search", "compressed", "--model", folder("c16", "e2e")).stderr
    assert "0 of 1 chunks" in said and "flush" in said
    said = run("search", "compressed", "--compressor", "extractive").stderr
    assert "extractive does not compare by meaning" in said


# -- show --------------------------------------------------------------------------------------


def test_a_memory_is_shown_with_what_stood_in_its_place(run: Run, tmp_path: Path) -> None:
    messages = [message for step in trajectory(14) for message in step]
    with Memory.open(tmp_path / "agent.db") as memory:
        prepared = Context(memory, budget=Budget(window=8_000, reserve=500, fold=False)).prepare(
            messages, session="s"
        )
        handle = prepared.compacted[0]
        one = Round(at=NOW.timestamp(), session="s", compacted=(handle,))
        memory.ledger.write(
            [one, Round(at=NOW.timestamp(), session="s", asked=((handle, "expand"),))]
        )
        original = memory.text(handle)
    shown = read(run, "show", handle)
    assert shown["memory"]["handle"] == handle and shown["memory"]["session"] == "s"
    assert any(handle in block["text"] for block in shown["standing"])
    assert [use["how"] for use in shown["uses"]] == ["expand", "compacted"]
    assert shown["fates"]["shown"] > 0 and sum(shown["fates"].values()) == len(shown["facts"])
    for fact in shown["facts"]:
        assert original[fact["start"] : fact["end"]]
        in_block = any(fact["text"] in block["text"] for block in shown["standing"])
        assert in_block if fact["fate"] == "shown" else True
    text = run("show", handle).stdout
    for expected in ("What stands in its place", "asked back by expand", "left a prompt", "shown"):
        assert expected in text


def test_a_memory_that_nothing_stands_for_is_shown(run: Run) -> None:
    handle = remember(run, "one line\n", "-s", "echo", "-m", "n=1")
    text = run("show", handle).stdout
    assert "echo" in text and "Nothing stands in its place" in text and "1 lines" in text
    missing = run("show", "m-0000000000", ok=False)
    assert missing.exit_code == 1 and "no memory" in missing.stderr


# -- stats -------------------------------------------------------------------------------------


def test_stats_are_by_day_session_and_agent(
    run: Run, tmp_path: Path, shops: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    remember(run, "a memory, but no figures yet")
    assert "nothing was counted" in run("stats").stdout
    one, two = shops
    day = timedelta(days=1)
    rounds = [
        Round(NOW.timestamp(), "a", str(one), "codex", tokens_in=1000, tokens_sent=400),
        Round((NOW - day).timestamp(), "b", "", "claude-cli", tokens_in=500, tokens_sent=500),
        Round(NOW.timestamp() + 9, "c", str(two), "codex", tokens_in=10, tokens_sent=10),
        Round(NOW.timestamp() + 9, "c", str(two), "codex", number=1, memory_calls=2),
    ]
    with Memory.open(tmp_path / "agent.db") as memory:
        memory.ledger.write(rounds)
    every = read(run, "stats", "--all")
    assert every["total"]["tokens_in"] == 1510 and every["total"]["saved"] == 600
    assert [row["day"] for row in every["rows"]] == ["2026-11-30", "2026-11-29"]
    by_agent = read(run, "stats", "--by", "agent", "--sort", "tokens_in")
    assert [(row["agent"], row["tokens_in"]) for row in by_agent["rows"]] == [
        ("codex", 1010),
        ("claude-cli", 500),
    ]
    latest = read(run, "stats", "--by", "session", "-n", 1)["rows"]
    assert [row["session"] for row in latest] == ["c"]
    assert read(run, "stats", "--session", "a")["total"]["requests"] == 1
    assert read(run, "stats", "--agent", "codex")["total"]["requests"] == 2
    assert read(run, "stats", "--after", "2026-11-30")["total"]["requests"] == 2
    monkeypatch.chdir(one)
    scoped = run("stats")
    assert "1,500 tokens there were" in scoped.stdout and "900 were sent (60.0%)" in scoped.stdout
    assert "requests of other projects, which --all has: 1" in scoped.stderr
    assert "2 facts asked back" in run("stats", "--all").stdout
    wrong = run("stats", "--sort", "nothing", ok=False)
    assert wrong.exit_code == 1 and "tokens_in" in wrong.stderr


# -- export ------------------------------------------------------------------------------------


def test_a_memory_is_exported_as_tables(run: Run, tmp_path: Path) -> None:
    remember(run, "a quokka", "-s", "note")
    remember(run, "something else")
    out = read(run, "export", "--sqlite", tmp_path / "tables.db", "-s", "note")
    assert out["memories"] == 1 and out["file"].endswith("tables.db")
    connection = sqlite3.connect(tmp_path / "tables.db")
    assert connection.execute("SELECT text FROM originals").fetchall() == [("a quokka",)]
    connection.close()
    both = run("export", "x.jsonl", "--sqlite", "y.db", ok=False)
    assert both.exit_code == 2 and not list(tmp_path.glob("*.jsonl"))
    if importlib.util.find_spec("pyarrow") is None:
        missing = run("export", "--parquet", "x.parquet", ok=False)
        assert missing.exit_code == 1 and "clara-mlx[parquet]" in missing.stderr
        assert not (tmp_path / "x.parquet").exists()
