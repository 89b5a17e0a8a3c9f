"""The thread that owns MLX: what it runs first, and what becomes of the rest when it closes."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError

import pytest

from clara_mlx.errors import ClaraError
from clara_mlx.model.thread import ModelThread, Priority


def test_questions_come_before_the_backlog() -> None:
    model, order = ModelThread(), []
    first = model.submit(Priority.BACKLOG, lambda: time.sleep(0.1))
    futures = [model.submit(Priority.BACKLOG, lambda i=i: order.append(i)) for i in range(3)]
    question = model.submit(Priority.QUESTION, lambda: order.append("question"))
    for future in [first, question, *futures]:
        future.result(5)
    assert order == ["question", 0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        model.run(Priority.QUESTION, lambda: 1 / 0)
    assert list(model.stream(Priority.QUESTION, lambda: iter("abc"))) == ["a", "b", "c"]
    model.close()


def test_closing_the_model_cancels_what_is_left() -> None:
    model = ModelThread()
    begun, finish = threading.Event(), threading.Event()
    running = model.submit(Priority.BACKLOG, lambda: (begun.set(), finish.wait(30)))
    left = [model.submit(Priority.BACKLOG, lambda: 1) for _ in range(3)]
    stream = model.stream(Priority.BACKLOG, lambda: iter("abc"))
    streamed: list[BaseException] = []

    def read() -> None:
        try:
            list(stream)
        except CancelledError as error:
            streamed.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert begun.wait(30)
    while model._work.qsize() < len(left) + 1:  # the stream is queued, too
        time.sleep(0.001)
    question = model.submit(Priority.QUESTION, lambda: "answered")
    threading.Timer(0.05, finish.set).start()  # while the first call below waits
    model.close()
    model.close()
    reader.join(5)
    assert running.done() and question.result(0) == "answered"
    assert all(future.cancelled() for future in left) and streamed
    with pytest.raises(ClaraError, match="closed"):
        model.submit(Priority.QUESTION, lambda: 1)
