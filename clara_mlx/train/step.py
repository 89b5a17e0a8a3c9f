"""One optimiser step: gradients of its micro-batches, added up, clipped, and given to Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_map

from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara
from clara_mlx.model.encoder import is_plain, run_layer
from clara_mlx.train import losses, parameters
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.losses import Arrays, Network
from clara_mlx.train.parameters import Parameters
from clara_mlx.train.passes import Dropout, checkpointed_run_layer, use_dropout


class Stepper:
    """Computes gradients and updates for one run; compiled unless the config says otherwise.

    Args:
        clara: The model; `parameters.put` brings trained arrays into it.
        config: The run.
        initial: The trained arrays, for the optimiser's state.
    """

    def __init__(self, clara: Clara, config: TrainConfig, initial: Parameters) -> None:
        if config.method.gradient_checkpointing and not is_plain(clara.network):
            raise ClaraError(
                "gradient_checkpointing can't be used on this base, whose layers are not run one "
                "by one; set it to false"
            )
        self._clara = clara
        self._config = config
        self.network = Network(
            clara.network,
            clara.lora,
            clara.config.memory_tokens,
            checkpointed_run_layer(clara.lora)
            if config.method.gradient_checkpointing
            else run_layer,
        )
        settings = config.optimiser
        self.optimiser = optim.AdamW(
            learning_rate=config.learning_rate,
            betas=list(settings.betas),
            weight_decay=settings.weight_decay,
            bias_correction=True,  # as torch's
        )
        self.optimiser.init(initial)
        compiled = mx.compile if config.method.compile else lambda function: function
        self._gradient = compiled(self._gradient_of)
        self._loss = compiled(self._loss_of)
        self._update: Any = None

    def gradient(
        self, trained: Parameters, batch: Arrays, key: mx.array
    ) -> tuple[mx.array, Arrays, Parameters]:
        """The loss of a micro-batch, its parts, and its gradient; ``key`` decides the dropout."""
        return self._gradient(trained, batch, key)

    def loss(self, trained: Parameters, batch: Arrays) -> tuple[mx.array, Arrays]:
        """The loss of a micro-batch and its parts, without dropout."""
        return self._loss(trained, batch)

    def update(
        self, trained: Parameters, gradients: Parameters, rate: float
    ) -> tuple[Parameters, mx.array]:
        """The trained arrays after one step of Adam, and the gradient's norm before clipping."""
        if self._update is None:
            # Not earlier: a resumed run first puts its own state into the optimiser.
            state = self.optimiser.state
            self._update = (
                mx.compile(self._update_of, inputs=state, outputs=state)
                if self._config.method.compile
                else self._update_of
            )
        self.optimiser.learning_rate = rate
        return self._update(trained, gradients)

    def _stage_loss(self, batch: Arrays) -> tuple[mx.array, Arrays]:
        method, stage = self._config.method, self._config.kind
        if stage.imitates:
            return losses.imitation(self.network, batch)
        if not stage.chooses:
            return losses.answers(self.network, batch, mse_weight=self._config.mse_weight)
        latents = batch["latents"]
        temperature = method.temperature
        if stage.decodes:
            return losses.end_to_end(
                self.network, batch, latents, k=method.top_k, temperature=temperature
            )
        return losses.retrieval(self.network, batch, latents, temperature=temperature)

    def _loss_of(self, trained: Parameters, batch: Arrays) -> tuple[mx.array, Arrays]:
        with parameters.in_place(self._clara.network, self._clara.lora, trained):
            return self._stage_loss(batch)

    def _gradient_of(
        self, trained: Parameters, batch: Arrays, key: mx.array
    ) -> tuple[mx.array, Arrays, Parameters]:
        def loss(trained: Parameters) -> tuple[mx.array, Arrays]:
            share = self._config.dropout
            with use_dropout(self._clara.lora, Dropout(share, key) if share else None):
                return self._loss_of(trained, batch)

        (total, parts), gradients = mx.value_and_grad(loss)(trained)
        return total, parts, parameters.memory_rows_only(gradients, self._clara.config)

    def _update_of(self, trained: Parameters, gradients: Parameters) -> tuple[Parameters, mx.array]:
        clipped, norm = optim.clip_grad_norm(gradients, self._config.optimiser.clip)
        return self.optimiser.apply_gradients(clipped, trained), norm


def add(a: Parameters, b: Parameters) -> Parameters:
    """Add two gradients."""
    sums: Parameters = tree_map(mx.add, a, b)
    return sums


@dataclass(frozen=True)
class Schedule:
    """Warm-up and cosine, or a constant; the reference has both from transformers."""

    peak: float  # the highest learning rate
    steps: int  # of the whole run
    kind: Literal["cosine", "constant"]  # transformers' ``cosine_with_min_lr``, or no warm-up
    warmup: float = 0.03  # share of the steps in which the rate rises from 0, its first value
    least: float = 0.1  # share of the peak that the cosine ends with

    @classmethod
    def of(cls, config: TrainConfig, steps: int) -> Schedule:
        """The schedule of a run."""
        own = config.optimiser
        kind = own.schedule or config.kind.schedule
        return cls(config.learning_rate, steps, kind, own.warmup, own.least)

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
