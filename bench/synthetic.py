"""Synthetic latents with what makes real ones hard to search; see bench/retrieval.py."""

from __future__ import annotations

from typing import Any

import numpy as np

MEMORY, HIDDEN, RANK = 16, 4096, 768
DIMS = MEMORY * HIDDEN

#: Centred cosine of a query and the chunk it is about.
KINDS = {"near-duplicate": 0.96, "related": 0.59, "weak": 0.30}

#: Share of a query's words that are the chunk's own.
WORDS_KEPT = {"near-duplicate": 0.9, "related": 0.5, "weak": 0.2}

#: Generated at a time.
BATCH = 250

Array = np.ndarray[Any, Any]


class World:
    """Synthetic latents (DIMS,) of ``n`` chunks, in documents of about 20, in 200 topics."""

    COMMON, WHITE = 0.66, 0.35  # shares of the energy: of all, and of what is not common
    TOPIC, DOCUMENT, CHUNK = 0.2, 0.4, 0.4  # shares of the correlated rest
    OUTLIERS = 8

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n, self.seed = n, seed
        r = self._random(0)
        # Half of what a direction does is the same in all memory tokens.
        shared = np.tile(r.standard_normal((RANK, HIDDEN), np.float32), MEMORY)
        own = r.standard_normal((RANK, DIMS), np.float32)
        self.directions = (shared + own) / np.float32(np.sqrt(2 * DIMS))
        spectrum = np.arange(1, RANK + 1) ** -0.35
        self.spectrum = (spectrum / np.linalg.norm(spectrum)).astype(np.float32)
        outliers = r.choice(HIDDEN, self.OUTLIERS, replace=False)
        gain = np.ones((MEMORY, HIDDEN), np.float32)
        gain[:, outliers] = 4
        self.gain = gain.reshape(DIMS)
        mean = r.standard_normal((MEMORY, HIDDEN), np.float32)
        mean[:, outliers] *= 10
        mean *= np.sqrt(np.float32(self.COMMON)) / np.linalg.norm(mean)
        self.mean = mean.reshape(DIMS)
        shift = r.standard_normal(DIMS, np.float32)
        self.query_mean = self.mean + np.float32(0.25) * shift / np.linalg.norm(shift)
        # White noise is cut from here at random places: drawing it anew takes most of the time.
        self.noise = r.standard_normal(1 << 23, np.float32) * np.float32(np.sqrt(self.WHITE / DIMS))
        documents = max(1, n // 20)
        self.topics = self._factors(r, 200)
        self.documents = self._factors(r, documents)
        self.topic_of = r.integers(200, size=documents)
        self.document_of = r.integers(documents, size=n)

    def _random(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *what])

    def _factors(self, r: np.random.Generator, n: int) -> Array:
        return r.standard_normal((n, RANK), np.float32) * self.spectrum

    def _unit(self, r: np.random.Generator, factors: Array) -> Array:
        """(n, RANK) -> (n, DIMS) of length one, with noise and outliers, not yet with the mean."""
        x = (factors * np.float32(np.sqrt(1 - self.WHITE))) @ self.directions
        for row, start in zip(x, r.integers(len(self.noise) - DIMS, size=len(x)), strict=True):
            row += self.noise[start : start + DIMS]
        x *= self.gain
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    def batch(self, start: int) -> Array:
        """Latents (BATCH or fewer, DIMS) from there on, the same whenever it is asked."""
        r = self._random(1, start)
        documents = self.document_of[start : start + BATCH]
        factors = (
            np.sqrt(self.TOPIC) * self.topics[self.topic_of[documents]]
            + np.sqrt(self.DOCUMENT) * self.documents[documents]
            + np.sqrt(self.CHUNK) * self._factors(r, len(documents))
        ).astype(np.float32)
        return self._unit(r, factors) * np.float32(np.sqrt(1 - self.COMMON)) + self.mean

    def queries(self, count: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """By kind, queries (count, DIMS) and the chunks (count,) they are about."""
        r = self._random(2)
        # From few batches, which have to be made for it.
        starts = r.permutation(np.arange(0, self.n, BATCH))[:8]
        made = {start: self.batch(start) for start in starts}
        queries, targets = {}, {}
        for kind, cosine in KINDS.items():
            chosen = r.choice(starts, count)
            about = chosen + r.integers(np.minimum(BATCH, self.n - chosen))
            target = np.stack([made[s][i - s] for s, i in zip(chosen, about, strict=True)])
            target = (target - self.mean) / np.float32(np.sqrt(1 - self.COMMON))
            target /= np.linalg.norm(target, axis=1, keepdims=True)
            # The rest is about nothing that is here.
            rest = self._unit(r, self._factors(r, count))
            rest -= (rest * target).sum(axis=1, keepdims=True) * target
            rest /= np.linalg.norm(rest, axis=1, keepdims=True)
            centred = cosine * target + np.sqrt(1 - cosine**2) * rest
            queries[kind] = (centred * np.sqrt(1 - self.COMMON) + self.query_mean).astype("f4")
            targets[kind] = about
        return queries, targets

    def text(self, chunk: int) -> list[str]:
        """About 80 words of a chunk: its own, its document's, its topic's, and everyone's."""
        r = self._random(3, chunk)
        document = self.document_of[chunk]
        own = [f"c{chunk}x{r.integers(60)}" for _ in range(15)]
        shared = [f"d{document}x{i}" for i in r.integers(40, size=20)]
        topic = [f"t{self.topic_of[document]}x{i}" for i in r.integers(200, size=20)]
        return own + shared + topic + self.filler(r, 25)

    def filler(self, r: np.random.Generator, n: int) -> list[str]:
        """Words that anyone could use, the common ones more often."""
        return [f"w{i}" for i in (r.pareto(1, n) * 20).astype(int) % 5000]

    def question(self, chunk: int, kept: float) -> str:
        """Words of a chunk and others."""
        r = self._random(4, chunk)
        words = r.permutation(self.text(chunk))[:20]
        n = max(1, round(kept * len(words)))
        return " ".join({*words[:n].tolist(), *self.filler(r, len(words) - n)})
