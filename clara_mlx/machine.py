"""The machine that a measurement was made on; imports MLX only to ask it something."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mlx.core as mx


def describe() -> dict[str, Any]:
    """The machine and the software that a number depends on."""
    import mlx.core as mx

    device = mx.default_device()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "device": str(device.type).removeprefix("DeviceType."),
        "preloaded": " ".join(
            Path(name).name for name in os.environ.get("LD_PRELOAD", "").replace(":", " ").split()
        ),
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "mlx-lm": version("mlx-lm"),
        "date": time.strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    """The processor's name as the system gives it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def peak_resident_bytes() -> int:
    """The most resident memory that this process has had so far."""
    try:
        # Not what follows, which on Linux begins with what the process that started this one had.
        lines = Path("/proc/self/status").read_text().splitlines()
        (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(most) * 1024
    except (OSError, ValueError):
        pass  # not Linux
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def matmul_flops(dtype: mx.Dtype, size: int = 1024, repeats: int = 5) -> float:
    """Measured FLOP/s of a product of square matrices: the median of some repeats."""
    import mlx.core as mx

    a = mx.random.normal((size, size)).astype(dtype)
    mx.eval(a, a @ a)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        mx.eval(a @ a)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / median(times)
