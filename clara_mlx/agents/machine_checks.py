"""Checks this machine: the memory's file, disk and memory, versions, and the agents' settings."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clara_mlx.agents.agent import Gateway, Machine
from clara_mlx.agents.connecting import plan_connection, states
from clara_mlx.agents.finding import Finding, note, ok, wrong
from clara_mlx.agents.known import agent_named
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.store.opening import place_of
from clara_mlx.version import __version__

# Bytes of the disk and of memory below which something is about to fail.
_LITTLE_DISK = 2 << 30
_LITTLE_MEMORY = 2 << 30

_GIB = 1 << 30

# Milliseconds to the database and back from which each request of an agent is felt to wait: a
# request asks it ten times or so.
_FAR_MILLISECONDS = 20.0

# What is worth knowing the version of.
_PACKAGES = ("mlx", "mlx-lm", "sqlite-vec", "starlette", "mcp")


def check_memory(place: str | Path) -> Iterator[Finding]:
    """The memory: a file, or a team's database; whether it opens, and how much is compressed."""
    place = place_of(str(place))
    yield from check_memory_file(place) if isinstance(place, Path) else _check_database(place)


def _check_database(url: str) -> Iterator[Finding]:
    """A team's database: whether it can be reached and written, how far it is, and TLS."""
    try:
        with Memory.open(url, compress=False) as memory:
            figures = memory.status()
            obstacle = memory.file.obstacle
            from clara_mlx.store.postgres.server import describe  # psycopg is there, then

            server = describe(memory.file)
    except ClaraError as error:
        yield wrong("database", str(error), "see docs/TEAM.md")
        return
    yield ok(
        "database",
        f"PostgreSQL {server.version}, vector {server.vector}, as {server.role}: "
        f"{figures.memories:,} memories, {figures.file_bytes / _GIB:.2f} GiB",
    )
    found = f"a question and its answer take {server.milliseconds:.1f} ms"
    if server.milliseconds < _FAR_MILLISECONDS:
        yield ok("way to the database", found)
    else:
        yield note("way to the database", found, "a gateway nearer to it answers sooner")
    if server.encrypted is False:
        remedy = "add ?sslmode=verify-full to the URL"
        yield wrong("way to the database", "it is not encrypted", remedy)
    if obstacle:
        yield note("database", f"it can only be read: {obstacle}", "see docs/TEAM.md, roles")
    if figures.failed:
        found = f"{figures.failed:,} texts could not be compressed: {figures.last_error}"
        yield note("database", found, "clara-mlx flush")


def check_memory_file(path: Path) -> Iterator[Finding]:
    """The memory's file: who can read it, whether it opens, how much of it is compressed."""
    path = path.expanduser()
    if not path.exists():
        folder = next(one for one in path.absolute().parents if one.exists())
        if os.access(folder, os.W_OK):
            yield ok("memory file", f"{path}: there is none yet; the first text makes it")
        else:
            yield wrong("memory file", f"{folder} can't be written", "name another with --db")
        yield _disk(folder)
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        remedy = f"chmod 600 {path}"
        yield wrong("memory file", f"{path}: others can use it (mode {mode:o})", remedy)
    try:
        with Memory.open(path, compress=False) as memory:
            figures = memory.status()
    except ClaraError as error:
        yield wrong("memory file", str(error), "clara-mlx verify")
    else:
        yield ok(
            "memory file",
            f"{path}: {figures.memories:,} memories, {figures.file_bytes / _GIB:.2f} GiB",
        )
        if figures.failed:
            yield note(
                "memory file",
                f"{figures.failed:,} texts could not be compressed: {figures.last_error}",
                "clara-mlx flush",
            )
        if not os.access(path, os.W_OK):
            yield wrong("memory file", f"{path}: can only be read", f"chmod u+w {path}")
    yield _disk(path.parent)


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / _GIB:.1f} GiB are free at {folder}"
    return ok("disk", found) if free >= _LITTLE_DISK else wrong("disk", found, "free some space")


def check_free_memory() -> Iterator[Finding]:
    """The memory of the machine that programs can still get."""
    free = _free_memory()
    if free is None:
        return
    found = f"{free / _GIB:.1f} GiB are free"
    if free >= _LITTLE_MEMORY:
        yield ok("memory of the machine", found)
    else:
        yield note(
            "memory of the machine", found, "see `clara-mlx plan`; a smaller window needs less"
        )


def _free_memory() -> int | None:
    """Bytes that programs can still get, as the system says; None if it does not."""
    try:
        if sys.platform == "darwin":
            return _free_on_a_mac()
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = {line.partition(":")[0]: line.split()[1] for line in lines}
        return int(found["MemAvailable"]) << 10
    except (OSError, LookupError, ValueError, subprocess.SubprocessError):
        return None


def _free_on_a_mac() -> int:
    pages = {}
    done = subprocess.run(["vm_stat"], capture_output=True, text=True, check=True, timeout=10)
    for line in done.stdout.splitlines()[1:]:
        name, _, count = line.partition(":")
        pages[name] = int(count.strip().rstrip("."))
    free = sum(pages[f"Pages {kind}"] for kind in ("free", "inactive", "speculative"))
    return free * os.sysconf("SC_PAGE_SIZE")


def check_versions() -> Iterator[Finding]:
    """The versions of what works together."""
    found = [f"clara-mlx {__version__}", f"Python {platform.python_version()}"]
    missing = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    yield ok("versions", ", ".join(found))
    if missing:
        yield note(
            "versions", f"not installed: {', '.join(missing)}", 'pip install "clara-mlx[serve]"'
        )


def check_agents(machine: Machine, url: str, gateway: Gateway | None) -> Iterator[Finding]:
    """Which agents are here, and whether they are connected to this gateway as it is now.

    Args:
        machine: Where agents keep their settings.
        url: The gateway's URL.
        gateway: What it says of itself; None if it does not answer.
    """
    for state in states(machine):
        again = f"clara-mlx connect {state.name}"
        if state.connected == url:
            if gateway is None or _is_of_today(state.name, gateway, machine):
                yield ok(state.name, "connected")
            else:
                found = "connected, but told another model, window or token than the gateway has"
                yield note(state.name, found, again)
        elif state.connected != "no":
            yield wrong(state.name, f"connected to {state.connected}", again)
        elif state.found:
            yield note(state.name, "on this machine, and not connected", again)


def _is_of_today(name: str, gateway: Gateway, machine: Machine) -> bool:
    """Whether to connect an agent again would change nothing, with MCP or without."""
    for mcp in (True, False):
        wanted = replace(gateway, mcp=mcp)
        try:
            changes, _ = plan_connection(agent_named(name), wanted, machine)
        except ClaraError:
            return True  # the check of its settings says what is wrong
        if all(change.is_none for change in changes):
            return True
    return False
