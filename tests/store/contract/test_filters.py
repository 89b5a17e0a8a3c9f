"""Filters: they come before the top k, and whatever a caller gives, they match by type or refuse.

`forget` takes the same filters, so a value taken for another would delete what nobody named.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.store import filters, search
from clara_mlx.store.originals import Originals
from tests.support.sizes import sized


def remember(store: Originals, text: str, **options: Any) -> str:
    """Remember a text as one chunk."""
    return store.remember(text.encode(), text, [(0, len(text), None)], **options)


def found(store: Originals, query: str, k: int = 10, **where: Any) -> list[str]:
    """Handles that text search finds."""
    return [hit.handle for hit in search.search(store, None, None, query, k, where or None)]


def test_filters_come_before_the_top_k(store: Originals) -> None:
    """k results come back whenever k match, however many better ones are filtered out."""
    wanted = [
        remember(store, f"needle in a long line of other words, number {i}", source="rare")
        for i in range(3)
    ]
    for i in range(200):
        remember(store, f"needle needle needle {i}", source="common")
    assert sorted(found(store, "needle", k=3, source="rare")) == sorted(wanted)


def test_each_filter(store: Originals) -> None:
    old = remember(
        store,
        "word a",
        created_at=100.0,
        session="s1",
        metadata={"ok": True, "n": 1, "list": [1], "text": "1", "é\n": 1.5},
    )
    new = remember(store, "word b", created_at=200.0, source="git", metadata={"n": 2, "x y": "z"})
    both = {old, new}
    for where, handles in (
        ({"source": "git"}, {new}),
        ({"source": None}, {old}),
        ({"source": ["git", None]}, both),
        ({"session": ["s1", "s2"]}, {old}),
        ({"after": 150}, {new}),
        ({"before": 150}, {old}),
        ({"after": 100, "before": 201}, both),
        ({"ok": True}, {old}),
        ({"ok": 1}, set()),
        ({"ok": [False, None]}, {new}),
        ({"n": True}, set()),
        ({"n": 1.0}, {old}),
        ({"n": [1, 2]}, both),
        ({"n": [1, True, None, "2"]}, {old}),
        ({"n": 2, "source": "git"}, {new}),
        ({"text": 1}, set()),
        ({"list": "[1]"}, set()),
        ({"x y": "z"}, {new}),
        ({"é\n": 1.5}, {old}),
        ({"missing": None}, both),
        ({"handle": old}, {old}),
        ({"n": []}, set()),
        ({"source": []}, set()),
    ):
        assert set(found(store, "word", **where)) == handles, where
        assert {m.handle for m in store.memories(where)} == handles, where


@pytest.mark.parametrize(
    "where",
    [
        {"a": {}},
        {"a": [[1]]},
        {"a": [[10**5000]]},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 2**63},
        {"a": 10**5000},
        {"a": "\ud800"},
        {"a": object()},
        {"after": "x"},
        {"after": True},
        {"before": False},
        {"after": None},
        {"after": float("nan")},
        {"before": float("-inf")},
        {"after": 2**64},
        {"after": [1, 2]},
        {"source": 5},
        {"session": True},
        {"handle": [1.5]},
        {'a"b': 1},
        {"a\\b": 1},
        {"a\0b": 1},
        {"": 1},
        {"\ud800": 1},
        {5: 1},
        {"a": range(0)},
        {"a": list(range(filters.MOST_VALUES + 1))},
        {"a": list(range(20_000)), "handle": ["m"] * 20_000},
        {str(i): i for i in range(filters.MOST_KEYS + 1)},
    ],
)
def test_what_makes_no_sense_is_the_callers_mistake(shared: Originals, where: Any) -> None:
    store = shared
    handle = remember(store, "word")
    for act in (store.forget, lambda w: list(store.memories(w)), lambda w: found(store, "w", **w)):
        if act is not store.forget and not all(isinstance(key, str) for key in where):
            continue  # no argument can be named so
        with pytest.raises(StoreError, match="where") as mistake:
            act(where)
        assert not isinstance(mistake.value, StorageFailed) and not mistake.value.transient
        assert len(str(mistake.value)) < 300
    assert store.forget({"handle": handle}) == 1


def test_a_filter_of_thousands_of_values(store: Originals) -> None:
    handles = [remember(store, f"word {i}", metadata={"n": i}) for i in range(20)]
    many = [f"m-{i}" for i in range(filters.MOST_VALUES - 30)]
    for where in (
        {"handle": [*many, *handles[:5]]},
        {"n": list(range(15, filters.MOST_VALUES - 5))},
        {f"key {i}": None for i in range(99)} | {"n": [0, 1, 2, 3, 4]},
    ):
        assert len(found(store, "word", k=10, **where)) == 5, list(where)
        assert len(list(store.memories(where))) == 5
    assert store.forget({"handle": [*many, *handles[:5]]}) == 5


@pytest.mark.alone
def test_a_filter_of_thousands_of_values_takes_milliseconds(store: Originals) -> None:
    handles = [remember(store, f"word {i}") for i in range(50)]
    where = {"handle": [*(f"m-{i}" for i in range(20_000)), *handles]}
    spent = []
    for _ in range(3):
        start = time.thread_time()
        assert len(found(store, "word", k=10, **where)) == 10
        spent.append(time.thread_time() - start)
    assert min(spent) < 1


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from([0.0, 1.0, -1.5, 2.0**63])
    | st.text(max_size=3)
    | st.sampled_from(["1", "true", "null", "[1]", "{}", "1.0", ""])
)
_values = _scalars | st.lists(_scalars, max_size=3) | st.dictionaries(st.text(max_size=2), _scalars)


def _matches(stored: Any, value: Any) -> bool:
    """Whether a value of metadata is equal to one of a filter as JSON has equality."""
    if isinstance(stored, bool) or isinstance(value, bool):
        return stored is value
    return type(stored) in (int, float, str, type(None)) and stored == value


def _is_comparable(value: Any) -> bool:
    """Whether SQLite has a value that is equal to this one, or to each of a list."""
    if isinstance(value, list):
        return all(map(_is_comparable, value))
    if isinstance(value, str):
        return all(not "\ud800" <= character <= "\udfff" for character in value)
    if isinstance(value, int | float):
        return math.isfinite(value) if isinstance(value, float) else -(2**63) <= value < 2**63
    return value is None


@settings(
    max_examples=sized(150, 3000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(stored=_values, value=_values)
@example(stored=True, value=1)
@example(stored=1, value=True)
@example(stored="1", value=1)
@example(stored=[1], value="[1]")
@example(stored="a\0b", value="a\0b")
def test_a_filter_matches_as_json_has_equality(shared: Originals, stored: Any, value: Any) -> None:
    try:
        json.dumps(stored, allow_nan=False)
        handle = remember(shared, "word", metadata={"key": stored})
    except (ValueError, StoreError):  # JSON can't hold it
        return
    try:
        wanted = {"handle": handle, "key": value}
        listed = [memory.handle for memory in shared.memories(wanted)]
    except StorageFailed:
        raise
    except StoreError:  # refused
        assert not _is_comparable(value)
        return
    finally:
        shared.forget({"handle": handle})
    values = value if isinstance(value, list) else [value]
    assert listed == [handle] * any(_matches(stored, one) for one in values)


def test_a_mistyped_filter_is_no_silence(
    store: Originals, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be a key of metadata; but if nothing is found with it, that is said."""
    remember(store, "one text", session="a", metadata={"sources": "x"})
    assert found(store, "text", sources="x") and not found(store, "text", tool="pytest")
    assert not caplog.records
    assert not found(store, "text", sesion="a", tool="pytest")
    (record,) = caplog.records
    assert "'sesion'" in record.getMessage() and "is 'session' meant?" in record.getMessage()
