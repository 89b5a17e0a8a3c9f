"""TensorRef: a tensor in a file, whose values are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from clara_mlx.errors import CheckpointError
from clara_mlx.model.folder import load_arrays
from clara_mlx.model.regular import open_regular

#: Bytes per element by dtype; a checkpoint's tensors have one of these.
ITEM_SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}

#: Bytes. Real headers have about 120 per tensor; the limit keeps hostile files from taking memory.
MAX_HEADER = 4 << 20

_SAFETENSORS_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True)
class TensorRef:
    """Shape and dtype of a tensor in ``file``; ``read`` gives its values."""

    shape: tuple[int, ...]
    dtype: str  # a key of ITEM_SIZES
    file: Path
    read: Callable[[], mx.array] = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.size * ITEM_SIZES[self.dtype]


def read_safetensors(path: Path) -> dict[str, TensorRef]:
    """Find the tensors of a safetensors file.

    Raises:
        CheckpointError: The file is damaged, or a tensor's dtype is not a float one.
    """
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
                refs[name] = TensorRef(shape, dtype, path, partial(_read_tensor, path, name))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: not a usable safetensors file: {error}") from error
    return refs


def _read_tensor(path: Path, name: str) -> mx.array:
    try:
        # Loaded again each time: mlx's dict of lazy arrays would keep all it has read.
        array = load_arrays(path)[name]
        mx.eval(array)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {name}: {error}") from error
    return array
