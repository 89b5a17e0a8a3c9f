"""PrefixCache: what attention keeps of the last prompt, for the next one that begins like it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache, trim_prompt_cache

from clara_mlx.compressors.lclm.encoder import common_length

#: What stands at a position: a token, or one latent of a region, named by the region's content.
Key: TypeAlias = "int | tuple[str, int]"


@dataclass(frozen=True)
class Prompt:
    """A prompt for the decoder: its ids, and the latents in its slots."""

    ids: list[int]
    slots: list[int]  # positions of latents, in order
    regions: list[mx.array] = field(repr=False)  # latents (n, hidden) of each region, in order

    def keys(self) -> list[Key]:
        """What stands at each position.

        Ids alone would not do: two regions of equal length have the same ids, whatever they say.
        """
        keys: list[Key] = list(self.ids)
        slots = iter(self.slots)
        for latents in self.regions:
            values = np.array(latents.astype(mx.float32))
            digest = hashlib.sha256(values.tobytes()).hexdigest()
            for i in range(len(values)):
                keys[next(slots)] = (digest, i)
        return keys


class PrefixCache:
    """Keys and values of the last prompt and its answer; 144 KiB a position in LCLM's decoder.

    Give the same one to successive calls of `Lclm.generate`: of a conversation that goes on, only
    what is new is read. It belongs to one model. What it finds is told by tokens and by the content
    of regions, so a prompt with other texts of the same lengths never meets what is not its own.

    Attributes:
        reused: Positions of the last prompt that did not have to be read again.
    """

    def __init__(self) -> None:
        self.reused = 0
        self._keys: list[Key] = []
        self._cache: list[Any] | None = None

    @contextmanager
    def continued(
        self, network: Any, prompt: Prompt, generated: Sequence[int]
    ) -> Iterator[tuple[list[Any], int]]:
        """The cache, and the number of the prompt's positions that are in it.

        Args:
            network: The decoder.
            prompt: The prompt to be read during the block.
            generated: The list that the block adds the generated ids to.
        """
        keys = prompt.keys()
        cache, known, self._cache = self._cache, self._keys, None  # nothing is kept of a failure
        if cache is None:
            cache, known = make_prompt_cache(network), []
        same = min(
            common_length(known, keys), len(keys) - 1
        )  # one at least is read, for its logits
        held = cache[0].offset
        if trim_prompt_cache(cache, held - same) != held - same:
            cache, same = make_prompt_cache(network), 0
        self.reused = same
        try:
            yield cache, same
        finally:
            read = [*keys, *generated][: cache[0].offset]
            if trim_prompt_cache(cache, cache[0].offset - len(read)) >= 0:
                self._keys, self._cache = read, cache
