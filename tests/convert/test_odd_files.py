"""Folders from strangers: pipes, devices, sockets, folders and endless files in a file's place.

Each is refused at once, in one line that names the file. A pipe would be waited for without end,
and a device never ends, so each test has a time limit of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from typer.testing import CliRunner

import clara_mlx
from clara_mlx.cli.app import app
from clara_mlx.convert import Source, convert, inspection
from clara_mlx.errors import CheckpointError, ClaraError
from clara_mlx.model import regular
from clara_mlx.model.folder import ModelFolder, load_arrays
from clara_mlx.plan import shapes

SECONDS = 20
SHARD = "model-00001-of-00002.safetensors"


@pytest.fixture(autouse=True)
def limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"not refused within {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def local_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        at = os.getcwd()
        os.chdir(path.parent)  # names of sockets are short
        try:
            bound.bind(path.name)
        finally:
            os.chdir(at)


def folder(path: Path) -> None:
    path.mkdir()


def endless(path: Path) -> None:
    """A sparse file of 50 GB."""
    with path.open("wb") as file:
        file.truncate(50 << 30)


KINDS = [fifo, zero, local_socket, folder, endless]
Put = Callable[[Path], None]


@pytest.fixture
def checkpoint(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden / "c16/e2e", tmp_path / "checkpoint"))


@pytest.fixture
def base(golden: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden / "tiny-base", tmp_path / "base"))


def replace(path: Path, put: Put) -> None:
    path.unlink(missing_ok=True)
    put(path)


def refused(act: Callable[[], Any], name: str, kind: type[ClaraError] = CheckpointError) -> None:
    with pytest.raises(kind, match=name.replace(".", r"\.")) as error:
        act()
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize("name", ["config.json", "adapters.pth", "decoder_first_last_layers.pth"])
def test_in_a_checkpoint(checkpoint: Path, base: Path, name: str, put: Put) -> None:
    replace(checkpoint / name, put)
    refused(lambda: Source.open(checkpoint, base=base), name)
    refused(lambda: inspection.inspect(checkpoint), name)


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", SHARD])
def test_in_a_base(checkpoint: Path, base: Path, name: str, put: Put) -> None:
    shutil.copy(base / "tokenizer.json", checkpoint)  # as the base's must count, not another
    replace(base / name, put)
    if name == "tokenizer.json" and put is not endless:  # then the checkpoint's is taken
        (checkpoint / name).unlink()
    refused(lambda: Source.open(checkpoint, base=base), name)


@pytest.mark.parametrize("put", KINDS)
@pytest.mark.parametrize("name", ["LICENSE", "generation_config.json"])
def test_beside_the_weights(
    checkpoint: Path, base: Path, tmp_path: Path, name: str, put: Put
) -> None:
    """Files that are only copied are not copied without end, and no half folder is left."""
    replace((checkpoint if name == "LICENSE" else base) / name, put)
    refused(lambda: convert(Source.open(checkpoint, base=base), tmp_path / "to"), name)
    assert not (tmp_path / "to").exists() and not list(tmp_path.glob(".to*"))


@pytest.mark.parametrize("put", KINDS)
def test_a_model_card_states_no_licence(checkpoint: Path, base: Path, put: Put) -> None:
    replace(checkpoint / "README.md", put)
    assert Source.open(checkpoint, base=base).licences["checkpoint"] is None


def test_links_of_the_hubs_cache_are_followed(checkpoint: Path, base: Path, tmp_path: Path) -> None:
    (checkpoint / "LICENSE").write_text("as it is")
    repository = tmp_path / "models--a--b"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    for name in ("checkpoint", "base"):
        (snapshot / name).mkdir(parents=True)
        for path in (tmp_path / name).iterdir():
            path.rename(blobs / f"{name}-{path.name}")
            (snapshot / name / path.name).symlink_to(f"../../../blobs/{name}-{path.name}")
    convert(Source.open(snapshot / "checkpoint", base=snapshot / "base"), tmp_path / "to")
    ModelFolder.open(tmp_path / "to")
    assert (tmp_path / "to" / "LICENSE").read_text() == "as it is"


@pytest.mark.parametrize("name", ["LICENSE", "generation_config.json"])
def test_no_link_brings_a_file_of_this_machine_into_a_model_folder(
    checkpoint: Path, base: Path, tmp_path: Path, name: str
) -> None:
    secret = tmp_path / "blobs" / "secret"
    secret.parent.mkdir()
    secret.write_text('{"a": "secret"}')
    path = (checkpoint if name == "LICENSE" else base) / name
    for link in (secret, "../blobs/secret"):
        path.unlink(missing_ok=True)
        path.symlink_to(link)
        refused(lambda: convert(Source.open(checkpoint, base=base), tmp_path / "to"), name)
        assert not (tmp_path / "to").exists() and not list(tmp_path.glob(".to*"))
    path.unlink()
    (path.parent / "real").write_text('{"a": 1}')
    path.symlink_to("real")  # within its folder
    convert(Source.open(checkpoint, base=base), tmp_path / "to")
    assert (tmp_path / "to" / name).read_text() == '{"a": 1}'


@pytest.mark.parametrize("put", [fifo, zero, local_socket])
@pytest.mark.parametrize("name", ["extra.json", "model-extra.safetensors", "tokenizer.json"])
def test_in_a_model_folder(
    checkpoint: Path, base: Path, tmp_path: Path, name: str, put: Put
) -> None:
    to = tmp_path / "model"
    convert(Source.open(checkpoint, base=base), to)
    replace(to / name, put)
    refused(lambda: clara_mlx.load(to), name)
    refused(lambda: shapes.read(to), name, ClaraError)


def test_thousands_of_differences_are_counted(checkpoint: Path, base: Path) -> None:
    more = {f"model.layers.{i}.more": mx.zeros(1) for i in range(3000)} | {"x" * 999: mx.zeros(1)}
    shard = base / SHARD
    arrays = load_arrays(shard)
    mx.eval(arrays)
    mx.save_safetensors(str(shard), {**arrays, **more})
    with pytest.raises(CheckpointError, match=r"\n  and [0-9,]+ more$") as error:
        Source.open(checkpoint, base=base)
    assert str(error.value).count("\n") < 50 and len(str(error.value)) < 10_000


def test_a_file_that_is_swapped_after_the_look_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "config.json")
    monkeypatch.setattr(regular, "check_regular", lambda path: None)
    with pytest.raises(OSError, match="not a regular file"):
        regular.open_regular(tmp_path / "config.json")


# -- files that a user names ---------------------------------------------------------------------


@pytest.mark.parametrize("put", [zero, local_socket, folder])
def test_inputs_that_never_end(tmp_path: Path, put: Put) -> None:
    put(tmp_path / "input")
    db = str(tmp_path / "m.db")
    for command in (["remember"], ["import"]):
        done = CliRunner().invoke(app, [*command, str(tmp_path / "input"), "--db", db])
        assert done.exit_code == 1, done.output


def test_a_pipe_is_an_input(tmp_path: Path) -> None:
    """A shell names one for ``<(command)``."""
    reading, writing = os.pipe()
    os.write(writing, b"from a pipe")
    os.close(writing)
    done = CliRunner().invoke(
        app, ["remember", f"/dev/fd/{reading}", "--db", str(tmp_path / "m.db")]
    )
    os.close(reading)
    assert done.exit_code == 0, done.output
