"""The encoder pass over the tokens of many inputs in one row, without padding between them.

A product with a matrix does not ask which input a token belongs to: only attention and positions
do. So all inputs of a batch stand behind one another, (tokens, hidden), in every product of a
block: it is as large as it can be, and no padding is computed. Attention alone is done for groups
of inputs of about the same length, padded on the right to the longest of their group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import mlx.core as mx

from clara_mlx.model.exponentials import attend, attend_at, swiglu

#: Inputs whose lengths differ by less than this share a group: attention costs a few hundredths of
#: the products, so padding to the next multiple costs less than more and smaller groups would.
GROUP_TOKENS = 32


@dataclass(frozen=True)
class _Group:
    """Inputs that stand behind one another and whose attention is computed at once."""

    start: int  # the row of the first one's first token
    lengths: list[int]

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    @property
    def is_even(self) -> bool:
        """Whether all of its inputs have the same length."""
        return min(self.lengths) == self.longest

    def pad(self, rows: mx.array) -> mx.array:
        """The group's part of (tokens, width) as (inputs, longest, width)."""
        count = len(self.lengths)
        if self.is_even:
            return rows[self.start : self.start + self.tokens].reshape(count, self.longest, -1)
        starts = mx.array([*accumulate(self.lengths[:-1], initial=self.start)])
        # What stands in the padding doesn't matter, as causal attention never looks there.
        last = self.start + self.tokens - 1
        return rows[mx.minimum(starts[:, None] + mx.arange(self.longest), last)]

    def unpad(self, padded: mx.array) -> mx.array:
        """(inputs, longest, width) without the padding, as (tokens, width)."""
        rows = padded.reshape(-1, padded.shape[-1])
        if self.is_even:
            return rows
        places = [i * self.longest + t for i, n in enumerate(self.lengths) for t in range(n)]
        return rows[mx.array(places)]


def encode_packed(model: Any, batch: Sequence[Sequence[int]], memory_tokens: int) -> mx.array:
    """What `clara_mlx.model.encoder.encode_batch` gives, for a model that `is_plain`."""
    order = sorted(range(len(batch)), key=lambda i: len(batch[i]))
    lengths = [len(batch[i]) for i in order]
    groups = _groups(lengths)
    ends = [*accumulate(lengths)]
    memory = mx.array(ends)[:, None] - memory_tokens + mx.arange(memory_tokens)  # (batch, count)
    h = model.model.embed_tokens(mx.array([id for i in order for id in batch[i]]))
    *layers, last = model.model.layers
    h = _run(layers, h, groups)
    h = h[memory.reshape(-1)] + _last_attention(last, last.input_layernorm(h), groups, memory)
    h = h + _mlp(last, h)
    states = model.model.norm(h).reshape(len(batch), memory_tokens, -1)
    return states if order == sorted(order) else states[mx.argsort(mx.array(order))]


def read_on(model: Any, h: mx.array, caches: Sequence[Any]) -> mx.array:
    """States after the final norm at positions that follow what has been read before.

    It is the decoder's pass for a model that `is_plain`, with this module's attention and MLP.

    Args:
        model: The base, an mlx-lm model, whose adapter is active.
        h: Embeddings of the positions (1, count, hidden).
        caches: mlx-lm's caches, one for each layer, with what has been read; these positions are
            added to them.

    Returns:
        (1, count, hidden), not yet evaluated.
    """
    for layer, cache in zip(model.model.layers, caches, strict=True):
        attention = layer.self_attn
        normed = layer.input_layernorm(h)
        q = _heads(attention, "q_norm", attention.q_proj(normed), attention.n_heads)
        k = _heads(attention, "k_norm", attention.k_proj(normed), attention.n_kv_heads)
        v = _heads(attention, None, attention.v_proj(normed), attention.n_kv_heads)
        q = attention.rope(q, offset=cache.offset)
        k, v = cache.update_and_fetch(attention.rope(k, offset=cache.offset), v)
        h = h + attention.o_proj(_rows(attend(q, k, v, attention.scale)))
        h = h + _mlp(layer, h)
    states: mx.array = model.model.norm(h)
    return states


def all_packed_states(model: Any, h: mx.array, lengths: Sequence[int]) -> mx.array:
    """States after the final norm at every token, (tokens, hidden), of a model that `is_plain`.

    Args:
        model: An mlx-lm model.
        h: Input embeddings (tokens, hidden) of inputs that stand behind one another.
        lengths: Their numbers of tokens, ascending.
    """
    states: mx.array = model.model.norm(_run(model.model.layers, h, _groups(lengths)))
    return states


def _run(layers: Sequence[Any], h: mx.array, groups: Sequence[_Group]) -> mx.array:
    """Whole blocks at every token: (tokens, hidden)."""
    for layer in layers:
        h = h + _attention(layer, layer.input_layernorm(h), groups)
        h = h + _mlp(layer, h)
    return h


def _groups(lengths: Sequence[int]) -> list[_Group]:
    """Inputs with sorted lengths in groups; those of each need about the same padded length."""
    groups = []
    start = 0
    for _, some in groupby(lengths, key=lambda n: -(-n // GROUP_TOKENS)):
        group = _Group(start, list(some))
        groups.append(group)
        start += group.tokens
    return groups


def _attention(layer: Any, normed: mx.array, groups: Sequence[_Group]) -> mx.array:
    """The attention of a block at every token: (tokens, hidden)."""
    attention = layer.self_attn
    queries, keys, values = (
        attention.q_proj(normed),
        attention.k_proj(normed),
        attention.v_proj(normed),
    )
    done = []
    for group in groups:
        q = _heads(attention, "q_norm", group.pad(queries), attention.n_heads)
        k = _heads(attention, "k_norm", group.pad(keys), attention.n_kv_heads)
        v = _heads(attention, None, group.pad(values), attention.n_kv_heads)
        x = attend(attention.rope(q), attention.rope(k), v, attention.scale)
        done.append(group.unpad(_rows(x)))
    output: mx.array = attention.o_proj(mx.concatenate(done))
    return output


def _last_attention(
    layer: Any, normed: mx.array, groups: Sequence[_Group], memory: mx.array
) -> mx.array:
    """The attention of the last block at the memory tokens: (batch * count, hidden).

    ``memory`` (batch, count) has their rows; they are the last of each input.
    """
    attention = layer.self_attn
    count = memory.shape[1]
    queries = attention.q_proj(normed[memory.reshape(-1)]).reshape(*memory.shape, -1)
    keys, values = attention.k_proj(normed), attention.v_proj(normed)
    done = []
    first = 0
    for group in groups:
        inputs = len(group.lengths)
        starts = mx.array(group.lengths) - count  # (inputs,)
        q = _heads(attention, "q_norm", queries[first : first + inputs], attention.n_heads)
        k = _heads(attention, "k_norm", group.pad(keys), attention.n_kv_heads)
        v = _heads(attention, None, group.pad(values), attention.n_kv_heads)
        q, k = attention.rope(q, offset=starts), attention.rope(k)
        if group.is_even:
            x = attend(q, k, v, attention.scale)
        else:
            x = attend_at(q, k, v, attention.scale, starts)
        done.append(_rows(x).reshape(inputs * count, -1))
        first += inputs
    output: mx.array = attention.o_proj(mx.concatenate(done))
    return output


def _heads(attention: Any, norm: str | None, x: mx.array, heads: int) -> mx.array:
    """(inputs, length, width) as (inputs, heads, length, head width), normed where a model does."""
    x = x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)
    return attention[norm](x) if norm is not None and norm in attention else x


def _rows(x: mx.array) -> mx.array:
    """(inputs, heads, length, head width) as (inputs, length, width)."""
    inputs, _, length, _ = x.shape
    return x.transpose(0, 2, 1, 3).reshape(inputs, length, -1)


def _mlp(layer: Any, h: mx.array) -> mx.array:
    """The norm and MLP of a block: (tokens, hidden)."""
    normed = layer.post_attention_layernorm(h)
    mlp = layer.mlp
    output: mx.array = mlp.down_proj(swiglu(mlp.gate_proj(normed), mlp.up_proj(normed)))
    return output
