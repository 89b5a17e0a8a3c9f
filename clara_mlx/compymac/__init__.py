"""CompyMac's memory, knowledge store and tool outputs, backed by a clara-mlx memory.

Nothing here imports CompyMac: any objects with the fields of its messages and settings will do.
"""

from clara_mlx.compymac.compressor import ClaraCompressor, CompressedText, ToolOutputHook
from clara_mlx.compymac.facts import MemoryFacts, MemoryState
from clara_mlx.compymac.install import Installed, install
from clara_mlx.compymac.knowledge import ClaraKnowledgeStore, MemoryUnit, RetrievalResult
from clara_mlx.compymac.manager import ClaraMemoryManager
from clara_mlx.compymac.settings import Settings

__all__ = [
    "ClaraCompressor",
    "ClaraKnowledgeStore",
    "ClaraMemoryManager",
    "CompressedText",
    "Installed",
    "MemoryFacts",
    "MemoryState",
    "MemoryUnit",
    "RetrievalResult",
    "Settings",
    "ToolOutputHook",
    "install",
]
