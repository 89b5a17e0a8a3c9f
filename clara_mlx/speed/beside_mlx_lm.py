"""mlx-lm on the same base folder, in turns with CLaRa: its bare prefill, and its decoding.

Its own functions do the work (`mlx_lm.load`, a call of the model as `generate_step` prefills, and
`stream_generate`), without adapters and on plain text, in the same dtype.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx import machine
from clara_mlx.errors import ClaraError
from clara_mlx.model.clara import Clara
from clara_mlx.model.folder import LAYOUT
from clara_mlx.speed.answering import Answers, rates_of
from clara_mlx.speed.sampling import spread, take_turns
from clara_mlx.speed.settings import Settings
from clara_mlx.speed.texts import Texts

# Memories that an answer is made from; mlx-lm reads as many positions of text.
_DOCUMENTS = 5

# Numbers of chunks that are encoded, or prefilled, together.
_BATCHES = (1, 8)

# Of the free memory: what a second copy of the base may take.
_MOST_OF_FREE = 0.8


class MlxLm:
    """The base of a model folder as mlx-lm loads and runs it.

    Args:
        path: The model folder, which is an mlx-lm model, too.
        dtype: What unquantised weights, scales and biases are cast to, as CLaRa's are.

    Raises:
        ClaraError: There is no memory for a second copy, or mlx-lm can't load it.
    """

    def __init__(self, path: Path, dtype: mx.Dtype) -> None:
        import mlx_lm

        sizes = [file.stat().st_size for file in path.glob("model-*.safetensors")]
        needed = sum(sizes) * max(1, dtype.size // 2)
        free = machine.state()["free_memory_bytes"]
        if free is not None and needed > _MOST_OF_FREE * free:
            raise ClaraError(
                f"mlx-lm needs a copy of the base of its own, {needed / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB of memory are free"
            )
        try:
            loaded: Any = mlx_lm.load(str(path))
        except Exception as error:  # whatever it makes of a folder
            raise ClaraError(f"mlx-lm can't load {path / LAYOUT.config}: {error}") from error
        self._model, self._tokenizer = loaded[:2]
        self._model.set_dtype(dtype)
        mx.eval(self._model.parameters())
        self._tokenizer.eos_token_ids = set()  # nothing ends an answer before its last token

    def prefill(self, ids: mx.array) -> None:
        """Read prompts (batch, length) into a new cache, as mlx-lm's `generate_step` does."""
        from mlx_lm.models.cache import make_prompt_cache

        cache: list[Any] = make_prompt_cache(self._model)
        self._model(ids, cache=cache)
        mx.eval([layer.state for layer in cache])

    def generate(self, ids: list[int], tokens: int) -> list[float]:
        """Go on after a prompt; the seconds from the start at which each token came."""
        from mlx_lm import stream_generate

        started = time.perf_counter()
        answer = stream_generate(self._model, self._tokenizer, ids, max_tokens=tokens)
        return [time.perf_counter() - started for _ in answer]


def measure_beside_mlx_lm(
    clara: Clara, path: Path, settings: Settings, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Encode and prefill the same texts, and answer and generate as long prompts, in turns.

    Returns:
        ``prefill``, a row for each number of full chunks, and ``decode``; each has the figures of
        both and their ratio, CLaRa's time over mlx-lm's for each token of the texts. ``positions``
        are what each computes: CLaRa reads its layout and memory tokens beside the text.

    Raises:
        ClaraError: mlx-lm can't run beside it; the message says why.
    """
    theirs = MlxLm(path, clara.network.model.embed_tokens.rows.dtype)
    tick("mlx-lm loaded")
    rows = list(_prefills(clara, theirs, settings))
    tick("mlx-lm prefill")
    return {"prefill": rows, "decode": _decoding(clara, theirs, settings)}


def _prefills(clara: Clara, theirs: MlxLm, settings: Settings) -> Iterator[dict[str, Any]]:
    texts = Texts(clara.tokenizer)
    layout = len(clara.prompts.encoder_input([]))
    for batch in _BATCHES:
        chosen = [texts.of(clara.chunk_tokens, number) for number in range(batch)]
        length = min(tokens for _, tokens in chosen)  # rows of mlx-lm's batch are equally long
        chunks = [text for text, _ in chosen]
        ids = mx.array([clara.tokenizer.encode(text)[:length] for text in chunks])
        taken = take_turns(
            {
                "clara": lambda chunks=chunks: mx.eval(clara.encode(chunks)),  # type: ignore[misc]
                "mlx-lm": lambda ids=ids: theirs.prefill(ids),  # type: ignore[misc]
            },
            settings.repeats,
            settings.most_seconds,
        )
        tokens = {"clara": sum(count for _, count in chosen), "mlx-lm": batch * length}
        positions = {"clara": tokens["clara"] + batch * layout, "mlx-lm": tokens["mlx-lm"]}
        both = {
            name: {"tokens": tokens[name], "positions": positions[name], **spread(seconds)}
            for name, seconds in taken.items()
        }
        per_token = {name: one["seconds"] / one["tokens"] for name, one in both.items()}
        ratio = per_token["clara"] / per_token["mlx-lm"]
        yield {"batch": batch, "chunk_tokens": length, **both, "clara_over_mlx_lm": ratio}


def _decoding(clara: Clara, theirs: MlxLm, settings: Settings) -> dict[str, Any]:
    answers = Answers(clara, settings)
    documents = min(_DOCUMENTS, max(settings.documents, default=1))
    prompt = answers.prompts(documents)["memories"]
    ids = answers.prompts(documents)["text"].ids[: len(prompt.ids)]
    stamps: dict[str, list[list[float]]] = {"clara": [], "mlx-lm": []}
    started = time.perf_counter()
    for repeat in range(settings.repeats + 1):  # the first only warms up
        if repeat > 1 and time.perf_counter() - started > settings.most_seconds:
            break
        stamps["clara"].append(answers.generate(prompt, documents))
        stamps["mlx-lm"].append(theirs.generate(ids, settings.answer_tokens))
    both = {name: rates_of(taken[1:]) for name, taken in stamps.items()}
    found: dict[str, Any] = {"positions": len(ids), "documents": documents, **both}
    rates = [both[name]["tokens_per_second"] for name in ("mlx-lm", "clara")]
    if None not in rates:
        found["clara_over_mlx_lm"] = rates[0] / rates[1]
    return found
