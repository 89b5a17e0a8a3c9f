"""The machine that a measurement was made on; imports MLX only to ask it something."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import suppress
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
        "macos": platform.mac_ver()[0] or None,
        "device": str(device.type).removeprefix("DeviceType."),
        "gpu": _gpu(),
        "neural_accelerators": neural_accelerators(),
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


def _gpu() -> str | None:
    """The GPU's architecture as MLX names it, such as ``applegpu_g16s``; None without one."""
    import mlx.core as mx

    if mx.default_device().type != mx.DeviceType.gpu:
        return None
    info = mx.device_info()
    return str(info.get("architecture") or info.get("device_name"))


def neural_accelerators() -> dict[str, str]:
    """Whether MLX uses neural accelerators in the GPU's cores (``word``), and how that is known.

    MLX does not say it. Its own rule (`is_nax_available` in mlx/backend/metal/device.cpp, read in
    November 2026) is applied here: macOS 26.2 or later, and a GPU of generation 17 or later.
    """
    import mlx.core as mx

    if not mx.metal.is_available():
        return {"word": "no", "because": "MLX does not run on an Apple GPU here"}
    architecture = _gpu() or ""
    digits = architecture.rpartition("_g")[2][:2]
    macos = tuple(int(part) for part in platform.mac_ver()[0].split(".")[:2] if part.isdigit())
    if not digits.isdigit() or not macos:
        return {"word": "not known", "because": f"MLX names the GPU {architecture!r}"}
    least = 18 if architecture.endswith("p") else 17
    because = f"by MLX's own rule: {architecture}, macOS {platform.mac_ver()[0]}"
    if int(digits) < least:
        return {"word": "no", "because": f"{because}; GPUs have them from generation {least} on"}
    if macos < (26, 2):
        return {"word": "no", "because": f"{because}; MLX needs macOS 26.2 for them"}
    return {"word": "yes", "because": because}


def state() -> dict[str, Any]:
    """What else the machine does at this moment, and how it is powered and cooled.

    Returns:
        A dict ready for JSON: ``load_average`` of a minute, ``swap_used_bytes``,
        ``free_memory_bytes``, ``power``, ``thermal``, and ``time``. What the system does not say is
        None, or ``not known`` in ``power`` and ``thermal``.
    """
    on_a_mac = sys.platform == "darwin"
    swap, free = (_memory_of_a_mac if on_a_mac else _memory_of_linux)()
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "load_average": os.getloadavg()[0],
        "swap_used_bytes": swap,
        "free_memory_bytes": free,
        "power": (_power_of_a_mac if on_a_mac else _power_of_linux)() or NOT_KNOWN,
        "thermal": (_thermal_of_a_mac if on_a_mac else _thermal_of_linux)() or NOT_KNOWN,
    }


#: What `state` says where the system says nothing.
NOT_KNOWN = "not known"


def _printed(*command: str) -> str:
    """What a program of the system prints; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _memory_of_linux() -> tuple[int | None, int | None]:
    """Bytes of swap in use, and of memory that programs can still get."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kib = {line.partition(":")[0]: int(line.split()[1]) for line in lines}
        return (kib["SwapTotal"] - kib["SwapFree"]) << 10, kib["MemAvailable"] << 10
    except (OSError, LookupError, ValueError):
        return None, None


def _memory_of_a_mac() -> tuple[int | None, int | None]:
    """Bytes of swap in use, and of memory that programs can still get."""
    swap = free = None
    words = _printed("sysctl", "-n", "vm.swapusage").split()
    if "used" in words:  # total = 2048.00M  used = 1034.50M  free = ...
        with suppress(ValueError, LookupError):
            swap = int(float(words[words.index("used") + 2].rstrip("M")) * 2**20)
    pages = dict(line.split(":", 1) for line in _printed("vm_stat").splitlines()[1:] if ":" in line)
    with suppress(ValueError, LookupError):
        kinds = ("Pages free", "Pages inactive", "Pages speculative")
        count = sum(int(pages[kind].strip().rstrip(".")) for kind in kinds)
        free = count * os.sysconf("SC_PAGE_SIZE")
    return swap, free


def _power_of_a_mac() -> str:
    """Where the power comes from, and whether low power mode is on."""
    first = _printed("pmset", "-g", "batt").partition("\n")[0]
    source = first.partition("'")[2].partition("'")[0]
    settings = _printed("pmset", "-g").splitlines()
    is_low = any(line.split()[:2] == ["lowpowermode", "1"] for line in settings)
    return source + (", low power mode" if is_low else "")


def _thermal_of_a_mac() -> str:
    """What the system says of the processor's temperature: its limits, or that there are none."""
    lines = [line.removeprefix("Note: ") for line in _printed("pmset", "-g", "therm").splitlines()]
    return "; ".join(" ".join(line.split()) for line in lines if line.strip())


def _power_of_linux() -> str:
    """Where the power comes from, as /sys/class/power_supply has it; and the CPU's governor."""
    said = []
    for supply in sorted(Path("/sys/class/power_supply").glob("*")):
        kind, online, status = (_word_of(supply / name) for name in ("type", "online", "status"))
        if kind == "Mains" and online:
            said.append("mains" if online == "1" else "mains unplugged")
        elif kind == "Battery" and status:
            said.append(f"battery {status.lower()}")
    governor = _word_of(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"))
    return ", ".join([*said, *([f"governor {governor}"] if governor else [])])


def _thermal_of_linux() -> str:
    """The highest temperature that /sys/class/thermal has."""
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    degrees = [int(word) / 1000 for zone in zones if (word := _word_of(zone)).lstrip("-").isdigit()]
    return f"{max(degrees):.0f} °C at the hottest sensor" if degrees else ""


def _word_of(file: Path) -> str:
    """A small file of /sys; empty if it can't be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


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


def resident_bytes(pid: int | None = None) -> int:
    """Resident memory of a process, this one by default; 0 if it has ended."""
    words = _printed("ps", "-o", "rss=", "-p", str(pid or os.getpid())).split()
    return int(words[0]) * 1024 if words else 0


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
