"""Measuring what a memory scores for questions that have nothing to do with it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from clara_mlx.errors import StorageFailed
from clara_mlx.memory.asking import encode_query
from clara_mlx.model.thread import ModelThread
from clara_mlx.store import calibration
from clara_mlx.store.calibration import UNMEASURED, Calibration
from clara_mlx.store.latent_search import LatentSearch
from clara_mlx.store.latents import LatentTable

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import LatentCompressor

# Questions of general knowledge, in the forms in which agents ask. A memory that is about one or
# two of them does not change the median.
UNRELATED = (
    "Who painted the Mona Lisa?",
    "How tall is Mount Everest?",
    "What is the largest ocean?",
    "When did the Second World War end?",
    "Which planet is closest to the sun?",
    "How many legs does a spider have?",
    "What is the boiling point of water?",
    "Who wrote Romeo and Juliet?",
    "Which language is spoken in Brazil?",
    "What do pandas eat?",
    "How long is a marathon?",
    "Which metal is liquid at room temperature?",
    "What colour is an emerald?",
    "In which year did Columbus sail to America?",
    "Who discovered penicillin?",
    "How many strings does a violin have?",
    "Where do penguins live?",
    "What is the currency of Japan?",
    "Which river flows through Vienna?",
    "Why is the sky blue?",
    "How many players are in a football team?",
    "Who composed the Moonlight Sonata?",
    "What is the smallest bone of the human body?",
    "Which gas do plants breathe in?",
)

# The percentiles between which two thirds of a normal distribution lie.
_LOW, _HIGH = 16, 84


class Calibrator:
    """The calibration of a memory's latents: read from its file, or measured and kept there."""

    def __init__(
        self,
        latents: LatentTable,
        index: LatentSearch,
        compressor: LatentCompressor,
        model_thread: ModelThread,
    ) -> None:
        self._latents = latents
        self._index = index
        self._compressor = compressor
        self._model_thread = model_thread
        self._lock = threading.Lock()
        self._kept: Calibration | None = None  # if it can't be kept in the file

    def current(self) -> Calibration:
        """The figures, measured first if the latents have doubled or changed since they were.

        The same latents give the same figures.
        """
        with self._lock:
            found = calibration.read(self._latents.file, self._latents.fingerprint) or self._kept
            count = self._latents.count()
            epoch, _ = self._latents.state()
            if count == 0:
                return UNMEASURED
            if found is None or found.is_due(count, epoch):
                found = self._measure(count, epoch)
                self._kept = None
                try:
                    with self._latents.file.write() as connection:
                        calibration.write(connection, found)
                except StorageFailed:  # it can't be written, or not now
                    self._kept = found
            return found

    def _measure(self, count: int, epoch: int) -> Calibration:
        best = []
        for question in UNRELATED:
            encoded = encode_query(question, self._compressor, self._model_thread)
            ids = [id for id, _ in self._index.search(encoded, 1)]
            cosines = self._index.centred_cosines(encoded, ids).values()
            best += [cosine for cosine in cosines if cosine is not None]
        if not best:  # all damaged
            return UNMEASURED
        low, usual, high = np.percentile(best, (_LOW, 50, _HIGH)).tolist()
        return Calibration(usual, (high - low) / 2, count, epoch, self._latents.fingerprint)
