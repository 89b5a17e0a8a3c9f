"""Lending: a process that has a model open lets other programs of the same user work with it.

So `clara-mlx ask` beside a running gateway answers at once and takes no second 8 GB. The gateway
listens on a Unix socket that is named after the model's folder; `borrowing` is the other side.
Requests and replies are frames of `multiprocessing.connection`, never pickles: a JSON object, then
as many arrays as it says. Who may connect is the file system's to say: the socket is in a folder of
its owner alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

import numpy as np

from clara_mlx.compressors.compressor import Compressor, Floats, LatentCompressor, is_latent
from clara_mlx.errors import ClaraError, PromptTooLong, TextTooLong
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store.permissions import make_private_folder

logger = logging.getLogger(__name__)

#: Where the sockets are.
FOLDER = Path("~/.clara-mlx/run")

# Bytes of a socket's path that every system takes; macOS has 104.
_LONGEST_PATH = 100

# Bytes of one frame, at most.
_MOST_BYTES = 1 << 30

#: What a compressor says of itself; the other side has it as attributes.
ATTRIBUTES = (
    *("name", "fingerprint", "chunk_tokens", "latent_shape"),
    *("pooling", "searches", "separators"),
)

#: Errors that the other side raises as they are, with their attributes; others as a ClaraError.
RAISED_AS_THEY_ARE = (TextTooLong, PromptTooLong)


class Lender:
    """Serves a compressor's calls to other processes, in the thread that owns its model.

    Args:
        compressor: The compressor.
        model_thread: The thread that its own process works with it in.
        path: The socket, see `socket_path`.
        stamp: Which state of the model's folder it was made from, see `stamp`.

    Raises:
        OSError: Nothing can listen there.
    """

    def __init__(
        self, compressor: LatentCompressor, model_thread: ModelThread, path: Path, stamp: str
    ) -> None:
        self._compressor = compressor
        self._model_thread = model_thread
        self._stamp = stamp
        with suppress(FileNotFoundError):
            path.unlink()  # of a process that was killed
        self._listener = Listener(str(path), "AF_UNIX", backlog=16)
        self._closed = False
        threading.Thread(target=self._accept, name="clara-mlx lender", daemon=True).start()

    def close(self) -> None:
        """Listen no more; calls that are being answered end with the model's thread."""
        self._closed = True
        with suppress(OSError):
            self._listener.close()  # which removes the socket, too

    def _accept(self) -> None:
        while not self._closed:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError):
                if self._closed:
                    return
                continue
            name = "clara-mlx lent model"
            threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        """Answer the calls of one connection, one after the other."""
        with closing(connection), suppress(OSError, EOFError):
            while not self._closed:
                given, arrays = receive(connection)
                try:
                    for reply, replied in self._answer(given, arrays):
                        send(connection, reply, replied)
                except (OSError, EOFError):
                    raise
                except Exception as error:
                    about = vars(error) if type(error) in RAISED_AS_THEY_ARE else None
                    name, text = type(error).__name__, str(error) or repr(error)
                    send(connection, {"error": text, "name": name, "about": about})

    def _answer(
        self, given: dict[str, Any], arrays: Sequence[Floats]
    ) -> Iterator[tuple[dict[str, Any], Sequence[Floats]]]:
        """The replies to one call, of which the last has ``done``."""
        compressor, run = self._compressor, self._model_thread.run
        match given["call"]:
            case "about":
                about: dict[str, Any] = {one: getattr(compressor, one) for one in ATTRIBUTES}
                yield {"done": {**about, "stamp": self._stamp, "process": os.getpid()}}, ()
            case "tokenizer":
                yield {"done": compressor.tokenizer.full.to_str()}, ()
            case "encode_chunks":
                encode = partial(compressor.encode_chunks, given["texts"])
                yield {"done": None}, [np.asarray(one) for one in run(Priority.BACKLOG, encode)]
            case "encode_query":

                def encode_query() -> Floats:
                    return np.array(compressor.encode_query(given["text"]))

                yield {"done": None}, [run(Priority.QUESTION, encode_query)]
            case "documents_that_fit":
                arguments = given["question"], given["max_tokens"]
                yield {"done": compressor.documents_that_fit(*arguments)}, ()
            case "stream_answer":
                answer = partial(
                    compressor.stream_answer, given["question"], arrays, given["max_tokens"]
                )
                for piece in self._model_thread.stream(Priority.QUESTION, answer):
                    yield {"piece": piece}, ()
                yield {"done": None}, ()
            case other:
                raise ClaraError(f"this model's process is of another version: no call {other!r}")


@contextmanager
def lent(
    compressor: Compressor | None, model_thread: ModelThread | None, model: str | None
) -> Iterator[None]:
    """Lend a compressor to other processes in a block, if it is one with a model.

    Where that can't be done, as another process lends the same model or the system has no such
    sockets, the block runs all the same.

    Args:
        compressor: The compressor, if there is one.
        model_thread: The thread that this process works with it in.
        model: What it was loaded from: a folder, or a hub id.
    """
    lender = None
    if compressor is not None and is_latent(compressor) and model and model_thread:
        try:
            path = socket_path(model)
            if not _is_listening(path):
                lender = Lender(compressor, model_thread, path, stamp(model))
        except OSError as error:
            logger.info("%s: not lent to other commands: %s", model, error)
    try:
        yield
    finally:
        if lender:
            lender.close()


def socket_path(model: str) -> Path:
    """The socket of a model, in a folder that belongs to this user alone.

    Raises:
        OSError: There is no such place.
    """
    folder = Path(model).expanduser()
    named = os.path.realpath(folder) if folder.is_dir() else model  # a hub id
    name = hashlib.sha256(os.fsencode(named)).hexdigest()[:16] + ".sock"
    place = FOLDER.expanduser()
    if len(os.fsencode(place / name)) > _LONGEST_PATH:
        place = Path(tempfile.gettempdir()) / f"clara-mlx-{os.getuid()}"
    make_private_folder(place)
    status = place.lstat()
    own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
    if not own or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"{place}: others could listen there; remove it, or chmod 700 it")
    return place / name


def stamp(model: str) -> str:
    """What changes when a model's folder is made anew; empty for a hub id.

    Raises:
        OSError: The folder has no description.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        return ""
    status = (folder / "clara.json").stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def _is_listening(path: Path) -> bool:
    try:
        Client(str(path), "AF_UNIX").close()
    except OSError:
        return False
    return True


def send(connection: Connection, message: dict[str, Any], arrays: Sequence[Floats] = ()) -> None:
    """Send a message and its arrays."""
    connection.send_bytes(json.dumps({**message, "arrays": len(arrays)}).encode())
    for array in arrays:
        packed = io.BytesIO()
        np.save(packed, array, allow_pickle=False)
        connection.send_bytes(packed.getbuffer())


def receive(connection: Connection) -> tuple[dict[str, Any], list[Floats]]:
    """Receive what `send` sent.

    Raises:
        OSError, EOFError: The other side is gone, or sends something else.
    """
    try:
        message: dict[str, Any] = json.loads(connection.recv_bytes(_MOST_BYTES))
        packed = [connection.recv_bytes(_MOST_BYTES) for _ in range(message.pop("arrays"))]
        return message, [np.load(io.BytesIO(one), allow_pickle=False) for one in packed]
    except (ValueError, KeyError, TypeError) as error:
        raise OSError(f"not what a lent model says: {error}") from error
