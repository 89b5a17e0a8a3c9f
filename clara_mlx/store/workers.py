"""Workers: the processes that compress a backlog, their names, and what each says of its work.

A worker says so in the memory's table ``meta``, in one row that it writes again as long as it
works. Nothing depends on these rows: they are shown to people, who see from them how fast the work
goes. What a worker may work on is in the backlog (`clara_mlx.store.backlog`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from clara_mlx.store import atomic
from clara_mlx.store.protocol import Database

#: Seconds after which a worker that has said nothing is shown as silent; it speaks every ten.
SILENT_SECONDS = 60.0

# Seconds after which the row of a silent worker is removed.
_GONE_SECONDS = 3600.0

_KEY = "worker "  # what the keys of the rows begin with


@dataclass(frozen=True)
class Worker:
    """What a worker says of itself."""

    name: str  # host, number of the process, and a random part
    compressor: str
    fingerprint: str  # of its model
    since: float  # when it began; seconds since 1970
    heard_at: float  # when it said this
    contents: int  # that it has finished
    chunks: int  # that it has compressed
    tokens: int  # of those chunks
    seconds: float  # that it worked on the last of them, by which its rate is counted
    recent_chunks: int  # that it compressed in these seconds
    recent_tokens: int
    silent_seconds: float = 0.0  # since it said this, by the clock of whoever asks

    @property
    def is_silent(self) -> bool:
        """Whether it has not been heard for so long that it may have died."""
        return self.silent_seconds > SILENT_SECONDS

    @property
    def chunks_per_minute(self) -> float:
        """How fast it compressed its last chunks; 0 before the first."""
        return 60 * self.recent_chunks / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_minute(self) -> float:
        """As `chunks_per_minute`, in tokens."""
        return 60 * self.recent_tokens / self.seconds if self.seconds else 0.0


class Workers:
    """The workers of a memory.

    Args:
        file: The memory.
        now: The clock that all of them are compared by, in seconds since 1970; of a database that
            several machines use, it must be the database's.
    """

    def __init__(self, file: Database, now: Callable[[], float]) -> None:
        self._file = file
        self._now = now

    def report(self, worker: Worker) -> None:
        """Write down what a worker says, and remove the rows of those that are long gone."""
        now = self._now()
        said = dataclasses.asdict(dataclasses.replace(worker, heard_at=now))
        gone = [one.name for one in self._read() if _is_gone(one)]
        with self._file.write() as connection:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (_KEY + worker.name, json.dumps(said)),
            )
            for name in gone:
                connection.execute("DELETE FROM meta WHERE key = ?", (_KEY + name,))

    def leave(self, name: str) -> None:
        """Remove what a worker that ends has said."""
        with self._file.write() as connection:
            connection.execute("DELETE FROM meta WHERE key = ?", (_KEY + name,))

    def all(self) -> list[Worker]:
        """The workers that have not ended, as far as is known; the first first."""
        return [one for one in self._read() if not _is_gone(one)]

    def _read(self) -> list[Worker]:
        rows = self._file.read("SELECT value FROM meta WHERE key LIKE 'worker %'")
        found = [worker for row in rows if (worker := _from_row(row["value"]))]
        now = self._now() if found else 0.0
        return sorted(
            (
                dataclasses.replace(one, silent_seconds=max(0.0, now - one.heard_at))
                for one in found
            ),
            key=lambda one: (one.since, one.name),
        )


def _is_gone(worker: Worker) -> bool:
    return worker.silent_seconds > _GONE_SECONDS or has_died(worker.name)


def _from_row(said: Any) -> Worker | None:
    """A worker from its row; None if that is another version's, or damaged."""
    try:
        return Worker(**json.loads(said))
    except (TypeError, ValueError):
        return None


# -- names ---------------------------------------------------------------------------------------


@cache
def _machine() -> str:
    """What no other machine has: two may have the same host name, as many Macs do.

    Two containers with the same one, and with the same network, still number their processes apart.
    """
    host = socket.gethostname().replace(" ", "-")
    numbering = ""
    with suppress(OSError):  # not Linux
        numbering = "-" + "".join(filter(str.isdigit, os.readlink("/proc/self/ns/pid")))
    return f"{host}/{uuid.getnode():012x}{numbering}"


def new_worker_name() -> str:
    """A name for a worker in this process, by which others see on which machine it is."""
    return f"{_machine()} {os.getpid()} {secrets.token_hex(4)}"


def has_died(name: str) -> bool:
    """Whether a worker was a process of this machine that has ended."""
    match name.split(" "):
        case [machine, pid, _] if machine == _machine() and pid.isdigit():
            return not atomic.is_alive(int(pid))
    return False
