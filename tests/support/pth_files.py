"""Writes torch.save files by hand, for the tests of their reader."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.errors import CheckpointError

# -- a torch.save file by hand -------------------------------------------------------------------

REBUILD, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"

#: Values of the only storage, unless a test gives others; they are exact in all three dtypes.
VALUES = np.arange(24, dtype=np.float32) / 4 - 3


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def global_named(name: str) -> bytes:
    """The opcode for the global ``module name``."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def pack(*values: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(values) + b"t"


def call(function: str, *arguments: bytes) -> bytes:
    return global_named(function) + pack(*arguments) + b"R"


def mapping(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def storage(elements: int = 24, key: str = "0", kind: str = "torch FloatStorage") -> bytes:
    return (
        pack(text("storage"), global_named(kind), text(key), text("cpu"), number(elements)) + b"Q"
    )


def tensor(
    shape: tuple[int, ...] = (4, 6),
    stride: tuple[int, ...] = (6, 1),
    offset: int = 0,
    within: bytes | None = None,
) -> bytes:
    sizes, steps = (pack(*map(number, numbers)) for numbers in (shape, stride))
    return call(REBUILD, within or storage(), number(offset), sizes, steps, b"\x89", call(ORDERED))


def save(
    path: Path,
    description: bytes,
    storages: dict[str, bytes] | None = None,
    others: dict[str, bytes] | None = None,
) -> Path:
    """Write the file; the description's first and last opcodes are added here."""
    entries = {"data.pkl": b"\x80\x02" + description + b"."}
    storages = {"0": VALUES.tobytes()} if storages is None else storages
    entries |= {f"data/{key}": values for key, values in storages.items()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (entries | (others or {})).items():
            file.writestr(f"model/{name}", content)
    return path


# -- reading, and seeing it refused --------------------------------------------------------------


def read_all(path: Path) -> dict[str, Any]:
    """Read all values of a file, nested as they are."""

    def values(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: values(value) for key, value in content.items()}
        return as_numpy(content.read()) if isinstance(content, TensorRef) else content

    return values(read_pth(path))


def as_numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))


def assert_refused(path: Path, reason: str) -> None:
    """Reading the file and everything in it fails with its name and this reason (a regex)."""
    with pytest.raises(CheckpointError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(reason, message), message


# What a file can lie about, as offsets in its central directory.
FIELDS = {"method": (10, "<H"), "crc": (16, "<I"), "sizes": (20, "<II"), "size": (24, "<I")}
FIELDS["place"] = (42, "<I")

#: Calls that would leave a trace if a reader made them.
LIVE = {
    "os system": "touch {}",
    "posix system": "touch {}",
    "subprocess getoutput": "touch {}",
    "builtins eval": "open('{}', 'w')",
    "builtins exec": "open('{}', 'w')",
    "os mkdir": "{}",
}
