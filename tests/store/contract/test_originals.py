"""Originals: kept byte for byte, once each; every occurrence is a memory; all or nothing."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clara_mlx.errors import Closed, NotFound, StorageFailed, StoreError
from clara_mlx.memory import Memory
from clara_mlx.store.given import Given
from clara_mlx.store.originals import Originals
from clara_mlx.store.protocol import HandleTaken
from clara_mlx.store.stored import Gone, StoredChunk
from tests.support.sizes import sized


def remember(store: Originals, text: str, **options: Any) -> str:
    """Remember a text as one chunk."""
    original = text.encode("utf-8", "surrogatepass")
    return store.remember(original, text, [(0, len(text), None)], **options)


@pytest.fixture
def memory(name: str) -> Iterator[Memory]:
    with Memory.open(name) as opened:
        yield opened


def test_a_memory_without_a_model(memory: Memory, name: str) -> None:
    """What a memory does that needs no search and no compressor."""
    text = "first line\nsecond line\n" * 200
    handle = memory.remember(text, source="pytest", session="s", metadata={"exit": 1})
    raw = memory.remember(b"\xff\xfe\0bytes", source="cat")
    again = memory.remember(text)
    assert memory.original(handle) == text == memory.original(again) == memory.text(handle)
    assert memory.original(raw) == b"\xff\xfe\0bytes" == memory.original_bytes(raw)
    assert memory.has(handle) and not memory.has("m-none")
    assert [one.handle for one in memory.list()] == [handle, raw, again]
    assert [one.handle for one in memory.list(newest=2)] == [again, raw]
    (one,) = memory.list({"session": "s"})
    assert (one.source, one.kind, one.length) == ("pytest", "text", len(text))
    assert one.metadata == {"exit": 1}
    status = memory.status()
    assert (status.memories, status.contents, status.pending, memory.backlog()) == (3, 2, 2, 2)
    assert status.original_bytes == len(text) + 8 and status.stored_bytes < len(text) / 4
    assert type(status.original_bytes) is int and status.file_bytes > 0 and status.path == name
    assert memory.forget(handle) == 1 and memory.original(again) == text
    assert memory.forget(where={"source": [None, "cat"]}) == 2
    assert memory.status().contents == memory.backlog() == memory.status().chunks == 0
    with pytest.raises(NotFound):
        memory.forget(handle)


def test_it_is_there_when_it_is_opened_again(opened: Callable[[], Originals]) -> None:
    first = opened()
    handle = remember(first, "kept")
    first.close()
    with pytest.raises(Closed, match="open it again"):
        first.original(handle)
    with pytest.raises(Closed):
        remember(first, "more")
    assert opened().original(handle) == (b"kept", "text")


def test_content_is_stored_once_and_every_occurrence_kept(store: Originals) -> None:
    texts = ["same", "other", "same"]
    handles = [remember(store, text, source=str(i)) for i, text in enumerate(texts)]
    assert len(set(handles)) == 3
    assert store.content_id(handles[0]) == store.content_id(handles[2])
    assert [one.source for one in store.memories()] == ["0", "1", "2"]
    # The same bytes as a text and as bytes are two contents, as they come back in two ways.
    raw = store.remember(b"same", "same", [(0, 4, None)], kind="bytes")
    assert store.original(raw) == (b"same", "bytes")
    assert store.content_id(raw) != store.content_id(handles[0])
    assert store.backlog.count() == 3
    latest = store.latest_memory(store.content_id(handles[0]), {"source": ["0", "2"]})
    assert latest and latest.handle == handles[2]


def test_a_handle_is_one_memorys(store: Originals) -> None:
    remember(store, "first", handle="mine")
    with pytest.raises(HandleTaken, match="there is a memory"):
        remember(store, "second", handle="mine")
    with pytest.raises(HandleTaken):
        store.remember_many(
            [
                Given("third", [(0, 5, None)], "new", None, None, None),
                Given("4", [], "mine", None, None, None),
            ]
        )
    assert [one.handle for one in store.memories()] == ["mine"]
    assert store.figures()["contents"] == 1
    assert store.original("mine") == (b"first", "text")


def test_many_at_once_in_their_order(store: Originals) -> None:
    texts = [f"text {i % 7}" for i in range(20)]
    many = [
        Given(text, [(0, len(text), i)], f"h{i}", None, "s", {"n": i})
        for i, text in enumerate(texts)
    ]
    store.remember_many(many)
    store.remember_many([Given("text 3", [(0, 6, None)], "later", None, None, None)], synced=False)
    assert [one.handle for one in store.memories()] == [*(f"h{i}" for i in range(20)), "later"]
    assert store.figures()["contents"] == 7
    for i, text in enumerate(texts):
        assert store.original(f"h{i}") == (text.encode(), "text")
    store.remember_many([])


def test_chunks_and_cutting_again(store: Originals) -> None:
    text = "one two three"
    spans = [(0, 4, 1), (4, 8, None), (8, 13, 2)]
    handle = store.remember(text.encode(), text, spans)
    content = store.content_id(handle)
    chunks = store.chunks(content)
    assert [(one.start, one.end, one.tokens) for one in chunks] == spans
    ids = [one.id for one in chunks]
    assert store.chunks_by_id([*ids, max(ids) + 1]) == dict(zip(ids, chunks, strict=True))
    assert store.chunks_by_id([]) == {}
    store.rechunk(content, [(0, 13, 9)])
    (whole,) = store.chunks(content)
    assert whole == StoredChunk(whole.id, content, 0, 13, 9)
    assert whole.id not in ids, "an id is never used again: processes cache by it"
    assert store.text(content) == text
    empty = store.remember(b"", "", [])
    assert store.chunks(store.content_id(empty)) == [] and store.original(empty) == (b"", "text")


def test_ids_are_never_used_again(store: Originals) -> None:
    seen: set[int] = set()
    for number in range(5):
        content = store.content_id(remember(store, f"text {number}"))
        assert content not in seen
        seen.add(content)
        store.forget({"after": 0})
        with pytest.raises(Gone):
            store.content(content)


def test_damage_is_noticed(store: Originals) -> None:
    handles = {"data": remember(store, "x" * 500), "length": remember(store, "y" * 500)}
    for column, value in (("data", zlib.compress(b"z" * 500)), ("length", 3)):
        content = store.content_id(handles[column])
        with store.write() as connection:
            connection.execute(f"UPDATE contents SET {column} = ? WHERE id = ?", (value, content))
        with pytest.raises(StoreError, match=r"damaged \(its SHA-256 differs\)"):
            store.original(handles[column])
    content = store.content_id(handles["data"])
    with store.write() as connection:
        connection.execute("UPDATE contents SET data = ? WHERE id = ?", (b"no zlib", content))
    with pytest.raises(StoreError, match="damaged"):
        store.original(handles["data"])


def test_a_large_original(store: Originals) -> None:
    original = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(60_000))
    handle = store.remember(original, "", [], kind="bytes")
    assert store.original(handle) == (original, "bytes")


def test_a_transaction_is_all_or_nothing(store: Originals) -> None:
    handle = remember(store, "kept")
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        connection.execute("DELETE FROM memories")
        assert not store.has(handle), "this thread reads what it has written"
        raise ZeroDivisionError
    assert store.has(handle)
    with pytest.raises(StorageFailed), store.write() as connection:
        connection.execute("DELETE FROM memories")
        connection.execute("INSERT INTO contents (id) SELECT nothing FROM nowhere")
    assert store.has(handle)


def test_a_snapshot_is_one_moment(opened: Callable[[], Originals]) -> None:
    reader, writer = opened(), opened()
    remember(writer, "first")
    with reader.snapshot():
        assert reader.figures()["memories"] == 1
        remember(writer, "second")
        assert reader.figures()["memories"] == 1
    assert reader.figures()["memories"] == 2


def test_removals_are_noticed(opened: Callable[[], Originals]) -> None:
    one, other = opened(), opened()
    handle = remember(one, "text")
    before = other.removals()
    assert other.removals() == before
    one.forget({"handle": handle})
    after = other.removals()
    assert after != before
    assert other.removals() == after


def test_the_backlog(store: Originals) -> None:
    contents = [store.content_id(remember(store, f"text {i}")) for i in range(5)]
    backlog = store.backlog
    assert backlog.pending(3) == contents[:3] and backlog.count() == 5
    for _ in range(3):
        backlog.note_failure(contents[0], "it is too odd")
    backlog.note_failure(contents[1], "once")
    assert backlog.pending(10) == contents[1:]
    assert backlog.figures() == {"pending": 4, "failed": 1, "last_error": "once"}
    store.forget({"after": 0})
    assert backlog.figures() == {"pending": 0, "failed": 0, "last_error": None}


def test_what_is_leased_is_one_workers(opened: Callable[[], Originals]) -> None:
    one, other = opened().backlog, opened().backlog
    store = opened()
    contents = [store.content_id(remember(store, f"text {i}")) for i in range(4)]
    first = one.lease("a", 10, 60)
    assert first == contents and other.lease("b", 10, 60) == []
    assert one.renew("a", 60)
    one.give_back("a")
    assert other.lease("b", 10, -1) == contents, "its time is over at once"
    assert one.lease("a", 10, 60) == contents


_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(), max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(
    max_examples=sized(60, 3000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    original=st.text(st.characters(), max_size=60) | st.binary(max_size=60),
    handle=_names.filter(bool),
    source=st.none() | _names,
    session=st.none() | _names,
    metadata=st.dictionaries(st.text(st.characters(), max_size=3), _json, max_size=3),
    created_at=st.floats(-62_135_596_800, 253_402_300_799),
)
def test_whatever_is_remembered_comes_back(shared: Originals, **given: Any) -> None:
    """Every character, NUL and lone surrogates among them, in every field that takes it."""
    original = given.pop("original")
    kind = "bytes" if isinstance(original, bytes) else "text"
    data = original if isinstance(original, bytes) else original.encode("utf-8", "surrogatepass")
    text = data.decode("utf-8", "surrogateescape" if kind == "bytes" else "surrogatepass")
    try:
        kept = shared.remember(
            data, text, [(0, len(text), None)] if text else [], kind=kind, **given
        )
    except StorageFailed:
        raise
    except StoreError:  # an integer that no double holds
        assert any(abs(n) > 2**1000 for n in _numbers(given["metadata"]))
        return
    try:
        assert kept == given["handle"] and shared.original(kept) == (data, kind)
        for where in ({"handle": kept}, {"source": given["source"], "session": given["session"]}):
            (one,) = shared.memories(where)
            fields = {name: getattr(one, name) for name in given}
            assert fields == given
    finally:
        shared.forget({"handle": kept})


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value
    else:
        yield 0


@pytest.mark.parametrize("length", [1, 2_000, 4_096])
def test_long_names(store: Originals, length: int) -> None:
    """Longer than an entry of an index may be."""
    names = [hashlib.shake_128(bytes([i])).hexdigest(length)[:length] for i in range(3)]
    handle = "\U0001f980" * (length - 1) + "x"
    remember(store, "text", handle=handle, source=names[1], session=names[2])
    about = {"source": names[1], "session": names[2]}
    remember(store, "other", handle=names[0], metadata={"project": names[1] * 3, names[2]: "x"})
    assert store.has(handle) and not store.has(handle + "y")
    assert [one.handle for one in store.memories(about)] == [handle]
    for where in ({"project": names[1] * 3}, {names[2]: ["x", "y"]}, {names[2]: "x"}):
        assert [one.handle for one in store.memories(where)] == [names[0]]
    with pytest.raises(HandleTaken):
        remember(store, "third", handle=handle)
    assert store.forget({"handle": handle}) == 1
