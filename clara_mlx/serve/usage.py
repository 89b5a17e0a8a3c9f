"""The tokens that an endpoint states for an answer, as far as it can be believed."""

from __future__ import annotations

from typing import Any

from clara_mlx.serve.reply import Object

# A server that states more tokens than this is not believed.
_MOST_TOKENS = 10**9


def stated_tokens(usage: Object | None, name: str) -> int:
    """A number of tokens by its name, such as ``prompt_tokens``; 0 if there is none."""
    return _number((usage or {}).get(name))


def cached_tokens(usage: Object | None) -> int:
    """How many of the prompt's tokens the endpoint had from an earlier request."""
    details = (usage or {}).get("prompt_tokens_details")
    return _number(details.get("cached_tokens")) if isinstance(details, dict) else 0


def states_cached(usage: Object | None) -> bool:
    """Whether the endpoint says at all how many of the prompt's tokens it had."""
    details = (usage or {}).get("prompt_tokens_details")
    return isinstance(details, dict) and "cached_tokens" in details


def _number(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 <= value <= _MOST_TOKENS else 0
