"""Files of torch.save whose zip file is refused: entries, directory, places and sizes that lie."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pth_files import (
    FIELDS,
    VALUES,
    assert_refused,
    mapping,
    read_all,
    save,
    tensor,
    text,
)

from clara_mlx.convert.pth import MAX_DESCRIPTION, read_pth
from clara_mlx.errors import CheckpointError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapters.pth"


def test_compressed_entries_are_never_inflated(path: Path) -> None:
    for name, size in ("data.pkl", 1 << 26), ("data/0", 96):
        entries = {"data.pkl": b"\x80\x02" + mapping(a=tensor()) + b".", name: bytes(size)}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for entry, content in entries.items():
                how = zipfile.ZIP_DEFLATED if entry == name else zipfile.ZIP_STORED
                file.writestr(f"model/{entry}", content, how)
        assert_refused(path, f"model/{name} is compressed inside")


@pytest.mark.parametrize("entry", ["data.pkl", "data/0"])
def test_a_flipped_bit(path: Path, entry: str) -> None:
    save(path, mapping(a=tensor()))
    raw = bytearray(path.read_bytes())
    content = VALUES.tobytes() if entry == "data/0" else text("storage")
    raw[raw.index(content) + 9] ^= 1
    path.write_bytes(raw)
    if entry == "data/0":
        assert read_pth(path)["a"].shape == (4, 6)  # storages are not read before they are used
    assert_refused(path, f"model/{entry} is damaged .its checksum differs.; download it again")


def test_a_description_of_any_size_is_not_read(path: Path) -> None:
    assert_refused(save(path, b"}" + b"N" * MAX_DESCRIPTION), f"bytes, more than {MAX_DESCRIPTION}")


@pytest.mark.parametrize("order", ["big", "", "little" * 10])
def test_byte_order(path: Path, order: str) -> None:
    assert read_all(save(path, mapping(a=tensor()), None, {"byteorder": b"little"}))
    save(path, mapping(a=tensor()), None, {"byteorder": order.encode()})
    assert_refused(path, "big-endian|more than 16")


#: Of an entry's record in the directory: field -> (offset, format).
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
    assert_refused(path, reason)


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
    assert_refused(path, "damaged: ")


@pytest.mark.parametrize("cut", [1, 31, 60])
def test_the_beginning_is_missing(path: Path, cut: int) -> None:
    save(path, mapping(a=tensor()))
    path.write_bytes(path.read_bytes()[cut:])
    assert_refused(path, "Invalid argument|negative")


def test_a_directory_of_any_size_is_not_read(path: Path) -> None:
    size = 3 << 30
    path.touch()
    os.truncate(path, size)  # sparse
    with path.open("ab") as file:
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, size, 0, 0))
    tracemalloc.start()
    try:
        assert_refused(path, "not a zip file of torch.save")
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
    assert_refused(path, r"not a file of torch.save: \d data.pkl inside")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.",  # before torch 1.6
        b"\x80\x02}.",
    ],
)
def test_not_a_zip_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert_refused(path, "not a zip file of torch.save.*download it again or re-save it")


def test_not_a_file(tmp_path: Path) -> None:
    assert_refused(tmp_path, "directory")
    assert_refused(tmp_path / "missing.pth", "No such file")


@pytest.mark.parametrize("missing", [1, 21, 22, 23, 100, 200, 400])
def test_cut_off(path: Path, missing: int) -> None:
    path.write_bytes(save(path, mapping(a=tensor())).read_bytes()[:-missing])
    assert_refused(path, "not a zip file of torch.save")


def test_a_file_that_changes_after_it_was_opened(path: Path) -> None:
    ref = read_pth(save(path, mapping(a=tensor())))["a"]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(CheckpointError, match=r"adapters.pth: model/data/0 "):
        ref.read()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"adapters.pth: .*No such file"):
        ref.read()
