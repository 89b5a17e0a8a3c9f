"""Several threads and connections at once: nothing is lost, doubled, or half forgotten."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from clara_mlx.errors import NotFound, StoreError
from clara_mlx.store.given import Given
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import HandleTaken
from clara_mlx.store.stored import Gone
from tests.support.sizes import sized

THREADS = 8


def remember(store: Originals, text: str, **options: Any) -> str:
    """Remember a text as one chunk."""
    return store.remember(text.encode(), text, [(0, len(text), None)], **options)


def together(work: Callable[[int], Any], count: int = THREADS) -> list[Any]:
    """What each thread returns; all of them begin at the same moment."""
    barrier = threading.Barrier(count)

    def run(number: int) -> Any:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def check(store: Originals, originals: dict[str, bytes]) -> None:
    """Check that a store has exactly these originals, and nothing of others."""
    assert {one.handle for one in store.memories()} == originals.keys()
    for handle, original in originals.items():
        assert store.original(handle)[0] == original
    figures = store.figures()
    assert figures["contents"] == len(set(originals.values()))
    chunks = sum(len(store.chunks(store.content_id(handle))) for handle in originals)
    if len(set(originals.values())) == len(originals):
        assert figures["chunks"] == chunks
    assert store.backlog.count() == figures["contents"]


def keep(stores: list[Originals], text: str, number: int) -> str:
    return remember(stores[number % len(stores)], text)


def test_the_same_content_at_once(opened: Callable[[], Originals]) -> None:
    stores = [opened() for _ in range(3)]
    for number in range(sized(5, 50)):
        text = f"the same text {number}\n" * 50
        before = stores[0].figures()["contents"]
        handles = together(partial(keep, stores, text))
        assert len(set(handles)) == THREADS
        assert len({stores[0].content_id(handle) for handle in handles}) == 1
        assert stores[0].figures()["contents"] == before + 1
        assert len(stores[0].chunks(stores[0].content_id(handles[0]))) == 1


def test_the_same_handle_at_once(opened: Callable[[], Originals]) -> None:
    stores = [opened() for _ in range(2)]

    def take(number: int) -> str | None:
        with suppress(HandleTaken):
            return remember(stores[number % 2], f"text {number}", handle="wanted")
        return None

    for _ in range(sized(3, 30)):
        assert sorted(filter(None, together(take))) == ["wanted"]
        assert stores[0].figures()["contents"] == 1
        assert stores[0].forget({"handle": "wanted"}) == 1


def test_many_at_once_that_have_contents_in_common(opened: Callable[[], Originals]) -> None:
    """Each writer has them in an order of its own, so that they could wait for each other."""
    stores = [opened() for _ in range(2)]
    texts = [f"text {i}" for i in range(12)]
    kept: dict[str, bytes] = {}

    def work(number: int) -> None:
        order = random.Random(number)
        for turn in range(sized(4, 40)):
            some = order.sample(texts, 6)
            many = [
                Given(text, [(0, len(text), None)], f"{number} {turn} {i}", None, None, None)
                for i, text in enumerate(some)
            ]
            stores[number % 2].remember_many(many, synced=bool(turn % 2))
            kept.update({one.handle: one.original for one in many})

    together(work)
    check(stores[0], kept)


def test_forgetting_against_remembering(opened: Callable[[], Originals]) -> None:
    """The last memory of a content goes while another one of it comes."""
    stores = [opened() for _ in range(3)]
    texts = [f"text {i}\n" * 30 for i in range(3)]
    kept: dict[str, bytes] = {}

    def work(number: int) -> None:
        store, order = stores[number % 3], random.Random(number)
        mine: list[str] = []
        for _ in range(sized(8, 100)):
            if mine and order.random() < 0.5:
                handle = mine.pop(order.randrange(len(mine)))
                assert store.forget({"handle": handle}) == 1
                del kept[handle]
            else:
                text = order.choice(texts)
                mine.append(remember(store, text))
                kept[mine[-1]] = text.encode()
                assert store.original(mine[-1])[0] == text.encode()

    together(work)
    check(stores[0], kept)


def test_readers_see_the_whole_of_a_memory_or_nothing(opened: Callable[[], Originals]) -> None:
    writer, reader = opened(), opened()
    text = "a text in three chunks"
    spans = [(0, 7, None), (7, 16, None), (16, 22, None)]
    done = threading.Event()
    problems: list[object] = []

    def read() -> None:
        while not done.is_set():
            for memory in reader.memories():
                try:
                    if reader.original(memory.handle)[0] != text.encode():
                        problems.append("other bytes")
                    with reader.snapshot():
                        content = reader.content_id(memory.handle)
                        if len(reader.chunks(content)) not in (1, 3):
                            problems.append(reader.chunks(content))
                except (NotFound, Gone):
                    continue
                except StoreError as error:
                    problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(sized(15, 200)):
        handle = writer.remember(text.encode(), text, spans, handle=f"h{number}")
        writer.rechunk(writer.content_id(handle), [(0, 22, 5)])
        writer.forget({"handle": handle})
    done.set()
    for thread in threads:
        thread.join()
    assert not problems


def test_cutting_again_at_once(opened: Callable[[], Originals]) -> None:
    stores = [opened() for _ in range(2)]
    text = "x" * 100
    content = stores[0].content_id(remember(stores[0], text))

    def cut(number: int) -> None:
        step = number + 1
        spans = [(at, min(at + step, 100), step) for at in range(0, 100, step)]
        stores[number % 2].rechunk(content, spans)

    together(cut)
    chunks = stores[0].chunks(content)
    assert len({chunk.tokens for chunk in chunks}) == 1, "the chunks of two cuts are mixed"
    assert chunks[0].start == 0 and chunks[-1].end == 100
    assert stores[0].figures()["chunks"] == len(chunks)
