"""Reading torch.save files: golden ones, handmade layouts, and what picklers write."""

from __future__ import annotations

import json
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from golden_files import CHECKPOINTS, VARIANTS
from pth_files import (
    ORDERED,
    PARAMETER,
    REBUILD,
    VALUES,
    as_numpy,
    call,
    mapping,
    read_all,
    save,
    storage,
    tensor,
)

from clara_mlx.convert.pth import read_pth


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapters.pth"


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
    """An object that is pickled as a call."""

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
