"""Writing ``torch.save`` files without torch; `clara_mlx.convert.pth` and torch read them.

A zip archive of uncompressed entries: ``data.pkl`` describes nested dicts of tensors in pickle
protocol 2, and ``data/<key>`` holds the bytes of each tensor.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from clara_mlx.convert.pth import STORAGES

_GLOBALS = {dtype: name for name, dtype in STORAGES.items()}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED = "collections OrderedDict"

_Bytes = bytes | memoryview


@dataclass(frozen=True)
class Tensor:
    """A tensor to be written; ``blocks`` gives its bytes, little-endian and row by row."""

    shape: tuple[int, ...]
    dtype: str  # bfloat16, float16 or float32
    blocks: Callable[[], Iterable[_Bytes]]


def tensor_of(array: mx.array) -> Tensor:
    """An array as a tensor to be written; its dtype must be one of the three float dtypes."""
    dtype = str(array.dtype).removeprefix("mlx.core.")
    if dtype not in _GLOBALS:
        raise ValueError(f"a checkpoint has no tensors of dtype {dtype}")

    def blocks() -> Iterable[_Bytes]:
        bits = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array  # numpy has no bf16
        yield np.ascontiguousarray(np.array(bits)).tobytes()

    return Tensor(array.shape, dtype, blocks)


def write_pth(path: Path, content: Mapping[str, Any]) -> None:
    """Write nested dicts of `Tensor` and arrays as ``torch.save`` does, each with its own storage.

    The bytes of one tensor are in memory at a time.

    Raises:
        OSError: The file can't be written.
    """
    tensors: list[Tensor] = []
    description = b"\x80\x02" + _encode(content, tensors) + b"."
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{path.stem}/data.pkl", description)
        archive.writestr(f"{path.stem}/byteorder", b"little")
        for key, tensor in enumerate(tensors):
            with archive.open(f"{path.stem}/data/{key}", "w", force_zip64=True) as entry:
                entry.writelines(tensor.blocks())
        archive.writestr(f"{path.stem}/version", b"3\n")


def _encode(value: Any, tensors: list[Tensor]) -> bytes:
    """The opcodes that build a value; its tensors are appended to ``tensors``."""
    if isinstance(value, Mapping):
        items = b"".join(_text(key) + _encode(item, tensors) for key, item in value.items())
        return b"}(" + items + b"u"
    tensor = value if isinstance(value, Tensor) else tensor_of(value)
    tensors.append(tensor)
    elements = prod(tensor.shape)
    storage = _tuple(
        _text("storage"),
        _global(_GLOBALS[tensor.dtype]),
        _text(str(len(tensors) - 1)),
        _text("cpu"),
        _number(elements),
    )
    strides = [prod(tensor.shape[i + 1 :]) for i in range(len(tensor.shape))]
    return _call(
        _REBUILD,
        storage + b"Q",
        _number(0),
        _tuple(*map(_number, tensor.shape)),
        _tuple(*map(_number, strides)),
        b"\x89",  # no gradient
        _call(_ORDERED),
    )


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def _global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _tuple(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def _call(function: str, *arguments: bytes) -> bytes:
    return _global(function) + _tuple(*arguments) + b"R"
