"""Reading safetensors files that anyone may have written."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from clara_mlx.convert.tensors import MAX_HEADER, read_safetensors
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import load_arrays

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
VALUES = np.arange(6, dtype=np.float32)


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2, 3), end: int = 24) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [0, end]}


def save(path: Path, header: dict[str, Any] | bytes, data: bytes = VALUES.tobytes()) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def assert_refused(path: Path, reason: str) -> None:
    """Reading the file and all in it fails with the file's name and this reason (a regex)."""
    with pytest.raises(CheckpointError, match=reason) as caught:
        for ref in read_safetensors(path).values():
            ref.read()
    assert str(caught.value).startswith(f"{path}: ")


# -- good files ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", SHARDS)
def test_golden(golden: Path, shard: str) -> None:
    path = golden / "tiny-base" / shard
    refs, arrays = read_safetensors(path), mx.load(str(path))
    assert isinstance(arrays, dict) and refs.keys() == arrays.keys()
    for name, ref in refs.items():
        assert (ref.file, ref.dtype) == (path, "bfloat16")
        array = ref.read()
        assert (array.shape, array.dtype) == (ref.shape, mx.bfloat16)
        assert mx.array_equal(array, arrays[name])
        assert (ref.size, ref.nbytes) == (array.size, array.nbytes)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 6, 1), (), (0, 3)])
def test_dtypes_and_shapes(path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = mx.arange(math.prod(shape)).reshape(shape).astype(getattr(mx, dtype))
    mx.save_safetensors(str(path), {"a": values, "b": values + 1})
    refs = read_safetensors(path)
    assert {ref.dtype for ref in refs.values()} == {dtype}
    assert mx.array_equal(refs["a"].read(), values)
    assert mx.array_equal(refs["b"].read(), values + 1)


def test_handmade(path: Path) -> None:
    """So that the refusals below are about what they say."""
    save(path, {"a": entry(), "__metadata__": {"format": "pt"}})
    assert np.array_equal(np.array(read_safetensors(path)["a"].read()).ravel(), VALUES)


# -- files to refuse -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shown", "end"),
    [
        ("I64", "int64; save it as", 48),
        ("I8", "int8; quantised", 6),
        ("BOOL", "bool; save it as", 6),
        ("F64", "float64; save it as", 48),
        ("F8_E4M3", "float8_e4m3; quantised", 6),
    ],
)
def test_only_floats(path: Path, dtype: str, shown: str, end: int) -> None:
    assert_refused(save(path, {"a": entry(dtype, end=end)}, bytes(end)), f"a has dtype {shown}")


HEADERS = {
    "not an object": b"[]",
    "not JSON": b"{'a'}",
    "not UTF-8": b'{"\xff": 1}',
    "nothing": b"",
    "deep": b'{"a":' * 100_000,
    "deep inside": b'{"a":{"dtype":"F32","shape":' + b"[" * 100_000,
    "entry of text": {"a": "F32"},
    "no dtype": {"a": {"shape": [2, 3], "data_offsets": [0, 24]}},
    "unknown dtype": {"a": entry("F33")},
    "negative size": {"a": entry(shape=(-2, -3))},
    "fractional size": b'{"a":{"dtype":"F32","shape":[2.0,3],"data_offsets":[0,24]}}',
    "size of 2**64": {"a": entry(shape=(2**64,))},
    "sizes that overflow": {"a": entry(shape=(2**32, 2**32))},
    "shape too large for its data": {"a": entry(shape=(2, 4))},
    "offsets backwards": {"a": {**entry(), "data_offsets": [24, 0]}},
    "offsets beyond the file": {"a": entry(shape=(3, 3), end=36)},
    "offsets overlapping": {"a": entry(), "b": {**entry(shape=(3,)), "data_offsets": [12, 24]}},
    "a gap": {"a": entry(shape=(2,), end=8), "b": {**entry(), "data_offsets": [12, 24]}},
    "data left over": {"a": entry(shape=(5,), end=20)},
    "shape given twice": b'{"a":{"dtype":"F32","shape":[6],"shape":[9],"data_offsets":[0,24]}}',
    "size that mlx would cut to 32 bits": {"a": entry(shape=(0, 2**32 + 5), end=0)},
    "size that mlx would make negative": {"a": entry(shape=(0, 2**31), end=0)},
    "nine dimensions": {"a": entry(shape=(1,) * 8 + (6,))},
    "a name that moves the cursor": {"\x1b[2J": entry()},
}


@pytest.mark.parametrize("name", HEADERS)
def test_bad_headers(path: Path, name: str) -> None:
    assert_refused(save(path, HEADERS[name]), "not a usable safetensors file")


@pytest.mark.parametrize("length", [0, 1, 57, 1000, MAX_HEADER + 1, 100_000_000, 2**63, 2**64 - 1])
def test_bad_header_lengths(path: Path, length: int) -> None:
    raw = save(path, {"a": entry()}).read_bytes()
    path.write_bytes(struct.pack("<Q", length) + raw[8:])
    assert_refused(path, "not a usable safetensors file")


def test_a_header_of_any_size_is_not_read(path: Path) -> None:
    """The library would take 100 MB, which make gigabytes of Python objects."""
    assert_refused(
        save(path, b"{}" + b" " * MAX_HEADER), f"header would have {MAX_HEADER + 2} bytes"
    )


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 60, -25, -24, -1])
def test_cut_off(path: Path, size: int) -> None:
    path.write_bytes(save(path, {"a": entry()}).read_bytes()[:size])
    assert_refused(path, "not a usable safetensors file")


def test_one_name_twice(path: Path) -> None:
    """The library checks one of the two; it must be the one that mlx reads."""
    good, huge = (json.dumps(entry(shape=shape)).encode() for shape in [(2, 3), (1 << 40,)])
    assert_refused(save(path, b'{"a":%s,"a":%s}' % (good, huge)), "not a usable safetensors file")
    save(path, b'{"a":%s,"a":%s}' % (huge, good))
    assert read_safetensors(path)["a"].read().shape == (2, 3)


@pytest.mark.parametrize("name", ["model.gguf", "model.npz", "model.npy", "model.bin", "model"])
def test_only_by_the_name_of_its_format(tmp_path: Path, name: str) -> None:
    """mlx goes by the name: it would hand the same bytes to another reader."""
    assert_refused(save(tmp_path / name, {"a": entry()}), "does not end with .safetensors")


def test_a_path_that_is_no_utf_8(tmp_path: Path) -> None:
    """As every path with an accent is, in a locale that is not UTF-8."""
    path = tmp_path / os.fsdecode(b"\xff.safetensors")
    try:
        mx.save_safetensors(str(tmp_path / "a.safetensors"), {"a": mx.zeros(1)})
        (tmp_path / "a.safetensors").rename(path)
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(CheckpointError, match="set PYTHONUTF8=1, or rename") as error:
        load_arrays(path)
    str(error.value).encode()


def test_not_a_file(tmp_path: Path, path: Path) -> None:
    assert_refused(path, "No such file")
    path.mkdir()
    assert_refused(path, "directory")


def test_a_file_that_changes_after_it_was_opened(path: Path) -> None:
    ref = read_safetensors(save(path, {"a": entry()}))["a"]
    for change in (
        lambda: path.write_bytes(path.read_bytes()[:-4]),
        lambda: save(path, {"b": entry()}),
        lambda: path.write_bytes(b""),
        path.unlink,
    ):
        change()
        with pytest.raises(CheckpointError, match=r"model.safetensors"):
            ref.read()
