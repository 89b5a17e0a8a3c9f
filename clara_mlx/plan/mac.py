"""A Mac's unified memory, and how much of it the GPU may use."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from clara_mlx import machine
from clara_mlx.errors import ClaraError

GIB = 2**30  # bytes; a Mac's "GB" of memory
MIB = 2**20  # bytes; the unit of iogpu.wired_limit_mb


@dataclass(frozen=True)
class Mac:
    """A Mac's unified memory."""

    memory: int  # bytes
    wired_limit: int  # bytes the GPU may keep resident (Metal's recommendedMaxWorkingSetSize)
    limit_source: str  # where that figure comes from
    reserve: int  # bytes that iogpu.wired_limit_mb should never reach into

    @property
    def ceiling(self) -> int:
        """Bytes that both servers may take together once the wired limit is raised."""
        return max(self.memory - self.reserve, self.wired_limit)


def mac_of(memory: float | None, wired_limit: float | None = None, reserve: float = 8) -> Mac:
    """The Mac with this memory and limit; without any figure, this machine.

    Args:
        memory: Its memory in GB as memory is sold (2^30 bytes); None means this machine's.
        wired_limit: The GPU's memory limit in the same GB; None means the one that MLX reports
            for this machine, or macOS's default.
        reserve: Memory left to macOS, the two servers' own processes and other programs, in the
            same GB.

    Raises:
        ClaraError: The reserve or the limit exceeds the memory.
    """
    size = machine.describe()["memory_bytes"] if memory is None else int(memory * GIB)
    kept = int(reserve * GIB)
    is_here = memory is None and wired_limit is None
    if is_here and mx.metal.is_available():
        limit = int(mx.device_info()["max_recommended_working_set_size"])
        return Mac(size, limit, "as this Mac reports it", kept)
    if size <= kept:
        raise ClaraError(
            f"{size / GIB:g} GB of memory leave nothing after a reserve of {kept / GIB:g} GB "
            "for macOS"
        )
    if wired_limit is not None:
        limit = int(wired_limit * GIB)
        if not 0 < limit <= size:
            raise ClaraError(
                f"a GPU limit of {limit / GIB:g} GB is impossible with {size / GIB:g} GB of memory"
            )
        return Mac(size, limit, "as given", kept)
    source = "macOS's default, as documented"
    if is_here:
        source += "; this machine is not a Mac"
    return Mac(size, default_wired_limit(size), source, kept)


def default_wired_limit(memory: int) -> int:
    """macOS's default limit of GPU memory, from users' logs of ``recommendedMaxWorkingSetSize``.

    It is two thirds below 36 GB (10.67 of 16, 21.33 of 32) and three quarters from there on (27 of
    36, 72 of 96): abetlen/llama-cpp-python issue 687, ggml-org/llama.cpp pull 2011 and issue 3213,
    ml-explore/mlx-lm issue 883. Apple documents no rule, and newer systems report more (107.5 of
    128: antirez/ds4 pull 893), so this is a cautious figure. On a Mac, MLX reports the real one.
    """
    return memory * 2 // 3 if memory < 36 * GIB else memory * 3 // 4
