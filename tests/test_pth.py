"""Files of torch.save, read without torch: golden ones, handmade ones, and those to be refused.

The handmade ones are put together opcode by opcode, so that a test can say what no pickler writes.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import re
import struct
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conftest import CHECKPOINTS, VARIANTS

from clara_mlx.convert.pth import MAX_DESCRIPTION, read_pth
from clara_mlx.convert.source import read_adapters
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.errors import CheckpointError

# -- a torch.save file by hand -------------------------------------------------------------------

REBUILD, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED = "collections OrderedDict"

#: What the only storage holds unless a test says otherwise; exact in all three dtypes.
VALUES = np.arange(24, dtype=np.float32) / 4 - 3


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(name: str) -> bytes:
    """The global ``module name``."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def pack(*values: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(values) + b"t"


def call(function: str, *arguments: bytes) -> bytes:
    return named(function) + pack(*arguments) + b"R"


def mapping(**values: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in values.items()) + b"u"


def storage(elements: int = 24, key: str = "0", kind: str = "torch FloatStorage") -> bytes:
    return pack(text("storage"), named(kind), text(key), text("cpu"), number(elements)) + b"Q"


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
    """Write the file; the description gets its first and last opcode here."""
    entries = {"data.pkl": b"\x80\x02" + description + b"."}
    storages = {"0": VALUES.tobytes()} if storages is None else storages
    entries |= {f"data/{key}": values for key, values in storages.items()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (entries | (others or {})).items():
            file.writestr(f"model/{name}", content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapters.pth"


# -- reading, and seeing it refused --------------------------------------------------------------


def read_all(path: Path) -> dict[str, Any]:
    """All values of a file, nested as they are."""

    def values(content: Any) -> Any:
        if isinstance(content, dict):
            return {key: values(value) for key, value in content.items()}
        return as_numpy(content.read()) if isinstance(content, TensorRef) else content

    return values(read_pth(path))


def as_numpy(array: mx.array) -> np.ndarray:
    return np.array(array.astype(mx.float32))


def refused(path: Path, reason: str) -> None:
    """Reading the file, and all in it, fails with the file's name and this reason (a regex)."""
    with pytest.raises(CheckpointError) as caught:
        read_all(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert re.search(reason, message), message


# -- golden files --------------------------------------------------------------------------------

FILES = ("adapters.pth", "decoder_first_last_layers.pth")


class TrustedReader(pickle.Unpickler):
    """The second opinion: Python's unpickler, for golden files, with every tensor as its bits."""

    def __init__(self, path: Path) -> None:
        self.zip = zipfile.ZipFile(path)
        super().__init__(self.zip.open(f"{path.stem}/data.pkl"))
        self.stem = path.stem

    def persistent_load(self, pid: Any) -> np.ndarray:
        return np.frombuffer(self.zip.read(f"{self.stem}/data/{pid[2]}"), np.uint16)

    def find_class(self, module: str, name: str) -> Any:
        return {
            "BFloat16Storage": None,
            "OrderedDict": OrderedDict,
            "_rebuild_parameter": lambda tensor, *_: tensor,
            "_rebuild_tensor_v2": lambda bits, offset, shape, stride, *_: (
                np.lib.stride_tricks.as_strided(bits[offset:], shape, [2 * n for n in stride])
            ),
        }[name]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_golden(golden: Path, variant: str, checkpoint: str, file: str) -> None:
    described = json.loads((golden / "checkpoint_files.json").read_text())
    described = described[variant][checkpoint]["files"][file]
    content = read_pth(golden / variant / checkpoint / file)
    bits = TrustedReader(golden / variant / checkpoint / file).load()
    if file == "adapters.pth":
        adapters = described["adapters"]
        shapes = {name: adapter["keys"] for name, adapter in adapters.items()}
        assert {d for adapter in adapters.values() for d in adapter["dtypes"]} == {"torch.bfloat16"}
    else:
        shapes = {"": {key: shape for key, (shape, _) in described["keys"].items()}}
        assert {d for _, d in described["keys"].values()} == {"torch.bfloat16"}
        content, bits = {"": content}, {"": bits}
    found = {n: {k: list(ref.shape) for k, ref in refs.items()} for n, refs in content.items()}
    assert found == shapes
    for name, refs in content.items():
        for key, ref in refs.items():
            assert ref.dtype == "bfloat16"
            array = ref.read()
            assert array.dtype == mx.bfloat16 and array.shape == ref.shape
            assert np.array_equal(np.array(array.view(mx.uint16)), bits[name][key])


@pytest.mark.parametrize("variant", VARIANTS)
def test_golden_tables_of_one_variant_are_equal(golden: Path, variant: str) -> None:
    """Parameters, the plain tensors of c4/e2e, and the copies that adapters carry."""
    tables = [
        read_pth(golden / variant / checkpoint / FILES[1])["model.embed_tokens.weight"]
        for checkpoint in CHECKPOINTS
    ]
    for checkpoint in CHECKPOINTS:
        for adapter in read_pth(golden / variant / checkpoint / FILES[0]).values():
            tables += [ref for key, ref in adapter.items() if key == "model.embed_tokens.weight"]
    assert len(tables) > 3
    for table in tables[1:]:
        assert mx.array_equal(table.read(), tables[0].read())


# -- handmade files ------------------------------------------------------------------------------

KINDS = {
    "torch FloatStorage": ("float32", VALUES),
    "torch HalfStorage": ("float16", VALUES.astype(np.float16)),
    "torch BFloat16Storage": ("bfloat16", (VALUES.view(np.uint32) >> 16).astype(np.uint16)),
}

LAYOUTS = {
    "plain": ((4, 6), (6, 1), 0),
    "offset": ((2, 3), (3, 1), 7),
    "transposed": ((6, 4), (1, 6), 0),
    "every second": ((2, 3), (12, 2), 1),
    "expanded, within its storage": ((3, 4), (0, 1), 20),
    "one row, stride unused": ((1, 3), (99, 1), 21),
    "one element": ((1,), (1,), 23),
    "scalar": ((), (), 5),
    "empty": ((0, 8), (8, 1), 0),
    "empty at the end": ((3, 0), (1, 1), 24),
    "eight dimensions": ((1, 2, 1, 3, 1, 2, 1, 2), (24, 12, 12, 4, 4, 2, 2, 1), 0),
}


@pytest.mark.parametrize(("shape", "stride", "offset"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_values(
    path: Path, kind: str, shape: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    dtype, stored = KINDS[kind]
    value = tensor(shape, stride, offset, storage(kind=kind))
    plain = call(PARAMETER, value, b"\x88", call(ORDERED))
    content = read_pth(save(path, mapping(a=value, b=plain), {"0": stored.tobytes()}))
    wanted = [
        VALUES[offset + sum(i * n for i, n in zip(index, stride, strict=True))]
        for index in np.ndindex(shape)
    ]
    for ref in content.values():
        array = ref.read()
        assert (ref.shape, ref.dtype, array.dtype) == (shape, dtype, getattr(mx, dtype))
        assert np.array_equal(as_numpy(array), np.reshape(np.float32(wanted), shape))


def test_bits_are_kept(path: Path) -> None:
    """Also those of NaNs, infinities and subnormals."""
    bits = np.arange(2**16, dtype=np.uint16)
    within = storage(2**16, kind="torch BFloat16Storage")
    content = read_pth(save(path, mapping(a=tensor((2**16,), (1,), 0, within)), {"0": bits}))
    assert np.array_equal(np.array(content["a"].read().view(mx.uint16)), bits)


def test_an_empty_storage(path: Path) -> None:
    empty = tensor((0, 8), (8, 1), 0, storage(0))
    assert read_all(save(path, mapping(a=empty), {"0": b""}))["a"].shape == (0, 8)


@pytest.mark.parametrize("shift", range(4))
def test_a_storage_at_any_place_in_the_file(path: Path, shift: int) -> None:
    save(path, mapping(a=tensor()))
    path.write_bytes(bytes(shift) + path.read_bytes())
    assert np.array_equal(read_all(path)["a"].ravel(), VALUES)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> dict[str, type]:
    """Stand-ins under torch's names, which is all that a pickler writes of them."""
    found = {}
    for module in ("torch", "torch._utils"):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    for name in (*KINDS, REBUILD, PARAMETER):
        module, member = name.split()
        found[name] = type(member, (), {"__module__": module})
        setattr(sys.modules[module], member, found[name])
    return found


class Stored:
    """A storage, to a Saver."""

    def __init__(self, kind: type, key: str, elements: int) -> None:
        self.id = ("storage", kind, key, "cpu", elements)


class Reduced:
    """What pickles as a call."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


class Saver(pickle.Pickler):
    """Writes as torch.save does."""

    def persistent_id(self, obj: object) -> Any:
        return obj.id if isinstance(obj, Stored) else None


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_picklers_write(path: Path, torch: dict[str, type], protocol: int) -> None:
    """A state dict with its _metadata, two tensors in one storage, and a storage of its own."""

    def rebuilt(storage: Stored, *layout: Any) -> Reduced:
        return Reduced(torch[REBUILD], (storage, *layout, False, OrderedDict()))

    shared = Stored(torch["torch FloatStorage"], "0", 24)
    own = Stored(torch["torch HalfStorage"], "1", 24)
    state: Any = OrderedDict(
        a=rebuilt(shared, 0, (4, 6), (6, 1)),
        b=Reduced(torch[PARAMETER], (rebuilt(shared, 6, (6, 2), (1, 6)), True, OrderedDict())),
        c=rebuilt(own, 0, (24,), (1,)),
    )
    state._metadata = OrderedDict({"": {"version": 1}, "layer": {"version": None}})
    with zipfile.ZipFile(path, "w") as file:
        with file.open("model/data.pkl", "w") as description:
            Saver(description, protocol).dump({"encoder_adapter": state, "other": {}})
        file.writestr("model/byteorder", "little")
        file.writestr("model/data/0", VALUES.tobytes())
        file.writestr("model/data/1", VALUES.astype(np.float16).tobytes())
    content = read_all(path)
    assert list(content) == ["encoder_adapter", "other"] and content["other"] == {}
    tensors = content["encoder_adapter"]
    assert list(tensors) == ["a", "b", "c"]
    assert np.array_equal(tensors["a"], VALUES.reshape(4, 6))
    assert np.array_equal(tensors["b"], VALUES.reshape(4, 6)[1:3].T)
    assert np.array_equal(tensors["c"], VALUES)


# -- nothing is run ------------------------------------------------------------------------------

LIVE = {
    "os system": "touch {}",
    "posix system": "touch {}",
    "subprocess getoutput": "touch {}",
    "builtins eval": "open('{}', 'w')",
    "builtins exec": "open('{}', 'w')",
    "os mkdir": "{}",
}


@pytest.mark.parametrize("stacked", [False, True], ids=["GLOBAL", "STACK_GLOBAL"])
@pytest.mark.parametrize("name", LIVE)
def test_no_code_is_run(path: Path, tmp_path: Path, name: str, stacked: bool) -> None:
    canary = tmp_path / "canary"
    function = b"".join(map(text, name.split())) + b"\x93" if stacked else named(name)
    payload = function + pack(text(LIVE[name].format(canary))) + b"R"
    pickle.loads(b"\x80\x04" + payload + b".")
    assert canary.exists()  # so the payload is a live one
    canary.rmdir() if canary.is_dir() else canary.unlink()
    for description in (payload, mapping(a=payload), mapping(a=tensor(within=payload))):
        refused(save(path, description), rf"{name.replace(' ', '.')}.*nothing of it was run")
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch load",
        "torch LongStorage",
        "torch.storage _load_from_bytes",
        "torch._utils _rebuild_sparse_tensor",
        "torch._utils _rebuild_tensor_v2.__globals__",
        "collections deque",
        "numpy._core.multiarray _reconstruct",
        "clara_mlx.convert.pth read_pth",
        "os system\x1b[31m",
    ],
)
def test_only_a_tensors_globals(path: Path, name: str) -> None:
    shown = repr(name.replace(" ", "."))
    refused(save(path, mapping(a=named(name))), re.escape(shown))


# -- opcodes -------------------------------------------------------------------------------------

_EIGHT = b"\1" + bytes(7)
_DICT = named(ORDERED)
OPCODES = {
    "INST": b"(ios\nsystem\n",
    "OBJ": b"(" + _DICT + b"o",
    "NEWOBJ": _DICT + b")\x81",
    "NEWOBJ_EX": _DICT + b")}\x92",
    "EXT1": b"\x82\1",
    "EXT2": b"\x83\1\0",
    "EXT4": b"\x84\1\0\0\0",
    "PERSID": b"Pa\n",
    "DUP": b"2",
    "POP": b"0",
    "POP_MARK": b"(1",
    "PUT": b"p0\n",
    "GET": b"g0\n",
    "APPEND": b"]Na",
    "APPENDS": b"](Ne",
    "LIST": b"(l",
    "DICT": b"(d",
    "EMPTY_SET": b"\x8f",
    "ADDITEMS": b"(N\x90",
    "FROZENSET": b"(\x91",
    "INT": b"I1\n",
    "LONG": b"L1L\n",
    "LONG4": b"\x8b\1\0\0\0\1",
    "FLOAT": b"F1.5\n",
    "BINFLOAT": b"G" + bytes(8),
    "STRING": b"S'a'\n",
    "BINSTRING": b"T\1\0\0\0a",
    "SHORT_BINSTRING": b"U\1a",
    "UNICODE": b"Va\n",
    "BINUNICODE8": b"\x8d" + _EIGHT + b"a",
    "BINBYTES": b"B\1\0\0\0a",
    "SHORT_BINBYTES": b"C\1a",
    "BINBYTES8": b"\x8e" + _EIGHT + b"a",
    "BYTEARRAY8": b"\x96" + _EIGHT + b"a",
    "NEXT_BUFFER": b"\x97",
    "READONLY_BUFFER": b"\x98",
}

KNOWN_OPCODES = """
    PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE EMPTY_DICT EMPTY_LIST EMPTY_TUPLE
    TUPLE TUPLE1 TUPLE2 TUPLE3 BININT BININT1 BININT2 LONG1 BINUNICODE SHORT_BINUNICODE
    GLOBAL STACK_GLOBAL BINPERSID REDUCE BUILD SETITEM SETITEMS
    BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET
"""


@pytest.mark.parametrize("name", OPCODES)
def test_other_opcodes_are_refused(path: Path, name: str) -> None:
    refused(save(path, b"}" + OPCODES[name]), f"refused: pickle opcode {name} ")


def test_every_opcode_is_either_known_or_refused() -> None:
    names = {opcode.name for opcode in pickletools.opcodes}
    assert names == {*KNOWN_OPCODES.split(), *OPCODES}


DAMAGED = {
    "nothing": b"",
    "no such opcode": b"}\xff",
    "argument cut off": b"}X\x05\0\0\0ab",
    "a text of 4 GB": b"}X\xff\xff\xff\xffab",
    "a text of 2**64": b"}\x8d" + b"\xff" * 8,
    "negative length": b"}\x8b\xff\xff\xff\xff",
    "a number of 10,000 digits": b"}I" + b"1" * 10_000 + b"\n",
    "not UTF-8": b"}X\1\0\0\0\xff",
    "not a number": b"}Iabc\n",
    "memo never set": b"}h\5",
    "nothing to memorise": b"q\0",
    "no mark": b"}t",
    "mark after what it should mark": b"}}(Rt",
    "tuple of too few": b"N\x87",
    "items without a dict": b"N(" + text("a") + b"Nu",
    "odd items": b"}(" + text("a") + b"u",
    "one item": text("a") + b"s",
    "state without a dict": b"N}b",
    "state alone": b"}b",
    "call of a dict": b"})R",
    "call of a storage": call("torch FloatStorage", number(8)),
    "call of a dict with items": call(ORDERED, pack(text("a"))),
    "call with a dict": named(REBUILD) + b"}R",
    "call with too little": call(REBUILD, storage()),
    "parameter of a number": call(PARAMETER, number(1)),
    "storage that is a number": number(1) + b"Q",
    "storage of a foreign kind": storage(kind=ORDERED),
    "storage that is named by text": pack(*map(text, ("storage", "a", "0", "cpu"))) + b"Q",
    "global without a name": b"NN\x93",
    "keys that are numbers": b"}" + number(1) + b"Ns",
    "keys that are tuples": b"})Ns",
    "keys that move the cursor": mapping(**{"\x1b[2J": b"N"}),
    "keys that are no Unicode": mapping(**{"\ud800": b"N"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_descriptions(path: Path, name: str) -> None:
    refused(
        save(path, DAMAGED[name]), "damaged description|a dict key|refused: pickle opcode LONG4"
    )


@pytest.mark.parametrize("description", [b"N", b"]", b")", text("a"), tensor()])
def test_no_dict_of_tensors(path: Path, description: bytes) -> None:
    refused(save(path, description), "holds no dict of tensors")


# -- depth, loops and sizes ----------------------------------------------------------------------

DEEP = 100_000


NESTED = {
    "tuples": b"N" + b"\x85" * DEEP,
    "marked tuples": b"(" * DEEP + b"t" * DEEP,
    "dicts": (b"}" + text("a")) * DEEP + b"}" + b"s" * DEEP,
}


@pytest.mark.parametrize("name", NESTED)
def test_depth(path: Path, name: str) -> None:
    """Nothing walks down into what a file nests, not even the deletion."""
    save(path, mapping(encoder_adapter=NESTED[name]))
    assert list(read_pth(path)) == ["encoder_adapter"]
    with pytest.raises(CheckpointError, match=r"not tensors|not a dict of tensors"):
        read_adapters(path.parent)
    refused(save(path, tensor((4, 6), (6, 1), 0, NESTED[name])), "damaged description")


def test_depth_of_other_kinds(path: Path) -> None:
    refused(save(path, b"]" * DEEP + b"a" * DEEP), "opcode APPEND ")
    refused(save(path, b"(" * DEEP + b"t"), "holds no dict of tensors")


@pytest.mark.parametrize("where", [b"h\0", b"h\0\x85", mapping(a=b"h\0")])
def test_a_dict_inside_itself(path: Path, where: bytes) -> None:
    save(path, b"}q\0" + text("a") + where + b"s")
    assert list(read_pth(path)) == ["a"]
    with pytest.raises(CheckpointError, match=r"not tensors|not a dict of tensors"):
        read_adapters(path.parent)


def test_a_huge_memo_index_costs_nothing(path: Path) -> None:
    assert read_pth(save(path, b"}r\xff\xff\xff\xffj\xff\xff\xff\xff")) == {}


OUTSIDE = {
    "too many rows": tensor((5, 6)),
    "offset": tensor(offset=1),
    "offset beyond": tensor((), (), 24),
    "stride": tensor((2, 6), (19, 1)),
    "expanded": tensor((1 << 40,), (0,)),
    "expanded a little": tensor((5, 6), (0, 1)),
    "huge": tensor((1 << 600, 1 << 600), (1, 1)),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_the_storage(path: Path, name: str) -> None:
    refused(save(path, mapping(a=OUTSIDE[name])), "lies outside its storage")


NO_LAYOUT = {
    "negative size": tensor((-4, -6)),
    "negative stride": tensor(stride=(-6, 1)),
    "negative offset": tensor(offset=-1),
    "more sizes than strides": tensor(stride=(1,)),
    "nine dimensions": tensor((1,) * 9, (1,) * 9),
    "a truth as a size": call(REBUILD, storage(), number(0), pack(b"\x88"), pack(number(1))),
    "a text as an offset": call(REBUILD, storage(), text("0"), pack(), pack()),
    "negative elements": tensor(within=storage(-24)),
    "a path as a key": tensor(within=storage(key="../0")),
    "an absolute key": tensor(within=storage(key="/etc/passwd")),
    "an empty key": tensor(within=storage(key="")),
}


@pytest.mark.parametrize("name", NO_LAYOUT)
def test_not_a_layout(path: Path, name: str) -> None:
    refused(save(path, mapping(a=NO_LAYOUT[name])), "damaged description: not a ")


@pytest.mark.parametrize("elements", [0, 23, 25, 1 << 40, 1 << 600])
def test_a_storage_has_the_size_it_should(path: Path, elements: int) -> None:
    value = tensor((), (), 0, storage(elements)) if elements else tensor((0,), (1,), 0, storage(0))
    refused(save(path, mapping(a=value)), r"model/data/0 does not have the \d+ bytes")


def test_a_storage_is_there(path: Path) -> None:
    refused(save(path, mapping(a=tensor()), {}), "model/data/0 is missing")


@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((0, 1 << 31), (1, 1)),
        ((0, 1 << 70), (1, 1)),
        ((0, *[(1 << 31) - 1] * 3), (1,) * 4),
        ((1,), (1 << 62,)),
        ((1,), (1 << 70,)),
    ],
)
def test_numbers_that_no_array_can_have(
    path: Path, shape: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    """They fit the storage, for the tensor is empty, or its stride is never used."""
    refused(save(path, mapping(a=tensor(shape, stride))), "damaged: ")


# -- the zip file --------------------------------------------------------------------------------


def test_compressed_entries_are_never_inflated(path: Path) -> None:
    for name, size in ("data.pkl", 1 << 26), ("data/0", 96):
        entries = {"data.pkl": b"\x80\x02" + mapping(a=tensor()) + b".", name: bytes(size)}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for entry, content in entries.items():
                how = zipfile.ZIP_DEFLATED if entry == name else zipfile.ZIP_STORED
                file.writestr(f"model/{entry}", content, how)
        refused(path, f"model/{name} is compressed inside")


@pytest.mark.parametrize("entry", ["data.pkl", "data/0"])
def test_a_flipped_bit(path: Path, entry: str) -> None:
    save(path, mapping(a=tensor()))
    raw = bytearray(path.read_bytes())
    content = VALUES.tobytes() if entry == "data/0" else text("storage")
    raw[raw.index(content) + 9] ^= 1
    path.write_bytes(raw)
    if entry == "data/0":
        assert read_pth(path)["a"].shape == (4, 6)  # storages are not read before they are used
    refused(path, f"model/{entry} is damaged .its checksum differs.; download it again")


def test_a_description_of_any_size_is_not_read(path: Path) -> None:
    refused(save(path, b"}" + b"N" * MAX_DESCRIPTION), f"bytes, more than {MAX_DESCRIPTION}")


@pytest.mark.parametrize("order", ["big", "", "little" * 10])
def test_byte_order(path: Path, order: str) -> None:
    assert read_all(save(path, mapping(a=tensor()), None, {"byteorder": b"little"}))
    save(path, mapping(a=tensor()), None, {"byteorder": order.encode()})
    refused(path, "big-endian|more than 16")


#: Of an entry's record in the directory: field -> (offset, format).
FIELDS = {"method": (10, "<H"), "crc": (16, "<I"), "sizes": (20, "<II"), "size": (24, "<I")}
FIELDS["place"] = (42, "<I")

LIES = [
    ("data/0", "method", (8,), "is compressed"),
    ("data/0", "method", (99,), "is compressed"),
    ("data/0", "size", (97,), "is compressed"),
    ("data/0", "sizes", (95, 95), "does not have the 96 bytes"),
    ("data/0", "sizes", (1 << 31, 1 << 31), "does not have the 96 bytes"),
    ("data/0", "crc", (1,), "checksum"),
    ("data/0", "place", (1,), "has no header"),
    ("data/0", "place", (0xFFFFFFF0,), "has no header"),
    ("data.pkl", "sizes", (4000, 4000), "ends after the file"),
    ("data.pkl", "sizes", (1 << 31, 1 << 31), "more than"),
    ("data.pkl", "sizes", (0, 0), "damaged description"),
    ("data.pkl", "place", (0xFFFFFFF0,), "has no header"),
]


def lie(path: Path, entry: str, field: str, values: tuple[int, ...]) -> None:
    raw = bytearray(path.read_bytes())
    offset, form = FIELDS[field]
    struct.pack_into(form, raw, raw.rindex(f"model/{entry}".encode()) - 46 + offset, *values)
    path.write_bytes(raw)


@pytest.mark.parametrize(("entry", "field", "values", "reason"), LIES)
def test_a_directory_that_lies(
    path: Path, entry: str, field: str, values: tuple[int, ...], reason: str
) -> None:
    lie(save(path, mapping(a=tensor())), entry, field, values)
    refused(path, reason)


@pytest.mark.parametrize("entry", ["data.pkl", "data/0"])
def test_a_place_beyond_any_file(path: Path, entry: str) -> None:
    entries = {"data.pkl": b"\x80\x02" + mapping(a=tensor()) + b".", "data/0": VALUES.tobytes()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(f"model/{name}")
            if name == entry:
                info.extra = struct.pack("<HHQ", 1, 8, 1 << 63)  # zip64: the place in 8 bytes
            file.writestr(info, content)
    lie(path, entry, "place", (0xFFFFFFFF,))
    refused(path, "damaged: ")


@pytest.mark.parametrize("cut", [1, 31, 60])
def test_the_beginning_is_missing(path: Path, cut: int) -> None:
    save(path, mapping(a=tensor()))
    path.write_bytes(path.read_bytes()[cut:])
    refused(path, "Invalid argument|negative")


def test_a_directory_of_any_size_is_not_read(path: Path) -> None:
    size = 3 << 30
    path.touch()
    os.truncate(path, size)  # sparse
    with path.open("ab") as file:
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0))
    tracemalloc.start()
    try:
        refused(path, "not a zip file of torch.save")
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_DESCRIPTION
    finally:
        tracemalloc.stop()


def test_names_are_not_paths(path: Path, tmp_path: Path) -> None:
    """Entries outside the file's own folder are not looked at, and nothing is ever extracted."""
    save(path, mapping(a=tensor()), None, {"../../up": b"x", "../" * 9 + "tmp/x": b"x"})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("/absolute", "x")
    assert np.array_equal(read_all(path)["a"].ravel(), VALUES)
    assert list(tmp_path.parent.rglob("up")) == [] and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "entries", [[], ["data.pkl"], ["a/b/data.pkl"], ["a/data.pkl", "b/data.pkl"], ["\x1b/data.pkl"]]
)
def test_not_one_description(path: Path, entries: list[str]) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in entries:
            file.writestr(name, b"\x80\x02}.")
    refused(path, r"not a file of torch.save: \d data.pkl inside")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",  # before torch 1.6
        b"\x80\x02}.",
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_not_a_zip_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    refused(path, "not a zip file of torch.save.*download it again or re-save it")


def test_not_a_file(tmp_path: Path) -> None:
    refused(tmp_path, "directory")
    refused(tmp_path / "missing.pth", "No such file")


@pytest.mark.parametrize("missing", [1, 21, 22, 23, 100, 200, 400])
def test_cut_off(path: Path, missing: int) -> None:
    path.write_bytes(save(path, mapping(a=tensor())).read_bytes()[:-missing])
    refused(path, "not a zip file of torch.save")


def test_a_file_that_changes_after_it_was_opened(path: Path) -> None:
    ref = read_pth(save(path, mapping(a=tensor())))["a"]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=r"adapters.pth: model/data/0 "):
        ref.read()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"adapters.pth: .*No such file"):
        ref.read()
