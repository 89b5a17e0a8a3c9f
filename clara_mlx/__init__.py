"""clara-mlx: CLaRa's memory tokens on Apple Silicon, beside the untouched original."""

from typing import TYPE_CHECKING, Any

from clara_mlx.errors import (
    Busy,
    CheckpointError,
    ClaraError,
    Closed,
    NoModel,
    NotFound,
    PromptTooLong,
    ReadOnly,
    StorageFailed,
    StoreError,
    TextTooLong,
)
from clara_mlx.version import __version__

if TYPE_CHECKING:
    from clara_mlx.compressors.registry import load
    from clara_mlx.memory import Memory
    from clara_mlx.memory.asking import Answer
    from clara_mlx.memory.async_memory import AsyncMemory
    from clara_mlx.model.chunking import Chunk
    from clara_mlx.model.clara import Clara, Compressed
    from clara_mlx.model.config import ClaraConfig
    from clara_mlx.store.results import Hit, Status

__all__ = [
    "Answer",
    "AsyncMemory",
    "Busy",
    "CheckpointError",
    "Chunk",
    "Clara",
    "ClaraConfig",
    "ClaraError",
    "Closed",
    "Compressed",
    "Hit",
    "Memory",
    "NoModel",
    "NotFound",
    "PromptTooLong",
    "ReadOnly",
    "Status",
    "StorageFailed",
    "StoreError",
    "TextTooLong",
    "__version__",
    "load",
]

_HOMES = {
    "Chunk": "model.chunking",
    "ClaraConfig": "model.config",
    "Memory": "memory.memory",
    "AsyncMemory": "memory.async_memory",
    "Answer": "memory.asking",
    "Hit": "store.results",
    "Status": "store.results",
    "Clara": "model.clara",
    "Compressed": "model.clara",
    "load": "compressors.registry",
}


def __getattr__(name: str) -> Any:
    """Import MLX only when it is needed, so that ``clara-mlx --help`` answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"clara_mlx.{_HOMES[name]}"), name)
