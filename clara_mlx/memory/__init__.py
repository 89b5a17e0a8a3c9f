"""What an agent saw: remembered, compressed in the background, recalled, asked about."""

from clara_mlx.memory.memory import Memory

__all__ = ["Memory"]
