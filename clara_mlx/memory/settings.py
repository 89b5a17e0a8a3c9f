"""Settings from the environment: the one table that readers, ``--help`` and docs/SETTINGS.md share.

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
    """One environment variable.

    Attributes:
        name: The variable's name.
        kind: What its value is, in one or two words.
        readers: The options that it replaces, and others that read it.
        purpose: What it sets, in one sentence.
        default: The value if it is not set; empty if there is none.
    """

    name: str
    kind: str
    readers: str
    purpose: str
    default: str = ""

    def read(self) -> str:
        """The variable's value; the default if it is not set or empty."""
        return os.environ.get(self.name) or self.default


MEMORY = Setting(
    name="CLARA_MLX_MEMORY",
    kind="file",
    readers="`--db` of every command that has it; CompyMac's classes",
    purpose="The memory file; `remember` makes it.",
    default="~/.clara-mlx/memory.db",
)
MODEL = Setting(
    name="CLARA_MLX_MODEL",
    kind="folder or hub id",
    readers="`--model` of `recall`, `ask`, `flush`, `recompress`, `serve` and `mcp`; "
    "CompyMac's classes",
    purpose="The model that compresses, searches and answers.",
)
REASONER = Setting(
    name="CLARA_MLX_REASONER",
    kind="folder",
    readers="`--tokenizer` of `serve`; CompyMac's classes",
    purpose="The reasoner's folder, for exact token counts; without it they are estimates.",
)
REASONER_URL = Setting(
    name="CLARA_MLX_REASONER_URL",
    kind="URL",
    readers="`--reasoner` of `serve`",
    purpose="The reasoner's OpenAI-compatible API.",
    default="http://127.0.0.1:8080/v1",
)
REASONER_KEY = Setting(
    name="CLARA_MLX_REASONER_KEY",
    kind="secret",
    readers="`serve`",
    purpose="The key that the gateway sends to the reasoner.",
)
FALLBACK_URL = Setting(
    name="CLARA_MLX_FALLBACK_URL",
    kind="URL",
    readers="`--fallback` of `serve`",
    purpose="A second API, e.g. https://api.x.ai/v1, for requests that the reasoner can't answer.",
)
FALLBACK_MODEL = Setting(
    name="CLARA_MLX_FALLBACK_MODEL",
    kind="name",
    readers="`--fallback-model` of `serve`",
    purpose="The name of the model at the second API.",
)
FALLBACK_KEY = Setting(
    name="CLARA_MLX_FALLBACK_KEY",
    kind="secret",
    readers="`serve`, unless `--fallback-key` names another variable",
    purpose="The key that the gateway sends to the second API.",
)
TOKEN = Setting(
    name="CLARA_MLX_TOKEN",
    kind="secret",
    readers="`serve`",
    purpose="The bearer token that the gateway's clients must send.",
)
SESSION = Setting(
    name="CLARA_MLX_SESSION",
    kind="name",
    readers="CompyMac's classes",
    purpose="The session that memories are kept under.",
    default="compymac",
)
TOOL_OUTPUT_TOKENS = Setting(
    name="CLARA_MLX_TOOL_OUTPUT_TOKENS",
    kind="tokens",
    readers="CompyMac's classes",
    purpose="A longer tool output becomes an excerpt with a handle as it arrives.",
    default="2000",
)

SETTINGS = (
    MEMORY,
    MODEL,
    REASONER,
    REASONER_URL,
    REASONER_KEY,
    FALLBACK_URL,
    FALLBACK_MODEL,
    FALLBACK_KEY,
    TOKEN,
    SESSION,
    TOOL_OUTPUT_TOKENS,
)
