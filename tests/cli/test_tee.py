"""`remember --tee` passes on what comes in, to the byte, whatever happens to the memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clara_mlx.memory import Memory
from tests.support.disks import fill, remount, small_disk

CONTENT = bytes(range(256)) * 700 + b"\n\xff\xfe the end, without a line's end"


def remember(
    db: Path, *options: str, content: bytes = CONTENT
) -> subprocess.CompletedProcess[bytes]:
    """`clara-mlx remember --tee` in a process of its own."""
    command = "from clara_mlx.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", command, "remember", "--tee", "--db", str(db), *options],
        input=CONTENT,
        capture_output=True,
        timeout=120,
    )


def missing_folder(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "m.db"


def a_folder(folder: Path) -> Path:
    return folder


def not_a_database(folder: Path) -> Path:
    (folder / "m.db").write_text("notes\n" * 999)
    return folder / "m.db"


def another_programs(folder: Path) -> Path:
    import sqlite3

    connection = sqlite3.connect(folder / "m.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    return folder / "m.db"


def damaged(folder: Path) -> Path:
    with Memory.open(folder / "m.db") as memory:
        for number in range(9):
            memory.remember(os.urandom(2000).hex() + str(number))
    os.truncate(folder / "m.db", 100_000)
    return folder / "m.db"


@pytest.mark.parametrize(
    "spoil", [missing_folder, a_folder, not_a_database, another_programs, damaged]
)
def test_a_memory_that_fails(tmp_path: Path, spoil: Callable[[Path], Path]) -> None:
    done = remember(spoil(tmp_path))
    assert done.stdout == CONTENT
    assert done.returncode == 1
    assert done.stderr.count(b"clara-mlx: ") == 1 and b"Traceback" not in done.stderr


def test_a_disk_that_is_full_or_read_only(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        with Memory.open(disk / "m.db") as memory:
            memory.remember("x")
        ballast = fill(disk)
        done = remember(disk / "m.db")
        assert (done.stdout, done.returncode) == (CONTENT, 1) and b"o space left" in done.stderr
        ballast.unlink()
        remount(disk, "ro")
        done = remember(disk / "m.db")
        assert (done.stdout, done.returncode) == (CONTENT, 1) and b"read-only" in done.stderr
        remount(disk, "rw")


def test_a_memory_that_works(tmp_path: Path) -> None:
    done = remember(tmp_path / "m.db", "-s", "a command")
    assert (done.stdout, done.returncode) == (CONTENT, 0)
    with Memory.open(tmp_path / "m.db") as memory:
        assert memory.original_bytes(done.stderr.decode().strip()) == CONTENT


def test_standard_output_that_fails(tmp_path: Path) -> None:
    """All of it is remembered, and the exit code says that not all was passed on."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    command = "from clara_mlx.cli.app import main; main()"
    arguments = [sys.executable, "-c", command, "remember", "--tee", "--db", tmp_path / "m.db"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            arguments, input=CONTENT, stdout=full, stderr=subprocess.PIPE, timeout=120
        )
    handle, error = done.stderr.decode().splitlines()
    assert done.returncode == 1 and "not all was passed on" in error
    with Memory.open(tmp_path / "m.db") as memory:
        assert memory.original_bytes(handle) == CONTENT


def test_nothing_waits_for_the_memory(tmp_path: Path) -> None:
    """What arrives is passed on at once, before the input ends, though the memory is locked."""
    with Memory.open(tmp_path / "m.db") as memory:
        memory.file.connection.execute("BEGIN IMMEDIATE")
        command = "from clara_mlx.cli.app import main; main()"
        process = subprocess.Popen(
            [sys.executable, "-c", command, "remember", "--tee", "--db", str(tmp_path / "m.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin and process.stdout
        process.stdin.write(b"first\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"first\n"
        memory.file.connection.execute("ROLLBACK")
        process.stdin.close()
        assert process.wait(60) == 0
        process.stdout.close()
