"""Working through a memory's backlog, on this machine and others, and how far that has come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clara_mlx.errors import NoModel, Progress, StoreError
from clara_mlx.store.originals import Originals
from clara_mlx.store.shortened import count_by_shortener
from clara_mlx.store.spaces import SecondSpace, space_of
from clara_mlx.store.workers import Worker, Workers

if TYPE_CHECKING:
    from clara_mlx.memory.compressing import Compressing

# Seconds between two looks at the whole backlog, which take long if it is large.
_WATCH_SECONDS = 2.0

# Seconds between two looks at the clock.
_END_SECONDS = 0.05


@dataclass(frozen=True)
class Worked:
    """What a worker has done, and what it has left."""

    contents: int  # that it has finished
    chunks: int  # that it has compressed
    tokens: int  # of these chunks, about
    seconds: float  # since it began
    waiting: int  # contents that wait for it and others, or were given up
    trouble: str | None  # what it paused for, and tries again


@dataclass(frozen=True)
class WorkLeft:
    """Who compresses a memory, what is left to do, and how long that takes."""

    workers: list[Worker]  # the first first; also those that have been silent for up to an hour
    chunks: int  # that wait for compression
    tokens: int  # of these chunks, about
    seconds: float | None  # until they are done at the workers' pace; None: nobody works
    second: SecondSpace | None  # the space of a new model, while it is filled


class Working:
    """The work on a memory's backlog; a part of `Memory`."""

    _store: Originals
    _compressing: Compressing | None

    def work(self, *, once: bool = False, watch: Callable[[Worked], None] | None = None) -> Worked:
        """Compress what waits, as one worker of perhaps many, until an interrupt.

        A `KeyboardInterrupt` ends it gracefully: the current batch is finished, and what else was
        leased is given back for others.

        Args:
            once: End when nothing waits any more, neither here nor at another worker.
            watch: Called now and then with what has been done so far.

        Raises:
            OtherModel: The memory has what another model made.
            NoModel: It was opened without a compressor.
            StoreError: It can't be written, or was opened to be compressed in the background.
        """
        self._store.check_writable()
        if self._compressing is None:
            raise NoModel("compressing needs a model; open the memory with one")
        self._compressing.check_model()
        background = self._compressing.background
        if background is None:
            raise NoModel(f"{self._store.path}: nothing can be compressed here")
        if background.running:
            raise StoreError(
                f"{self._store.path}: it is compressed in the background already; open it with "
                "compress=False to work"
            )
        begun = time.monotonic()

        def worked() -> Worked:
            assert self._compressing is not None
            done, seconds = background.done, time.monotonic() - begun
            figures = done.contents, done.chunks, done.tokens, seconds
            trouble = str(background.error) if background.error else None
            return Worked(*figures, self._compressing.backlog(), trouble)

        background.start(shown=True, once=once)
        try:
            looked = 0.0
            while not background.has_ended(_END_SECONDS):
                if watch and time.monotonic() - looked > _WATCH_SECONDS:
                    watch(worked())
                    looked = time.monotonic()
        except KeyboardInterrupt:
            background.stop()
        if background.failure:
            raise background.failure
        return worked()

    def recompress(self, progress: Progress | None = None) -> None:
        """Move the file to this compressor: what it makes replaces what another one has made.

        All contents are compressed again; if this is interrupted, it is resumed at the next open.
        Meanwhile originals, handles and text search are as before, and latent search works on what
        is compressed so far. Latents stay when shortened texts are replaced, and the reverse.

        Raises:
            NoModel: No compressor was given to `open`.
        """
        self._store.check_writable()
        if self._compressing is None:
            raise NoModel("recompressing needs the new model; open the memory with it")
        self._compressing.recompress(progress)

    def work_left(self) -> WorkLeft:
        """Who works on the backlog, and how long it takes until it is empty."""
        if self._compressing:
            backlog, model = self._compressing.waiting()
        else:
            space = space_of(self._store)
            model = space.fingerprint if space else None
            only_texts = space is None and count_by_shortener(self._store)
            backlog = self._store.texts_backlog if only_texts else self._store.backlog
        workers = Workers(self._store, backlog.now).all()
        chunks, tokens = backlog.left()
        pace = sum(
            one.chunks_per_minute
            for one in workers
            if not one.is_silent and model in (None, one.fingerprint)
        )
        seconds = 60 * chunks / pace if pace else None
        return WorkLeft(workers, chunks, tokens, seconds, self._store.second_space())
