"""ClaraCompressor, and the hook that compresses what tools print as it arrives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from clara_mlx.compymac.settings import Settings, shared_memory
from clara_mlx.context.counting import Estimate
from clara_mlx.context.freezer import Freezer, is_recalled
from clara_mlx.context.messages import Piece
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory, asking
from clara_mlx.model.thread import ModelThread, Priority

if TYPE_CHECKING:
    from clara_mlx.model.clara import Clara

# Characters of a token of tool output, about; CompyMac's constant.
_CHARACTERS = 4


@dataclass(frozen=True)
class CompressedText:
    """A text that is kept, and what stands for it.

    Attributes:
        handle: gives the exact text back.
        text: what a reasoner reads in its place: a frozen block, or the text itself if that is
            shorter.
        latents: (chunks, memory_tokens, hidden) float32, for CLaRa's own decoder; None without a
            model. No other model can read them.
        source_tokens: tokens of the text: the model's, or an estimate without one.
        block_tokens: tokens of ``text``, estimated.
    """

    handle: str
    text: str
    latents: np.ndarray[Any, Any] | None
    source_tokens: int
    block_tokens: int


class ClaraCompressor:
    """Compresses texts into blocks with handles and, with a model, into memory tokens.

    Args:
        memory: keeps the originals; by default the environment's.
        settings: in place of the environment's.
    """

    def __init__(self, memory: Memory | None = None, settings: Settings | None = None) -> None:
        self.settings = settings or Settings.from_env()
        self.memory = memory or shared_memory(self.settings)
        self._freezer = Freezer(self.memory)

    def compress(
        self, text: str, tool: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> CompressedText:
        """Keep a text and compress it now.

        Args:
            text: anything.
            tool: the tool that printed it.
            arguments: of that call.
        """
        return self._compressed([_piece(text, tool, arguments)])[0]

    def compress_batch(self, texts: Sequence[Any]) -> list[CompressedText]:
        """Keep and compress several texts, or messages by their content, in batches."""
        plain = [text if isinstance(text, str) else text.content for text in texts]
        return self._compressed([_piece(text, None, None) for text in plain])

    def encode_query(self, text: str) -> np.ndarray[Any, Any]:
        """A query as vectors (memory_tokens, hidden), float32.

        Raises:
            StoreError: there is no model.
        """
        clara, model = self._model()
        return asking.encode_query(text, clara, model)

    def _model(self) -> tuple[Clara, ModelThread]:
        if self.memory.clara is None or self.memory.model_thread is None:
            raise StoreError("this needs a model; set CLARA_MLX_MODEL")
        return self.memory.clara, self.memory.model_thread

    def _compressed(self, pieces: list[Piece]) -> list[CompressedText]:
        latents: list[np.ndarray[Any, Any] | None] = [None] * len(pieces)
        estimate = Estimate().text
        tokens = [estimate(piece.text) for piece in pieces]
        if self.memory.clara is not None:
            clara, model = self._model()

            def compress() -> list[tuple[np.ndarray[Any, Any], int]]:
                made = clara.compress_batch([piece.text for piece in pieces])
                return [(np.array(one.latents), one.source_tokens) for one in made]

            made = model.run(Priority.QUESTION, compress)
            latents, tokens = [one for one, _ in made], [count for _, count in made]
        found = []
        for piece, latent, count in zip(pieces, latents, tokens, strict=True):
            block = self._freezer.freeze(self.settings.session, piece)
            text = min(block.text, piece.text, key=len)
            handle = block.handle or ""
            found.append(CompressedText(handle, text, latent, count, estimate(text)))
        return found


class ToolOutputHook:
    """What tools print, kept whole; a long output becomes an excerpt with a handle.

    Args:
        freezer: keeps the originals.
        session: whose they are.
        tokens: outputs of more tokens than this are shortened, at four characters a token.
    """

    def __init__(self, freezer: Freezer, session: str, tokens: int) -> None:
        self._freezer = freezer
        self._session = session
        self._characters = tokens * _CHARACTERS

    def __call__(self, tool: str, arguments: Mapping[str, Any] | str | None, output: str) -> str:
        """What the agent gets of an output; what the memory's own tools give stays as it is."""
        piece = _piece(output, tool, arguments)
        if is_recalled(piece):
            return output
        if len(output) <= self._characters:
            self._freezer.observe(self._session, piece)
            return output
        block = self._freezer.freeze(self._session, piece, excerpt=self._characters // 2)
        return min(block.text, output, key=len)


def _piece(text: str, tool: str | None, arguments: Mapping[str, Any] | str | None) -> Piece:
    # The arguments as an agent loop writes them into its messages: the same block stands for both.
    written = arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {}))
    return Piece("tool", "content", text, tool or "tool", written)
