"""Reads mutated checkpoint files, in a process of its own so that a crash is seen as one.

    python tests/support/fuzz_worker.py KIND FIRST COUNT SCRATCH GOLDEN

runs the cases FIRST to FIRST + COUNT - 1 of a kind. Kind and number decide a case: it is the same
file each time. Reading it must succeed or raise a ClaraError, and must do nothing but read. The
number is printed before each case; a case that fails leaves its file in SCRATCH and a traceback.
"""

from __future__ import annotations

import codecs
import contextlib
import faulthandler
import json
import os
import pickle
import re
import resource
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
from fuzz_mutations import (
    Pth,
    mutate_json,
    mutate_safetensors,
    small_pth,
)
from pth_files import LIVE, global_named, pack, text

from clara_mlx.convert import Source, convert
from clara_mlx.convert.pth import read_pth
from clara_mlx.convert.tensors import TensorRef, read_safetensors
from clara_mlx.errors import ClaraError
from clara_mlx.model.folder import ModelFolder

# -- the guard -----------------------------------------------------------------------------------


class Forbidden(BaseException):
    """Something other than reading was about to happen."""


class Guard:
    """An audit hook that allows nothing but reading, and writing below one folder."""

    #: Audit events that run something or reach out, whatever their arguments.
    NEVER = re.compile(
        r"os\.(system|exec|fork|forkpty|posix_spawn|spawn|startfile|kill)$|subprocess\.|socket\."
        r"|pickle\.|urllib\.|ctypes\.|code\.__new__|compile$|import$|sys\.setprofile"
    )
    #: Events whose first arguments are paths that will change.
    CHANGES = re.compile(
        r"os\.(remove|rename|rmdir|mkdir|link|symlink|truncate|chmod|chown)$|shutil\.rmtree"
    )

    def __init__(self, writable: Path) -> None:
        self.writable = str(writable)
        self.on = False
        self.seen: list[str] = []
        writable.mkdir()
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.on and self._forbidden(event, args):
            self.on = False  # or the report would be stopped, too
            self.seen.append(f"{event} {args}"[:300])
            raise Forbidden(self.seen[-1])

    def _forbidden(self, event: str, args: tuple[Any, ...]) -> bool:
        if event == "open":
            path, mode, flags = args
            writes = set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)
            return bool(writes) and not str(path).startswith(self.writable)
        if event == "exec":
            return args[0].co_filename.startswith("<string")
        if self.CHANGES.match(event):
            if event in ("os.remove", "os.rmdir") and args[1] != -1:
                return False  # inside a folder that is open: shutil.rmtree, which said it first
            paths = [arg for arg in args if isinstance(arg, str | Path)]
            return not all(str(path).startswith(self.writable) for path in paths)
        return bool(self.NEVER.match(event))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False
            assert not self.seen, self.seen


# -- cases ---------------------------------------------------------------------------------------

Case = Callable[[Random], str]  # runs one case and returns "read" or "refused"


def reading(file: Path, mutate: Callable[[Random], bytes], guard: Guard) -> Case:
    """Read the file and every tensor in it."""

    def case(rng: Random) -> str:
        file.write_bytes(mutate(rng))
        with guard.watching():
            try:
                read_all(file)
            except ClaraError as error:
                str(error).encode()  # a message can be printed
                return "refused"
        return "read"

    return case


def read_all(file: Path) -> None:
    content: Any = read_pth(file) if file.suffix == ".pth" else read_safetensors(file)
    seen, open_ends = set(), [content]
    while open_ends:
        value = open_ends.pop()
        if isinstance(value, TensorRef):
            array = value.read()
            mx.eval(array)
            assert array.shape == value.shape
        elif isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            open_ends += value.values()


def checkpoints(scratch: Path, golden: Path, guard: Guard) -> Case:
    """Convert a checkpoint with one mutated file: a complete model folder, or nothing at all."""
    checkpoint, base, to = scratch / "checkpoint", scratch / "base", scratch / "out" / "model"
    shutil.copytree(golden / "c16" / "e2e", checkpoint)
    shutil.copytree(golden / "tiny-base", base)
    convert(Source.open(checkpoint, base=base), to, dtype="float32")
    shutil.copyfile(to / "tokenizer.json", base / "tokenizer.json")  # with CLaRa's tokens in it
    shutil.rmtree(to)
    files = [*checkpoint.iterdir(), *base.glob("model*"), base / "config.json"]
    whole = {file: file.read_bytes() for file in sorted((*files, base / "tokenizer.json"))}
    parts = {file: Pth(file) for file in whole if file.suffix == ".pth"}

    def mutated(rng: Random, file: Path) -> bytes:
        if file in parts:
            return rng.choice((Pth.bytes, Pth.description, Pth.zip))(parts[file], rng)
        return (mutate_json if file.suffix == ".json" else mutate_safetensors)(rng, whole[file])

    def case(rng: Random) -> str:
        file = rng.choice(list(whole))
        file.write_bytes(mutated(rng, file))
        print(f"  {file}", flush=True)
        with guard.watching():
            try:
                convert(Source.open(checkpoint, base=base), to, dtype="float32")
                result = "read"
            except ClaraError as error:
                str(error).encode()
                result = "refused"
        file.write_bytes(whole[file])
        left = [path.name for path in to.parent.iterdir()]
        assert left == (["model"] if result == "read" else []), left
        if left:
            ModelFolder.open(to)
            shutil.rmtree(to)
        return result

    return case


def unpickling(guard: Guard) -> Case:
    """Unpickle a file that runs code, which the guard has to stop."""

    def case(rng: Random) -> str:
        name = rng.choice(list(LIVE))
        with guard.watching():
            pickle.loads(global_named(name) + pack(text(LIVE[name].format("/tmp/canary"))) + b"R.")
        return "read"

    return case


def cases(kind: str, scratch: Path, golden: Path) -> Case:
    """The cases of a kind; whatever they need is imported and has run once."""
    guard = Guard(scratch / "out")
    match kind:
        case "bytes" | "description" | "zip":
            file = small_pth(scratch / "case.pth")
            case = reading(file, lambda rng: getattr(Pth, kind)(small, rng), guard)
            small = Pth(file)
        case "golden":
            files = [Pth(golden / "c16/e2e/adapters.pth")]
            files += [Pth(golden / v / "e2e/decoder_first_last_layers.pth") for v in ("c16", "c4")]
            ways = (Pth.bytes, Pth.description, Pth.zip)
            file = scratch / "case.pth"
            file.write_bytes(files[0].raw)
            case = reading(file, lambda rng: rng.choice(ways)(rng.choice(files), rng), guard)
        case "safetensors":
            file = scratch / "case.safetensors"
            arrays = {"a": mx.zeros((4, 6)), "b": mx.zeros((6,), mx.bfloat16), "c": mx.zeros(())}
            mx.save_safetensors(str(file), arrays, metadata={"format": "pt"})
            raw = file.read_bytes()
            case = reading(file, lambda rng: mutate_safetensors(rng, raw), guard)
        case "checkpoints":
            return checkpoints(scratch, golden, guard)
        case "unpickling":
            return unpickling(guard)
        case _:
            raise ValueError(kind)
    read_all(file)
    return case


def peak_memory() -> int:
    """The most bytes that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss also counts the process that started this one
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(kind: str, first: str, count: str, scratch: str, golden: str) -> None:
    faulthandler.enable()
    warnings.simplefilter("ignore")  # zipfile's, about what is done here on purpose
    for codec in ("cp437", "raw_unicode_escape"):  # what zipfile and pickletools load when needed
        codecs.lookup(codec)
    case = cases(kind, Path(scratch), Path(golden))
    outcomes: Counter[str] = Counter()
    for n in range(int(first), int(first) + int(count)):
        print(kind, n, flush=True)
        outcomes[case(Random(f"{kind} {n}"))] += 1
    print(json.dumps({**outcomes, "peak": peak_memory()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
