"""Our side of reference.py: a process that does one piece of work when it is told to.

    python bench/reference_ours.py MODEL WORK

MODEL is a model folder and WORK a JSON file of pieces of work by name. A line on standard input is
such a name; the line that answers it has what the work took. Both sides speak so.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import clara_mlx
from clara_mlx import machine


def main() -> None:
    model, work_file = map(Path, sys.argv[1:])
    work = json.loads(work_file.read_text())
    clara: Any = clara_mlx.load(model)
    latents: dict[int, mx.array] = {}

    def latents_of(texts: list[str]) -> mx.array:
        if len(texts) not in latents:
            latents[len(texts)] = clara.encode(texts)
        return latents[len(texts)]

    kinds: dict[str, Callable[[dict[str, Any]], Any]] = {
        "encode": lambda w: np.array(clara.encode(w["texts"])),
        "query": lambda w: np.array(clara.encode_query(w["question"])),
        "answer": lambda w: clara.answer(w["question"], latents_of(w["texts"]), w["tokens"]),
    }
    print(json.dumps({"about": machine.describe()}), flush=True)
    for line in sys.stdin:
        one = work[line.strip()]
        if one["kind"] == "answer":
            latents_of(one["texts"])
        start, processor = time.perf_counter(), time.process_time()
        result = kinds[one["kind"]](one)
        taken: dict[str, Any] = {
            "seconds": time.perf_counter() - start,
            "processor": time.process_time() - processor,
            "peak_bytes": machine.peak_resident_bytes(),
        }
        if isinstance(result, str):
            taken["text"] = result
        else:
            np.save(work_file.with_name(f"{line.strip()}-{work_file.stem}.npy"), result)
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    main()
