"""The trainer: from a config to a trained model, through any number of interruptions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara
from clara_mlx.train import parameters
from clara_mlx.train.batches import Batching, Collator, DocumentLatents
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.data import Dataset, Example, read
from clara_mlx.train.evaluation import Evaluator
from clara_mlx.train.parameters import Parameters
from clara_mlx.train.run_folder import RunFolder, State
from clara_mlx.train.step import Schedule, Stepper, add

#: Called after each step with its line of the metrics and the number of steps in the run.
OnStep = Callable[[dict[str, Any], int], None]


class Trainer:
    """One run, ready to start or to be resumed; `prepare` makes it.

    Args:
        config: The run.
        clara: The model, which is trained in place.
        train_set: The examples to train on.
        held_out: The examples to evaluate on; None if there are none.
        trained: The arrays to train.
    """

    def __init__(
        self,
        config: TrainConfig,
        clara: Clara,
        train_set: Dataset,
        held_out: Dataset | None,
        trained: Parameters,
    ) -> None:
        self.config = config
        self.clara = clara
        self.train_set = train_set
        self.held_out = held_out
        self.parameters = trained
        self._batching = Batching(
            batch_size=config.batch_size,
            micro_batch_size=config.steps.micro_batch_size,
            questions_per_document=config.data.questions_per_document,
            seed=config.seed,
        )
        self.steps = self._count_steps()

    @classmethod
    def prepare(cls, config: TrainConfig, clara: Clara) -> Trainer:
        """Read a run's data, and give the model the adapters that the run trains.

        Raises:
            ClaraError: The data is not usable; see `clara_mlx.train.data.read`.
        """
        train_set = _read(config, clara, config.data.train)
        held_out = _read(config, clara, config.data.evaluation) if config.data.evaluation else None
        if config.kind.chooses:
            clara.add_query_reasoner()
        for name in config.method.reset:
            clara.lora.add(
                name, parameters.new_adapter(clara.lora.tensors(name), config.seed, name)
            )
        trained = parameters.collect(
            clara.network, clara.lora, config.kind.trains, rows=config.trains_rows
        )
        return cls(config, clara, train_set, held_out, trained)

    def _count_steps(self) -> int:
        steps, most = 0, self.config.steps.most
        for epoch in range(self.config.steps.epochs):
            if most is not None and steps >= most:
                break
            steps += len(self._batching.epoch(self.train_set, epoch))
        return steps if most is None else min(steps, most)

    def describe(self) -> dict[str, Any]:
        """Describe what the run will do, as JSON values."""
        data, examples = self.train_set, self.train_set.examples
        return {
            "stage": self.config.stage,
            "steps": self.steps,
            "examples": len(examples),
            "documents": len(data.documents),
            "groups": len(data.groups),
            "chunked": data.chunked,
            "evaluation_examples": len(self.held_out.examples) if self.held_out else 0,
            "trained": parameters.count(self.parameters),
            "labels_per_epoch": self._collator(data).totals([examples]).labels,
        }

    def run(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Train to the end, from the newest state if there is one; the model holds the result.

        Returns:
            The last line of the metrics, with the last evaluation if there is held-out data.

        Raises:
            ClaraError: The loss is not finite, or the folder is another run's.
        """
        cadence = self.config.steps
        with RunFolder.open(self.config) as folder:
            # 1) Go on from the newest state.
            stepper = Stepper(self.clara, self.config, self.parameters)
            start = self._resume(folder, stepper)
            # 2) Prepare what all steps need.
            schedule = Schedule.of(self.config, self.steps)
            collator = self._collator(self.train_set)
            evaluator = self.held_out and Evaluator(
                self.clara, self.config, stepper, self.held_out, self._collator(self.held_out)
            )
            line: dict[str, Any] = {"step": start}
            for number, step in enumerate(islice(self._steps(), start, self.steps), start):
                # 3) Train one step.
                line = self._step(stepper, collator, step, number, schedule.at(number))
                folder.log(line)
                done = number + 1
                # 4) Evaluate and save, if it is time to.
                if evaluator and self._is_due(done, cadence.evaluate_every):
                    self._put_into_model()
                    line = line | {"evaluation": evaluator.measure(self.parameters)}
                    folder.log({"step": done, "evaluation": line["evaluation"]})
                if self._is_due(done, cadence.save_every):
                    folder.save(State(done, self.parameters, stepper.optimiser.state))
                if on_step:
                    on_step(line, self.steps)
            # 5) Leave the trained arrays in the model.
            self._put_into_model()
        return line

    def _resume(self, folder: RunFolder, stepper: Stepper) -> int:
        """Take over the newest state; returns the number of steps that are done."""
        state = folder.resume()
        if state is None:
            return 0
        self.parameters = state.parameters
        stepper.optimiser.state = state.optimiser
        return state.step

    def _is_due(self, done: int, every: int) -> bool:
        return done == self.steps or (every > 0 and done % every == 0)

    def _put_into_model(self) -> None:
        parameters.put(self.clara.network, self.clara.lora, self.parameters)

    def _steps(self) -> Iterator[list[list[Example]]]:
        for epoch in range(self.config.steps.epochs):
            yield from self._batching.epoch(self.train_set, epoch)

    def _step(
        self,
        stepper: Stepper,
        collator: Collator,
        step: list[list[Example]],
        number: int,
        rate: float,
    ) -> dict[str, Any]:
        """Train one optimiser step; returns its line of the metrics."""
        began = time.perf_counter()
        totals = collator.totals(step)
        sums: dict[str, float] = {}
        gradients: Parameters | None = None
        tokens = 0
        for i, micro in enumerate(step):
            batch, used = collator.arrays(micro, totals)
            key = mx.random.key(random.Random(f"{self.config.seed} {number} {i}").getrandbits(63))
            loss, parts, found = stepper.gradient(self.parameters, batch, key)
            gradients = found if gradients is None else add(gradients, found)
            mx.eval(loss, parts, gradients)
            for name, value in ({"loss": loss} | parts).items():
                sums[name] = sums.get(name, 0.0) + float(value.item())  # type: ignore[arg-type]
            tokens += used
        if not abs(sums["loss"]) < float("inf"):  # NaN fails this too
            raise ClaraError(
                f"step {number + 1}: the loss is {sums['loss']}; lower the learning rate "
                f"(first example: {step[0][0].where})"
            )
        assert gradients is not None
        self.parameters, norm = stepper.update(self.parameters, gradients, rate)
        mx.eval(self.parameters, stepper.optimiser.state, norm)
        seconds = time.perf_counter() - began
        return {
            "step": number + 1,
            **sums,
            "learning_rate": rate,
            "gradient_norm": norm.item(),
            "tokens": tokens,
            "tokens_per_second": tokens / seconds,
            "seconds": seconds,
        }

    def _collator(self, dataset: Dataset) -> Collator:
        memory_tokens, method = self.clara.config.memory_tokens, self.config.method
        if not self.config.kind.chooses:
            return Collator(dataset, memory_tokens)
        # With trained memory rows, a document's latents change from step to step.
        keep = method.keep_latents and not self.config.trains_rows
        return Collator(
            dataset,
            memory_tokens,
            latents=DocumentLatents(self.clara, dataset.documents, keep=keep),
            top_k=method.top_k,
            in_batch_negatives=method.in_batch_negatives,
        )


def _read(config: TrainConfig, clara: Clara, files: list[str]) -> Dataset:
    return read(
        [Path(file) for file in files],
        config.kind,
        clara.config,
        clara.tokenizer,
        max_length=config.max_length,
        top_k=config.method.top_k,
        long_documents=config.data.long_documents,
    )
