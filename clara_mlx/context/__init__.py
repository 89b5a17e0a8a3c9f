"""A conversation and a token budget -> the messages a reasoner gets."""

from clara_mlx.context.budget import Budget, ContextOverflow, Exchange
from clara_mlx.context.conversation import Context, Prepared, When
from clara_mlx.context.counting import ChatTemplate, Counter, Estimate

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
