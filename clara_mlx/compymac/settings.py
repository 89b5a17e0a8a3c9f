"""Settings from the environment, and the one memory that everything in a process shares."""

from __future__ import annotations

import atexit
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from clara_mlx.compressors import registry
from clara_mlx.errors import ClaraError
from clara_mlx.memory import Memory
from clara_mlx.memory.settings import (
    COMPRESSOR,
    MEMORY,
    MODEL,
    REASONER,
    SESSION,
    TOOL_OUTPUT_TOKENS,
)
from clara_mlx.store.opening import is_url

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_open: dict[tuple[Path | str, str | None, str | None], Memory] = {}


@dataclass(frozen=True)
class Settings:
    """What the environment sets; `Settings.from_env` reads it.

    Attributes:
        memory: The memory file, or the URL of a team's database (``CLARA_MLX_MEMORY``).
        model: A model folder or hub id (``CLARA_MLX_MODEL``). None: originals, handles and text
            search only.
        compressor: The name of a compressor (``CLARA_MLX_COMPRESSOR``). None: the model's.
        reasoner: A folder with the reasoner's tokenizer (``CLARA_MLX_REASONER``), for exact
            counts. None: CompyMac's own estimate.
        session: The session that the memories belong to (``CLARA_MLX_SESSION``).
        tool_output_tokens: An output of more tokens than this becomes an excerpt with a handle as
            it arrives (``CLARA_MLX_TOOL_OUTPUT_TOKENS``).
    """

    memory: Path | str = Path(MEMORY.default)
    model: str | None = None
    compressor: str | None = None
    reasoner: Path | None = None
    session: str = SESSION.default
    tool_output_tokens: int = int(TOOL_OUTPUT_TOKENS.default)

    @classmethod
    def from_env(cls) -> Settings:
        """The settings of the environment; what is not set has its default.

        Raises:
            ClaraError: ``CLARA_MLX_TOOL_OUTPUT_TOKENS`` is not a whole number.
        """
        reasoner = REASONER.read()
        tokens = TOOL_OUTPUT_TOKENS.read()
        memory = MEMORY.read()
        if not tokens.isdecimal() or int(tokens) < 1:
            raise ClaraError(f"{TOOL_OUTPUT_TOKENS.name} must be a whole number, not {tokens!r}")
        return cls(
            memory=memory if is_url(memory) else Path(memory),
            model=MODEL.read() or None,
            compressor=COMPRESSOR.read() or None,
            reasoner=Path(reasoner) if reasoner else None,
            session=SESSION.read(),
            tool_output_tokens=int(tokens),
        )


def shared_memory(settings: Settings) -> Memory:
    """The memory of these settings, opened once in a process and closed when it ends.

    Raises:
        StoreError: The file can't be opened.
        CheckpointError: The model can't be loaded.
    """
    path = settings.memory
    if isinstance(path, Path):
        path = path.expanduser().absolute()
    key = path, settings.model, settings.compressor
    with _lock:
        if key not in _open:
            compressor = None
            if settings.compressor:
                compressor = registry.open_compressor(settings.compressor, settings.model)
            elif settings.model:
                compressor = registry.load(settings.model)
            else:
                logger.warning(
                    "%s: CLARA_MLX_MODEL is not set; originals, handles and text search work, "
                    "latent search and answers don't",
                    path,
                )
            _open[key] = Memory.open(path, compressor)
        return _open[key]


@atexit.register
def close_shared() -> None:
    """Close every shared memory; what waits for compression still does when it is opened again."""
    with _lock:
        for memory in _open.values():
            memory.close()
        _open.clear()
