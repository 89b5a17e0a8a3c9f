"""The losses of the stages, as functions of one padded batch; nothing is evaluated here.

All of them are weighted sums, and the batch holds the weights. So the parts of an accumulated step
add up to exactly the loss of the whole step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from clara_mlx.model.decoder import fill_slots
from clara_mlx.model.encoder import RunLayer, all_states, logits_at, run_layer, states_at
from clara_mlx.model.lora import Adapters

#: The reference divides scores by this in training.
TEMPERATURE = 0.02

# A document that an earlier slot has taken keeps this weight in the softmax of later slots, not
# zero: if it leads by more than 18.42 temperatures, it gets their mass too (reference behaviour).
_TAKEN = 1e-8

#: Arrays by name; `clara_mlx.train.batches.Collator` lists them with their shapes.
Arrays = dict[str, mx.array]


@dataclass(frozen=True)
class Network:
    """A model, and the passes through it that losses are made of."""

    model: Any  # the mlx-lm model with adapted layers and memory-token rows
    adapters: Adapters  # of which each pass activates one
    memory_tokens: int  # M, vectors per document
    run: RunLayer = run_layer  # computes a block, plainly or with activation checkpointing

    def encode(self, ids: mx.array, starts: mx.array, adapter: str) -> mx.array:
        """Latents (n, M, hidden) of inputs (n, length) whose memory tokens begin at ``starts``."""
        with self.adapters.use(adapter):
            h = self.model.model.embed_tokens(ids)
            return states_at(self.model, h, starts, self.memory_tokens, run=self.run)

    def encode_with_mse(self, ids: mx.array, starts: mx.array) -> tuple[mx.array, mx.array]:
        """The latents of documents, and for each the mse between two means of its states: (n,).

        One is the mean over the memory tokens, the other the mean over all other tokens of the
        input. Both carry gradient (reference behaviour).
        """
        with self.adapters.use("encoder"):
            h = self.model.model.embed_tokens(ids)
            states = all_states(self.model, h, run=self.run)
        positions = starts[:, None] + mx.arange(self.memory_tokens)
        latents = mx.take_along_axis(states, positions[..., None], axis=1)
        is_other = (mx.arange(ids.shape[1]) < starts[:, None])[..., None]
        others = mx.where(is_other, states.astype(mx.float32), 0).sum(axis=1) / starts[:, None]
        difference = latents.astype(mx.float32).mean(axis=1) - others
        return latents, difference.square().mean(axis=-1)

    def cross_entropy(self, batch: Arrays, latents: mx.array) -> mx.array:
        """The weighted sum of all labels' cross-entropy, with latents in the prompts' slots."""
        with self.adapters.use("decoder"):
            embeds = self.model.model.embed_tokens(batch["ids"])
            embeds = fill_slots(embeds, batch["sources"], latents)
            count = batch["targets"].shape[1]
            logits = logits_at(self.model, embeds, batch["answer_starts"], count, run=self.run)
        logits = logits.astype(mx.float32)
        of_target = mx.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
        losses = mx.logsumexp(logits, axis=-1) - of_target
        return (losses * batch["target_weights"]).sum()

    def scores(self, batch: Arrays, latents: mx.array) -> mx.array:
        """Cosines (batch, n) of each question with its candidates; -inf marks empty places."""
        queries = self.encode(batch["query_ids"], batch["query_starts"], "query_reasoner")
        candidates = batch["candidates"]
        q = _flatten_to_unit_length(queries)
        d = _flatten_to_unit_length(latents)[mx.maximum(candidates, 0)]  # (batch, n, M * hidden)
        cosines = (d @ q[..., None])[..., 0]
        return mx.where(candidates >= 0, cosines, -mx.inf)


def _flatten_to_unit_length(latents: mx.array) -> mx.array:
    """Latents (n, M, hidden) flattened to unit length: (n, M * hidden) float32."""
    flat = latents.reshape(latents.shape[0], -1).astype(mx.float32)
    return flat / mx.maximum(mx.linalg.norm(flat, axis=-1, keepdims=True), 1e-12)


def answers(network: Network, batch: Arrays, *, mse_weight: float) -> tuple[mx.array, Arrays]:
    """The stages scp and instruct: cross-entropy through the documents' latents, plus the mse.

    Returns:
        The loss, and its parts by name.
    """
    if mse_weight:
        latents, mse = network.encode_with_mse(batch["document_ids"], batch["document_starts"])
        parts = {"mse": (mse * batch["document_weights"]).sum()}
    else:
        latents = network.encode(batch["document_ids"], batch["document_starts"], "encoder")
        parts = {}
    parts["ce"] = network.cross_entropy(batch, latents)
    return parts["ce"] + mse_weight * parts.get("mse", mx.array(0.0)), parts


def end_to_end(
    network: Network, batch: Arrays, latents: mx.array, *, k: int, temperature: float = TEMPERATURE
) -> tuple[mx.array, Arrays]:
    """Cross-entropy through the documents that the query reasoner chose.

    ``latents`` (documents, M, hidden) carry no gradient; the scores do, through the
    straight-through top-k.
    """
    latents = mx.stop_gradient(latents)
    scores = network.scores(batch, latents)
    weights, _ = differentiable_topk(scores, k, temperature)
    candidates = latents[mx.maximum(batch["candidates"], 0)]  # (batch, n, M, hidden)
    rows, n, *shape = candidates.shape
    chosen = weights.astype(latents.dtype) @ candidates.reshape(rows, n, -1)
    loss = network.cross_entropy(batch, chosen.reshape(rows * k, *shape))
    return loss, {"ce": loss}


def retrieval(
    network: Network, batch: Arrays, latents: mx.array, *, temperature: float = TEMPERATURE
) -> tuple[mx.array, Arrays]:
    """Contrastive: minus the log of the share of a question's positives among all candidates.

    ``latents`` carry no gradient. In the reference this stage leaves the wrong adapter active and
    trains nothing; here it trains the query reasoner.
    """
    scores = network.scores(batch, mx.stop_gradient(latents)) / temperature
    of_positives = mx.where(batch["positives"], scores, -mx.inf)
    losses = mx.logsumexp(scores, axis=-1) - mx.logsumexp(of_positives, axis=-1)
    loss = (losses * batch["question_weights"]).sum()
    return loss, {"contrastive": loss}


def imitation(network: Network, batch: Arrays) -> tuple[mx.array, Arrays]:
    """The squared distance of each document's latents from the teacher's, relative to their square.

    Returns:
        The loss, and the mean ``cosine`` of the flattened latents.
    """
    latents = network.encode(batch["document_ids"], batch["document_starts"], "encoder")
    found = latents.reshape(latents.shape[0], -1).astype(mx.float32)
    wanted = batch["teacher_latents"].reshape(found.shape)
    squares = wanted.square().sum(axis=-1)
    loss = (((found - wanted).square().sum(axis=-1) / squares) * batch["document_weights"]).sum()
    norms = mx.linalg.norm(found, axis=-1) * mx.sqrt(squares)
    cosines = (found * wanted).sum(axis=-1) / mx.maximum(norms, 1e-12)
    return loss, {"cosine": (cosines * batch["document_weights"]).sum()}


def differentiable_topk(
    scores: mx.array, k: int, temperature: float = TEMPERATURE
) -> tuple[mx.array, mx.array]:
    """Choose k of n documents by score; each slot's row is one-hot and has a soft gradient.

    The soft row of a slot is the softmax over the documents that earlier slots left, so gradient
    also reaches documents that were not chosen (CLaRa paper, section 3.3).

    Args:
        scores: Scores (batch, n), float32; -inf marks places without a document.
        k: Number of documents to choose, at most n.
        temperature: Divides the scores.

    Returns:
        Weights (batch, k, n), one-hot up to rounding, and indices (batch, k), best first.
    """
    y = scores / max(temperature, 1e-6)
    chosen = mx.argsort(-y, axis=-1)[:, :k]  # (batch, k)
    hard = (chosen[..., None] == mx.arange(scores.shape[-1])).astype(scores.dtype)
    taken = mx.cumsum(hard, axis=1) - hard  # by earlier slots
    soft = mx.softmax(y[:, None, :] + mx.log(1 - taken + _TAKEN), axis=-1)
    return hard + (soft - mx.stop_gradient(soft)), chosen
