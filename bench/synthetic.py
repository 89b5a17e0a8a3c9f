"""Synthetic latents with the properties that make real ones hard to search; see retrieval.py."""

from __future__ import annotations

from typing import Any

import numpy as np

MEMORY = 16  # memory tokens of a chunk
HIDDEN = 4096  # dimensions of a memory token
DIMS = MEMORY * HIDDEN
RANK = 768  # number of correlated directions

#: Centred cosine between a query of each kind and the chunk it is about.
KINDS = {"near-duplicate": 0.96, "related": 0.59, "weak": 0.30}

#: Share of a query's words that come from the chunk it is about.
WORDS_KEPT = {"near-duplicate": 0.9, "related": 0.5, "weak": 0.2}

BATCH = 250  # latents generated together

Array = np.ndarray[Any, Any]


class World:
    """Synthetic latents (DIMS,) of ``n`` chunks, in documents of about 20 chunks and 200 topics."""

    COMMON = 0.66  # share of the energy that all latents have in common
    WHITE = 0.35  # share of white noise in what is not common
    TOPIC = 0.2  # share of a chunk's topic in what is neither common nor noise
    DOCUMENT = 0.4  # share of its document in that
    CHUNK = 0.4  # share of its own in that
    OUTLIERS = 8  # dimensions that are ten times as large as the others

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n = n
        self.seed = seed
        r = self._random(0)
        # Half of each direction is the same in all memory tokens.
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
        # Noise is taken from random places of this, because drawing it takes most of the time.
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
        """Factors (n, RANK) to vectors (n, DIMS) of length one, not yet with the mean."""
        x = (factors * np.float32(np.sqrt(1 - self.WHITE))) @ self.directions
        for row, start in zip(x, r.integers(len(self.noise) - DIMS, size=len(x)), strict=True):
            row += self.noise[start : start + DIMS]
        x *= self.gain
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        return x

    def batch(self, start: int) -> Array:
        """Up to BATCH latents (n, DIMS) from number ``start`` on, the same in every call."""
        r = self._random(1, start)
        documents = self.document_of[start : start + BATCH]
        factors = (
            np.sqrt(self.TOPIC) * self.topics[self.topic_of[documents]]
            + np.sqrt(self.DOCUMENT) * self.documents[documents]
            + np.sqrt(self.CHUNK) * self._factors(r, len(documents))
        ).astype(np.float32)
        return self._unit(r, factors) * np.float32(np.sqrt(1 - self.COMMON)) + self.mean

    def queries(self, count: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Queries (count, DIMS) of each kind, and the numbers (count,) of their chunks."""
        r = self._random(2)
        # The chunks come from a few batches, because each batch has to be generated.
        starts = r.permutation(np.arange(0, self.n, BATCH))[:8]
        made = {start: self.batch(start) for start in starts}
        queries, targets = {}, {}
        for kind, cosine in KINDS.items():
            chosen = r.choice(starts, count)
            about = chosen + r.integers(np.minimum(BATCH, self.n - chosen))
            target = np.stack([made[s][i - s] for s, i in zip(chosen, about, strict=True)])
            target = (target - self.mean) / np.float32(np.sqrt(1 - self.COMMON))
            target /= np.linalg.norm(target, axis=1, keepdims=True)
            # The rest of a query is about no chunk.
            rest = self._unit(r, self._factors(r, count))
            rest -= (rest * target).sum(axis=1, keepdims=True) * target
            rest /= np.linalg.norm(rest, axis=1, keepdims=True)
            centred = cosine * target + np.sqrt(1 - cosine**2) * rest
            queries[kind] = (centred * np.sqrt(1 - self.COMMON) + self.query_mean).astype("f4")
            targets[kind] = about
        return queries, targets

    def text(self, chunk: int) -> list[str]:
        """About 80 words of a chunk: of its own, its document's, its topic's and anyone's."""
        r = self._random(3, chunk)
        document = self.document_of[chunk]
        own = [f"c{chunk}x{r.integers(60)}" for _ in range(15)]
        shared = [f"d{document}x{i}" for i in r.integers(40, size=20)]
        topic = [f"t{self.topic_of[document]}x{i}" for i in r.integers(200, size=20)]
        return own + shared + topic + self.filler(r, 25)

    def filler(self, r: np.random.Generator, n: int) -> list[str]:
        """Words that any chunk could have; common ones come more often."""
        return [f"w{i}" for i in (r.pareto(1, n) * 20).astype(int) % 5000]

    def question(self, chunk: int, kept: float) -> str:
        """A query of 20 words, of which about the share ``kept`` comes from the chunk."""
        r = self._random(4, chunk)
        words = r.permutation(self.text(chunk))[:20]
        n = max(1, round(kept * len(words)))
        return " ".join({*words[:n].tolist(), *self.filler(r, len(words) - n)})
