"""The encoder: windows of token ids in, the mean state of every few tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from clara_mlx.errors import Progress
from clara_mlx.model.encoder import all_states, batches, is_plain
from clara_mlx.model.packed import all_packed_states


class Adapter(nn.Module):
    """From pooled states (..., encoder hidden) to latents (..., decoder hidden)."""

    def __init__(self, encoder_hidden: int, hidden: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.norm = nn.RMSNorm(encoder_hidden, eps=1e-6)
        self.fc1 = nn.Linear(encoder_hidden, hidden)
        self.fc2 = nn.Linear(hidden, hidden)

    def __call__(self, states: mx.array) -> mx.array:
        """Latents of pooled states, in the adapter's dtype."""
        h: mx.array = self.norm(states.astype(self.norm.weight.dtype))
        h = self.fc2(nn.gelu(self.fc1(h)))
        return h


class Encoder:
    """An mlx-lm model without use for its head, whose states after the final norm are pooled.

    Every window is a sequence of its own, with positions from 0. With the causal mask, a group of
    tokens has the same mean whatever follows it, and a window whatever precedes it.

    Args:
        network: The mlx-lm model.
        ratio: Tokens of a group.
        window: Tokens of a window, a multiple of the ratio.
        dtype: What is computed in.
    """

    def __init__(self, network: Any, ratio: int, window: int, dtype: mx.Dtype) -> None:
        self.network = network
        self.ratio = ratio
        self.window = window
        self.hidden: int = network.args.hidden_size
        self._dtype = dtype

    def windows(self, ids: Sequence[int]) -> list[list[int]]:
        """A text's ids, cut into windows."""
        return [list(ids[i : i + self.window]) for i in range(0, len(ids), self.window)]

    def embed(self, ids: mx.array) -> mx.array:
        """Embeddings of ids (...) as (..., hidden)."""
        embeds: mx.array = self.network.model.embed_tokens(ids)
        return embeds.astype(self._dtype)

    def pool_windows(
        self, windows: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> list[mx.array]:
        """The pooled states of each window, (groups, hidden) float32; evaluated batch by batch.

        Windows stand behind one another, or, where the network can't be run block by block, are
        padded on the right, where causal attention never looks.
        """
        pooled: dict[int, mx.array] = {}
        padded = not is_plain(self.network)
        for batch in batches([len(window) for window in windows], padded=padded):
            rows = [windows[i] for i in batch]
            for i, states in zip(batch, self._states(rows, padded=padded), strict=True):
                pooled[i] = self.pool(states)
            mx.eval([pooled[i] for i in batch])
            if progress:
                progress(len(pooled), len(windows))
        return [pooled[i] for i in range(len(windows))]

    def _states(self, rows: Sequence[Sequence[int]], *, padded: bool) -> list[mx.array]:
        """States of each row of a batch, shortest first: (tokens, hidden)."""
        lengths = [len(row) for row in rows]
        if padded:
            ids = mx.array([[*row, *[0] * (lengths[-1] - len(row))] for row in rows])
            states = all_states(self.network, self.embed(ids))  # (batch, longest, hidden)
            return [state[:n] for state, n in zip(states, lengths, strict=True)]
        h = self.embed(mx.array([id for row in rows for id in row]))
        packed = all_packed_states(self.network, h, lengths)  # (tokens, hidden)
        return list(mx.split(packed, [*accumulate(lengths[:-1])]))

    def pool(self, states: mx.array) -> mx.array:
        """Means over groups of states (tokens, hidden), the last of which may be short: float32."""
        tokens, hidden = states.shape
        states = states.astype(mx.float32)
        whole = tokens - tokens % self.ratio
        groups = states[:whole].reshape(-1, self.ratio, hidden).mean(1)
        if whole == tokens:
            return groups
        return mx.concatenate([groups, states[whole:].mean(0, keepdims=True)])

    def empty(self) -> mx.array:
        """What stands for a text without tokens: one state of zeros, as the reference's."""
        return mx.zeros((1, self.hidden))


class OpenWindow:
    """A window that grows: it keeps what attention needs of its tokens, and runs only new ones."""

    def __init__(self, encoder: Encoder) -> None:
        self.ids: list[int] = []
        self.states = mx.zeros((0, encoder.hidden))  # (tokens, hidden), after the final norm
        self._encoder = encoder
        self._cache = make_prompt_cache(encoder.network)

    def grow_to(self, ids: Sequence[int]) -> int:
        """Make this the window of ``ids``, from their first token that is new on.

        Returns:
            The number of tokens that were run.
        """
        same = common_length(self.ids, ids)
        if same < len(self.ids):
            trim_prompt_cache(self._cache, len(self.ids) - same)
        new = list(ids[same:])
        states = self.states[:same]
        if new:
            embeds = self._encoder.embed(mx.array([new]))
            model = self._encoder.network.model
            states = mx.concatenate([states, model(mx.array([new]), self._cache, embeds)[0]])
        self.ids, self.states = list(ids), states
        mx.eval(self.states, [layer.state for layer in self._cache])
        return len(new)


def common_length(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Number of items from the start on that two sequences share."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
