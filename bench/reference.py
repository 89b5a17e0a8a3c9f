"""Our code beside apple/ml-clara's own, with the same weights, in one run.

    python bench/reference.py --reference CHECKOUT --reference-python PYTHON [--before CHECKOUT]

CHECKOUT is apple/ml-clara; PYTHON is that of an environment with torch, transformers 4.56, peft
0.17, sentencepiece and requests. The two are processes that are told in turn to do the same work,
so that what else the machine does is the same for both; medians of wall time and of processor time
are compared. With ``--before`` an older checkout of this repository works in the same turns.

The model is random, with CLaRa-7B's proportions and vocabulary, in float32. Ours runs with OpenBLAS
and jemalloc preloaded where the machine has them (not with ``--plain``); theirs with what its torch
brings. Results go to bench/results/reference.json; so does the largest difference between latents.
"""

from __future__ import annotations

import argparse
import ctypes.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from chunk_lengths import LENGTHS, spread
from reference_model import LIMIT, Texts, write_checkpoint

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "reference.json"
BATCH = 8  # chunks in one call of the original, which pads them all to the longest there can be
ANSWER_TOKENS = 24
QUESTION = "which function reads the settings, and what does it return if there is no file?"
FEWEST = 3  # repeats of each case
CASE_S = 40  # after which a case is not repeated more often than that
PAUSE_S = 0.1  # after each piece of work, so that the last one's threads have gone to sleep
MALLOC = "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1"  # keep pages; they are slow


class Side:
    """A process that does work when it is told to, and says what it took."""

    def __init__(self, command: list[object], environment: Mapping[str, str], log: Path) -> None:
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env={**os.environ, **environment},
        )
        self._log = log
        self.about = self._read()["about"]

    def do(self, name: str) -> dict[str, Any]:
        """Have one piece of work done; what it took, and its text if it made one."""
        assert self._process.stdin
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        taken = self._read()
        time.sleep(PAUSE_S)
        return taken

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a side has ended: {self._log.read_text()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reference", type=Path, metavar="CHECKOUT")
    parser.add_argument("--reference-python", type=Path, metavar="PYTHON")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT")
    parser.add_argument("--work", type=Path, help="folder for the model; kept for the next run")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7, help="fewer where a case takes long")
    parser.add_argument("--only", nargs="+", metavar="CASE")
    parser.add_argument("--lengths", type=Path, default=LENGTHS, help="made by chunk_lengths.py")
    parser.add_argument("--plain", action="store_true", help="preload nothing")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        model = prepared_model(work, options.hidden, options.layers)
        cases = make_cases(work / "base", options.lengths)
        if options.only:
            cases = {name: cases[name] for name in options.only}
        sides = start_sides(options, work, model, cases)
        results = {
            "machine": sides["ours"].about,
            "reference": sides["theirs"].about if "theirs" in sides else None,
            "load": os.getloadavg(),
            "hidden": options.hidden,
            "layers": options.layers,
            "reference_batch": BATCH,
            "cases": {},
        }
        for name, case in cases.items():
            results["cases"][name] = compare(name, case, sides, work, options.repeats)
            print(row(name, results["cases"][name]), flush=True)
            options.output.write_text(json.dumps(results, indent=1) + "\n")
        for side in sides.values():
            side.close()


def prepared_model(work: Path, hidden: int, layers: int) -> Path:
    """The model folder, made of a random checkpoint by our converter unless it is there."""
    model = work / "model"
    if not model.exists():
        for name in ("base", "checkpoint"):
            shutil.rmtree(work / name, ignore_errors=True)
        write_checkpoint(work, hidden, layers)
        command: list[str | Path] = [sys.executable, "-m", "clara_mlx.cli", "convert"]
        command += [work / "checkpoint", "--base", work / "base", "--to", model, "-q", "none"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return model


def make_cases(base: Path, lengths: Path) -> dict[str, dict[str, Any]]:
    """The pieces of work by name: lengths of real chunks, and texts of this repository."""
    texts = Texts(base)
    mixes = {
        "8 full chunks": [LIMIT] * 8,
        "8 outputs of one chunk": spread(lengths, "runs", 8, one_chunk=True),
        "64 outputs of one chunk": spread(lengths, "runs", 64, one_chunk=True),
        "8 outputs of any length": spread(lengths, "runs", 8),
        "8 recorded outputs": spread(lengths, "recorded", 8),
    }
    cases: dict[str, dict[str, Any]] = {
        name: {"kind": "encode", "texts": texts.of(mix), "tokens": sum(mix), "batch": BATCH}
        for name, mix in mixes.items()
    }
    cases["query"] = {"kind": "query", "question": QUESTION}
    for count in (1, 5, 20):
        cases[f"answer, {count} memories"] = {
            "kind": "answer",
            "texts": texts.of([200] * count),
            "question": QUESTION,
            "tokens": ANSWER_TOKENS,
            "batch": BATCH,
        }
    return cases


def start_sides(
    options: argparse.Namespace, work: Path, model: Path, cases: Mapping[str, Any]
) -> dict[str, Side]:
    """The processes that are compared, by name."""
    environment = {} if options.plain else preloads()
    sides = {}
    for name in ("ours", "before", "theirs"):
        file = work / f"{name}.json"
        file.write_text(json.dumps(cases))
        checkout = {"ours": HERE.parent, "before": options.before}.get(name)
        if checkout:
            command = [sys.executable, HERE / "reference_ours.py", model, file]
            own = {**environment, "PYTHONPATH": str(checkout.resolve())}
            sides[name] = Side(command, own, work / f"{name}.log")
        elif name == "theirs" and options.reference:
            python = options.reference_python.absolute()
            command = [python, HERE / "reference_theirs.py", options.reference.resolve()]
            command += [work / "checkpoint", file]
            sides[name] = Side(command, {"PYTHONPATH": ""}, work / f"{name}.log")
    return sides


def preloads() -> dict[str, str]:
    """The environment in which MLX's products on a CPU are OpenBLAS's; empty where it has none."""
    if sys.platform != "linux":
        return {}
    found = [ctypes.util.find_library(name) for name in ("openblas", "jemalloc")]
    return {"LD_PRELOAD": ":".join(filter(None, found)), "MALLOC_CONF": MALLOC}


def compare(
    name: str, case: Mapping[str, Any], sides: Mapping[str, Side], work: Path, repeats: int
) -> dict[str, Any]:
    """One piece of work, by each side in turn; the first time, which warms up, is not counted."""
    first = {side: process.do(name) for side, process in sides.items()}
    taken: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    start = time.monotonic()
    for turn in range(repeats):
        if turn >= FEWEST and time.monotonic() - start > CASE_S:
            break
        for side, process in sides.items():
            taken[side].append(process.do(name))
    result: dict[str, Any] = {"tokens": case.get("tokens")}
    if "texts" in case:
        result["chunks"] = len(case["texts"])
    for kind in ("seconds", "processor"):
        result[kind] = {side: [one[kind] for one in times] for side, times in taken.items()}
        medians = {side: median(times) for side, times in result[kind].items()}
        result[f"median {kind}"] = medians
        result[f"as many times as ours, {kind}"] = {
            side: time / medians["ours"] for side, time in medians.items() if side != "ours"
        }
    if case["kind"] == "answer":
        texts = {side: one["text"] for side, one in first.items()}
        result["same text"] = {side: text == texts["ours"] for side, text in texts.items()}
    else:
        ours = np.load(work / f"{name}-ours.npy")
        result["largest difference"] = {
            side: float(np.abs(np.load(work / f"{name}-{side}.npy") - ours).max())
            for side in sides
            if side != "ours"
        }
    return result


def row(name: str, result: Mapping[str, Any]) -> str:
    """A case in one line for the terminal."""
    parts = [f"{name}: ours {1000 * result['median seconds']['ours']:.0f} ms"]
    for side in result["as many times as ours, seconds"]:
        wall = result["as many times as ours, seconds"][side]
        processor = result["as many times as ours, processor"][side]
        parts.append(f"{side} {wall:.2f} times as long ({processor:.2f} of processor time)")
    same = result.get("same text") or result.get("largest difference")
    return ", ".join([*parts, str(same)])


if __name__ == "__main__":
    main()
