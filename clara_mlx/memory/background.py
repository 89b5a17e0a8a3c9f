"""The background work: pending contents become latents, in length-sorted batches, resumably."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING

import numpy as np

from clara_mlx.errors import ClaraError, Progress, StoreError
from clara_mlx.model import chunking
from clara_mlx.model.thread import ModelThread, Priority
from clara_mlx.store.space import Space
from clara_mlx.store.store import Store, StoredChunk

if TYPE_CHECKING:
    from clara_mlx.model.clara import Clara

#: Contents taken from the backlog at a time, and chunks encoded and written at a time.
CONTENTS, CHUNKS = 64, 16

#: Seconds a process may go silent before another one takes over the compressing.
LEASE_SECONDS = 60.0

#: Seconds until the next look at the backlog, when there was nothing to do, and after a full disk.
IDLE_SECONDS, PAUSE_SECONDS = 1.0, 5.0

_LEASE = "compressor"

#: Unfinished contents above which a writer is slowed down, and by how much at most.
BACKLOG, BACKLOG_SECONDS = 10_000, 5.0


class Compressor:
    """A thread that works through the backlog while it holds the file's lease."""

    def __init__(self, store: Store, space: Space, clara: Clara, model: ModelThread) -> None:
        self._store, self._space, self._clara, self._model = store, space, clara, model
        self._owner = f"{_HOST} {os.getpid()} {secrets.token_hex(4)}"
        self._stop, self._woken = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="clara-mlx compressor", daemon=True)
        self.error: Exception | None = None

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin in the background."""
        self._thread.start()

    def wake(self) -> None:
        """Look at the backlog now."""
        self._woken.set()

    def hold_back(self) -> None:
        """Back-pressure: a writer far ahead of this thread waits a little; none is refused."""
        deadline = time.monotonic() + BACKLOG_SECONDS
        while self.running and self._store.backlog() > BACKLOG and time.monotonic() < deadline:
            time.sleep(0.05)

    def stop(self) -> None:
        """Finish the batch at hand and end; what is left keeps its marks."""
        self._stop.set()
        self._woken.set()
        if self._thread.ident:
            self._thread.join()

    def wait(self, timeout: float | None, progress: Progress | None = None) -> None:
        """Block until nothing is pending that has not been given up, or there is an error."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.running:
            self.error = None  # of an earlier try
        self.wake()
        total = self._store.backlog()
        while self._store.pending(1):
            if progress:
                progress(total - self._store.backlog(), total)
            if not self.running or self.error:
                raise StoreError(f"compression stopped: {self.error}") from self.error
            if deadline is not None and time.monotonic() > deadline:
                raise StoreError(f"not everything was compressed within {timeout} s")
            time.sleep(0.01)
        if progress:
            progress(total, total)

    def _loop(self) -> None:
        try:
            while not self._stop.is_set():
                self._woken.clear()
                try:
                    worked = self._step()
                except StoreError as error:
                    if not error.transient:
                        raise
                    # A full disk, or a writer that takes long: the marks stay, try again.
                    self.error = error
                    self._woken.wait(PAUSE_SECONDS)
                    continue
                if not worked:
                    # Another process may add to the backlog, or lose its lease: look again soon.
                    self._woken.wait(IDLE_SECONDS)
        except Exception as error:
            self.error = error
        finally:
            with contextlib.suppress(ClaraError):
                self._store.give_up_lease(_LEASE, self._owner)

    def _step(self) -> bool:
        """Compress some of the backlog; false if there was nothing to do."""
        contents = self._store.pending(CONTENTS)
        if not contents or not self._take_lease():
            return False
        try:
            self._compress(contents)
        except Exception as error:
            if isinstance(error, StoreError) and error.transient:
                raise
            # One bad content must not hold up the others: try each alone.
            for content in contents:
                if not self._stop.is_set():
                    self._compress_alone(content)
        return True

    def _compress_alone(self, content: int) -> None:
        try:
            self._compress([content])
        except Exception as error:
            if isinstance(error, StoreError) and error.transient:
                raise
            # If it was forgotten meanwhile, there is nothing to note.
            self._store.note_failure([content], str(error) or repr(error))

    def _take_lease(self) -> bool:
        """Take or renew the lease; at once if its owner is a process here that has died."""
        if self._store.take_lease(_LEASE, self._owner, LEASE_SECONDS):
            return True
        rows = self._store.read("SELECT owner FROM leases WHERE name = ?", (_LEASE,))
        if rows and _has_died(rows[0]["owner"]):
            self._store.give_up_lease(_LEASE, rows[0]["owner"])
            return self._store.take_lease(_LEASE, self._owner, LEASE_SECONDS)
        return False

    def _compress(self, contents: list[int]) -> None:
        missing: list[StoredChunk] = []
        left: dict[int, int] = {}
        for content in contents:
            chunks = self._chunks(content)
            left[content] = len(chunks)
            missing += chunks
        self._space.finish([content for content, count in left.items() if not count])
        missing.sort(key=lambda chunk: chunk.tokens or 0)
        for start in range(0, len(missing), CHUNKS):
            if self._stop.is_set():
                return
            batch = missing[start : start + CHUNKS]
            pieces = [self._store.text(c.content_id)[c.start : c.end] for c in batch]
            latents = self._model.run(
                Priority.BACKLOG,
                lambda p=pieces: np.array(self._clara.encode(p)),  # type: ignore[misc]
            )
            for chunk in batch:
                left[chunk.content_id] -= 1
            done = [c for c in {chunk.content_id for chunk in batch} if not left[c]]
            self._space.put([chunk.id for chunk in batch], latents, done)
            if not self._take_lease():  # it expired while this process slept
                return

    def _chunks(self, content: int) -> list[StoredChunk]:
        """Chunks of a content without latents here, cut anew if they don't fit this model."""
        chunks = self._store.chunks(content)
        limit = self._clara.config.doc_max_length
        if any(chunk.tokens is None or chunk.tokens > limit for chunk in chunks):
            text = self._store.text(content)
            cut = chunking.split(text, self._clara.tokenizer, limit)
            self._store.rechunk(content, [(c.start, c.end, c.tokens) for c in cut])
            chunks = self._store.chunks(content)
        have = self._space.present([chunk.id for chunk in chunks])
        return [chunk for chunk in chunks if chunk.id not in have]


_HOST = socket.gethostname().replace(" ", "-")


def _has_died(owner: str) -> bool:
    host, pid, _ = owner.split(" ") if owner.count(" ") == 2 else ("", "0", "")
    if host != _HOST:
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError):
        pass
    return False
