"""The encoder pass: token ids in, memory-token states out, without the work they don't need."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.model.packed import encode_packed

#: Tokens per encoder batch: enough to keep a GPU busy, small enough for its activations.
BATCH_TOKENS = 4096


class MemoryTokenEmbedding(nn.Module):
    """An embedding table, quantised or not, with the trained rows of the added tokens kept exact.

    Ids from ``first_id`` on read ``rows`` (added_tokens, hidden); all others read ``table``.
    Output (..., hidden) in ``dtype``, the compute dtype.
    """

    def __init__(self, table: nn.Module, rows: mx.array, first_id: int, dtype: mx.Dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.rows = rows.astype(dtype)  # training puts its float32 ones here
        self._first_id = first_id
        self._dtype = dtype

    def __call__(self, ids: mx.array) -> mx.array:
        """Embeddings of ids (...) as (..., hidden)."""
        added = mx.maximum(ids, self._first_id) - self._first_id  # ids may be unsigned
        is_added = (ids >= self._first_id)[..., None]
        rows = self.rows[added].astype(self._dtype)
        return mx.where(is_added, rows, self.table(ids).astype(self._dtype))


#: One block of the base under the causal mask: (layer, h (batch, length, hidden)) -> that shape.
RunLayer = Callable[[Any, mx.array], mx.array]


def run_layer(layer: Any, h: mx.array) -> mx.array:
    """Compute a block as it is; training replaces this function with a checkpointed one."""
    output: mx.array = layer(h, "causal")
    return output


def batches(lengths: Sequence[int], *, padded: bool = True) -> Iterator[list[int]]:
    """The numbers of inputs in batches of at most BATCH_TOKENS, shortest inputs first.

    What is counted are the tokens of inputs ``padded`` to the longest, or their own.
    """
    batch: list[int] = []
    tokens = 0  # of the batch, unpadded
    for number in sorted(range(len(lengths)), key=lengths.__getitem__):
        tokens += lengths[number]
        if batch and ((len(batch) + 1) * lengths[number] if padded else tokens) > BATCH_TOKENS:
            yield batch
            batch, tokens = [], lengths[number]
        batch.append(number)
    if batch:
        yield batch


def encode_batch(model: Any, batch: Sequence[Sequence[int]], memory_tokens: int) -> mx.array:
    """States of the memory tokens after the final norm, for a batch of encoder inputs.

    Each input has the positions and the result of a pass of its own: a model that `is_plain`
    computes no padding (`clara_mlx.model.packed`), for any other the inputs are padded on the
    right, where causal attention never looks. lm_head is not run, and in the last layer of a plain
    model queries, attention and MLP are computed at the memory positions only.

    Args:
        model: The base, an mlx-lm model, whose encoder adapter is active.
        batch: The ids of each input, its memory tokens last.
        memory_tokens: M, the number of memory tokens that end each input.

    Returns:
        (batch, memory_tokens, hidden) in the compute dtype, not yet evaluated.
    """
    if is_plain(model):
        return encode_packed(model, batch, memory_tokens)
    lengths = [len(ids) for ids in batch]
    longest = max(lengths)
    ids = mx.array([[*ids, *[0] * (longest - len(ids))] for ids in batch])  # (batch, longest)
    starts = mx.array([length - memory_tokens for length in lengths])  # (batch,)
    h = model.model.embed_tokens(ids)  # (batch, longest, hidden)
    return states_at(model, h, starts, memory_tokens, ragged=min(lengths) != longest)


def states_at(
    model: Any,
    h: mx.array,
    starts: mx.array,
    count: int,
    *,
    ragged: bool = True,
    run: RunLayer = run_layer,
) -> mx.array:
    """States after the final norm at ``count`` positions from ``starts`` on, and no others.

    Args:
        model: The base, an mlx-lm model, whose adapter is active.
        h: Input embeddings (batch, length, hidden), padded on the right.
        starts: The first position of each row (batch,).
        count: Number of positions per row; all lie within the padded length.
        ragged: Whether any row's positions are not the last ``count`` of the padded length.
        run: Computes each block but the last, if the model `is_plain`.

    Returns:
        (batch, count, hidden), not yet evaluated.
    """
    if not is_plain(model):
        positions = starts[:, None] + mx.arange(count)  # (batch, count)
        states = _own_states(model, h)
        return mx.take_along_axis(states, positions[..., None], axis=1)
    base = model.model
    for layer in base.layers[:-1]:
        h = run(layer, h)
    return base.norm(_last_layer(base.layers[-1], h, starts, count, ragged=ragged))


def all_states(model: Any, h: mx.array, *, run: RunLayer = run_layer) -> mx.array:
    """States after the final norm at every position: (batch, length, hidden)."""
    if not is_plain(model):
        return _own_states(model, h)
    for layer in model.model.layers:
        h = run(layer, h)
    return model.model.norm(h)


def logits_at(
    model: Any, h: mx.array, starts: mx.array, count: int, *, run: RunLayer = run_layer
) -> mx.array:
    """Logits (batch, count, vocab) at ``count`` positions from ``starts`` on, as `states_at`."""
    if is_plain(model):
        logits: mx.array = model.lm_head(states_at(model, h, starts, count, run=run))
        return logits
    positions = starts[:, None] + mx.arange(count)
    whole = model(mx.zeros(h.shape[:2], mx.int32), input_embeddings=h)
    return mx.take_along_axis(whole, positions[..., None], axis=1)


def is_plain(model: Any) -> bool:
    """Whether a model's blocks may be run one by one, all of them under the causal mask.

    That is known of these classes of mlx-lm if none of their layers has a sliding window; any other
    model is run by its own forward pass, which leaves out nothing that it does between its blocks.
    """
    windows = any(getattr(layer, "use_sliding", False) for layer in model.layers)
    return type(model).__module__ in _PLAIN and not windows


_PLAIN = tuple(f"mlx_lm.models.{name}" for name in ("llama", "qwen2", "qwen3"))


def _own_states(model: Any, h: mx.array) -> mx.array:
    """States after the final norm by the model's own forward pass: (batch, length, hidden)."""
    states: mx.array = model.model(mx.zeros(h.shape[:2], mx.int32), input_embeddings=h)
    return states


def _last_layer(layer: Any, h: mx.array, starts: mx.array, count: int, *, ragged: bool) -> mx.array:
    """The last block at ``count`` positions from ``starts`` on: (batch, count, hidden)."""
    attention = layer.self_attn
    batch, length, _ = h.shape
    positions = starts[:, None] + mx.arange(count)  # (batch, count)
    residual = mx.take_along_axis(h, positions[..., None], axis=1)

    def heads(x: mx.array, n_heads: int) -> mx.array:
        return x.reshape(batch, x.shape[1], n_heads, -1).transpose(0, 2, 1, 3)

    normed = layer.input_layernorm(h)
    queries = attention.q_proj(mx.take_along_axis(normed, positions[..., None], axis=1))
    queries = heads(queries, attention.n_heads)
    keys = heads(attention.k_proj(normed), attention.n_kv_heads)
    if "q_norm" in attention:  # Qwen3's, of each head
        queries, keys = attention.q_norm(queries), attention.k_norm(keys)
    queries = attention.rope(queries, offset=starts)
    keys = attention.rope(keys)
    values = heads(attention.v_proj(normed), attention.n_kv_heads)
    # Positions that end every row are the kernel's own causal mask.
    mask: mx.array | str = "causal"
    if ragged:
        mask = mx.arange(length) <= positions[:, None, :, None]  # (batch, 1, count, length)
    x = mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=attention.scale, mask=mask
    )
    x = x.transpose(0, 2, 1, 3).reshape(batch, count, -1)
    h = residual + attention.o_proj(x)
    return h + layer.mlp(layer.post_attention_layernorm(h))
