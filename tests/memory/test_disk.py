"""A full disk loses nothing, and what is forgotten is gone from the bytes."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_files import SHAPE, fill, open_latents
from memory_worker import remember

from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.store import care
from clara_mlx.store import driver as store_driver
from clara_mlx.store.store import Store
from tests.support.disks import small_disk

# -- full disk -------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path) as mounted:
        yield mounted


def test_full_disk(disk: Path, tmp_path: Path, clara: Callable[..., Any]) -> None:
    path = disk / "m.db"
    rng = random.Random(3)
    kept: dict[str, str] = {}
    with Memory.open(path) as memory:
        for _ in range(1000):
            text = rng.randbytes(5000).hex()
            try:
                kept[memory.remember(text)] = text
            except ClaraError as error:
                assert "disk is full" in str(error)
                break
        else:
            raise AssertionError("the disk did not fill up")
        for handle, text in kept.items():  # while it is full
            assert memory.original(handle) == text
        handle, text = list(kept.items())[-1]
        assert memory.recall(text[:768], 1, mode="text")[0].handle == handle
    ballast = disk / "ballast"
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(4 << 20))
    # Opened again on the full disk, it works or says why not. Nothing is given up for good.
    with contextlib.suppress(ClaraError), Memory.open(path, clara("c16", "e2e")) as memory:
        with pytest.raises(ClaraError):
            memory.flush(20)
        assert memory.status().failed == 0
    ballast.unlink()
    with contextlib.suppress(ClaraError), Memory.open(path) as memory:
        handle = next(iter(kept))
        memory.forget(handle)
        del kept[handle]
    for file in disk.glob("m.db*"):  # the log too: there was no room to put it in the file
        shutil.copy(file, tmp_path / file.name)
    with Memory.open(tmp_path / "m.db") as memory:
        assert memory.verify().problems == []
        for handle, text in kept.items():
            assert memory.original(handle) == text


# -- forgetting ------------------------------------------------------------------------------------


def raw_bytes(path: Path) -> bytes:
    """Everything on the disk: the file, the write-ahead log and its index."""
    return b"".join(p.read_bytes() for p in sorted(path.parent.glob(path.name + "*")))


def pieces(blob: bytes, size: int = 16) -> list[bytes]:
    """A blob in pieces, because it may lie on several pages."""
    return [blob[i : i + size] for i in range(0, len(blob) - size + 1, size)]


def test_a_reader_that_keeps_the_log_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_driver, "BUSY_SECONDS", 0.1)
    path = tmp_path / "m.db"
    handle = next(iter(fill(path, 3)))
    store, reader = Store(path), Store(path)
    remember(store, "so that the log has something")
    with reader.snapshot():
        reader.read("SELECT count(*) FROM memories")
        assert store.forget({"handle": handle}) == 1
        assert "may still be in it" in caplog.text
        caplog.clear()
    store.empty_log()
    assert caplog.text == "" and Path(f"{path}-wal").stat().st_size == 0
    reader.close()
    store.close()


@pytest.mark.parametrize("length", [3, 60, 1500])
def test_what_is_forgotten_is_in_no_byte_of_the_files(length: int, tmp_path: Path) -> None:
    """Among memories before and after it, so that pages split and merge around it."""
    path = tmp_path / "m.db"
    rng, numbers = random.Random(length), np.random.default_rng(length)
    store = Store(path)
    table = open_latents(store)
    handles, secrets = [], {}
    for number in range(120):
        # Words of letters only, each unlike all others, in the text and beside it.
        words = ["".join(rng.choices("bcdfghjklmnpqrstvwxz", k=16)) for _ in range(length)]
        text = " ".join(words)
        handles.append(
            remember(
                store,
                text,
                source=f"source-{words[0]}",
                session=f"session-{words[1]}",
                metadata={words[2]: words[0]},
            )
        )
        if number % 24 == 0:
            secrets[handles[-1]] = words
        (content,) = store.backlog.pending(1)
        ids = [chunk.id for chunk in store.chunks(content)]
        table.put(ids, numbers.normal(size=(len(ids), *SHAPE)).astype(np.float32), [content])
    wanted: list[bytes] = []
    for handle, words in secrets.items():
        wanted += [word.encode() for word in words]
        wanted.append(handle.encode())
        (row,) = store.read(
            "SELECT c.id, c.data, c.sha256 FROM contents c JOIN memories m ON m.content_id = c.id "
            "WHERE m.handle = ?",
            (handle,),
        )
        wanted += [*pieces(row["data"]), row["sha256"]]
        for latent in store.read(
            "SELECT data, bits FROM latents l JOIN chunks ch ON ch.id = l.chunk_id "
            "JOIN sketches_1 s ON s.rowid = l.chunk_id WHERE ch.content_id = ?",
            (row["id"],),
        ):
            wanted += pieces(latent["data"]) + pieces(latent["bits"])
    wanted = rng.sample(wanted, min(600, len(wanted)))
    before = raw_bytes(path)
    assert sum(secret in before for secret in wanted) > 0.4 * len(wanted)  # words share prefixes
    for handle in secrets:
        store.forget({"handle": handle})
    after = raw_bytes(path)
    left = [secret for secret in wanted if secret in after]
    assert left == []
    assert care.verify(store).problems == []
    store.close()
    assert not any(secret in raw_bytes(path) for secret in wanted)
