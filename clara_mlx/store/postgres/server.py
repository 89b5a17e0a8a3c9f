"""What a team's database server is, and how far away: for those who look whether all is well."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from clara_mlx.store.protocol import Database

# Questions of which the median time counts.
_QUESTIONS = 9


@dataclass(frozen=True)
class Server:
    """A server, as this process reaches it.

    Attributes:
        version: PostgreSQL's version.
        vector: The version of its extension vector.
        encrypted: Whether the connection is; None: it does not leave this machine.
        role: The role that this process has there.
        milliseconds: What the shortest question and its answer take.
    """

    version: str
    vector: str
    encrypted: bool | None
    role: str
    milliseconds: float


def describe(database: Database) -> Server:
    """What can be known of the server behind a database.

    Raises:
        StoreError: It can't be reached.
    """
    (row,) = database.read(
        "SELECT current_setting('server_version') AS version, "
        "(SELECT extversion FROM pg_extension WHERE extname = 'vector') AS vector, "
        "(SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS encrypted, "
        "inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8'::inet "
        "OR inet_server_addr() = '::1'::inet AS is_here, current_user::text AS role"
    )
    taken = []
    for _ in range(_QUESTIONS):
        begun = time.perf_counter()
        database.read("SELECT 1")
        taken.append(1e3 * (time.perf_counter() - begun))
    return Server(
        version=row["version"].split()[0],
        vector=row["vector"],
        encrypted=None if row["is_here"] else bool(row["encrypted"]),
        role=row["role"],
        milliseconds=median(taken),
    )
