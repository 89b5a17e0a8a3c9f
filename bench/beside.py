"""A memory that compresses beside a reasoner that generates: what each costs the other.

    python bench/beside.py [--reasoner FOLDER --model FOLDER] [--seconds 30] [--minutes 5]

`mlx_lm.server` with the reasoner, and a gateway with the memory's model, run as processes of their
own, as on a user's machine; a client has the reasoner generate without a pause, through the
gateway. In turn: the reasoner alone; compression alone; both, with shares of the time that the
memory takes while the reasoner answers (`worker.SHARE_BESIDE_REASONER`). Then both for --minutes,
with the memory of each process sampled: what grows is shown in beside.svg. By default both models
are small and random: their ratios on a CPU say that the limit works, not what a GPU does. On a Mac,
name the real ones. Results go to bench/results/beside.json.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx2

from clara_mlx import machine
from clara_mlx.memory.worker import SHARE_BESIDE_REASONER

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
NANO = ROOT / "scripts" / "nano" / "clara-nano"
TOKENIZER = ROOT / "tests" / "golden" / "tiny-base"

#: Shares of the time that are compared; 1 is what there was before there was a limit.
SHARES = (1.0, 0.5, 0.25, 0.1)

ANSWER_TOKENS = 400
SAMPLE_SECONDS = 2.0
WAITING = 40  # texts that are kept waiting for compression

# A gateway with another share than the product's.
_GATEWAY = (
    "import sys; from clara_mlx.memory import worker; "
    "worker.SHARE_BESIDE_REASONER = float(sys.argv.pop(1)); "
    "from clara_mlx.cli.app import main; main()"
)


class Client:
    """Has the reasoner generate, and texts remembered, through one gateway."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(base_url=url, timeout=600, trust_env=False)
        self._random = random.Random(7)
        self._stop = threading.Event()
        self.stamps: list[float] = []  # when each piece of an answer came

    def compressed(self) -> tuple[int, int]:
        """Chunks that are compressed, and contents that wait."""
        memory = self._http.get("/v1/memory/status").json()["memory"]
        return memory["compressed"], memory["pending"]

    def fill(self) -> None:
        """Remember texts until enough wait."""
        while self.compressed()[1] < WAITING:
            for _ in range(WAITING):
                number = self._random.randrange(10**9)
                lines = [
                    f"tests/test_{self._random.randrange(99)}.py::test_{number + i} FAILED line {i}"
                    for i in range(40)
                ]
                self._http.post("/v1/memory/remember", json={"text": "\n".join(lines)})

    def generate(self) -> None:
        """Have answers generated, one after the other, until `stop`."""
        while not self._stop.is_set():
            body = {
                "model": "reasoner",
                "stream": True,
                "max_tokens": ANSWER_TOKENS,
                "temperature": 1.0,
                "logit_bias": {"2": -100},  # no end of the answer
                "messages": [{"role": "user", "content": f"{self._random.random()} go on"}],
            }
            with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines():
                    if line.startswith("data: {"):
                        self.stamps.append(time.perf_counter())
                    if self._stop.is_set():
                        return

    def measure(self, seconds: float, *, generates: bool, compresses: bool) -> dict[str, Any]:
        """What is generated and compressed in a while."""
        self._stop.clear()
        self.stamps.clear()
        thread = threading.Thread(target=self.generate)
        if generates:
            thread.start()
            while len(self.stamps) < 10:  # past the prefill
                time.sleep(0.05)
        if compresses:
            self.fill()
        self.stamps.clear()
        begun, before = time.perf_counter(), self.compressed()[0]
        while time.perf_counter() - begun < seconds:
            if compresses:
                self.fill()
            time.sleep(0.25)
        took = time.perf_counter() - begun
        chunks = self.compressed()[0] - before
        stamps = list(self.stamps)
        self._stop.set()
        if generates:
            thread.join()
        gaps = [b - a for a, b in pairwise(stamps)]
        return {
            "seconds": took,
            "chunks_per_second": chunks / took,
            "tokens_per_second": len(stamps) / took,
            "gap_p50_seconds": median(gaps) if gaps else None,
            "gap_p95_seconds": quantiles(gaps, n=20)[-1] if len(gaps) > 20 else None,
        }


@contextmanager
def process(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended after the block."""
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    with log.open("wb") as file:
        started = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
        try:
            yield started
        finally:
            started.terminate()
            started.wait(60)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(url: str, started: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers."""
    while True:
        if started.poll() is not None:
            raise SystemExit(log.read_text())
        try:
            if httpx2.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    command = ["ps", "-o", "rss=", "-p", str(pid)]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return 1024 * int(said.strip() or 0)


def random_reasoner(folder: Path) -> Path:
    """A random Qwen3 of 25 million parameters, as mlx_lm.server loads it."""
    import tiny_reasoner

    shape = {
        **tiny_reasoner.CONFIG,
        "model_type": "qwen3",
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 32768,
    }
    return tiny_reasoner.folder(folder, TOKENIZER, [], shape)


def nano(folder: Path) -> Path:
    """The repository's own small CLaRa, converted."""
    command = (
        *(sys.executable, "-m", "clara_mlx.cli", "convert", NANO / "checkpoint"),
        *("--base", NANO / "base", "--to", folder, "-q", "none", "--dtype", "float32"),
    )
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    return folder


def soak(client: Client, minutes: float, pids: dict[str, int]) -> list[dict[str, Any]]:
    """Both at work for a while: memory and counts, sampled."""
    samples: list[dict[str, Any]] = []
    done = threading.Event()

    def sample() -> None:
        begun = time.perf_counter()
        while not done.wait(SAMPLE_SECONDS):
            samples.append(
                {
                    "seconds": time.perf_counter() - begun,
                    "tokens": len(client.stamps),
                    **{name: resident_bytes(pid) for name, pid in pids.items()},
                }
            )

    thread = threading.Thread(target=sample)
    thread.start()
    client.measure(60 * minutes, generates=True, compresses=True)
    done.set()
    thread.join()
    return samples


def draw(samples: list[dict[str, Any]], names: list[str], file: Path) -> None:
    """Resident memory over time, of each process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name in names:
        times = [one["seconds"] / 60 for one in samples]
        axes.plot(times, [one[name] / 1e6 for one in samples], label=name)
    axes.set_xlabel("minutes")
    axes.set_ylabel("resident memory, MB")
    axes.set_ylim(0)
    axes.legend()
    figure.savefig(file)


def growth(samples: list[dict[str, Any]], name: str) -> float:
    """Bytes an hour in the second half of the samples, by medians of its two halves."""
    late = samples[len(samples) // 2 :]
    half = len(late) // 2
    if not half:
        return 0.0
    first, last = (median(one[name] for one in part) for part in (late[:half], late[half:]))
    span = (late[-1]["seconds"] - late[0]["seconds"]) / 2
    return 3600 * (last - first) / span if span else 0.0


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reasoner", type=Path, help="an mlx-lm folder; default: small, random")
    parser.add_argument("--model", type=Path, help="the memory's model; default: clara-nano")
    parser.add_argument("--seconds", type=float, default=30, help="of each figure")
    parser.add_argument("--minutes", type=float, default=5, help="of both at work, at the end")
    parser.add_argument("--output", type=Path, default=RESULTS / "beside.json")
    options = parser.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        reasoner = options.reasoner or random_reasoner(work / "reasoner")
        model = options.model or nano(work / "model")
        port = free_port()
        command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(reasoner)]
        server_log = work / "server.log"
        server = stack.enter_context(process([*command, "--port", str(port)], server_log))
        wait_for(f"http://127.0.0.1:{port}", server, server_log)
        result: dict[str, Any] = {
            "machine": machine.describe(),
            "reasoner": str(options.reasoner or "random, 8 layers of 512"),
            "model": str(options.model or "clara-nano"),
            "share": SHARE_BESIDE_REASONER,
            "beside": {},
        }

        @contextmanager
        def gateway(share: float) -> Iterator[tuple[Client, int]]:
            with tempfile.TemporaryDirectory() as folder:
                own, log = free_port(), Path(folder) / "gateway.log"
                words = (
                    *(sys.executable, "-c", _GATEWAY, share, "serve", "--port", own),
                    *("--endpoint", f"http://127.0.0.1:{port}/v1", "--tools", "never"),
                    *("--db", Path(folder) / "m.db", "--model", model, "--no-observe"),
                )
                with process(list(map(str, words)), log) as started:
                    url = f"http://127.0.0.1:{own}"
                    wait_for(url, started, log)
                    yield Client(url), started.pid

        with gateway(1.0) as (client, _):
            print("the reasoner alone ...", flush=True)
            result["reasoner alone"] = client.measure(
                options.seconds, generates=True, compresses=False
            )
            print("compression alone ...", flush=True)
            result["memory alone"] = client.measure(
                options.seconds, generates=False, compresses=True
            )
        for share in SHARES:
            print(f"both, a share of {share:g} ...", flush=True)
            with gateway(share) as (client, _):
                result["beside"][f"{share:g}"] = client.measure(
                    options.seconds, generates=True, compresses=True
                )
        if options.minutes:
            print(f"both for {options.minutes:g} minutes ...", flush=True)
            with gateway(SHARE_BESIDE_REASONER) as (client, pid):
                pids = {"mlx_lm.server": server.pid, "clara-mlx serve": pid}
                samples = soak(client, options.minutes, pids)
            result["soak"] = {
                "minutes": options.minutes,
                "samples": samples,
                "growth_bytes_per_hour": {name: growth(samples, name) for name in pids},
            }
            draw(samples, list(pids), options.output.with_suffix(".svg"))
    options.output.write_text(re.sub(r"\n {6,}", " ", json.dumps(result, indent=2)) + "\n")
    print(table(result))


def table(result: dict[str, Any]) -> str:
    """The ratios as Markdown."""
    alone, memory = result["reasoner alone"], result["memory alone"]
    lines = [
        "| | tokens/s | of alone | gap p95, ms | chunks/s | of alone |",
        "|---|---|---|---|---|---|",
    ]
    rows = {"alone": alone | {"chunks_per_second": memory["chunks_per_second"]}}
    rows |= {f"share {share}": found for share, found in result["beside"].items()}
    for name, found in rows.items():
        gap = found["gap_p95_seconds"]
        lines.append(
            f"| {name} | {found['tokens_per_second']:.1f} "
            f"| {found['tokens_per_second'] / alone['tokens_per_second']:.0%} "
            f"| {f'{1e3 * gap:.0f}' if gap else '-'} | {found['chunks_per_second']:.1f} "
            f"| {found['chunks_per_second'] / memory['chunks_per_second']:.0%} |"
        )
    for name, bytes_an_hour in result.get("soak", {}).get("growth_bytes_per_hour", {}).items():
        lines.append(f"\n{name}: {bytes_an_hour / 1e6:+.1f} MB an hour in the second half")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
