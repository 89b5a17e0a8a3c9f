"""ClaraCompressor, and the hook that shortens the outputs of tools as they arrive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from clara_mlx.compymac.settings import Settings, shared_memory
from clara_mlx.context import wording
from clara_mlx.context.counting import Estimate
from clara_mlx.context.freezer import Freezer
from clara_mlx.context.kept import is_recalled
from clara_mlx.context.messages import Piece
from clara_mlx.errors import StoreError
from clara_mlx.memory import Memory, asking
from clara_mlx.model.thread import ModelThread, Priority

if TYPE_CHECKING:
    from clara_mlx.compressors.compressor import LatentCompressor

# Characters per token of a tool's output; CompyMac's constant.
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class CompressedText:
    """A text that is kept, and what stands for it.

    Attributes:
        handle: The handle that gives the exact text back.
        text: The text for a reasoner: a frozen block, or the text itself if that is shorter.
        latents: float32 (chunks, memory_tokens, hidden), for CLaRa's own decoder; None without a
            model. No other model can read them.
        source_tokens: Tokens of the text: the model's own count, or an estimate without a model.
        block_tokens: Tokens of ``text``, estimated.
    """

    handle: str
    text: str
    latents: np.ndarray[Any, Any] | None
    source_tokens: int
    block_tokens: int


class ClaraCompressor:
    """Compresses texts into blocks with handles and, with a model, into memory tokens.

    Args:
        memory: The memory that keeps the originals; by default the environment's.
        settings: Settings in place of the environment's.
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
            text: The text.
            tool: The tool that printed it.
            arguments: The arguments of that call.
        """
        return self._compress([_piece(text, tool, arguments)])[0]

    def compress_batch(self, texts: Sequence[Any]) -> list[CompressedText]:
        """Keep and compress several texts, or messages by their content, in batches."""
        plain = [text if isinstance(text, str) else text.content for text in texts]
        return self._compress([_piece(text, None, None) for text in plain])

    def encode_query(self, text: str) -> np.ndarray[Any, Any]:
        """A query as float32 vectors (memory_tokens, hidden).

        Raises:
            StoreError: There is no model.
        """
        clara, model = self._model()
        return asking.encode_query(text, clara, model)

    def _model(self) -> tuple[LatentCompressor, ModelThread]:
        if self.memory.clara is None or self.memory.model_thread is None:
            raise StoreError("compressing needs a model; set CLARA_MLX_MODEL")
        return self.memory.clara, self.memory.model_thread

    def _compress(self, pieces: list[Piece]) -> list[CompressedText]:
        """Keep and compress pieces: latents in batches if there is a model, blocks always."""
        latents: list[np.ndarray[Any, Any] | None] = [None] * len(pieces)
        estimate = Estimate().text
        tokens = [estimate(piece.text) for piece in pieces]
        if self.memory.clara is not None:
            clara, model = self._model()

            def compress() -> list[tuple[np.ndarray[Any, Any], int]]:
                made = [asking.encode_text(piece.text, clara) for piece in pieces]
                empty = np.zeros((0, *clara.latent_shape), np.float32)
                return [(np.stack(one) if one else empty, count) for one, count in made]

            made = model.run(Priority.QUESTION, compress)
            latents = [one for one, _ in made]
            tokens = [count for _, count in made]
        found = []
        for piece, latent, count in zip(pieces, latents, tokens, strict=True):
            block = self._freezer.freeze(self.settings.session, piece)
            text = min(block.text, piece.text, key=len)
            handle = block.handle or ""
            found.append(CompressedText(handle, text, latent, count, estimate(text)))
        return found


class ToolOutputHook:
    """Keeps the outputs of tools whole, and gives an excerpt with a handle for a long one.

    Args:
        freezer: Keeps the originals.
        session: The session that they belong to.
        tokens: Outputs of more tokens than this are shortened, at four characters per token.
    """

    def __init__(self, freezer: Freezer, session: str, tokens: int) -> None:
        self._freezer = freezer
        self._session = session
        self._characters = tokens * _CHARACTERS_PER_TOKEN

    def __call__(
        self,
        tool: str,
        arguments: Mapping[str, Any] | str | None,
        output: str,
        missing: int = 0,
    ) -> str:
        """The text that the agent gets; what the memory's own tools give stays as it is.

        Args:
            tool: The tool that printed the output.
            arguments: The arguments of that call.
            output: The output.
            missing: Characters that are missing in it, because they were cut off and are lost.
        """
        piece = _piece(output, tool, arguments)
        if is_recalled(piece):
            return output
        excerpt = self._characters // 2
        if missing:
            describe = partial(_describe_cut, piece, excerpt=excerpt, missing=missing)
            block = self._freezer.freeze_as(self._session, piece, describe)
        elif len(output) > self._characters:
            block = self._freezer.freeze(self._session, piece, excerpt=excerpt)
        else:
            self._freezer.observe(self._session, piece)
        return output if len(output) <= self._characters else min(block.text, output, key=len)


def _describe_cut(piece: Piece, handle: str, *, excerpt: int, missing: int) -> str:
    """The text of a block whose original is not all that the tool printed."""
    heading, *lines = wording.describe(piece, handle, excerpt).split("\n")
    heading = f"{heading.removesuffix(']')} but for {missing} characters cut off before]"
    return "\n".join([heading, *lines])


def _piece(text: str, tool: str | None, arguments: Mapping[str, Any] | str | None) -> Piece:
    # An agent loop writes arguments into its messages like this: one block stands for both.
    written = arguments if isinstance(arguments, str) else json.dumps(dict(arguments or {}))
    return Piece("tool", "content", text, tool or "tool", written)
