"""The commands that connect agents to the gateway, and check that all of it works."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clara_mlx.cli.options import DEFAULT_DB, Db
from clara_mlx.cli.output import Json, emit
from clara_mlx.errors import ClaraError
from clara_mlx.memory.settings import REASONER_URL, TOKEN

if TYPE_CHECKING:
    from clara_mlx.agents.agent import Agent, Gateway, Machine
    from clara_mlx.agents.connecting import Change

commands = typer.Typer()

Url = Annotated[str, typer.Option("--endpoint", help="The gateway's URL.")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        help=f"The gateway's token, as @FILE or '$VARIABLE' or itself; {TOKEN.name} if it is set.",
    ),
]

DEFAULT_URL = "http://127.0.0.1:8100"


@commands.command()
def connect(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="AGENT",
            help="claude, codex, opencode, qwen-code, goose, aider, compymac, cline, zed or "
            "continue. Without one, all are listed with their state.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    window: Annotated[
        int | None,
        typer.Option(min=1024, help="Tokens that the reasoner sees; the gateway says it."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The model's name; the gateway says it.")
    ] = None,
    mcp: Annotated[
        bool, typer.Option(help="Also register the memory's tools (MCP) with the agent.")
    ] = True,
    print_: Annotated[
        bool, typer.Option("--print", help="Show what would be changed; change nothing.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Put the agent's settings back as they were.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Connect an agent to the gateway, or disconnect it again.

    `clara-mlx connect claude`, then use Claude Code as before; `clara-mlx connect claude --remove`

    Only settings of ours are changed; a copy of each file is kept beside it. --remove makes the
    file what it was, to the byte, or, if it was changed since, takes out what is ours.
    """
    from clara_mlx.agents import connecting
    from clara_mlx.agents.agent import Machine
    from clara_mlx.agents.known import agent_named

    machine = Machine.here()
    if name is None:
        _list_agents(machine, as_json)
        return
    agent = agent_named(name)
    if remove:
        changes = (
            connecting.plan_disconnection(agent, machine)
            if print_
            else connecting.disconnect(agent, machine)
        )
        _show(agent, changes, print_, as_json, _lines_of_removal)
        return
    gateway = _find_gateway(url, read_token(token), window, model, mcp)
    changes = (
        connecting.plan_connection(agent, gateway, machine)[0]
        if print_
        else connecting.connect(agent, gateway, machine)
    )
    _show(
        agent,
        changes,
        print_,
        as_json,
        lambda done: _lines_of_connection(agent, gateway, done),
        gateway.token,
    )


def read_token(given: str | None) -> str | None:
    """A token from ``@FILE``, ``$VARIABLE`` or itself; without one, that of the environment.

    Raises:
        ClaraError: The file can't be read, or the variable is not set.
    """
    if given is None:
        return TOKEN.read() or None
    if given.startswith("@"):
        path = Path(given[1:]).expanduser()
        try:
            return path.read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise ClaraError(f"--token: can't read the token in {path}: {error}") from error
    if given.startswith("$"):
        variable = given[1:].strip("{}")
        if not os.environ.get(variable):
            raise ClaraError(f"--token: the environment variable {variable} is not set")
        return os.environ[variable]
    return given


def _find_gateway(
    url: str, token: str | None, window: int | None, model: str | None, mcp: bool
) -> Gateway:
    """The gateway's model and window, as it says them or as they were given."""
    from clara_mlx.agents.agent import Gateway, clean_url
    from clara_mlx.agents.asking import Unreachable, ask_models

    url = clean_url(url)
    try:
        said_model, said_window = ask_models(url, token)
    except Unreachable as error:
        if window is None:
            raise ClaraError(
                f"{error}; start `clara-mlx serve` first, or say what it will have: --window TOKENS"
            ) from error
        said_model, said_window = "reasoner", None
    if (window or said_window) is None:
        raise ClaraError(f"{url}: the gateway does not say its window; give --window TOKENS")
    return Gateway(url, model or said_model, window or said_window or 0, token, mcp)


def _list_agents(machine: Machine, as_json: bool) -> None:
    from rich.table import Table

    from clara_mlx.agents.connecting import states

    found = states(machine)
    table = Table("agent", "on this machine", "connected", "settings")
    for one in found:
        table.add_row(one.name, "yes" if one.found else "no", one.connected, "\n".join(one.files))
    emit([vars(one) for one in found], [table], as_json)


def _show(
    agent: Agent,
    changes: list[Change],
    plan: bool,
    as_json: bool,
    lines: Callable[[list[Change]], list[str]],
    token: str | None = None,
) -> None:
    """Print what was changed, or would be."""
    from clara_mlx.agents.showing import difference

    shown = [
        {
            "file": str(change.path),
            "change": "none"
            if change.is_none
            else "remove"
            if change.after is None
            else "make"
            if change.before is None
            else "edit",
            "settings": change.settings,
            "copy": str(change.copy) if change.copy and not change.is_none else None,
            "changed_since": change.changed,
        }
        for change in changes
    ]
    text = (
        [line for change in changes for line in difference(change, token)]
        if plan
        else lines(changes)
    )
    emit({"agent": agent.name, "written": not plan, "files": shown}, text, as_json)


def _lines_of_connection(agent: Agent, gateway: Gateway, changes: list[Change]) -> list[str]:
    lines = []
    for change in changes:
        if change.is_none:
            lines.append(f"{change.path}: is as it should be")
            continue
        what = "new file" if change.before is None else "changed"
        copy = f"; as it was: {change.copy}" if change.copy and change.before is not None else ""
        lines.append(f"{change.path}: {what}{copy}")
    lines.append(
        f"{agent.title} is connected to {gateway.url} ({gateway.model}, {gateway.window:,} tokens)."
    )
    if note := agent.note(gateway):
        lines.append(f"note: {note}")
    lines.append(f"To undo: clara-mlx connect {agent.name} --remove")
    return lines


def _lines_of_removal(changes: list[Change]) -> list[str]:
    lines = []
    for change in changes:
        if change.after is None:
            lines.append(f"{change.path}: removed; there was no such file")
        elif change.changed:
            lines.append(
                f"{change.path}: {', '.join(change.changed)} changed since, and left as it is"
                + (f"; as the file was: {change.copy}" if change.copy else "")
            )
        else:
            lines.append(f"{change.path}: our settings are out")
    return lines


@commands.command()
def doctor(
    url: Url = DEFAULT_URL,
    token: Token = None,
    reasoner: Annotated[
        str,
        typer.Option("--reasoner-endpoint", envvar=REASONER_URL.name, help=REASONER_URL.purpose),
    ] = REASONER_URL.default,
    db: Db = DEFAULT_DB,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also send a conversation that is longer than the window; takes long."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that gateway, reasoner, memory and agents work together; exit code 1 if not.

    `clara-mlx doctor`

    Sends a few real requests through each API. They are a session of their own, which is forgotten
    at the end. Each line says what was found, and what to do.
    """
    from clara_mlx.agents.agent import Machine, clean_url
    from clara_mlx.agents.doctor import examine

    found = []
    machine = Machine.here()
    for one in examine(clean_url(url), read_token(token), reasoner, db, machine, full=full):
        found.append(one)
        if not as_json:
            emit(None, [one.line], as_json)
    if as_json:
        emit([vars(one) for one in found], [], as_json)
    wrong = sum(one.level == "wrong" for one in found)
    if wrong:
        raise ClaraError(f"things to put right: {wrong}")
