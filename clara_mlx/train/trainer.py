"""The trainer: from a config to a trained model, through any number of interruptions."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map

from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara
from clara_mlx.model.ranks import Ranks
from clara_mlx.train import parameters
from clara_mlx.train.batches import Collator, DocumentLatents
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.data import Dataset, Example
from clara_mlx.train.evaluation import Evaluator
from clara_mlx.train.parameters import Parameters
from clara_mlx.train.plan import Plan
from clara_mlx.train.run_folder import Read, RunFolder, Say, State
from clara_mlx.train.step import Schedule, Stepper, add
from clara_mlx.train.together import check_same_run, check_work_for_all

#: Called after each step with its line of the metrics and the number of steps in the run.
OnStep = Callable[[dict[str, Any], int], None]


class Trainer:
    """One run, ready to start or to be resumed; `prepare` makes it.

    Args:
        config: The run.
        clara: The model, which is trained in place.
        plan: The examples, and the steps that are made of them.
        trained: The arrays to train.
        teacher: The model whose latents are wanted, in a stage that imitates.
        ranks: The processes that share each step. Each computes some of its micro-batches; their
            gradients and losses are added up, so all train the same. Rank 0 writes the folder.
    """

    def __init__(
        self,
        config: TrainConfig,
        clara: Clara,
        plan: Plan,
        trained: Parameters,
        teacher: Clara | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.config = config
        self.clara = clara
        self.plan = plan
        self.parameters = trained
        self.teacher = teacher
        self.ranks = ranks or Ranks()

    @classmethod
    def prepare(
        cls,
        config: TrainConfig,
        clara: Clara,
        plan: Plan,
        teacher: Clara | None = None,
        ranks: Ranks | None = None,
    ) -> Trainer:
        """Give the model the adapters that the run trains."""
        if config.kind.chooses:
            clara.add_query_reasoner()
        for name in config.method.reset:
            clara.lora.add(
                name, parameters.new_adapter(clara.lora.tensors(name), config.seed, name)
            )
        trained = parameters.collect(
            clara.network, clara.lora, config.kind.trains, rows=config.trains_rows
        )
        return cls(config, clara, plan, trained, teacher, ranks)

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return self.plan.steps

    def describe(self) -> dict[str, Any]:
        """Describe what the run will do, as JSON values."""
        return self.plan.describe(parameters.count(self.parameters))

    def run(self, on_step: OnStep | None = None, say: Say | None = None) -> dict[str, Any]:
        """Train to the end, from the newest state if there is one; the model holds the result.

        Args:
            on_step: Called after each step.
            say: Called with one line for each thing that the user should know.

        Returns:
            The last line of the metrics, with the last evaluation if there is held-out data.

        Raises:
            ClaraError: The loss is not finite, or the folder is another run's.
            RankLost: Another rank has ended.
        """
        cadence, plan = self.config.steps, self.plan
        teacher = {"the teacher": self.teacher.fingerprint} if self.teacher else {}
        read = Read(self.clara.fingerprint, {**plan.hashes, **teacher})
        check_same_run(self.ranks, self.config, read)
        check_work_for_all(self.ranks, plan)
        with self._open_folder(read, say or (lambda line: None)) as folder:
            # 1) Go on from the newest state.
            stepper = Stepper(self.clara, self.config, self.parameters)
            start = self._resume(folder, stepper)
            # 2) Prepare what all steps need.
            schedule = Schedule.of(self.config, self.steps)
            collator = self._collator(plan.train_set)
            evaluator = plan.held_out and Evaluator(
                self.clara,
                self.config,
                stepper,
                plan.held_out,
                self._collator(plan.held_out),
                self.ranks,
            )
            line: dict[str, Any] = {"step": start}
            for number, step in enumerate(islice(plan.all_steps(), start, self.steps), start):
                # 3) Train one step.
                line = self._step(stepper, collator, step, number, schedule.at(number))
                done = number + 1
                if folder:
                    folder.log(line)
                # 4) Evaluate and save, if it is time to.
                if evaluator and self._is_due(done, cadence.evaluate_every):
                    self._put_into_model()
                    line = line | {"evaluation": evaluator.measure(self.parameters)}
                    if folder:
                        folder.log({"step": done, "evaluation": line["evaluation"]})
                if folder and self._is_due(done, cadence.save_every):
                    folder.save(State(done, self.parameters, stepper.optimiser.state))
                if on_step:
                    on_step(line, self.steps)
            # 5) Leave the trained arrays in the model.
            self._put_into_model()
        return line

    def _open_folder(self, read: Read, say: Say) -> AbstractContextManager[RunFolder | None]:
        """The run's folder, which only rank 0 has."""
        return RunFolder.open(self.config, read, say) if self.ranks.is_first else nullcontext()

    def _resume(self, folder: RunFolder | None, stepper: Stepper) -> int:
        """Take over the newest state; returns the number of steps that are done."""
        state = folder.resume() if folder else None
        if state:
            self.parameters, stepper.optimiser.state = state.parameters, state.optimiser
        done: int = self.ranks.gather(state.step if state else 0)[0]
        if self.ranks.size > 1:  # the others' machines may not have that folder
            trees = {"parameters": self.parameters, "optimiser": stepper.optimiser.state}
            trees = self.ranks.from_first(parameters.sort_by_key(trees))
            self.parameters, stepper.optimiser.state = trees["parameters"], trees["optimiser"]
        return done

    def _is_due(self, done: int, every: int) -> bool:
        return done == self.steps or (every > 0 and done % every == 0)

    def _put_into_model(self) -> None:
        parameters.put(self.clara.network, self.clara.lora, self.parameters)

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
        for i, micro in self.ranks.share(list(enumerate(step))):
            batch, used = collator.arrays(micro, totals)
            key = mx.random.key(random.Random(f"{self.config.seed} {number} {i}").getrandbits(63))
            loss, parts, found = stepper.gradient(self.parameters, batch, key)
            gradients = found if gradients is None else add(gradients, found)
            mx.eval(loss, parts, gradients)
            for name, value in ({"loss": loss} | parts).items():
                sums[name] = sums.get(name, 0.0) + float(value.item())  # type: ignore[arg-type]
            tokens += used
        sums = self.ranks.add_up(sums | {"tokens": tokens})
        tokens = int(sums.pop("tokens"))
        if not abs(sums["loss"]) < float("inf"):  # NaN fails this too
            raise ClaraError(
                f"step {number + 1}: the loss is {sums['loss']}; lower the learning rate "
                f"(first example: {step[0][0].where})"
            )
        if gradients is None:  # this rank has none of the step's micro-batches
            gradients = tree_map(mx.zeros_like, self.parameters)
        gradients = self.ranks.sum(gradients)
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
        if self.teacher:
            wanted = DocumentLatents(self.teacher, dataset.documents, keep=method.keep_latents)
            return Collator(dataset, memory_tokens, teacher=wanted)
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
