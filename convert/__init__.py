"""From a Hugging Face CLaRa checkpoint to a model folder: open, convert, verify, inspect.

Installed as ``clara_mlx.convert``. Only this package knows ``.pth`` files and Hugging Face tensor
names; no part of it imports torch.
"""

from clara_mlx.convert.conversion import convert
from clara_mlx.convert.inspection import inspect
from clara_mlx.convert.source import Source
from clara_mlx.convert.verification import verify

__all__ = ["Source", "convert", "inspect", "verify"]
