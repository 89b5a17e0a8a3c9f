"""A conversation and a token budget -> the messages a reasoner gets."""

from clara_mlx.context.conversation import Context, Prepared, When
from clara_mlx.context.counting import ChatTemplate, Counter, Estimate
from clara_mlx.context.plan import Budget, ContextOverflow, Exchange

__all__ = [
    "Budget",
    "ChatTemplate",
    "Context",
    "ContextOverflow",
    "Counter",
    "Estimate",
    "Exchange",
    "Prepared",
    "When",
]
