"""Opening files of checkpoints and model folders: regular ones only, and of bounded size.

A folder from a stranger may hold a pipe, which would be waited for without end, or a link to a
device, which never ends. Links to regular files are followed: the hub's cache consists of them.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from clara_mlx.errors import CheckpointError, reason

#: The most bytes of a file that is read as a whole. The largest tokenizers have about 35 MB.
MOST_BYTES = 64 << 20

#: The most bytes of a config, an index or a model card; real ones have less than one MB.
MOST_CONFIG = 4 << 20

_NOT_REGULAR = "not a regular file (a directory, pipe, socket or device)"


def check_regular(path: Path) -> os.stat_result:
    """Refuse what is no regular file, without opening it; gives its status otherwise.

    Raises:
        OSError: It is something else, or not there.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
    return status


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; never waits, whatever takes the file's place meanwhile.

    Raises:
        OSError: It is something else, or can't be opened.
    """
    check_regular(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, _NOT_REGULAR, str(path))
    return file


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: It is something else, larger, or can't be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes, which no such file is", str(path))
    return content


def check_folder(folder: Path) -> None:
    """Refuse a folder with anything but folders and regular files in it.

    For libraries that read a folder as they see fit; they say so if it is not there. A link that
    leads nowhere can't hurt them.

    Raises:
        CheckpointError: It has a pipe, socket or device.
    """
    for path in sorted(folder.glob("*")):
        try:
            if path.exists() and not path.is_dir():
                check_regular(path)
        except OSError as error:
            raise CheckpointError(f"{path}: {reason(error)}") from error


def check_input(path: Path) -> None:
    """Refuse a file that a user named for reading, unless it is regular or a pipe.

    A shell gives a command's output as a pipe: ``<(command)``.

    Raises:
        OSError: It is something else, or not there.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise OSError(errno.EINVAL, "neither a regular file nor a pipe", str(path))
