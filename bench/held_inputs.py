"""What held against odd inputs: queries, JSON, checkpoints, imports. The main line is held.py."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway_process import Refused, gateway
from held_wire import counted
from hostile_files import GOLDEN, ROOT, command
from scripted_upstream import Upstream
from verdicts import Verdict

# Seconds that one odd query may take.
_QUERY = 1.0


def tests(what: str, *nodes: str) -> Verdict:
    """A row that is tested already: runs those tests."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", *nodes],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().splitlines()[-1:] or [done.stderr[-200:]]
    return Verdict(what, f"tests: {', '.join(nodes)}", last[0].strip("= "), done.returncode == 0)


_FILTERS: list[Any] = [
    {"source": "' OR 1=1 --"},
    {"source": ["a", "' UNION SELECT 1 --"]},
    {"' OR 1=1 --": "x"},
    {'a"]': "x"},
    {"$.a": 1},
    {"a.b[0]": 1},
    {"a[*]": 1},
    {"": 1},
    {"a\0b": 1},
    {"handle": "x'; DROP TABLE memories; --"},
    {"after": "0; DROP TABLE memories"},
    {"after": "x"},
    {"source": {"$ne": 1}},
    {"m.created_at": 1},
    {"a": list(range(2000))},
]
_QUERIES = (
    *('"', '"' * 10_000, "*", "a*b*", "NEAR(a b)", "a AND", "text:x", "- - -", "^a", "{a b}", "(("),
    *("'; DROP TABLE memories; --", "\0", "\u2028", "a" * 100_000, "(" * 5000),
)


def queries(folder: Path) -> Iterator[Verdict]:
    """SQL and full-text syntax in filters and queries."""
    with gateway(Upstream()) as gate:
        gate.post("/v1/memory/remember", {"text": "a treasure", "metadata": {"a": 1}})
        tried = [({"query": "treasure", "where": where}, where) for where in _FILTERS]
        tried += [({"query": query}, query) for query in _QUERIES]
        wrong = []
        for body, what in tried:
            reply = gate.post("/v1/memory/recall", body)
            if reply.status not in (200, 400) or reply.seconds > _QUERY:
                wrong.append(f"{str(what)[:30]!r}: {reply}")
        for where in _FILTERS[:10]:
            reply = gate.post("/v1/memory/forget", {"where": where})
            if reply.status not in (200, 400) or (
                reply.status == 200 and reply.json()["forgotten"]
            ):
                wrong.append(f"forget {where}: {reply}")
        there = gate.get("/v1/memory/status").json()["memory"]["memories"]
        wrong += [] if there == 1 else [f"{there} memories are left of 1"]
        limit = f"200 or 400 within {_QUERY:g} s, nothing lost"
        yield counted("SQL and FTS syntax", limit, wrong, len(tried) + 11)


def odd_json(folder: Path) -> Iterator[Verdict]:
    """JSON that is deep, huge or hardly JSON."""
    values = {
        "depth 100,000": b"[" * 100_000 + b"]" * 100_000,
        "5,000 digits": b"9" * 5000,
        "NaN": b"NaN",
        "Infinity": b"-Infinity",
        "a lone surrogate": b'"\\ud800"',
        "raw bytes": b'"\xff\xfe"',
        "NUL": b'"a\\u0000b"',
        "a raw NUL": b'"a\0b"',
    }
    bodies = {
        "/v1/chat/completions": b'{"messages": [{"role": "user", "content": %s}]}',
        "/v1/memory/remember": b'{"text": %s}',
        "/v1/memory/recall": b'{"query": "x", "where": {"a": %s}}',
        "/mcp": b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": '
        b'{"name": "recall", "arguments": {"query": %s}}}',
    }
    accept = [("Accept", "application/json, text/event-stream")]
    with gateway(Upstream()) as gate:
        wrong = []
        for path, body in bodies.items():
            for name, value in values.items():
                reply = gate.post(path, body % value, accept)
                if reply.status not in (200, 400):
                    wrong.append(f"{path} {name}: {reply}")
        traces = gate.said().count("Traceback")
        wrong += [f"{traces} tracebacks"] if traces else []
        yield counted("odd JSON on four routes", "200 or 400, no traceback", wrong, 33)


def bombs(folder: Path) -> Iterator[Verdict]:
    """Checkpoints that want to run code, fill the memory or leave their folder."""
    yield tests(
        "pickle bombs, code in pickles, deep and shared tuples",
        "tests/convert/test_pth_refused.py",
        "tests/convert/test_pth_zip.py",
    )
    yield tests("safetensors that lie about sizes and places", "tests/convert/test_tensors.py")
    base = GOLDEN / "tiny-base"
    marker = folder / "code-ran"
    code = f"open({str(marker)!r}, 'w').close()\n"

    def convert(name: str, source: Path, from_base: Path) -> str | None:
        """What is wrong with the end of a conversion; None if nothing is."""
        to = folder / f"to-{name}"
        status, said, seconds = command("convert", source, "--base", from_base, "--to", to)
        secret = "root:" in said or any("root:" in f.read_text(errors="replace")
                                        for f in to.rglob("*") if f.is_file())  # fmt: skip
        if marker.exists():
            return f"{name}: code ran"
        if "Traceback" in said or status == 124 or secret:
            return f"{name}: exit {status} after {seconds:.0f} s, {said[-80:]!r}"
        return None

    wrong = []
    whole = GOLDEN / "c16" / "e2e"
    maps = {"up": "../../etc/passwd", "absolute": "/etc/passwd", "nul": "a\0b", "number": 7}
    for name, target in maps.items():
        odd = Path(shutil.copytree(base, folder / f"map-{name}"))
        index = odd / "model.safetensors.index.json"
        listed = json.loads(index.read_text())
        listed["weight_map"] = dict.fromkeys(listed["weight_map"], target)
        index.write_text(json.dumps(listed))
        wrong.append(convert(f"map-{name}", whole, odd))
    for name, target in {"passwd": "/etc/passwd", "zero": "/dev/zero"}.items():
        for file in ("config.json", "adapters.pth"):
            odd = Path(shutil.copytree(whole, folder / f"link-{name}-{file}"))
            (odd / file).unlink()
            (odd / file).symlink_to(target)
            wrong.append(convert(f"link-{name}-{file}", odd, base))
    sparse = Path(shutil.copytree(whole, folder / "sparse"))
    os.truncate(sparse / "adapters.pth", 50 << 30)
    wrong.append(convert("sparse", sparse, base))
    licence = Path(shutil.copytree(whole, folder / "licence"))
    (licence / "LICENSE").symlink_to("/etc/shadow")
    wrong.append(convert("licence", licence, base))
    fields = {
        "auto_map": {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}},
        "model_type": {"model_type": "../evil"},
        "model_file": {"model_file": "evil.py"},
        "tool_parser_type": {"tool_parser_type": "../evil"},
    }
    for name, more in fields.items():
        odd = Path(shutil.copytree(base, folder / f"field-{name}"))
        (odd / "evil.py").write_text(code)
        config = odd / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | more))
        wrong.append(convert(f"field-{name}", whole, odd))
    limit = "one error or a sound folder; no code, no foreign file"
    shown = [each for each in wrong if each]
    yield counted("weight maps, links, sparse files, code in configs", limit, shown, len(wrong))


_TEMPLATES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch MARKER') }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('touch MARKER') }}",
    "range": "{% for x in range(10**12) %}{% endfor %}",
}


def templates(folder: Path) -> Iterator[Verdict]:
    """Chat templates that want out of their sandbox."""
    wrong = []
    marker = folder / "code-ran"
    for name, template in _TEMPLATES.items():
        tokenizer = Path(shutil.copytree(GOLDEN / "tiny-base", folder / name))
        config = tokenizer / "tokenizer_config.json"
        given = json.loads(config.read_text())
        given["chat_template"] = template.replace("MARKER", str(marker))
        config.write_text(json.dumps(given))
        upstream = Upstream()
        options = ("--tokenizer", str(tokenizer), "--window", "8192")
        try:
            with gateway(upstream, *options) as gate:
                reply = gate.chat("x", timeout=20)
                said = reply.text + gate.said()
        except Refused as error:
            said = str(error)
        if marker.exists() or "root:" in said or "<class" in said:
            wrong.append(name)
    yield counted("chat templates that escape or include", "no code, no file", wrong, 5)


def imports(folder: Path) -> Iterator[Verdict]:
    """An import whose handles and texts are odd."""

    def line(handle: str, text: str) -> str:
        digest = hashlib.sha256(text.encode()).hexdigest()
        fields = {"handle": handle, "text": text, "sha256": digest, "created_at": 1.0}
        return json.dumps({**fields, "source": "\x1b[31mred", "session": "../.."})

    odd = ["../../etc/passwd", "\x1b[2J", "x" * 1_000_000, "", "m-1' OR 1=1 --", "a/b", "%00"]
    file, db, out = folder / "odd.jsonl", folder / "m.db", folder / "out.jsonl"
    file.write_text("\n".join(line(handle, f"treasure {n}") for n, handle in enumerate(odd)))
    steps = {
        "import": ("import", file, "--db", db),
        "export": ("export", out, "--db", db),
        "verify": ("verify", "--db", db),
        "recall": ("recall", "treasure", "--db", db),
    }
    wrong = []
    for name, arguments in steps.items():
        status, said, _ = command(*arguments)
        refused = name == "import" and status == 1
        if "Traceback" in said or (status and not refused and db.exists()):
            wrong.append(f"{name}: exit {status}, {said[-60:]!r}")
    yield counted("import of odd handles, then export, verify, recall", "each goes on", wrong, 4)
