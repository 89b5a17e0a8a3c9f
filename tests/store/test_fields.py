"""The fields of a memory: what may be stored at every door, and what older files hold is readable.

Imports are the door through which files of others come, so each field is tried with any JSON value.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clara_mlx.errors import StorageFailed, StoreError
from clara_mlx.memory import Memory
from clara_mlx.store import care, fields
from clara_mlx.store.store import Store
from tests.support.sizes import sized


@pytest.fixture
def memory(tmp_path: Path) -> Any:
    with Memory.open(tmp_path / "memory.db") as opened:
        yield opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Memory.open(tmp_path_factory.mktemp("fields") / "memory.db") as opened:
        yield opened


def nested(depth: int) -> Any:
    """Lists in lists; in metadata ``{"a": ...}`` they make it one deeper."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {"a": nested(fields.DEEPEST_METADATA)},
        {"a": nested(900)},
        {"a": nested(100_000)},
        {"a": "x" * fields.MOST_METADATA},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": 10**400},
        {"a": 10**5000},
        {"a": {1, 2}},
        {"a": b"x"},
        {1: "a"},
        {"a": {None: 1}},
        [],
        "text",
    ],
    ids=lambda _: "",
)
def test_metadata_that_is_refused(memory: Memory, metadata: Any) -> None:
    with pytest.raises(StoreError, match="metadata") as refused:
        memory.remember("word", metadata=metadata)
    assert not isinstance(refused.value, StorageFailed) and len(str(refused.value)) < 200
    assert memory.status().memories == 0


def test_metadata_up_to_its_limits_comes_back(memory: Memory) -> None:
    deep = {"a": nested(fields.DEEPEST_METADATA - 1)}
    large = {"a": "x" * (fields.MOST_METADATA - len('{"a": ""}'))}
    odd = {"": [None, True, 0.5, -(10**300), "\ud800", "\0", {"b": (1, 2)}]}
    for metadata in (deep, large, odd):
        memory.remember("word", metadata=metadata)
    assert [memory.metadata for memory in memory.list()] == [
        deep,
        large,
        {"": [None, True, 0.5, -(10**300), "\ud800", "\0", {"b": [1, 2]}]},
    ]


@pytest.mark.parametrize("field", ["handle", "source", "session"])
@pytest.mark.parametrize("name", [5, True, ["x"], {}, b"x", "\ud800", "x" * 5000])
def test_names_that_are_refused(memory: Memory, field: str, name: Any) -> None:
    with pytest.raises(StoreError, match=field) as refused:
        memory.remember("word", **{field: name})
    assert not isinstance(refused.value, StorageFailed) and len(str(refused.value)) < 200
    assert memory.status().memories == 0


def older_file(path: Path, metadata: str) -> None:
    """A file with a harmless memory, and one whose metadata today's limits would refuse."""
    store = Store(path)
    for handle in ("m-harmless", "m-odd"):
        text = f"the word of {handle}"
        store.remember(text.encode(), text, [(0, len(text), None)], handle=handle)
    with store.write() as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE memories SET metadata = ? WHERE handle = 'm-odd'", (metadata,))
        connection.execute("PRAGMA ignore_check_constraints = OFF")
    store.close()


@pytest.mark.parametrize("depth", [fields.DEEPEST_METADATA, 900, 990])
def test_deep_metadata_of_an_older_file_harms_nobody(tmp_path: Path, depth: int) -> None:
    inner = "[" * depth + '"]"' + "]" * depth
    older_file(tmp_path / "m.db", f'{{"a": {inner}, "b": "[{{\\"", "c": {{"d": 1}}}}')
    with Memory.open(tmp_path / "m.db") as memory:
        hits = {hit.handle: hit for hit in memory.recall("word")}
        assert hits.keys() == {"m-harmless", "m-odd"}
        metadata = hits["m-odd"].metadata
        assert metadata["b"] == '[{"' and metadata["c"] == {"d": 1}
        assert "nested too deeply" in json.dumps(metadata["a"])
        fields.write_metadata(metadata)  # so it can be exported and imported
        assert [one.handle for one in memory.list({"b": '[{"'})] == ["m-odd"]
        exported = io.StringIO()
        assert memory.export(exported) == 2
        assert memory.verify().problems == []
        with Memory.open(tmp_path / "copy.db") as copy:
            assert copy.import_(exported.getvalue().splitlines()) == 2


@pytest.mark.parametrize("text", ["[]", "5", "{", '{"a": 1' + "0" * 5000 + "}", "\0", ""])
def test_damaged_metadata_harms_nobody(tmp_path: Path, text: str) -> None:
    older_file(tmp_path / "m.db", text)
    with Memory.open(tmp_path / "m.db") as memory:
        hits = {hit.handle: hit.metadata for hit in memory.recall("word")}
        assert hits.keys() == {"m-harmless", "m-odd"}
        assert "damaged" in hits["m-odd"]["unreadable"]
        assert memory.original("m-odd") == "the word of m-odd"
        assert any("memory m-odd: its metadata" in problem for problem in memory.verify().problems)


# -- imports -------------------------------------------------------------------------------------


def line(**changes: Any) -> str:
    """A line of an export, with changes; NaN and infinities are written as Python does."""
    text = "imported"
    sound = {
        "handle": "m-1",
        "source": None,
        "session": None,
        "created_at": 1.5,
        "metadata": {},
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "text": text,
    }
    return json.dumps({**sound, **changes})


@pytest.mark.parametrize(
    "wrong",
    [
        line(source={"a": 1}),
        line(source=5),
        line(session=["s"]),
        line(session=True),
        line(handle=None),
        line(handle=7),
        line(handle=""),
        line(handle="m" * 2_000_000),
        line(created_at=float("nan")),
        line(created_at=True),
        line(created_at="1.5"),
        line(created_at=None),
        line(created_at=10**400),
        line(created_at=-1e15),
        line().replace("1.5", "1e999"),
        line().replace("1.5", "9" * 5000),
        line(metadata=[]),
        line(metadata="x"),
        line(metadata={"a": float("inf")}),
        line(metadata={"a": nested(40)}),
        line(text=5),
        line(text=["imported"]),
        line(text="\ud800"),
        line(sha256=None),
        line(sha256=[1]),
        '{"handle": "m-1"}',
        "[1]",
        "5",
        "null",
        '"text"',
        "{",
        "\0",
        "\udcff",
        "[" * 100_000,
        line(metadata={"a": 0}).replace("0", "[" * 100_000 + "]" * 100_000, 1),
        json.dumps({"handle": "m-1", "created_at": 1, "base64": "?", "sha256": ""}),
        json.dumps({"handle": "m-1", "created_at": 1, "base64": 5, "sha256": ""}),
    ],
    ids=lambda wrong: ascii(wrong[:30]),
)
def test_a_wrong_line_is_named_and_the_import_can_go_on(memory: Memory, wrong: str) -> None:
    lines = [line(handle="m-first"), "", wrong, line(handle="m-last")]
    with pytest.raises(StoreError, match=r"^given\.jsonl, line 3: ") as refused:
        memory.import_(lines, "given.jsonl")
    assert not isinstance(refused.value, StorageFailed) and len(str(refused.value)) < 300
    assert [one.handle for one in memory.list()] == ["m-first"]
    assert memory.import_([lines[0], lines[3]], "given.jsonl") == 1
    assert [one.handle for one in memory.list()] == ["m-first", "m-last"]
    assert memory.verify().problems == []


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@settings(max_examples=sized(200, 5000), deadline=None)
@given(
    field=st.sampled_from(
        ["handle", "source", "session", "created_at", "metadata", "text", "base64", "sha256"]
    ),
    value=_json,
)
@example(field="created_at", value=253_402_300_799)
@example(field="created_at", value=0)
def test_any_json_in_any_field_is_kept_or_named(shared: Memory, field: str, value: Any) -> None:
    given = line(handle="m-fuzzed", **({} if field == "handle" else {field: value}))
    if field == "handle":
        given = line(handle=value)
    try:
        new = shared.import_([given], "given.jsonl")
    except StorageFailed:
        raise
    except StoreError as error:
        assert str(error).startswith("given.jsonl, line 1: ")
        assert shared.status().memories == 0
        return
    try:
        (kept,) = shared.list()
        assert new == 1 and json.dumps(kept.metadata, allow_nan=False)
        assert kept.source is None or isinstance(kept.source, str)
        assert kept.session is None or isinstance(kept.session, str)
        assert math.isfinite(kept.created_at)
        assert care.verify(shared.file).problems == []  # type: ignore[arg-type]
        exported = io.StringIO()
        shared.export(exported)
    finally:
        for one in list(shared.list()):
            shared.forget(one.handle)
    assert shared.import_([exported.getvalue()]) == 1  # what was exported can be imported
    for one in list(shared.list()):
        shared.forget(one.handle)


def test_originals_of_all_kinds_are_imported(memory: Memory) -> None:
    raw = b"\xff\0"
    digest = hashlib.sha256(raw).hexdigest()
    sound = json.loads(line(handle="m-raw", sha256=digest, base64=base64.b64encode(raw).decode()))
    del sound["text"]
    del sound["metadata"], sound["source"], sound["session"]  # as the first versions had them not
    assert memory.import_([json.dumps(sound)]) == 1
    assert memory.original("m-raw") == raw
