"""Loads one model folder and prints what that took as JSON; `loading` starts it."""

from __future__ import annotations

import json
import sys
import time

import mlx.core as mx

from clara_mlx import machine
from clara_mlx.model.clara import load


def main(path: str) -> None:
    """Load the folder, then every adapter; print seconds and bytes."""
    before = machine.resident_bytes()
    mx.reset_peak_memory()
    started = time.perf_counter()
    clara = load(path)
    seconds = time.perf_counter() - started
    figures = {
        "seconds": seconds,
        "array_bytes": mx.get_active_memory(),
        "resident_bytes": machine.resident_bytes(),
        "resident_bytes_before": before,
    }
    started = time.perf_counter()
    for name in clara.adapters:
        clara.lora.tensors(name)
    figures |= {
        "adapters_seconds": time.perf_counter() - started,
        "array_bytes_with_adapters": mx.get_active_memory(),
        "peak_array_bytes": mx.get_peak_memory(),
        "peak_resident_bytes": machine.peak_resident_bytes(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1])
