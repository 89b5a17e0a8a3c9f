"""The command that shows a memory in a browser: ui."""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import webbrowser
from contextlib import suppress
from typing import Annotated

import typer

from clara_mlx.cli.options import DEFAULT_DB, Db, open_memory

commands = typer.Typer()


@commands.command()
def ui(
    db: Db = DEFAULT_DB,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 0,
    edit: Annotated[
        bool, typer.Option("--edit", help="Let memories be deleted; otherwise all is read only.")
    ] = False,
    browse: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = True,
) -> None:
    """Show a memory in a browser: what is remembered, what was sent in its place, what that saved.

    `clara-mlx ui`; `clara-mlx ui --edit --no-open`

    It reads the file without a gateway, also while one is running, on 127.0.0.1 only. The address
    that it prints has a token, which is new each time. `clara-mlx serve` has the same pages at /.
    """
    from clara_mlx.serve import listening_socket
    from clara_mlx.serve.inspector.app import create_inspector, inspector_server

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    token = secrets.token_urlsafe(24)
    with (
        open_memory(db) as memory,
        listening_socket("127.0.0.1", port) as listening,
    ):
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/?token={token}"
        typer.echo(address)
        if browse:
            webbrowser.open(address)
        # uvicorn ends gracefully and then raises the signal again; the memory must still be closed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        server = inspector_server(create_inspector(memory, token, edit=edit))
        with suppress(KeyboardInterrupt):  # the usual way to end it
            server.run(sockets=[listening])
