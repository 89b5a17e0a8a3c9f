"""A model that one process has open, used by the commands of another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import serving

import clara_mlx
from clara_mlx.compressors.borrowing import Borrowed, borrow
from clara_mlx.compressors.lending import Lender, lent, receive, send, socket_path, stamp
from clara_mlx.errors import ClaraError, PromptTooLong, TextTooLong
from clara_mlx.memory import Memory
from clara_mlx.model.thread import ModelThread

TEXTS = ["FAILED tests/test_io.py::test_load", "12 passed in 0.31s"]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sockets of this test alone, whose paths may not be long."""
    with tempfile.TemporaryDirectory(prefix="lend") as folder:
        monkeypatch.setenv("HOME", folder)
        yield Path(folder)


@pytest.fixture
def model_thread() -> Iterator[ModelThread]:
    thread = ModelThread()
    yield thread
    thread.close()


@pytest.fixture
def own(clara: Callable[..., clara_mlx.Clara]) -> clara_mlx.Clara:
    return clara("c16", "e2e")


@pytest.fixture
def model(folder: Callable[..., Path]) -> str:
    return str(folder("c16", "e2e"))


@pytest.fixture
def borrowed(own: clara_mlx.Clara, model: str, model_thread: ModelThread) -> Iterator[Borrowed]:
    with lent(own, model_thread, model):
        found = borrow(model)
        assert found is not None and found.process == os.getpid()
        yield found


def test_it_answers_as_the_model_does(
    own: clara_mlx.Clara, borrowed: Borrowed, model_thread: ModelThread
) -> None:
    for one in ("name", "fingerprint", "chunk_tokens", "latent_shape", "pooling", "separators"):
        assert getattr(borrowed, one) == getattr(own, one)
    run = model_thread.run
    made = borrowed.encode_chunks(TEXTS)
    for ours, theirs in zip(made, run(0, lambda: own.encode_chunks(TEXTS)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    query = run(0, lambda: np.array(own.encode_query("which failed?")))
    np.testing.assert_array_equal(borrowed.encode_query("which failed?"), query)
    assert borrowed.documents_that_fit("which?", 8) == own.documents_that_fit("which?", 8)
    answer = run(0, lambda: [*own.stream_answer("which?", made, 8)])
    assert [*borrowed.stream_answer("which?", made, 8)] == answer
    text = "</s> [INST] naïve \ud800 日本"
    assert borrowed.tokenizer.encode(text) == own.tokenizer.encode(text)


def test_its_errors_are_the_models(borrowed: Borrowed) -> None:
    with pytest.raises(TextTooLong) as long:
        borrowed.encode_chunks(["short", "word " * 500])
    assert (long.value.index, long.value.limit) == (1, borrowed.chunk_tokens)
    with pytest.raises(PromptTooLong, match="window"):
        [*borrowed.stream_answer("which? " * 5000, borrowed.encode_chunks(["x"]), 8)]
    assert borrowed.documents_that_fit("which?", 8) > 0  # the connection still serves


def test_a_memory_works_with_it(borrowed: Borrowed, own: clara_mlx.Clara, tmp_path: Path) -> None:
    with Memory.open(tmp_path / "m.db", borrowed) as memory:
        memory.remember("\n".join(TEXTS) + "\n" + "more " * 200)
        memory.flush(60)
        found = memory.recall("which test failed?", 3)
        assert memory.status().fingerprint == own.fingerprint
        assert memory.ask("which test failed?", max_tokens=4).evidence or found


def test_nobody_lends(model: str, own: clara_mlx.Clara, model_thread: ModelThread) -> None:
    assert borrow(model) is None
    with lent(own, model_thread, model):
        pass
    assert borrow(model) is None and not socket_path(model).exists()
    with lent(None, None, None), lent(own, model_thread, None):  # nothing that could be lent
        assert borrow(model) is None


def test_the_first_lender_stays(
    model: str, own: clara_mlx.Clara, model_thread: ModelThread
) -> None:
    with lent(own, model_thread, model):
        with lent(own, model_thread, model):
            assert borrow(model)
        assert borrow(model)


def test_what_a_killed_process_left_is_no_obstacle(
    model: str, own: clara_mlx.Clara, model_thread: ModelThread
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path(model)))
    assert socket_path(model).exists() and borrow(model) is None
    with lent(own, model_thread, model):
        assert borrow(model)


def test_a_folder_made_anew_is_another_model(
    model: str, own: clara_mlx.Clara, model_thread: ModelThread
) -> None:
    lender = Lender(own, model_thread, socket_path(model), "an older state")
    assert stamp(model) != "an older state" and borrow(model) is None
    lender.close()


def test_a_process_that_has_ended_is_named(borrowed: Borrowed) -> None:
    borrowed._connection.close()
    with pytest.raises(ClaraError, match=f"{os.getpid()}.*has ended; run the command again"):
        borrowed.encode_query("x")


def test_what_is_no_call_is_refused(borrowed: Borrowed, model: str) -> None:
    connection = Client(str(socket_path(model)), "AF_UNIX")
    send(connection, {"call": "shutdown"})
    assert "another version" in receive(connection)[0]["error"]
    connection.send_bytes(b"\x80 no JSON")  # ends this connection and no other
    with pytest.raises(EOFError):
        receive(connection)
    assert borrowed.encode_query("x").size


def test_a_folder_that_others_may_use_is_refused(
    home: Path, model: str, own: clara_mlx.Clara, model_thread: ModelThread
) -> None:
    place = socket_path(model).parent
    assert place.stat().st_mode & 0o77 == 0
    place.chmod(0o755)
    with pytest.raises(PermissionError, match="others could listen"):
        socket_path(model)
    with lent(own, model_thread, model):  # the gateway runs all the same
        assert borrow(model) is None


def test_a_long_home_has_another_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / ("long" * 40)))
    assert len(os.fsencode(socket_path(model))) < 104


@pytest.mark.alone
def test_ask_beside_a_gateway_loads_no_model(model: str, tmp_path: Path) -> None:
    db = tmp_path / "agent.db"

    def run(*words: str) -> Any:
        script = (
            "import sys; from clara_mlx.cli.app import main\n"
            "try: main()\n"
            "finally: print('MLX', 'mlx.core' in sys.modules, file=sys.stderr)"
        )
        command = [sys.executable, "-c", script, "-v", *words, "--db", str(db), "--model", model]
        return subprocess.run(command, capture_output=True, text=True, check=True)

    with Memory.open(db) as memory:
        memory.remember("FAILED tests/test_io.py::test_load on line 42\n" * 3)
    run("flush")
    alone = run("ask", "which test failed?", "--max-tokens", "4")
    assert "MLX True" in alone.stderr
    with serving(db, "--model", model):
        beside = run("ask", "which test failed?", "--max-tokens", "4")
        found = run("recall", "which test failed?", "--mode", "latent")
    assert "lends it" in beside.stderr and "MLX False" in beside.stderr
    assert beside.stdout == alone.stdout
    assert "test_load" in found.stdout and "MLX False" in found.stderr
