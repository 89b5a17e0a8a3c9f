"""The trainer: from a config to a trained model, through any number of interruptions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara
from clara_mlx.train import parameters
from clara_mlx.train.batches import Collator, Plan, distinct
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.data import Dataset, Example, read
from clara_mlx.train.evaluation import Evaluator
from clara_mlx.train.run_folder import RunFolder, State
from clara_mlx.train.schedule import Schedule
from clara_mlx.train.step import DocumentLatents, Stepper, added

#: Called after each step with its line of the metrics and the number of all steps.
OnStep = Callable[[dict[str, Any], int], None]


@dataclass(frozen=True)
class Description:
    """What a run will do, found out without training."""

    stage: str
    steps: int
    examples: int
    documents: int
    groups: int
    chunked: int
    evaluation_examples: int
    trained: dict[str, int]  # parameters by part
    labels_per_epoch: int


class Trainer:
    """One run, ready to start or to go on.

    Args:
        config: the run.
        clara: the model to start from, which is trained in place.

    Raises:
        ClaraError: the data is not usable; see `clara_mlx.train.data.read`.
    """

    def __init__(self, config: TrainConfig, clara: Clara) -> None:
        self.config, self.clara = config, clara
        stage, method = config.kind, config.method
        self.train_set = self._read(config.data.train)
        self.held_out = self._read(config.data.evaluation) if config.data.evaluation else None
        if stage.chooses:
            clara.add_query_reasoner()
        for name in method.reset:
            clara.lora.add(name, fresh_adapter(clara.lora.tensors(name), config.seed, name))
        self.parameters = parameters.of(
            clara.network, clara.lora, stage.trains, rows=config.trains_rows
        )
        self._plan = Plan(
            config.batch_size,
            config.steps.micro_batch_size,
            config.data.questions_per_document,
            config.seed,
        )
        self.steps = self._count_steps()

    def _read(self, files: list[str]) -> Dataset:
        config = self.config
        return read(
            [Path(file) for file in files],
            config.kind,
            self.clara.config,
            self.clara.tokenizer,
            max_length=config.max_length,
            top_k=config.method.top_k,
            long_documents=config.data.long_documents,
        )

    def _count_steps(self) -> int:
        steps, most = 0, self.config.steps.most
        for epoch in range(self.config.steps.epochs):
            if most is not None and steps >= most:
                break
            steps += len(self._plan.epoch(self.train_set, epoch))
        return steps if most is None else min(steps, most)

    def describe(self) -> Description:
        """What the run will do."""
        data, examples = self.train_set, self.train_set.examples
        return Description(
            stage=self.config.stage,
            steps=self.steps,
            examples=len(examples),
            documents=len(data.documents),
            groups=len(data.groups),
            chunked=data.chunked,
            evaluation_examples=len(self.held_out.examples) if self.held_out else 0,
            trained=parameters.count(self.parameters),
            labels_per_epoch=self._collator(data).totals([examples]).labels,
        )

    def run(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Train to the end, from the newest state there is; the model holds the result.

        Returns:
            The last line of the metrics, and the last evaluation if there is held-out data.

        Raises:
            ClaraError: the loss is not finite, or the folder is another run's.
        """
        folder = RunFolder(self.config)
        try:
            return self._run(folder, on_step or (lambda line, steps: None))
        finally:
            folder.close()

    def _run(self, folder: RunFolder, on_step: OnStep) -> dict[str, Any]:
        config, cadence = self.config, self.config.steps
        stepper = Stepper(self.clara, config, self.parameters)
        state = folder.latest()
        start = 0
        if state is not None:
            start, self.parameters = state.step, state.parameters
            stepper.optimiser.state = state.optimiser
        settings = config.optimiser
        schedule = Schedule(
            config.learning_rate,
            self.steps,
            settings.schedule or config.kind.schedule,
            settings.warmup,
            settings.least,
        )
        collator = self._collator(self.train_set)
        latents = self._latents(self.train_set)
        evaluator = self._evaluator(stepper)
        last: dict[str, Any] = {"step": start}
        for number, step in enumerate(islice(self._steps(), start, self.steps), start):
            began = time.perf_counter()
            line = self._step(stepper, collator, latents, step, number, schedule.at(number))
            seconds = time.perf_counter() - began
            line |= {"tokens_per_second": line["tokens"] / seconds, "seconds": seconds}
            folder.note(line)
            done = number + 1
            due = cadence.evaluate_every and done % cadence.evaluate_every == 0
            if evaluator and (due or done == self.steps):
                parameters.put(self.clara.network, self.clara.lora, self.parameters)
                line = line | {"evaluation": evaluator.measure(self.parameters)}
                folder.note({"step": done, "evaluation": line["evaluation"]})
            if done % cadence.save_every == 0 or done == self.steps:
                folder.save(State(done, self.parameters, stepper.optimiser.state))
            on_step(line, self.steps)
            last = line
        parameters.put(self.clara.network, self.clara.lora, self.parameters)
        return last

    def _steps(self) -> Iterator[list[list[Example]]]:
        for epoch in range(self.config.steps.epochs):
            yield from self._plan.epoch(self.train_set, epoch)

    def _step(
        self,
        stepper: Stepper,
        collator: Collator,
        latents: DocumentLatents | None,
        step: list[list[Example]],
        number: int,
        rate: float,
    ) -> dict[str, Any]:
        """One optimiser step; its line of the metrics."""
        totals = collator.totals(step)
        sums: dict[str, float] = {}
        gradients: parameters.Parameters | None = None
        tokens = 0
        for i, micro in enumerate(step):
            batch, used = collator.arrays(micro, totals)
            if latents is not None:
                batch["latents"] = latents.of(distinct(micro))
            key = mx.random.key(random.Random(f"{self.config.seed} {number} {i}").getrandbits(63))
            loss, parts, found = stepper.gradient(self.parameters, batch, key)
            gradients = found if gradients is None else added(gradients, found)
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
        return {
            "step": number + 1,
            **sums,
            "learning_rate": rate,
            "gradient_norm": norm.item(),
            "tokens": tokens,
        }

    def _collator(self, dataset: Dataset) -> Collator:
        config = self.config
        return Collator(
            dataset,
            self.clara.config.memory_tokens,
            top_k=config.method.top_k if config.kind.chooses else None,
            in_batch_negatives=config.method.in_batch_negatives,
        )

    def _latents(self, dataset: Dataset) -> DocumentLatents | None:
        if not self.config.kind.chooses:
            return None
        # With trained memory rows, a document's latents change from step to step.
        keep = self.config.method.keep_latents and not self.config.trains_rows
        return DocumentLatents(self.clara, dataset.documents, keep=keep)

    def _evaluator(self, stepper: Stepper) -> Evaluator | None:
        if self.held_out is None:
            return None
        return Evaluator(
            self.clara,
            self.config,
            stepper,
            self.held_out,
            self._collator(self.held_out),
            self._latents(self.held_out),
        )


def fresh_adapter(like: dict[str, mx.array], seed: int, name: str) -> dict[str, mx.array]:
    """An adapter as peft starts one: A uniform within 1 / sqrt(inputs), B zero.

    Args:
        like: tensors of the shapes that are wanted, named as `Adapters.tensors` has them.
        seed: with ``name`` it decides A.
        name: the adapter's.
    """
    key = mx.random.key(random.Random(f"{seed} {name}").getrandbits(63))
    tensors = {}
    for path, array in like.items():
        key, own = mx.random.split(key)
        bound = array.shape[0] ** -0.5  # lora_a is (in, rank)
        tensors[path] = (
            mx.random.uniform(-bound, bound, array.shape, key=own)
            if path.endswith(".lora_a")
            else mx.zeros(array.shape)
        )
    return tensors
