"""TensorRef: a tensor in a file, whose values are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from clara_mlx.convert.downloads import check_download
from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import load_arrays
from clara_mlx.model.regular import open_regular

#: Bytes per element by dtype; a checkpoint's tensors have one of these.
ITEM_SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}

#: Bytes per element of dtypes that are seen, and named, but not read.
FOREIGN_SIZES = {
    **dict.fromkeys(("float64", "int64", "uint64", "complex64"), 8),
    **dict.fromkeys(("int32", "uint32"), 4),
    **dict.fromkeys(("int16", "uint16"), 2),
    **dict.fromkeys(("int8", "uint8", "bool"), 1),
    **dict.fromkeys(("float8_e4m3", "float8_e5m2", "float8_e8m0"), 1),
    "complex128": 16,
}

#: Bytes. Real headers have about 120 per tensor; the limit keeps hostile files from taking memory.
MAX_HEADER = 4 << 20

_SAFETENSORS_DTYPES = {
    **{"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "C64": "complex64"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8"},
    **{"F8_E4M3": "float8_e4m3", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0"},
}


@dataclass(frozen=True)
class TensorRef:
    """Shape and dtype of a tensor in ``file``; ``read`` gives its values."""

    shape: tuple[int, ...]
    dtype: str  # a key of ITEM_SIZES, or of FOREIGN_SIZES if `read` only refuses
    file: Path
    read: Callable[[], mx.array] = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.size * (ITEM_SIZES | FOREIGN_SIZES)[self.dtype]

    @property
    def is_foreign(self) -> bool:
        """Whether it has a dtype that is not read."""
        return self.dtype in FOREIGN_SIZES


def refuse_dtype(name: str, dtype: str) -> CheckpointError:
    """The error for a tensor of a dtype that is not read."""
    remedy = "save it as bfloat16, float16 or float32"
    if dtype.startswith(("float8", "int8", "uint8")):
        remedy = "quantised weights are not read; use the original ones"
    return CheckpointError(f"{name} has dtype {dtype}; {remedy}")


def read_safetensors(path: Path) -> dict[str, TensorRef]:
    """Find the tensors of a safetensors file.

    Raises:
        CheckpointError: The file is damaged, or not what its name says.
    """
    check_download(path)
    refs = {}
    try:
        if path.suffix != ".safetensors":  # mlx would read it in another format
            raise ValueError("its name does not end with .safetensors")
        with open_regular(path) as raw:
            header = int.from_bytes(raw.read(8), "little")
        if header > MAX_HEADER:
            raise ValueError(f"its header would have {header} bytes")
        # The library checks that the header fits the file; then mlx reads single tensors.
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                view = file.get_slice(name)
                dtype = _SAFETENSORS_DTYPES.get(view.get_dtype())
                if dtype is None:
                    raise CheckpointError(f"{path}: {name} has dtype {view.get_dtype()}")
                shape = tuple(view.get_shape())
                if not name.isprintable():  # names get into messages
                    raise ValueError("a tensor's name is not plain text")
                if len(shape) > 8 or max(shape, default=0) >= 2**31:  # mlx has 32 bits for a size
                    raise ValueError(f"{name} has an impossible shape")
                refs[name] = TensorRef(shape, dtype, path, partial(_read_tensor, path, name, dtype))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: not a usable safetensors file: {error}") from error
    return refs


def _read_tensor(path: Path, name: str, dtype: str) -> mx.array:
    if dtype in FOREIGN_SIZES:
        raise refuse_dtype(f"{path}: {name}", dtype)
    try:
        # Loaded again each time: mlx's dict of lazy arrays would keep all it has read.
        array = load_arrays(path)[name]
        mx.eval(array)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {name}: {error}") from error
    return array
