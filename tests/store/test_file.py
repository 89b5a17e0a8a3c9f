"""The memory file on the disk: its owner's alone, regular, and safe beside other processes."""

from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.store.store import Store


def remember(store: Store, text: str) -> str:
    return store.remember(text.encode(), text, [(0, len(text), None)])


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def in_another_process(code: str, *arguments: object) -> str:
    """Run Python in a process of its own; what it printed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_a_second_thread_does_not_give_up_the_locks_of_the_first(tmp_path: Path) -> None:
    """Closing any descriptor of a file drops all POSIX locks that the process has on it.

    Then another process that leaves the write-ahead log would remove it while it is in use.
    """
    store = Store(tmp_path / "m.db")
    remember(store, "first")
    thread = threading.Thread(target=lambda: store.read("SELECT 1"))  # has its own connection
    thread.start()
    thread.join()
    leave = (
        "import sys; from clara_mlx.store.driver import driver;"
        "c = driver().connect(sys.argv[1], timeout=0.1)\n"
        "try: print(c.execute('PRAGMA journal_mode = DELETE').fetchone()[0])\n"
        "except driver().OperationalError as error: print(error)"
    )
    assert in_another_process(leave, store.path).strip() == "database is locked"
    remember(store, "second")
    store.close()


# -- who may read and write it -------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_file_and_its_folders_are_the_owners_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = Store(tmp_path / "made" / "now" / "m.db")
        remember(store, "secret")
    finally:
        os.umask(before)
    assert [mode(tmp_path / "made"), mode(tmp_path / "made" / "now")] == [0o700, 0o700]
    files = list(store.path.parent.iterdir())
    assert len(files) == 3 and {mode(file) for file in files} == {0o600}
    store.close()


def test_an_existing_file_becomes_its_owners_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and its index too, which a process that was killed may have left."""
    path = tmp_path / "m.db"
    store = Store(path)
    handle = remember(store, "secret")
    for file in tmp_path.iterdir():
        file.chmod(0o666)
    with caplog.at_level(logging.WARNING):
        other = Store(path)
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}
    assert f"{path}: others could read or write it" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        Store(path).close()
    assert not caplog.text
    assert other.original(handle)[0] == b"secret"
    other.close()
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    Store(path).close()
    path.chmod(0o666)
    os.chown(path, 12345, 12345)
    with pytest.raises(StoreError, match="another user's, and others can write") as refused:
        Store(path)
    assert not refused.value.transient
    assert mode(path) == 0o666
    path.chmod(0o600)
    Store(path).close()  # root may look after the files of others


def test_a_folder_that_others_can_write_to_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not refused: volumes of containers are often so."""
    for number, (bits, told) in enumerate(((0o777, True), (0o1777, False), (0o755, False))):
        folder = tmp_path / str(number)
        folder.mkdir()
        folder.chmod(bits)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Store(folder / "m.db").close()
        assert ("can be replaced" in caplog.text) is told, oct(bits)


def test_a_link_leads_to_the_file(tmp_path: Path) -> None:
    """What is checked and mended is the file itself, and its log is beside it."""
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.db"
    link.symlink_to(tmp_path / "real" / "m.db")  # not there yet
    store = Store(link)
    handle = remember(store, "secret")
    (tmp_path / "real" / "m.db").chmod(0o666)
    (tmp_path / "real" / "m.db-wal").chmod(0o666)
    other = Store(tmp_path / "real" / "m.db")
    again = Store(link)
    assert again.original(handle) == other.original(handle)
    assert {mode(file) for file in (tmp_path / "real").iterdir()} == {0o600}
    for one in (store, other, again):
        one.close()


@pytest.mark.parametrize("kind", ["fifo", "socket", "folder", "device"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.db"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(StorageFailed, match=r"m\.db: .*not a regular file") as refused:
        Store(path)
    assert not refused.value.transient
