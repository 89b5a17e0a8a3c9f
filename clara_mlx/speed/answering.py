"""An answer's first token and rate: from memories, and from the same documents as text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from clara_mlx.model.clara import Clara
from clara_mlx.model.decoder import Decoder
from clara_mlx.model.prompts import DecoderPrompt
from clara_mlx.speed.sampling import spread
from clara_mlx.speed.settings import Settings
from clara_mlx.speed.texts import QUESTION, Texts


class Answers:
    """Times answers of one model; no token ends them, so that all have the same length.

    Args:
        clara: The model.
        settings: The tokens of an answer and the repeats.
    """

    def __init__(self, clara: Clara, settings: Settings) -> None:
        self._clara = clara
        self._settings = settings
        self._decoder = Decoder(clara.network, clara.lora, clara.tokenizer, [])
        texts = Texts(clara.tokenizer)
        most = max(settings.documents, default=1)
        chunks = [texts.of(clara.chunk_tokens, number)[0] for number in range(most)]
        self._latents = clara.encode(chunks)  # (documents, memory_tokens, hidden)
        self._ids = [clara.tokenizer.encode(chunk) for chunk in chunks]

    def prompts(self, documents: int) -> dict[str, DecoderPrompt]:
        """The prompts about so many documents, as ``memories`` and as ``text``."""
        read = [id for ids in self._ids[:documents] for id in ids]
        return {
            "memories": self._clara.prompts.answer(QUESTION, documents),
            "text": self._clara.prompts.answer(QUESTION, 0, text=read),
        }

    def measure(self) -> Iterator[dict[str, Any]]:
        """Yield a row for each number of documents, both ways measured in turns.

        A way whose prompt exceeds the decoder's window has no figures, only its ``positions``.
        """
        for documents in self._settings.documents:
            timed = self._time(documents)
            # What all prompts begin with was read by the answer that warmed up.
            ways = {
                way: {
                    "positions": len(prompt.ids),
                    "positions_read": len(prompt.ids) - prompt.opening,
                    **timed.get(way, {}),
                }
                for way, prompt in self.prompts(documents).items()
            }
            memories, text = ways["memories"], ways["text"]
            row = {"documents": documents, **memories, "text": text}
            if "first_token_seconds" in text:
                ratio = text["first_token_seconds"] / memories["first_token_seconds"]
                row["text_over_memories"] = ratio
            yield row

    def _time(self, documents: int) -> dict[str, Any]:
        settings, window = self._settings, self._clara.config.window
        fitting = {
            way: prompt
            for way, prompt in self.prompts(documents).items()
            if len(prompt.ids) + settings.answer_tokens <= window
        }
        stamps: dict[str, list[list[float]]] = {way: [] for way in fitting}
        started = time.perf_counter()
        for repeat in range(settings.repeats + 1):  # the first only warms up
            if repeat > 1 and time.perf_counter() - started > settings.most_seconds:
                break
            for way, prompt in fitting.items():
                stamps[way].append(self.generate(prompt, documents))
        return {way: rates_of(taken[1:]) for way, taken in stamps.items()}

    def generate(self, prompt: DecoderPrompt, documents: int) -> list[float]:
        """Answer once; the seconds from the start at which each token came."""
        read = self._latents[: documents if prompt.slots else 0]
        started = time.perf_counter()
        tokens = self._decoder.stream(prompt, read, self._settings.answer_tokens, {})
        return [time.perf_counter() - started for _ in tokens]


def rates_of(answers: list[list[float]]) -> dict[str, Any]:
    """First token and rate of answers, given the seconds at which each of their tokens came."""
    first = spread([stamps[0] for stamps in answers])
    rates = [(len(stamps) - 1) / (stamps[-1] - stamps[0]) for stamps in answers if len(stamps) > 1]
    return {
        "tokens": len(answers[0]),
        "runs": first["runs"],
        "first_token_seconds": first["seconds"],
        "first_token_p95_seconds": first["p95_seconds"],
        "all_first_token_seconds": first["all_seconds"],
        "tokens_per_second": median(rates) if rates else None,
        "all_tokens_per_second": rates,
    }
