"""Evaluation during training: the loss on held-out examples, and greedy answers to some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from clara_mlx.evaluate.metrics import exact
from clara_mlx.model.clara import Clara
from clara_mlx.model.decoder import Decoder
from clara_mlx.model.prompts import DecoderPrompt
from clara_mlx.model.ranks import Ranks
from clara_mlx.train.batches import Batching, Collator, DocumentLatents
from clara_mlx.train.config import TrainConfig
from clara_mlx.train.data import Dataset, Example
from clara_mlx.train.parameters import Parameters
from clara_mlx.train.step import Stepper


class Evaluator:
    """Measures a model in training on held-out examples.

    Args:
        clara: The model with the trained arrays in it.
        config: The run.
        stepper: Computes losses.
        dataset: The examples.
        collator: Makes their arrays.
        ranks: The processes that share the examples; each gets the figures of all.
    """

    def __init__(
        self,
        clara: Clara,
        config: TrainConfig,
        stepper: Stepper,
        dataset: Dataset,
        collator: Collator,
        ranks: Ranks,
    ) -> None:
        self._clara = clara
        self._config = config
        self._stepper = stepper
        self._collator = collator
        self._ranks = ranks
        self._latents = collator.latents or DocumentLatents(clara, dataset.documents, keep=False)
        self._decoder = Decoder(clara.network, clara.lora, clara.tokenizer, clara.config.stop_ids)
        micro_batch_size = config.steps.micro_batch_size
        examples = dataset.examples
        batching = Batching(
            batch_size=len(examples),
            micro_batch_size=micro_batch_size,
            questions_per_document=min(micro_batch_size, len(examples)),
            seed=0,
        )
        self._micros = [micro for step in batching.epoch(dataset, 0) for micro in step]
        stride = max(1, len(examples) // max(1, config.steps.evaluation_answers))
        self._asked = examples[::stride][: config.steps.evaluation_answers]

    def measure(self, trained: Parameters) -> dict[str, Any]:
        """Measure the model as it is.

        Returns:
            ``loss`` and its parts, means as in training but without dropout; ``exact``, the share
            of the ``answers`` that are right by `clara_mlx.evaluate.metrics.exact`; ``recall``, the
            share of positives that are among the top_k candidates.
        """
        sums: dict[str, float] = {}
        totals = self._collator.totals(self._micros)
        for micro in self._ranks.share(self._micros):
            batch, _ = self._collator.arrays(micro, totals)
            loss, parts = self._stepper.loss(trained, batch)
            mx.eval(loss, parts)
            for name, value in ({"loss": loss} | parts).items():
                sums[name] = sums.get(name, 0.0) + float(value.item())  # type: ignore[arg-type]
        figures: dict[str, Any] = dict(self._ranks.add_up(sums))
        if self._asked and not self._config.kind.imitates:
            figures |= self._measure_answers()
        return figures

    def _measure_answers(self) -> dict[str, Any]:
        """Choose documents and answer questions, as far as the stage does, and count."""
        counts = {"right": 0.0, "found": 0.0, "positives": 0.0}
        for example in self._ranks.share(self._asked):
            chosen = list(example.documents)
            if self._config.kind.chooses:
                chosen = self._choose(example)
                counts["found"] += len(set(chosen) & set(example.positives))
                counts["positives"] += len(example.positives)
            if self._config.kind.decodes:
                counts["right"] += exact(self._answer(example, chosen), example.answer)
        counts = self._ranks.add_up(counts)
        figures: dict[str, Any] = {"answers": len(self._asked)}
        if self._config.kind.decodes:
            figures["exact"] = counts["right"] / len(self._asked)
        if counts["positives"]:
            figures["recall"] = counts["found"] / counts["positives"]
        return figures

    def _choose(self, example: Example) -> list[int]:
        """The best candidates of a question, best first."""
        scores = self._clara.rank(
            self._clara.encode_query(example.question), self._latents_of(example.documents)
        )
        order: Any = mx.argsort(-scores)[: self._config.method.top_k].tolist()
        return [example.documents[i] for i in order]

    def _latents_of(self, numbers: Sequence[int]) -> mx.array:
        return self._latents.of(numbers)[: len(numbers)]

    def _answer(self, example: Example, documents: list[int]) -> str:
        prompt = example.prompts[0]
        question = DecoderPrompt(prompt.ids[: prompt.answer_from], prompt.slots)
        responses = self._decoder.stream(
            question, self._latents_of(documents), self._config.steps.answer_tokens, {}
        )
        return "".join(response.text for response in responses)
