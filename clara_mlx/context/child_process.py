"""Starts a Python process beside this one, which is joined to it by a socket and can be ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

_CODE = "import sys; sys.path[:] = {path}; from {module} import main; main()"


def start_child(module: str) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a process that runs a module's ``main``; its standard input is a socket to us.

    It has no other open file of ours, none of our settings, among which are keys, and a session of
    its own, so that the terminal's signals don't reach it.

    Args:
        module: The module's full name.

    Returns:
        The process, and our end of the socket.

    Raises:
        OSError: It can't be started.
    """
    path = [one or os.getcwd() for one in sys.path]
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE.format(path=path, module=module)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            env={
                **{key: value for key, value in os.environ.items() if not _is_setting(key)},
                "TOKENIZERS_PARALLELISM": "false",  # it is to leave the other cores alone
            },
            start_new_session=True,
        )
    return process, ours


def _is_setting(name: str) -> bool:
    return name.startswith("CLARA_MLX_")
