"""The reasoner as Codex wants to know a model: in an array ``models`` beside the list of others.

Codex drops the whole array if one field is missing. What it asks for is in its own sources
(``ModelInfo`` in ``codex-rs/protocol``), and ``codex debug models`` reads an array aloud.
"""

from __future__ import annotations

from typing import Any

from clara_mlx.serve.settings import Settings

# Codex uses these in place of its own instructions, of about 5,000 tokens, for a model it knows.
_INSTRUCTIONS = """\
You are a coding agent that works in a user's folder through the tools of the Codex CLI.

- Keep going until the task is done. Read what is there before you change it, and check your work:
  run the tests, the build or the program.
- Make the smallest change that solves the task, in the style of the code around it. Don't undo
  changes that you did not make, and don't commit unless you are asked to.
- Look for files and text with rg, and read files in pieces of at most 250 lines.
- Say in one sentence what you will do next before you call tools. When you are done, say in a few
  sentences what you changed, naming files as path:line, and what you could not check.
- Follow AGENTS.md files: each holds for the folder that it is in."""

# Tokens of a tool's output that Codex sends; it cuts longer ones in the middle.
_OUTPUT_TOKENS = 10_000


def catalog_entry(settings: Settings) -> dict[str, Any]:
    """The reasoner as an entry of the array."""
    can_see = settings.reasoner.images or settings.fallback is not None
    return {
        "slug": settings.name,
        "display_name": settings.name,
        "description": "The reasoner behind clara-mlx",
        "default_reasoning_level": None,
        "supported_reasoning_levels": [],
        "shell_type": "shell_command",
        "visibility": "list",
        "supported_in_api": True,
        "priority": 1,
        "availability_nux": None,
        "upgrade": None,
        "base_instructions": _INSTRUCTIONS,
        "model_messages": None,
        "supports_reasoning_summaries": True,
        "default_reasoning_summary": "auto",
        "support_verbosity": False,
        "default_verbosity": None,
        "apply_patch_tool_type": None,
        "truncation_policy": {"mode": "tokens", "limit": _OUTPUT_TOKENS},
        "supports_parallel_tool_calls": True,
        "context_window": settings.budget.window,
        "max_context_window": settings.budget.window,
        "auto_compact_token_limit": None,
        "effective_context_window_percent": 95,
        "experimental_supported_tools": [],
        "input_modalities": ["text", "image"] if can_see else ["text"],
    }
