"""One thread owns MLX: everything that touches the model is handed to it, questions first."""

from __future__ import annotations

import itertools
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from enum import IntEnum
from typing import Any, TypeVar

from clara_mlx.errors import ClaraError

T = TypeVar("T")


class Priority(IntEnum):
    """The order in which work runs when the model is free: questions first."""

    QUESTION = 0
    BACKLOG = 1


class ModelThread:
    """A thread that runs work on the model one piece at a time: by priority, then first come.

    Attributes:
        is_machine_wanted: Whether another model on this machine is at work for somebody who waits,
            so that work that nobody waits for should leave it time.
    """

    def __init__(self) -> None:
        self.is_machine_wanted: Callable[[], bool] = lambda: False
        # Priority, order of submission, and the work with its future; None ends the thread.
        self._work: queue.PriorityQueue[
            tuple[int, int, tuple[Future[Any], Callable[[], Any]] | None]
        ] = queue.PriorityQueue()
        self._count = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(
            target=self._run_queued, name="clara-mlx model", daemon=True
        )
        self._thread.start()

    def submit(self, priority: Priority, work: Callable[[], T]) -> Future[T]:
        """Queue a piece of work; its future will have the result or the exception.

        Raises:
            ClaraError: The thread has been closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise ClaraError("the model was closed; open the memory again")
            self._work.put((priority, next(self._count), (future, work)))
        return future

    def run(self, priority: Priority, work: Callable[[], T]) -> T:
        """Queue a piece of work and wait for its result."""
        return self.submit(priority, work).result()

    def stream(self, priority: Priority, work: Callable[[], Iterator[T]]) -> Iterator[T]:
        """Iterate here over what ``work`` yields in the model's thread.

        Closing the iterator stops the work.
        """
        items: queue.Queue[Any] = queue.Queue()
        stop = threading.Event()
        end = object()

        def generate() -> None:
            for item in work():
                items.put(item)
                if stop.is_set():
                    return

        future = self.submit(priority, generate)
        future.add_done_callback(lambda _: items.put(end))
        try:
            while (item := items.get()) is not end:
                yield item
        finally:
            stop.set()
        future.result()

    def close(self) -> None:
        """Finish the current work and the questions that are queued, and end the thread.

        The futures of all other work are cancelled.
        """
        with self._lock:
            if not self._closed:
                self._work.put((Priority.BACKLOG, -1, None))
            self._closed = True
        self._thread.join()
        while not self._work.empty():
            *_, queued = self._work.get()
            if queued:
                future, _ = queued
                future.cancel()

    def _run_queued(self) -> None:
        try:
            while queued := self._work.get()[-1]:
                future, work = queued
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
        finally:
            if mx := sys.modules.get("mlx.core"):  # not every compressor needs it
                mx.clear_streams()  # on the CPU, they could abort the process when it exits
