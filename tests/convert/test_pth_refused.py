"""torch.save files that are refused: nothing is run, nothing is believed, memory stays small."""

from __future__ import annotations

import pickle
import pickletools
import re
from pathlib import Path

import pytest
from pth_files import (
    LIVE,
    ORDERED,
    PARAMETER,
    REBUILD,
    assert_refused,
    call,
    global_named,
    mapping,
    number,
    pack,
    save,
    storage,
    tensor,
    text,
)

from clara_mlx.convert.files import read_adapters
from clara_mlx.convert.pth import read_pth
from clara_mlx.errors import CheckpointError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapters.pth"


# -- nothing is run ------------------------------------------------------------------------------


@pytest.mark.parametrize("stacked", [False, True], ids=["GLOBAL", "STACK_GLOBAL"])
@pytest.mark.parametrize("name", LIVE)
def test_no_code_is_run(path: Path, tmp_path: Path, name: str, stacked: bool) -> None:
    canary = tmp_path / "canary"
    function = b"".join(map(text, name.split())) + b"\x93" if stacked else global_named(name)
    payload = function + pack(text(LIVE[name].format(canary))) + b"R"
    pickle.loads(b"\x80\x04" + payload + b".")
    assert canary.exists()  # so the payload is a live one
    canary.rmdir() if canary.is_dir() else canary.unlink()
    for description in (payload, mapping(a=payload), mapping(a=tensor(within=payload))):
        assert_refused(save(path, description), rf"{name.replace(' ', '.')}.*nothing of it was run")
    assert not canary.exists()


@pytest.mark.parametrize(
    "name",
    [
        "torch load",
        "torch QUInt8Storage",
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
    assert_refused(save(path, mapping(a=global_named(name))), re.escape(shown))


# -- opcodes -------------------------------------------------------------------------------------

_EIGHT = b"\1" + bytes(7)
_DICT = global_named(ORDERED)
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
    assert_refused(save(path, b"}" + OPCODES[name]), f"refused: pickle opcode {name} ")


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
    "call with a dict": global_named(REBUILD) + b"}R",
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
    assert_refused(
        save(path, DAMAGED[name]), "damaged description|a dict key|refused: pickle opcode LONG4"
    )


@pytest.mark.parametrize("description", [b"N", b"]", b")", text("a"), tensor()])
def test_no_dict_of_tensors(path: Path, description: bytes) -> None:
    assert_refused(save(path, description), "holds no dict of tensors")


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
    assert_refused(save(path, tensor((4, 6), (6, 1), 0, NESTED[name])), "damaged description")


def test_depth_of_other_kinds(path: Path) -> None:
    assert_refused(save(path, b"]" * DEEP + b"a" * DEEP), "opcode APPEND ")
    assert_refused(save(path, b"(" * DEEP + b"t"), "holds no dict of tensors")


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
    assert_refused(save(path, mapping(a=OUTSIDE[name])), "lies outside its storage")


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
    assert_refused(save(path, mapping(a=NO_LAYOUT[name])), "damaged description: not a ")


@pytest.mark.parametrize("elements", [0, 23, 25, 1 << 40, 1 << 600])
def test_a_storage_has_the_size_it_should(path: Path, elements: int) -> None:
    value = tensor((), (), 0, storage(elements)) if elements else tensor((0,), (1,), 0, storage(0))
    assert_refused(save(path, mapping(a=value)), r"model/data/0 does not have the \d+ bytes")


def test_a_storage_is_there(path: Path) -> None:
    assert_refused(save(path, mapping(a=tensor()), {}), "model/data/0 is missing")


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
    assert_refused(save(path, mapping(a=tensor(shape, stride))), "damaged: ")
