"""The encoder pass: token ids in, memory-token states out, and no work that they don't need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn


class MemoryTokenEmbedding(nn.Module):
    """An embedding table, quantised or not, with the trained rows of the added tokens kept exact.

    Ids from ``first_id`` on read ``rows`` (added_tokens, hidden); all others read ``table``.
    Output (..., hidden) in ``dtype``, the compute dtype.
    """

    def __init__(self, table: nn.Module, rows: mx.array, first_id: int, dtype: mx.Dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.rows = rows.astype(dtype)
        self._first_id = first_id
        self._dtype = dtype

    def __call__(self, ids: mx.array) -> mx.array:
        """Embeddings of ids (...) as (..., hidden)."""
        added = mx.maximum(ids, self._first_id) - self._first_id  # ids may be unsigned
        is_added = (ids >= self._first_id)[..., None]
        return mx.where(is_added, self.rows[added], self.table(ids).astype(self._dtype))


def encode_batch(model: Any, batch: Sequence[Sequence[int]], memory_tokens: int) -> mx.array:
    """States of the memory tokens after the final norm, for a batch of encoder inputs.

    The inputs are padded on the right, where causal attention never looks, so each row has the
    positions and the result of its own unpadded pass. lm_head is not run, and in the last layer
    queries, attention and MLP are computed at the memory positions only.

    Args:
        model: an mlx-lm Llama-family model whose encoder adapter is active.
        batch: ids of each input, its memory tokens last.
        memory_tokens: M, how many memory tokens end each input.

    Returns:
        (batch, memory_tokens, hidden) in the compute dtype, not yet evaluated.
    """
    lengths = [len(ids) for ids in batch]
    longest = max(lengths)
    ids = mx.array([[*ids, *[0] * (longest - len(ids))] for ids in batch])  # (batch, longest)
    starts = mx.array([length - memory_tokens for length in lengths])  # (batch,)

    base = model.model
    h = base.embed_tokens(ids)  # (batch, longest, hidden)
    for layer in base.layers[:-1]:
        h = layer(h, "causal")
    h = _last_layer(base.layers[-1], h, starts, memory_tokens, ragged=min(lengths) != longest)
    return base.norm(h)


def _last_layer(
    layer: Any, h: mx.array, starts: mx.array, memory_tokens: int, *, ragged: bool
) -> mx.array:
    """The last block at the memory positions: (batch, memory_tokens, hidden)."""
    attention = layer.self_attn
    batch, length, _ = h.shape
    positions = starts[:, None] + mx.arange(memory_tokens)  # (batch, memory_tokens)
    at_memory = mx.take_along_axis(h, positions[..., None], axis=1)

    def heads(x: mx.array, count: int) -> mx.array:
        return x.reshape(batch, x.shape[1], count, -1).transpose(0, 2, 1, 3)

    normed = layer.input_layernorm(h)
    queries = attention.q_proj(mx.take_along_axis(normed, positions[..., None], axis=1))
    queries = attention.rope(heads(queries, attention.n_heads), offset=starts)
    keys = attention.rope(heads(attention.k_proj(normed), attention.n_kv_heads))
    values = heads(attention.v_proj(normed), attention.n_kv_heads)
    # Without padding the memory tokens end every row, which is the kernel's own causal mask.
    mask: mx.array | str = "causal"
    if ragged:
        mask = mx.arange(length) <= positions[:, None, :, None]  # (batch, 1, memory_tokens, length)
    x = mx.fast.scaled_dot_product_attention(
        queries, keys, values, scale=attention.scale, mask=mask
    )
    x = x.transpose(0, 2, 1, 3).reshape(batch, memory_tokens, -1)
    h = at_memory + attention.o_proj(x)
    return h + layer.mlp(layer.post_attention_layernorm(h))
