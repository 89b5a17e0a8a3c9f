"""Written .pth files are read back by our reader, and by torch where it is installed."""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.pth_writer import Tensor, tensor_of, write_pth
from clara_mlx.convert.tensors import TensorRef

DTYPES = {"bfloat16": mx.bfloat16, "float16": mx.float16, "float32": mx.float32}
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
TENSORS = st.tuples(SHAPES, st.sampled_from(sorted(DTYPES)), st.integers(0, 2**32))
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), max_size=8)
CONTENTS = st.dictionaries(NAMES, TENSORS | st.dictionaries(NAMES, TENSORS, max_size=3), max_size=4)


def arrays_of(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: arrays_of(value) for name, value in content.items()}
    shape, dtype, seed = content
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(DTYPES[dtype])


def same(read: Any, written: Any) -> None:
    if isinstance(written, dict):
        assert list(read) == list(written)
        for name in written:
            same(read[name], written[name])
    else:
        assert isinstance(read, TensorRef)
        assert DTYPES[read.dtype] == written.dtype and read.shape == written.shape
        assert mx.array_equal(read.read(), written)


@settings(max_examples=40, deadline=None)
@given(CONTENTS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("pth") / "file.pth"
    arrays = arrays_of(content)
    write_pth(path, arrays)
    same(read_pth(path), arrays)


def test_a_transposed_view_is_written_as_it_reads(tmp_path: Path) -> None:
    array = mx.arange(6, dtype=mx.float32).reshape(2, 3).T
    write_pth(tmp_path / "file.pth", {"t": array})
    same(read_pth(tmp_path / "file.pth"), {"t": array})


def test_bytes_come_when_they_are_due(tmp_path: Path) -> None:
    """Large tensors are written block by block, in order, one after the other."""
    order: list[str] = []

    def blocks(name: str, *values: int) -> Any:
        for value in values:
            order.append(name)
            yield np.full(3, value, np.float32).tobytes()

    tensors = {
        "a": Tensor((2, 3), "float32", lambda: blocks("a", 1, 2)),
        "b": Tensor((3,), "float32", lambda: blocks("b", 3)),
    }
    write_pth(tmp_path / "file.pth", tensors)
    assert order == ["a", "a", "b"]
    read = read_pth(tmp_path / "file.pth")
    assert read["a"].read().tolist() == [[1, 1, 1], [2, 2, 2]]
    assert read["b"].read().tolist() == [3, 3, 3]


def test_another_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="int32"):
        tensor_of(mx.zeros(2, dtype=mx.int32))


def test_the_file_is_plain_and_names_tensors_only(tmp_path: Path) -> None:
    path = tmp_path / "adapters.pth"
    write_pth(path, {"encoder_adapter": {"x": mx.zeros((2, 3), dtype=mx.bfloat16)}})
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
        description = archive.read("adapters/data.pkl")
    assert names == [f"adapters/{n}" for n in ("data.pkl", "byteorder", "data/0", "version")]
    used = {argument for opcode, argument, _ in pickletools.genops(description)
            if opcode.name == "GLOBAL"}  # fmt: skip
    assert used == {
        "torch BFloat16Storage", "torch._utils _rebuild_tensor_v2", "collections OrderedDict"
    }  # fmt: skip


def test_torch_reads_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    arrays = {
        "adapter": {name: mx.random.normal((3, 4)).astype(dtype) for name, dtype in DTYPES.items()},
        "row": mx.arange(5, dtype=mx.float32),
    }
    write_pth(tmp_path / "file.pth", arrays)
    for options in ({}, {"mmap": True}):
        loaded = torch.load(tmp_path / "file.pth", weights_only=True, **options)
        assert torch.equal(loaded["row"], torch.arange(5.0))
        for name, array in arrays["adapter"].items():
            tensor = loaded["adapter"][name]
            assert tensor.dtype == getattr(torch, name) and tensor.is_contiguous()
            wanted = np.array(array.astype(mx.float32))
            assert np.array_equal(tensor.float().numpy(), wanted)
