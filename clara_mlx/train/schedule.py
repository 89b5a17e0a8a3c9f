"""The learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Warm-up and cosine, or a constant; the reference has both from transformers.

    Attributes:
        peak: The highest learning rate.
        steps: Steps of the whole run.
        kind: ``cosine`` (transformers' ``cosine_with_min_lr``) or ``constant``, without a warm-up.
        warmup: Share of the steps in which the rate rises from 0; the first step has 0.
        least: Share of the peak that the cosine ends with.
    """

    peak: float
    steps: int
    kind: Literal["cosine", "constant"]
    warmup: float = 0.03
    least: float = 0.1

    def at(self, step: int) -> float:
        """The learning rate of a step; steps are counted from 0."""
        if self.kind == "constant":
            return self.peak
        warm = math.ceil(self.steps * self.warmup)
        if step < warm:
            return self.peak * step / warm
        progress = (step - warm) / max(1, self.steps - warm)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        return self.peak * (self.least + (1 - self.least) * cosine)
