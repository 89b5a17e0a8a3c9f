"""Memory: remembers what an agent saw, compresses it in the background, finds it, answers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clara_mlx.memory.memory import Memory

__all__ = ["Memory"]


def __getattr__(name: str) -> Any:
    """Import numpy and SQLite only when `Memory` is needed, not for a look at the settings."""
    if name != "Memory":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clara_mlx.memory.memory import Memory

    return Memory
