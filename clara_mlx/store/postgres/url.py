"""The URL of a team's database: what it may say, and what it must not."""

from __future__ import annotations

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from clara_mlx.errors import StoreError

# What must not be in a URL, because it is seen in lists of processes, in logs and in settings.
_SECRETS = ("password", "sslpassword", "oauth_client_secret")

_INSTEAD = (
    "leave it out, and put it into a password file (~/.pgpass, or the one that PGPASSFILE names), "
    "into the service file that ?service=NAME reads, or into the environment as PGPASSWORD"
)

# What libpq calls the parts, and what of them is shown.
_SHOWN = ("user", "host", "port", "dbname", "service")


def check_url(url: str) -> None:
    """Refuse a URL that can't be read, or that has a password.

    Raises:
        StoreError: It can't, or it has one; the message does not repeat it.
    """
    try:
        parts = conninfo_to_dict(url)
    except (ProgrammingError, UnicodeError):  # their texts repeat pieces of the URL
        raise StoreError(
            "this is no URL of a PostgreSQL database; one looks like this: "
            "postgresql://user@host:5432/database?sslmode=verify-full"
        ) from None
    if any(parts.get(name) for name in _SECRETS):
        shown = ", ".join(f"{name} {parts[name]}" for name in _SHOWN if parts.get(name))
        raise StoreError(f"the database's URL ({shown or 'it'}) has a password in it; {_INSTEAD}")
