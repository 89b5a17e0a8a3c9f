"""Hostile files, and files that others could read: the inputs of S5b and S11 of hostile.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway_process import AT_ONCE, Refused, gateway, watching
from hostile_findings import answers, at_most
from scripted_upstream import Upstream
from verdicts import Verdict

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
_CLI = "from clara_mlx.cli.app import main; main()"

# Seconds within which a command has to refuse a hostile file.
_REFUSED = 20.0

# Bytes that the write-ahead log may have beside a reader that stays.
_LOG_BYTES = 64_000_000

# Texts that are remembered beside it, and the characters of each.
_TEXTS = 5000
_CHARACTERS = 12_000

# Seconds that a recall may take after the reader has left, and until it finds the newest text.
_RECALLED = 15.0
_FOUND = 180.0

_LONG_READER = """
import sys, time
from clara_mlx.store.store import Store
store = Store(sys.argv[1])
with store.snapshot():
    store.read("SELECT count(*) FROM memories")
    print("reads", flush=True)
    time.sleep(600)
"""


def command(*arguments: object, umask: int = 0o022) -> tuple[int, str, float]:
    """Run clara-mlx; gives its exit status (124 if it did not end), output and seconds."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CLI, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_REFUSED,
            umask=umask,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return 124, "", time.monotonic() - begun
    return done.returncode, str(done.stdout), time.monotonic() - begun


def refused(what: str, *arguments: object, target: Path | None = None) -> Verdict:
    """A row about a command that has to end with one plain error and leave nothing behind."""
    code, said, seconds = command(*arguments)
    left = target is not None and target.exists()
    lines = said.count("\n")
    ended = "never ended" if code == 124 else f"exit {code}"
    trace = ", traceback" if "Traceback" in said else ""
    folder = ", a folder is left" if left else ""
    measured = f"{ended} after {seconds:.1f} s, {lines} lines{trace}{folder}"
    holds = code not in (0, 124) and not trace and not left and lines < 200
    return Verdict(what, "one plain error, nothing left", measured, holds)


def shard_of_empty_tensors(path: Path, names: list[str]) -> None:
    """Write a safetensors file of tensors without elements."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps(dict.fromkeys(names, entry)).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def checkpoints(folder: Path) -> Iterator[Verdict]:
    """S11: FIFOs, devices and floods inside a checkpoint."""
    base = GOLDEN / "tiny-base"

    def convert(what: str, source: Path) -> Verdict:
        to = folder / "converted"
        return refused(what, "convert", source, "--base", base, "--to", to, target=to)

    def copy(name: str) -> Path:
        return Path(shutil.copytree(GOLDEN / "c16" / "e2e", folder / name))

    zero = copy("zero")
    (zero / "config.json").unlink()
    (zero / "config.json").symlink_to("/dev/zero")
    yield convert("S11 config.json is a link to /dev/zero", zero)
    for name in ("config.json", "adapters.pth"):
        pipe = copy(f"fifo-{name}")
        (pipe / name).unlink()
        os.mkfifo(pipe / name)
        yield convert(f"S11 {name} is a FIFO", pipe)
    piped = Path(shutil.copytree(base, folder / "piped-base"))
    shard = piped / "model-00001-of-00002.safetensors"
    shard.unlink()
    os.mkfifo(shard)
    flooded = Path(shutil.copytree(base, folder / "flooded-base"))
    index = flooded / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    for number in range(3):
        names = [f"nobody.knows.{number}.{n}" for n in range(20_000)]
        file = f"model-0000{number + 3}-of-00005.safetensors"
        shard_of_empty_tensors(flooded / file, names)
        listed["weight_map"] |= dict.fromkeys(names, file)
    index.write_text(json.dumps(listed))
    whole = GOLDEN / "c16" / "e2e"
    for what, odd in {"a shard is a FIFO": piped, "60,000 unexpected tensors": flooded}.items():
        to = folder / "from-base"
        yield refused(f"S11 {what}", "convert", whole, "--base", odd, "--to", to, target=to)


def imports(folder: Path) -> Iterator[Verdict]:
    """S6 and S8: lines of an import whose values are of the wrong type."""
    fields = {
        "handle": '"m-123456789abc"',
        "created_at": "1.0",
        "text": '"a"',
        "sha256": f'"{hashlib.sha256(b"a").hexdigest()}"',
    }
    lines = {
        "metadata of depth 900": {"metadata": '{"a": ' + "[" * 900 + "]" * 900 + "}"},
        "source a dict": {"source": "{}"},
        "session a list": {"session": "[]"},
        "text a list": {"text": "[]"},
        "created_at NaN": {"created_at": "NaN"},
        "created_at 1e999": {"created_at": "1e999"},
    }
    for number, (what, odd) in enumerate(lines.items()):
        file = folder / f"{number}.jsonl"
        line = ", ".join(f'"{name}": {value}' for name, value in (fields | odd).items())
        file.write_text(f"{{{line}}}\n")
        db = folder / f"{number}.db"
        yield refused(f"S8 import of a line with {what}", "import", file, "--db", db)


def modes(folder: Path) -> Iterator[Verdict]:
    """S11: who else may read the memory's file, and what clients are told about it."""
    old = folder / "old.db"
    command("remember", "--db", old, GOLDEN / "README.md")
    old.chmod(0o666)
    code, _, _ = command("recall", "anything", "--db", old)
    mode = stat.S_IMODE(old.stat().st_mode)
    yield Verdict("S11 an existing file with mode 0666", "0600 afterwards, or refused",
                  f"{mode:04o}, exit {code}", mode == 0o600 or code != 0)  # fmt: skip
    made = folder / "new" / "agent.db"
    code, _, _ = command("remember", "--db", made, GOLDEN / "README.md", umask=0)
    mode = stat.S_IMODE(made.parent.stat().st_mode) if made.parent.exists() else 0
    yield Verdict("S11 a folder that is made under umask 000", "0700", f"{mode:04o}, exit {code}",
                  mode == 0o700 and code == 0)  # fmt: skip
    token = "a-token-of-some-length"
    bearer = [("Authorization", f"Bearer {token}")]
    with gateway(Upstream(), "--host", "0.0.0.0", CLARA_MLX_TOKEN=token) as gate:
        for _ in range(20):
            gate.call("recall", bearer, query="x")
        said = gate.said().count("Terminating session")
        yield Verdict("S11 log of 20 MCP requests", "no line for each", f"{said} lines", said < 2)
        replies = [
            gate.get("/v1/memory/status", bearer),
            gate.post("/v1/memory/recall", {"query": "x", "where": {"a\0b": 1}}, bearer),
            gate.call("expand", bearer, handle="m-1"),
        ]
        gate.db.write_bytes(b"\xa5" * gate.db.stat().st_size)
        replies += [
            gate.post("/v1/memory/recall", {"query": "x"}, bearer),
            gate.call("recall", bearer, query="x"),
        ]
        named = sum(str(gate.db.parent) in reply.text for reply in replies)
        yield Verdict("S11 answers to remote clients that name the file's path", "none",
                      f"{named} of {len(replies)}", not named)  # fmt: skip


def endless_template(folder: Path) -> Iterator[Verdict]:
    """S11: a chat template of nested loops that never ends."""
    tokenizer = folder / "tokenizer"
    shutil.copytree(GOLDEN / "tiny-base", tokenizer)
    loop = "{% for x in range(99999) %}"
    template = loop * 3 + "{% endfor %}" * 3 + "x"
    config = tokenizer / "tokenizer_config.json"
    given = json.loads(config.read_text()) if config.exists() else {}
    given["chat_template"] = template
    config.write_text(json.dumps(given))
    options = ("--tokenizer", str(tokenizer), "--window", "8192")
    what = "S11 a chat template that never ends"
    try:
        with gateway(Upstream(), *options) as gate, watching(gate) as seen:
            reply = gate.chat("x", timeout=30)
            heeded = gate.seconds_to_heed()
    except Refused as error:
        yield Verdict(what, "an answer or a refusal", f"refused: {str(error)[-100:]}", True)
        return
    holds = 0 < reply.status != 500
    yield Verdict(what, "an answer or a refusal", str(reply), holds)
    yield at_most(f"{what}: worst /health", AT_ONCE, seen.worst)
    yield at_most(f"{what}: SIGTERM heeded", AT_ONCE, heeded)


def log_beside_a_reader(folder: Path) -> Iterator[Verdict]:
    """S5b: the write-ahead log beside a reader that stays open."""
    db = folder / "agent.db"
    wal = Path(f"{db}-wal")
    largest = 0
    failures: list[str] = []
    with gateway(Upstream(), "--no-observe", db=db) as gate:
        reader = subprocess.Popen(
            [sys.executable, "-c", _LONG_READER, str(db)], stdout=subprocess.PIPE, text=True
        )
        try:
            assert reader.stdout and reader.stdout.readline() == "reads\n"
            begun = time.monotonic()

            def remember(number: int) -> None:
                nonlocal largest
                words = f"text {number} " + " ".join(
                    f"{number * 7919 + n:x}" for n in range(_CHARACTERS)
                )
                reply = gate.post("/v1/memory/remember", {"text": words[:_CHARACTERS]}, timeout=60)
                if reply.status != 200:
                    failures.append(str(reply))
                largest = max(largest, wal.stat().st_size)

            with ThreadPoolExecutor(4) as pool:
                list(pool.map(remember, range(_TEXTS)))
            seconds = time.monotonic() - begun
        finally:
            reader.kill()
            reader.wait()
        for number in range(5):
            remember(_TEXTS + number)
        after = wal.stat().st_size
        kept = gate.get("/v1/memory/status")
        begun = time.monotonic()
        number = (_TEXTS + 4) * 7919 + 999  # a word of the newest text, in the middle of it
        slowest = 0.0
        found = False
        while not found and time.monotonic() - begun < _FOUND:
            asked = time.monotonic()
            reply = gate.post("/v1/memory/recall", {"query": f"{number:x}", "k": 1}, timeout=60)
            found = f"{number:x}" in reply.text
            slowest = max(slowest, time.monotonic() - asked)
        waited = time.monotonic() - begun
    measured = f"{largest / 1e6:.0f} MB, {_TEXTS:,} texts in {seconds:.0f} s"
    yield Verdict("S5b the log beside a reader that stays open", "under 64 MB", measured,
                  largest < _LOG_BYTES)  # fmt: skip
    yield Verdict("S5b the log once the reader has left", "under 64 MB", f"{after / 1e6:.0f} MB",
                  after < _LOG_BYTES)  # fmt: skip
    yield answers("S5b what was remembered", kept, 200, more=not failures, said="every text")
    yield at_most("S5b a recall meanwhile", _RECALLED, slowest)
    yield Verdict(
        "S5b the newest text is found", f"within {_FOUND:.0f} s", f"{waited:.1f} s", found
    )
