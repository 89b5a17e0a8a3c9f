"""Reading ``torch.save`` files without torch and without unpickling.

Such a file is a zip archive: ``data.pkl`` describes nested dicts of tensors, ``data/<key>`` holds
one storage each, uncompressed. The description is interpreted here opcode by opcode. No opcode can
call anything: a global is only a name, one of the few in `_KNOWN`, and `_reduce` knows its meaning.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from clara_mlx.convert.downloads import check_download
from clara_mlx.convert.tensors import FOREIGN_SIZES, ITEM_SIZES, TensorRef, refuse_dtype
from clara_mlx.errors import CheckpointError
from clara_mlx.model.regular import check_regular

#: Bytes. Real descriptions have about 300 per tensor, and a zip file's directory has fewer; the
#: limit keeps hostile files from taking memory.
MAX_DESCRIPTION = 4 << 20

#: The dtype of a storage's elements, by the global that names the storage.
STORAGES = {
    "torch BFloat16Storage": "bfloat16",
    "torch HalfStorage": "float16",
    "torch FloatStorage": "float32",
}
#: Those of dtypes that are seen and named, but not read.
FOREIGN_STORAGES = {
    "torch DoubleStorage": "float64",
    "torch LongStorage": "int64",
    "torch IntStorage": "int32",
    "torch ShortStorage": "int16",
    "torch CharStorage": "int8",
    "torch ByteStorage": "uint8",
    "torch BoolStorage": "bool",
    "torch ComplexFloatStorage": "complex64",
    "torch ComplexDoubleStorage": "complex128",
}
_DTYPES = STORAGES | FOREIGN_STORAGES
_KNOWN = {
    *_DTYPES,
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "collections OrderedDict",
}

# How torch stores dtypes that came after its typed storages.
_V3 = {"torch._utils _rebuild_tensor_v3", "torch.storage UntypedStorage"}

# numpy has no bfloat16: its bits travel as uint16.
_NUMPY = {"bfloat16": np.uint16, "float16": np.float16, "float32": np.float32}


def read_pth(path: Path) -> dict[str, Any]:
    """Read the nested dicts of a ``torch.save`` file, with a TensorRef for each tensor.

    Parameters become plain tensors. A storage is mapped when one of its tensors is read, not
    before; strides and shared storages are honoured, and each storage's CRC is checked.

    Raises:
        CheckpointError: The file is of another kind or damaged, or it names a global that no
            tensor needs.
    """
    check_download(path)
    with _errors_naming(path):
        archive = _Archive(path)
        content = _interpret(archive)
        if not isinstance(content, dict):
            raise CheckpointError("it holds no dict of tensors")
    return content


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    """Raise every error that a file's bytes cause as a CheckpointError that names the file."""
    try:
        yield
    except (CheckpointError, OSError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, OverflowError) as error:  # a number too large for any file or array
        raise CheckpointError(f"{path}: damaged: {error}") from error


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str
    elements: int


class _Capped(io.FileIO):
    """A file that never reads much at once; zipfile would read a directory of any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        limit = MAX_DESCRIPTION
        return super().read(limit if size is None or size < 0 else min(size, limit))


class _Archive:
    """The zip file, whose entries are checked to be uncompressed before they are mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checked: set[str] = set()
        check_regular(path)
        try:
            with _Capped(path) as raw, zipfile.ZipFile(raw) as file:
                self._entries = {info.filename: info for info in file.infolist()}
        except OSError:
            raise
        except Exception as error:  # zipfile answers odd bytes with many kinds of exception
            raise CheckpointError(
                "not a zip file of torch.save (damaged, or in the format before torch 1.6; "
                f"download it again or re-save it): {error}"
            ) from error
        names = [name for name in self._entries if name.isprintable()]
        descriptions = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
        if len(descriptions) != 1:
            raise CheckpointError(f"not a file of torch.save: {len(descriptions)} data.pkl inside")
        self._prefix = descriptions[0].removesuffix("data.pkl")
        order = f"{self._prefix}byteorder"
        if order in self._entries and self._bytes(order, 16) != b"little":
            raise CheckpointError("saved on a big-endian machine, which is not supported")
        self.description = self._bytes(descriptions[0], MAX_DESCRIPTION)  # pickled

    def tensor(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> TensorRef:
        """A tensor as a view of a storage, checked to lie inside it."""
        elements = 1
        last = offset
        for size, step in zip(shape, stride, strict=True):
            elements *= size
            last += (size - 1) * step
        # With more elements than its storage, a tensor is expanded, and takes any amount of memory.
        if elements > storage.elements or (elements and last >= storage.elements):
            raise CheckpointError(f"a tensor of shape {shape} lies outside its storage")
        entry = f"{self._prefix}data/{storage.key}"
        nbytes = storage.elements * (ITEM_SIZES | FOREIGN_SIZES)[storage.dtype]
        if self._entry(entry).file_size != nbytes:
            raise CheckpointError(f"{entry} does not have the {nbytes} bytes it should")

        def read() -> mx.array:
            with _errors_naming(self.path):
                if storage.dtype in FOREIGN_SIZES:
                    raise refuse_dtype("a tensor", storage.dtype)
                flat = self._map(entry).view(_NUMPY[storage.dtype])
                steps = tuple(step * flat.itemsize for step in stride)
                view = np.lib.stride_tricks.as_strided(flat[offset:], shape, steps, writeable=False)
                array = mx.array(np.ascontiguousarray(view).reshape(shape))
            return array.view(mx.bfloat16) if storage.dtype == "bfloat16" else array

        return TensorRef(shape, storage.dtype, self.path, read)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(name)
        if entry is None:
            raise CheckpointError(f"{name} is missing inside")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise CheckpointError(f"{name} is compressed inside, which torch.save never does")
        return entry

    def _map(self, name: str) -> np.ndarray[Any, Any]:
        """Map an entry's bytes into memory; the CRC is checked the first time."""
        entry = self._entry(name)
        if entry.file_size == 0:
            return np.empty(0, np.uint8)
        with self.path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(30)  # the local header has name and extra lengths of its own
        if len(header) != 30 or header[:4] != b"PK\x03\x04":
            raise CheckpointError(f"{name} has no header inside")
        name_length, extra_length = struct.unpack("<HH", header[26:30])
        start = entry.header_offset + 30 + name_length + extra_length
        if start + entry.file_size > self.path.stat().st_size:
            raise CheckpointError(f"{name} ends after the file")
        data = np.memmap(self.path, np.uint8, "r", start, (entry.file_size,))
        if name not in self._checked and zlib.crc32(data.data) != entry.CRC:
            raise CheckpointError(f"{name} is damaged (its checksum differs); download it again")
        self._checked.add(name)
        return data

    def _bytes(self, name: str, limit: int) -> bytes:
        entry = self._entry(name)
        if entry.file_size > limit:
            raise CheckpointError(f"{name} has {entry.file_size} bytes, more than {limit}")
        return self._map(name).tobytes()


def _interpret(archive: _Archive) -> Any:
    """Interpret a file's description on a stack of plain values, and give the value it describes.

    Only the opcodes that torch.save writes are known. Dict keys are strings, so nothing that a
    file nests is ever hashed or compared.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def set_items(pairs: list[Any]) -> None:
        target = stack[-1]
        if not isinstance(target, dict) or len(pairs) % 2:
            raise CheckpointError("damaged description: items without a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, str) or not key.isprintable():  # keys get into messages
                raise CheckpointError("a dict key is not plain text")
            target[key] = value

    constants: dict[str, Callable[[], Any]] = {
        "EMPTY_DICT": dict,
        "EMPTY_LIST": list,
        "EMPTY_TUPLE": tuple,
        "NONE": lambda: None,
        "NEWTRUE": lambda: True,
        "NEWFALSE": lambda: False,
    }
    argument: Any
    try:
        for opcode, argument, _ in pickletools.genops(archive.description):
            match opcode.name:
                case "PROTO" | "FRAME":
                    pass
                case name if name in constants:
                    stack.append(constants[name]())
                case "BININT" | "BININT1" | "BININT2" | "LONG1":
                    stack.append(argument)
                case "BINUNICODE" | "SHORT_BINUNICODE":
                    stack.append(argument)
                case "GLOBAL":
                    stack.append(_check_global(argument))
                case "STACK_GLOBAL":
                    attribute = stack.pop()
                    module = stack.pop()
                    if not isinstance(module, str) or not isinstance(attribute, str):
                        raise CheckpointError("damaged description: a global without a name")
                    stack.append(_check_global(f"{module} {attribute}"))
                case "BINPERSID":
                    stack.append(_parse_storage(stack.pop()))
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(pop_mark()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                    count = int(name[-1])
                    if len(stack) < count:
                        raise CheckpointError("damaged description: a tuple lacks items")
                    stack[-count:] = [tuple(stack[-count:])]
                case "BINPUT" | "LONG_BINPUT":
                    memo[argument] = stack[-1]
                case "MEMOIZE":
                    memo[len(memo)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[argument])
                case "SETITEM":
                    pair = stack[-2:]
                    del stack[-2:]
                    set_items(pair)
                case "SETITEMS":
                    set_items(pop_mark())
                case "REDUCE":
                    arguments = stack.pop()
                    function = stack.pop()
                    stack.append(_reduce(function, arguments, archive))
                case "BUILD":  # a state dict's _metadata, which holds versions only
                    stack.pop()
                    if not isinstance(stack[-1], dict):
                        raise CheckpointError("damaged description: a state without a dict")
                case "STOP":
                    return stack.pop()
                case name:
                    raise CheckpointError(
                        f"refused: pickle opcode {name} is not used for tensors; save a dict of "
                        "tensors alone, without lists, numbers or objects beside them"
                    )
    except (ValueError, IndexError, KeyError, struct.error, OverflowError) as error:
        raise CheckpointError(f"damaged description ({type(error).__name__})") from error
    raise CheckpointError("damaged description: it does not end")


def _check_global(name: str) -> _Global:
    """Refuse a global that is not one of the few that describe tensors."""
    if name in _V3:
        raise CheckpointError(
            "it holds tensors of a dtype that is not read (float8, or unsigned with 16 or more "
            "bits); save them as bfloat16, float16 or float32"
        )
    if name not in _KNOWN:
        raise CheckpointError(
            f"refused: it names the global {name.replace(' ', '.')[:200]!r}, which a file of "
            "tensors does not need; nothing of it was run"
        )
    return _Global(name)


def _parse_storage(value: Any) -> _Storage:
    """The storage that a persistent id of torch.save names."""
    match value:
        case ("storage", _Global(name), str(key), str(), int(elements)) if name in _DTYPES:
            if elements >= 0 and key.isalnum():
                return _Storage(key, _DTYPES[name], elements)
    raise CheckpointError("damaged description: not a storage of a tensor")


def _reduce(function: Any, arguments: Any, archive: _Archive) -> Any:
    """The value that a call of a known global stands for."""
    match function, arguments:
        case _Global("collections OrderedDict"), ():
            return {}
        case _Global("torch._utils _rebuild_parameter"), (TensorRef() as tensor, *_):
            return tensor
        case (
            _Global("torch._utils _rebuild_tensor_v2"),
            (_Storage() as storage, int(offset), tuple(shape), tuple(stride), *rest),
        ):
            if len(rest) > 2 and rest[2]:  # after requires_grad and hooks
                raise CheckpointError(
                    "a tensor has metadata (the negative or conjugate bit), so its values are not "
                    "those stored; save `tensor.resolve_neg().resolve_conj()` instead"
                )
            numbers = (offset, *shape, *stride)
            if len(shape) == len(stride) <= 8 and all(type(n) is int and n >= 0 for n in numbers):
                return archive.tensor(storage, offset, shape, stride)
    raise CheckpointError("damaged description: not a call that rebuilds a tensor")
