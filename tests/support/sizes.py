"""How much a test does: little by default, everything in the nightly run and before a release."""

import os
from typing import TypeVar

Sized = TypeVar("Sized")

SIZE = os.environ.get("CLARA_MLX_TEST_SIZE", "small")
if SIZE not in ("small", "full"):
    raise ValueError(f"CLARA_MLX_TEST_SIZE must be small or full, not {SIZE!r}")


def sized(small: Sized, full: Sized) -> Sized:
    """What fits the size of this run; both sizes run the same tests."""
    return full if SIZE == "full" else small
