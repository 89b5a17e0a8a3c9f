"""Seconds that the same work takes on different texts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Timed:
    """Seconds of each run, and the tokens that all runs together were about."""

    seconds: list[float] = field(default_factory=list)
    tokens: int = 0

    @contextmanager
    def run(self, tokens: int = 0) -> Iterator[None]:
        """Time one run about so many tokens."""
        began = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - began)
        self.tokens += tokens

    def to_dict(self) -> dict[str, Any]:
        """Median and 95th percentile in milliseconds, and how long 1,000 tokens take."""
        if not self.seconds:
            return {"runs": 0}
        figures = {
            "runs": len(self.seconds),
            "ms_p50": 1e3 * float(np.median(self.seconds)),
            "ms_p95": 1e3 * float(np.percentile(self.seconds, 95)),
        }
        if self.tokens:
            figures["ms_per_1000_tokens"] = 1e6 * sum(self.seconds) / self.tokens
        return figures
