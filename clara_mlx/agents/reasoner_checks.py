"""Checks the reasoner's server itself: whether it answers here, and the window that it states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clara_mlx.agents.asking import Unreachable, ask
from clara_mlx.agents.finding import Finding, note, ok, wrong

# Where servers state their window, by the keys that lead to it in a model of their list: vLLM and
# SGLang; LM Studio, OpenRouter and others; Anthropic; llama.cpp.
_STATED = (
    ("max_model_len",),
    ("max_context_length",),
    ("context_length",),
    ("max_input_tokens",),
    ("meta", "n_ctx"),
)


def check_reasoner(url: str, window: int | None) -> Iterator[Finding]:
    """Whether a reasoner's server answers, and whether its window is the gateway's.

    Args:
        url: The base URL of its API, which ends in ``/v1``.
        window: Tokens that the gateway was told; None if that is not known.
    """
    try:
        answered = ask(url.rstrip("/"), "/models")
    except Unreachable:
        yield note(
            "reasoner",
            f"nothing answers at {url} from here",
            "if the gateway's reasoner is elsewhere, name it with --reasoner-endpoint",
        )
        return
    data = answered.data
    models = data.get("data") if isinstance(data, dict) else None
    stated = [found for model in models or () if (found := _stated_window(model))]
    if not stated:
        yield ok("reasoner", f"{url} answers; it does not state its window")
    elif window is None:
        yield ok("reasoner", f"{url} answers; it states a window of {max(stated):,} tokens")
    elif window > max(stated):
        yield wrong(
            "reasoner",
            f"its window has {max(stated):,} tokens, and the gateway was told {window:,}",
            f"clara-mlx serve --window {max(stated)}",
        )
    elif window < min(stated):
        yield note(
            "reasoner",
            f"its window has {min(stated):,} tokens, and the gateway uses {window:,} of them",
            f"clara-mlx serve --window {min(stated)}, if there is memory for it",
        )
    else:
        yield ok("reasoner", f"{url} answers; its window has {window:,} tokens")


def _stated_window(model: Any) -> int | None:
    for keys in _STATED:
        found = model
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return None
