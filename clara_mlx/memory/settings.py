"""Settings from the environment, which readers, ``--help`` and docs/SETTINGS.md share.

Two rooms read the environment: the command line, whose options it replaces, and CompyMac's classes,
which have no command line. The table is in the lowest room that both may import and whose subject
it is: above all, it says which file is the memory and which model reads it. The gateway reads
nothing; it receives values.
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """One environment variable; docs/SETTINGS.md also says what reads it."""

    name: str
    purpose: str  # what it sets, in one sentence
    default: str = ""  # the value if it is not set; empty if there is none

    def read(self) -> str:
        """The variable's value; the default if it is not set or empty."""
        return os.environ.get(self.name) or self.default


MEMORY = Setting(
    "CLARA_MLX_MEMORY",
    "The memory file, which `remember` makes; or a team's database, postgresql://...",
    "~/.clara-mlx/memory.db",
)
MODEL = Setting("CLARA_MLX_MODEL", "The model that compresses, searches and answers.")
COMPRESSOR = Setting(
    "CLARA_MLX_COMPRESSOR",
    "The name of the compressor; without it the model's folder says which it is.",
)
REASONER = Setting(
    "CLARA_MLX_REASONER",
    "The reasoner's folder, for exact token counts; without it they are estimates.",
)
REASONER_CACHE = Setting(
    "CLARA_MLX_REASONER_CACHE",
    "What the reasoner's server keeps of a prompt that changes.",
    "auto",
)
REASONER_URL = Setting(
    "CLARA_MLX_REASONER_URL", "The base URL of the reasoner's API.", "http://127.0.0.1:8080/v1"
)
REASONER_API = Setting(
    "CLARA_MLX_REASONER_API",
    "What the reasoner's API speaks: chat (completions), messages (Anthropic's) or responses.",
    "chat",
)
REASONER_KEY = Setting("CLARA_MLX_REASONER_KEY", "The key that the gateway sends to the reasoner.")
FALLBACK_URL = Setting(
    "CLARA_MLX_FALLBACK_URL",
    "A second API, e.g. https://api.x.ai/v1, for requests that the reasoner can't answer.",
)
FALLBACK_API = Setting(
    "CLARA_MLX_FALLBACK_API",
    "What the second API speaks: chat (completions), messages (Anthropic's) or responses.",
    "chat",
)
FALLBACK_MODEL = Setting("CLARA_MLX_FALLBACK_MODEL", "The name of the model at the second API.")
FALLBACK_KEY = Setting(
    "CLARA_MLX_FALLBACK_KEY", "The key that the gateway sends to the second API."
)
TOKEN = Setting("CLARA_MLX_TOKEN", "The bearer token that the gateway's clients must send.")
SESSION = Setting("CLARA_MLX_SESSION", "The session that memories are kept under.", "compymac")
TOOL_OUTPUT_TOKENS = Setting(
    "CLARA_MLX_TOOL_OUTPUT_TOKENS",
    "Longer tool outputs become excerpts with handles as they arrive.",
    "2000",
)
