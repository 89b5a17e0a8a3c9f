"""Mutations of checkpoint files, for fuzz_worker: bytes, torch.save files, JSON, safetensors."""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
import zipfile
import zlib
from pathlib import Path
from random import Random
from typing import Any

from pth_files import FIELDS, LIVE, call, global_named, mapping, number, save, storage, tensor, text

# -- mutations of bytes --------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def damage(rng: Random, raw: bytes) -> bytes:
    """Flip, overwrite, cut, delete, insert or copy bytes, once or a few times."""
    out = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not out:
            break
        at = _place(rng, len(out))
        span = rng.randrange(1, 48)
        match rng.randrange(10):
            case 0 | 1 | 2:
                out[at] ^= 1 << rng.randrange(8)
            case 3:
                out[at] = rng.randrange(256)
            case 4 | 5:
                form = rng.choice("BHIQ")
                limit = 1 << 8 * struct.calcsize(form)
                value = struct.pack(f"<{form}", rng.choice(NUMBERS) % limit)
                out[at : at + len(value)] = value
            case 6:
                del out[at:]
            case 7:
                del out[at : at + span]
            case 8:
                out[at:at] = rng.randbytes(span)
            case _:
                out[at:at] = out[(start := _place(rng, len(out))) : start + span]
    return bytes(out)


def _place(rng: Random, size: int) -> int:
    """A position anywhere, or near the beginning or the end, where headers and directories are."""
    near = min(size, 400)
    return rng.choice((rng.randrange(size), rng.randrange(near), size - 1 - rng.randrange(near)))


# -- mutations of torch.save files ---------------------------------------------------------------

FOREIGN = (*LIVE, "subprocess Popen", "builtins getattr", "torch load", "torch LongStorage")
TRICKS = ("../../up", "/absolute", "a/../../up", "C:\\up", "..", "", "a\0b", "data/0", "\ud800")


def mutate_description(rng: Random, raw: bytes) -> bytes:
    """Replace an opcode, a name, a number or a text of a description, or damage it as bytes."""
    if rng.random() < 0.3:
        return damage(rng, raw)
    if rng.random() < 0.2:
        return b"\x80\2" + mapping(a=random_tensor(rng)) + b"."
    for _ in range(rng.choice((1, 1, 2, 5))):
        try:
            places = [(op, place) for op, _, place in pickletools.genops(raw)]
        except ValueError:  # what an earlier round left can't be taken apart
            break
        ends = [place for _, place in places[1:]] + [len(raw)]
        which = rng.randrange(len(places))
        wanted = rng.choice((None, "GLOBAL", "BININT", "UNICODE"))
        if wanted:
            which = rng.choice([i for i, (op, _) in enumerate(places) if wanted in op.name] or [0])
        start, end = places[which][1], ends[which]
        match wanted:
            case "GLOBAL":
                new = global_named(rng.choice(FOREIGN))
            case "BININT":
                new = number(rng.choice((*NUMBERS, -1, 2**600, rng.randrange(100))))
            case "UNICODE":
                new = text(rng.choice((*TRICKS, "x" * 300)))
            case _:
                new = _opcodes(rng, raw, start, end)
        raw = raw[:start] + new + raw[end:]
    return raw


def random_tensor(rng: Random) -> bytes:
    """A tensor whose layout consists of small and odd numbers, in a storage of 24 elements."""

    def numbers(count: int) -> tuple[int, ...]:
        odd = rng.random() < 0.3
        return tuple(rng.choice(NUMBERS) if odd else rng.randrange(-1, 7) for _ in range(count))

    dimensions = rng.randrange(4)
    return tensor(numbers(dimensions), numbers(dimensions), *numbers(1))


def _opcodes(rng: Random, raw: bytes, start: int, end: int) -> bytes:
    """Replace one opcode: by another, by none, by two of it, or after a piece of the others."""
    other = rng.choice(pickletools.opcodes).code.encode("latin-1")
    somewhere = _place(rng, len(raw))
    return rng.choice(
        (
            other + raw[start + 1 : end],
            other + rng.randbytes(rng.randrange(9)) + raw[start:end],
            b"",
            raw[start:end] * 2,
            raw[somewhere : somewhere + 40] + raw[start:end],
        )
    )


def _bomb() -> bytes:
    """A deflate stream of BOMB_SIZE zeros, a thousand times smaller than they are."""
    deflate = zlib.compressobj(wbits=-15)
    megabyte = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    return megabyte * (BOMB_SIZE >> 20) + b"\3\0"


BOMB_SIZE = 3 << 29  # bytes
BOMB = _bomb()


class Pth:
    """A torch.save file in its entries, which are mutated and packed again with right checksums."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as file:
            self.entries = [(info.filename, file.read(info)) for info in file.infolist()]
        self.raw = path.read_bytes()

    def bytes(self, rng: Random) -> bytes:
        return damage(rng, self.raw)

    def description(self, rng: Random) -> bytes:
        return _zip(
            (name, mutate_description(rng, content) if name.endswith("data.pkl") else content)
            for name, content in self.entries
        )

    def zip(self, rng: Random) -> bytes:
        """Compress, rename, double, swap or drop an entry, and make the directory lie."""
        entries = [*self.entries]
        at = rng.randrange(len(entries))
        name, content = entries[at]
        method = zipfile.ZIP_STORED
        match rng.randrange(8):
            case 0:
                method = zipfile.ZIP_DEFLATED
            case 1:
                entries[at] = (name, BOMB)
            case 2:
                entries[at] = (rng.choice(TRICKS).replace("\ud800", "é") or "x", content)
            case 3:
                entries.append((name, damage(rng, content)))
            case 4:
                entries[at] = (name, rng.choice(entries)[1])
            case 5:
                del entries[at]
            case 6:
                entries.insert(0, (rng.choice(TRICKS[:4]), b"x"))
        raw = bytearray(_zip(entries, at, method))
        if BOMB in raw:
            record = raw.rindex(name.encode()) - 46
            struct.pack_into("<H", raw, record + FIELDS["method"][0], zipfile.ZIP_DEFLATED)
            struct.pack_into("<I", raw, record + FIELDS["size"][0], BOMB_SIZE)
        if rng.random() < 0.6:
            self._lie(rng, raw)
        return rng.randbytes(rng.randrange(5)) + bytes(raw) if rng.random() < 0.1 else bytes(raw)

    def _lie(self, rng: Random, raw: bytearray) -> None:
        records = [match.start() for match in re.finditer(b"PK\1\2|PK\5\6", raw)]
        offset, form = rng.choice((*FIELDS.values(), (6, "<H"), (28, "<H"), (30, "<H"), (12, "<I")))
        limit = 1 << 8 * struct.calcsize(form[:2])
        for _ in range(rng.choice((1, 1, 3))):
            record = rng.choice(records)
            if record + offset + struct.calcsize(form) <= len(raw):
                near = struct.unpack_from(form[:2], raw, record + offset)[0] + rng.randrange(
                    -40, 40
                )
                value = rng.choice((near, rng.choice(NUMBERS))) % limit
                struct.pack_into(form, raw, record + offset, *[value] * (len(form) - 1))


def _zip(entries: Any, at: int = -1, method: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for i, (name, content) in enumerate(entries):
            file.writestr(zipfile.ZipInfo(name), content, method if i == at else None)
    return out.getvalue()


def small_pth(path: Path) -> Path:
    """Write a file with all dtypes, a shared storage, a Parameter, a state, and nested dicts."""
    half = storage(24, "1", "torch HalfStorage")
    brain = storage(24, "2", "torch BFloat16Storage")
    ordered = call("collections OrderedDict")
    state = ordered + b"(" + text("a") + tensor() + b"u" + mapping(_metadata=ordered) + b"b"
    value = tensor((6, 4), (1, 6), 0, half)
    parameter = call("torch._utils _rebuild_parameter", value, b"\x88", ordered)
    tables = mapping(b=tensor((2, 3), (12, 2), 1, half), c=tensor((), (), 3, brain))
    storages = {"0": bytes(96), "1": bytes(48), "2": bytes(48)}
    content = mapping(encoder_adapter=state, decoder_adapter=parameter, tables=tables)
    return save(path, content, storages, {"byteorder": b"little", "version": b"3\n"})


# -- mutations of JSON and safetensors -----------------------------------------------------------

JSON_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        "../x",
        "\x1b[2J",
        [],
        {},
        [[]],
        [None],
        {"a": None},
        "tiny-base",
    ),
    *(0, 1, -1, 1.5, 1e308, float("nan"), float("inf"), 2**31, 2**63, 2**64, -(2**63), 10**400),
)
JSON_KEYS = ("x", "__metadata__", "rope_parameters", "head_dim", "added_tokens", "sliding_window")


def mutate_value(rng: Random, content: Any) -> Any:
    """Replace, drop or double one value inside a JSON value."""
    if not isinstance(content, dict | list) or not content or rng.random() < 0.02:
        return rng.choice((rng.choice(JSON_VALUES), content))
    key = rng.choice(list(content) if isinstance(content, dict) else range(len(content)))
    content = content.copy()
    inner = content[key]
    match rng.randrange(6):
        case 0:
            del content[key]
        case 1:
            content[key] = rng.choice(JSON_VALUES)
        case 2 if isinstance(inner, int | float):
            content[key] = inner + rng.choice((-1, 1))
        case 3 if isinstance(content, dict):
            content[rng.choice((*JSON_KEYS, *content))] = rng.choice((inner, *JSON_VALUES))
        case _:
            content[key] = mutate_value(rng, inner)
    return content


def mutate_json(rng: Random, raw: bytes) -> bytes:
    if rng.random() < 0.3:
        return damage(rng, raw)
    return json.dumps(mutate_value(rng, json.loads(raw))).encode()


def mutate_safetensors(rng: Random, raw: bytes) -> bytes:
    if rng.random() < 0.5:
        return damage(rng, raw)
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length]
    header = damage(rng, header) if rng.random() < 0.4 else mutate_json(rng, header)
    return struct.pack("<Q", len(header)) + header + raw[8 + length :]
