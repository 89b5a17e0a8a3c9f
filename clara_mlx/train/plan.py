"""`Plan`: what a run will do, known before any weight is read or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.tokenizer import TextTokenizer
from clara_mlx.train.batches import Batching, Collator
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.data import Dataset, Example, read


@dataclass(frozen=True)
class Plan:
    """The examples of a run, checked, and the steps that they make; `make` reads them."""

    config: TrainConfig
    memory_tokens: int  # vectors per document
    train_set: Dataset
    held_out: Dataset | None  # to evaluate on

    @classmethod
    def make(cls, config: TrainConfig, model: ClaraConfig, tokenizer: TextTokenizer) -> Plan:
        """Read and check a run's examples for a model.

        Raises:
            ClaraError: They are not usable; see `clara_mlx.train.data.read`.
        """

        def read_all(files: list[str]) -> Dataset:
            return read(
                [Path(file) for file in files],
                config.kind,
                model,
                tokenizer,
                max_length=config.max_length,
                top_k=config.method.top_k,
                long_documents=config.data.long_documents,
            )

        held_out = read_all(config.data.evaluation) if config.data.evaluation else None
        return cls(config, model.memory_tokens, read_all(config.data.train), held_out)

    @property
    def hashes(self) -> Mapping[str, str]:
        """SHA-256 of each file of examples, by its path."""
        held_out = self.held_out.hashes if self.held_out else {}
        return {**self.train_set.hashes, **held_out}

    @property
    def batching(self) -> Batching:
        """How examples are put into steps."""
        return Batching(
            batch_size=self.config.batch_size,
            micro_batch_size=self.config.steps.micro_batch_size,
            questions_per_document=self.config.data.questions_per_document,
            seed=self.config.seed,
        )

    def all_steps(self) -> Iterator[list[list[Example]]]:
        """The steps of all epochs, as lists of micro-batches."""
        for epoch in range(self.config.steps.epochs):
            yield from self.batching.epoch(self.train_set, epoch)

    @cached_property
    def steps(self) -> int:
        """The number of optimiser steps."""
        steps, most = 0, self.config.steps.most
        for epoch in range(self.config.steps.epochs):
            if most is not None and steps >= most:
                break
            steps += len(self.batching.epoch(self.train_set, epoch))
        return steps if most is None else min(steps, most)

    def describe(self, trained: Mapping[str, int]) -> dict[str, Any]:
        """Describe what the run will do, as JSON values.

        Args:
            trained: The number of weights that get gradient, by part.
        """
        data, examples = self.train_set, self.train_set.examples
        return {
            "stage": self.config.stage,
            "steps": self.steps,
            "examples": len(examples),
            "documents": len(data.documents),
            "groups": len(data.groups),
            "chunked": data.chunked,
            "evaluation_examples": len(self.held_out.examples) if self.held_out else 0,
            "trained": dict(trained),
            "labels_per_epoch": Collator(data, self.memory_tokens).totals([examples]).labels,
        }
