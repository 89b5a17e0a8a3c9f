"""Connecting agents: their real settings files come back byte for byte, and nothing is lost."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from sizes import sized

from clara_mlx.agents import connecting
from clara_mlx.agents.agent import Gateway, Machine
from clara_mlx.agents.connecting import connect, disconnect, plan_connection, states
from clara_mlx.agents.known import AGENTS, agent_named
from clara_mlx.agents.records import record_path
from clara_mlx.agents.showing import difference
from clara_mlx.errors import ClaraError

DATA = Path(__file__).parent / "data" / "settings"

GATEWAY = Gateway("http://127.0.0.1:8100", "reasoner", 65_536, token="secret-token-of-ours")

#: Settings files that the agents themselves have written, or that their documentation shows: the
#: agent, the file below the home folder, and the name of the recorded content.
FILES = (
    ("claude", ".claude.json", "claude.dotclaude.json"),
    ("claude", ".claude/settings.json", "claude.settings.json"),
    ("codex", ".codex/config.toml", "codex.config.toml"),
    ("codex", ".codex/config.toml", "codex.used.toml"),
    ("opencode", ".config/opencode/opencode.jsonc", "opencode.opencode.jsonc"),
    ("opencode", ".config/opencode/opencode.json", "opencode.used.json"),
    ("qwen-code", ".qwen/settings.json", "qwen.settings.json"),
    ("goose", ".config/goose/config.yaml", "goose.config.yaml"),
    ("goose", ".config/goose/config.yaml", "goose.newer.yaml"),
    ("aider", ".aider.conf.yml", "aider.conf.yml"),
    ("compymac", ".env", "compymac.env"),
    ("cline", ".cline/data/settings/providers.json", "cline.providers.json"),
    ("zed", ".config/zed/settings.json", "zed.settings.json"),
    ("continue", ".continue/config.yaml", "continue.config.yaml"),
)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {}, tmp_path)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too; empty folders count as well."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"(folder)"
        for path in sorted(folder.rglob("*"))
    }


def put(machine: Machine, name: str, content: bytes) -> Path:
    path = machine.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


VARIANTS = {
    "as recorded": lambda content: content,
    "windows": lambda content: content.replace(b"\n", b"\r\n"),
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "no end of line": lambda content: content.rstrip(b"\n"),
}


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize(("name", "file", "recorded"), FILES)
def test_the_real_files_come_back_to_the_byte(
    machine: Machine, name: str, file: str, recorded: str, variant: str
) -> None:
    put(machine, file, VARIANTS[variant]((DATA / recorded).read_bytes()))
    before = everything(machine.home)
    agent = agent_named(name)
    changes = connect(agent, GATEWAY, machine)
    assert any(not change.is_none for change in changes)
    assert b"secret-token-of-ours" in b"".join(everything(machine.home).values()) or name == "zed"
    connected = everything(machine.home)
    assert all(change.is_none for change in connect(agent, GATEWAY, machine))  # twice is once
    assert everything(machine.home) == connected
    disconnect(agent, machine)
    assert everything(machine.home) == before


@pytest.mark.parametrize("name", list(AGENTS))
def test_where_there_was_nothing_there_is_nothing_again(machine: Machine, name: str) -> None:
    connect(agent_named(name), GATEWAY, machine)
    state = next(state for state in states(machine) if state.name == name)
    assert state.connected == GATEWAY.url
    other = Gateway("http://127.0.0.1:9", "other", 131_072, mcp=False)
    connect(agent_named(name), other, machine)  # without MCP: a file less for some
    contents = b"".join(everything(machine.home / ".").values())
    assert b"127.0.0.1:8100" not in contents and b"secret-token-of-ours" not in contents
    disconnect(agent_named(name), machine)
    assert everything(machine.home) == {}


def test_an_agent_that_is_not_connected_can_not_be_disconnected(machine: Machine) -> None:
    with pytest.raises(ClaraError, match="not connected: nothing was changed"):
        disconnect(agent_named("codex"), machine)
    with pytest.raises(ClaraError, match="claude, codex"):
        agent_named("unheard-of")
    assert agent_named("qwen") is agent_named("qwen-code")


def test_a_record_that_can_not_be_read_is_named(machine: Machine) -> None:
    agent = agent_named("codex")
    connect(agent, GATEWAY, machine)
    put(machine, ".clara-mlx/connected/codex.json", b'{"files": 1}')
    before = everything(machine.home)
    for act in (lambda: connect(agent, GATEWAY, machine), lambda: disconnect(agent, machine)):
        with pytest.raises(ClaraError, match="the record of what was changed"):
            act()
    assert everything(machine.home) == before
    assert {state.name: state.connected[:9] for state in states(machine)}["codex"] == "not known"


def test_what_the_user_changed_since_stays(machine: Machine) -> None:
    file = put(machine, ".codex/config.toml", b'model = "gpt"\n\n[tui]\ntheme = "dark"\n')
    agent = agent_named("codex")
    connect(agent, GATEWAY, machine)
    text = file.read_text()
    text = text.replace('theme = "dark"', 'theme = "light"  # mine')
    text = text.replace('model = "reasoner"', 'model = "another"')
    file.write_text(text + '\n[projects."/a"]\ntrust_level = "trusted"\n')
    (change,) = disconnect(agent, machine)
    assert change.changed == ["model"]
    assert change.copy and change.copy.read_bytes().startswith(b'model = "gpt"')
    assert file.read_text() == (
        'model = "another"  # by clara-mlx connect\n\n[tui]\ntheme = "light"  # mine\n'
        '\n[projects."/a"]\ntrust_level = "trusted"\n'
    )


def test_a_program_that_writes_its_file_anew_keeps_what_is_its(machine: Machine) -> None:
    """Claude Code writes all of its state anew at each start."""
    file = put(machine, ".claude.json", (DATA / "claude.dotclaude.json").read_bytes())
    was = json.loads(file.read_text())
    agent = agent_named("claude")
    connect(agent, GATEWAY, machine)
    state = json.loads(file.read_text()) | {"numStartups": 3}
    file.write_text(json.dumps(state))
    disconnect(agent, machine)
    assert json.loads(file.read_text()) == was | {"numStartups": 3}


def test_links_and_permissions_stay(machine: Machine) -> None:
    dotfiles = machine.home / "dotfiles"
    dotfiles.mkdir()
    (dotfiles / "claude.json").write_text('{"theme": "dark"}')
    (dotfiles / "claude.json").chmod(0o640)
    link = machine.home / ".claude/settings.json"
    link.parent.mkdir()
    link.symlink_to("../dotfiles/claude.json")
    agent = agent_named("claude")
    connect(agent, GATEWAY, machine)
    assert link.is_symlink() and json.loads(link.read_text())["theme"] == "dark"
    assert stat.S_IMODE(link.stat().st_mode) == 0o640
    made = machine.home / ".claude.json"  # holds the token
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    disconnect(agent, machine)
    assert link.is_symlink() and link.read_text() == '{"theme": "dark"}'
    assert not list(dotfiles.glob("*before*"))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("claude:.claude/settings.json", b'{"env": {"A": "1"'),
        ("claude:.claude/settings.json", b'{"env": ["A"]}'),
        ("claude:.claude/settings.json", b"\xff\xfe{}"),
        ("claude:.claude/settings.json", b"[" * 5000),
        ("codex:.codex/config.toml", b"model = \n"),
        ("codex:.codex/config.toml", b"model_providers = { a = { name = 'a' } }\n"),
        ("goose:.config/goose/config.yaml", b"a: [1\nb: 2\n"),
        ("goose:.config/goose/config.yaml", b"- a list\n"),
        ("goose:.config/goose/config.yaml", b"a: &x {b: 1}\nextensions: *x\n"),
        ("compymac:.env", b"KEY='several\nlines'\n"),
    ],
)
def test_what_can_not_be_read_is_refused_and_left_alone(
    machine: Machine, file: str, content: bytes
) -> None:
    name, _, path = file.partition(":")
    put(machine, path, content)
    before = everything(machine.home)
    with pytest.raises(ClaraError, match="nothing was changed") as refused:
        connect(agent_named(name), GATEWAY, machine)
    assert path in str(refused.value)
    assert everything(machine.home) == before


def test_a_plan_writes_nothing(machine: Machine) -> None:
    put(machine, ".codex/config.toml", b'model = "gpt"\n')
    before = everything(machine.home)
    changes, _ = plan_connection(agent_named("codex"), GATEWAY, machine)
    assert b'model_provider = "clara"' in (changes[0].after or b"")
    shown = "\n".join(difference(changes[0], GATEWAY.token))
    assert '-model = "gpt"' in shown and '+model = "reasoner"' in shown
    assert "secret-token-of-ours" not in shown
    assert everything(machine.home) == before


def test_a_change_by_another_program_is_noticed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading and replacing, the agent itself writes its settings."""
    file = put(machine, ".codex/config.toml", b"")
    write = connecting.write_record

    def write_and_race(*given: Any) -> None:
        write(*given)
        file.write_bytes(b"other = 1\n")

    monkeypatch.setattr(connecting, "write_record", write_and_race)
    with pytest.raises(ClaraError, match="run this command again"):
        connect(agent_named("codex"), GATEWAY, machine)
    assert file.read_bytes() == b"other = 1\n"
    monkeypatch.undo()
    connect(agent_named("codex"), GATEWAY, machine)
    assert b"other = 1\n" in file.read_bytes()
    disconnect(agent_named("codex"), machine)
    assert file.read_bytes() == b"other = 1\n"


COPIES = (".claude.json.before-clara-mlx", ".claude/settings.json.before-clara-mlx")


def run_until(step: int, act: str, machine: Machine) -> bool:
    """Run in a process that ends without warning at its n-th file operation; whether it ended."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1] != 0
    calls = 0

    def counted(call: Any) -> Any:
        def run(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                os._exit(9)
            return call(*given, **named)

        return run

    for name in ("rename", "replace", "unlink", "fsync", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    if act == "disconnect":
        disconnect(agent_named("claude"), machine)
    else:
        connect(agent_named("claude"), GATEWAY, machine)
    os._exit(0)


@pytest.mark.alone
@pytest.mark.parametrize("act", ["connect", "connect again", "disconnect"])
def test_a_process_that_dies_on_the_way_loses_nothing(machine: Machine, act: str) -> None:
    was = {".claude/settings.json": b'{"theme": "dark"}\n', ".claude.json": b'{"a": 1}'}
    agent = agent_named("claude")
    for step in range(1, 60, sized(3, 1)):
        for file, content in was.items():
            put(machine, file, content)
        before = everything(machine.home)
        if act != "connect":
            other = GATEWAY if act == "disconnect" else Gateway("http://[::1]:8", "other", 99_999)
            connect(agent, other, machine)
        ended = run_until(step, act, machine)
        for file, content in was.items():  # whole at any moment: as before, or as after
            data = json.loads((machine.home / file).read_bytes())
            assert data.items() >= json.loads(content).items()
        if step % 2:
            connect(agent, GATEWAY, machine)
        if record_path("claude", machine).exists():
            disconnect(agent, machine)
        assert {file: (machine.home / file).read_bytes() for file in was} == was
        left = {name for name in everything(machine.home) if "partial" not in name}
        connect(agent, GATEWAY, machine)  # which clears what a dead process has left
        disconnect(agent, machine)
        assert left <= {*before, ".clara-mlx", ".clara-mlx/connected", *COPIES}
        assert everything(machine.home) == before
        if not ended:
            assert step > 5
            return
    raise AssertionError("it never came to its end")
