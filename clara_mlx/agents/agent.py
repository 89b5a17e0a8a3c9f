"""What connecting an agent needs: the gateway it is connected to, and the settings it reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from clara_mlx.errors import ClaraError

#: The key that is sent to a gateway without a token, because agents insist on one.
NO_TOKEN = "clara-mlx"

#: The name of our provider and MCP server in agents' settings.
NAME = "clara"


@dataclass(frozen=True)
class Gateway:
    """The gateway as an agent has to know it."""

    url: str  # without a path, e.g. http://127.0.0.1:8100
    model: str  # the model's name
    window: int  # tokens that the reasoner sees
    token: str | None = None
    mcp: bool = True  # whether the memory is registered as MCP server, too

    @property
    def v1(self) -> str:
        """The base URL of OpenAI's API."""
        return f"{self.url}/v1"

    @property
    def mcp_url(self) -> str:
        """The memory as MCP over HTTP."""
        return f"{self.url}/mcp"

    @property
    def key(self) -> str:
        """What to send as the key."""
        return self.token or NO_TOKEN

    @property
    def headers(self) -> dict[str, str]:
        """What an MCP client must send."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def window_behind(self, share: float = 1.0, reserved: int = 0) -> int:
        """The window to tell an agent, so that its own compaction comes after the gateway's.

        The gateway keeps what is sent below the window. An agent that is told just that window
        compacts before the gateway does, with a summary in the place of handles.

        Args:
            share: The share of its window at which the agent compacts.
            reserved: Tokens that the agent keeps free beside that.
        """
        return int(self.window / share) + reserved


@dataclass(frozen=True)
class Setting:
    """A setting that `connect` gives a value."""

    path: tuple[str, ...]  # the keys that lead to it; see `formats.format`
    value: Any
    volatile: bool = False  # the agent changes it by itself, so that undoing takes any value out


@dataclass(frozen=True)
class SettingsFile:
    """A settings file of an agent, and what is set in it."""

    path: Path
    format: str  # a name of `formats.FORMATS`
    settings: Callable[[Any], list[Setting]]  # given the file's data, which may decide the form


@dataclass(frozen=True)
class Machine:
    """Where agents keep their settings, for one user."""

    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path = field(default_factory=Path)  # the working folder, for agents of one project
    path: str = ""  # where programs are looked for

    @classmethod
    def here(cls) -> Machine:
        """This user on this machine."""
        return cls(Path.home(), os.environ, Path.cwd(), os.environ.get("PATH", os.defpath))

    def folder_named(self, variable: str, default: str) -> Path:
        """The folder that a variable names, or a default below the home folder."""
        named = self.environment.get(variable)
        return Path(named).expanduser() if named else self.home / default

    def config(self, name: str) -> Path:
        """An agent's folder among those of the XDG convention."""
        return self.folder_named("XDG_CONFIG_HOME", ".config") / name


@dataclass(frozen=True)
class Agent:
    """An agent that can be connected.

    Attributes:
        name: What `connect` calls it.
        title: What people call it.
        program: What it is called on the command line; None if it has no program.
        traces: Files or folders that show that it is used on a machine.
        files: The settings to change, given the machine and the gateway.
        note: What the user must know or still do; the gateway's values can be named in it.
    """

    name: str
    title: str
    program: str | None
    traces: Callable[[Machine], list[Path]]
    files: Callable[[Machine, Gateway], list[SettingsFile]]
    note: Callable[[Gateway], str] = lambda gateway: ""


def settings(*given: tuple[tuple[str, ...], Any]) -> Callable[[Any], list[Setting]]:
    """Settings that are the same whatever the file holds."""
    fixed = [Setting(path, value) for path, value in given]
    return lambda data: fixed


def clean_url(url: str) -> str:
    """The gateway's URL without a path, from what a user gave.

    Raises:
        ClaraError: It is no URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClaraError(f"{url!r} is not a URL; write it like http://127.0.0.1:8100")
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path}"
