"""Clara: compress text into memory tokens, rank them for a question, and answer from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, Unpack

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from clara_mlx.errors import ClaraError, Progress, PromptTooLong, TextTooLong
from clara_mlx.model import chunking, few_rows, many_rows
from clara_mlx.model.chunking import Chunk
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.decoder import Decoder
from clara_mlx.model.encoder import MemoryTokenEmbedding, batches, encode_batch, is_plain
from clara_mlx.model.folder import ModelFolder, resolve
from clara_mlx.model.generation import Sampling
from clara_mlx.model.lora import Adapters
from clara_mlx.model.network import evaluate
from clara_mlx.model.prompts import PARAPHRASE_USER, DecoderPrompt, Prompts
from clara_mlx.model.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from mlx_lm.generate import GenerationResponse

#: Latents (k, memory_tokens, hidden), or k of (memory_tokens, hidden).
Latents: TypeAlias = "mx.array | np.ndarray[Any, Any] | Sequence[np.ndarray[Any, Any]]"


@dataclass(frozen=True)
class Compressed:
    """A text as memory tokens: ``latents[i]`` is ``text[chunks[i].start:chunks[i].end]``."""

    latents: mx.array  # (chunks, memory_tokens, hidden) float32
    chunks: tuple[Chunk, ...]  # in order; together they cover the text exactly

    @property
    def source_tokens(self) -> int:
        """Tokens of the text, summed over its chunks."""
        return sum(chunk.tokens for chunk in self.chunks)

    @property
    def memory_tokens(self) -> int:
        """Memory tokens that the text has become."""
        return self.latents.shape[0] * self.latents.shape[1]

    @property
    def ratio(self) -> float:
        """Source tokens per memory token; 0 for an empty text."""
        return self.source_tokens / self.memory_tokens if self.chunks else 0.0


def load(path_or_hub_id: str | Path, *, revision: str | None = None) -> Clara:
    """Load a model folder, made by ``clara-mlx convert``, from a path or the hub.

    The base is read now, each adapter when a pass first uses it. Activations are float32 on a CPU
    (its half-precision kernels are many times slower) and in the folder's dtype on a GPU.

    Raises:
        CheckpointError: The folder can't be found, or is damaged; the message says which file.
    """
    return from_folder(ModelFolder.open(resolve(path_or_hub_id, revision)))


def from_folder(folder: ModelFolder, dtype: mx.Dtype | None = None) -> Clara:
    """Build `Clara` from an opened model folder, with another compute dtype if one is given."""
    dtype = dtype or folder.compute_dtype()
    network = folder.load_base()
    # Quantised weights and their companions stay as stored; activations bring the compute dtype.
    if not folder.is_quantised:
        network.set_dtype(dtype)
    few_rows.use_blocks(network)
    many_rows.use_float32(network)
    network.model.embed_tokens = MemoryTokenEmbedding(
        network.model.embed_tokens, folder.memory_rows(), folder.config.base_vocab_size, dtype
    )
    evaluate(network)

    def read_adapter(name: str) -> dict[str, mx.array]:
        tensors = folder.adapter(name)
        if folder.is_quantised:
            return tensors
        return {key: tensor.astype(dtype) for key, tensor in tensors.items()}

    return Clara(
        folder.config,
        network,
        Adapters(network, folder.adapters, read_adapter),
        folder.tokenizer(),
        folder.query_adapter,
        folder.fingerprint,
    )


class Clara:
    """A CLaRa model: one base, one adapter active per pass. Made by `load`.

    Text is content, whatever it holds: special-token strings in it are plain characters, a lone
    surrogate is read as U+FFFD, and nothing is ever cut unless ``truncate`` asks for it. Not
    thread-safe: use it from one thread at a time. A thread other than the main one should call
    ``mx.clear_streams()`` before it ends; on the CPU, MLX can abort the process otherwise.

    Attributes:
        config: Token counts and ids.
        network: The base with its adapted layers, an mlx-lm model.
        lora: The adapters of those layers.
        tokenizer: Turns text into ids and back.
        prompts: Builds the inputs of encoder and decoder.
        fingerprint: Identifies checkpoint, quantisation and dtype; latents of different
            fingerprints must not be mixed.

    It is a `clara_mlx.compressors.compressor.LatentCompressor`, whose docstring has the rest.
    """

    name: ClassVar[str] = "clara"
    kind: ClassVar[Literal["latent"]] = "latent"
    pooling: ClassVar[Literal["flat"]] = "flat"
    searches: ClassVar[bool] = True
    separators: ClassVar[int] = 1  # <SEP>
    takes_texts: ClassVar[bool] = True

    def __init__(
        self,
        config: ClaraConfig,
        network: nn.Module,
        adapters: Adapters,
        tokenizer: TextTokenizer,
        query_adapter: str,
        fingerprint: str,
    ) -> None:
        self.config = config
        self.network = network
        self.lora = adapters
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint
        self._query_adapter = query_adapter
        self.prompts = Prompts(config, tokenizer)
        self._decoder = Decoder(network, adapters, tokenizer, config.stop_ids)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that the checkpoint has."""
        return self.lora.names

    @property
    def chunk_tokens(self) -> int:
        """Tokens of the longest chunk, doc_max_length."""
        return self.config.doc_max_length

    @property
    def latent_shape(self) -> tuple[int, int]:
        """Shape of a chunk's latents, (memory_tokens, hidden)."""
        return self.config.memory_tokens, self.config.hidden_size

    def add_query_reasoner(self) -> None:
        """Give a model without a query reasoner one to train: a copy of its encoder adapter."""
        if "query_reasoner" not in self.adapters:
            self.lora.add("query_reasoner", self.lora.tensors("encoder"))
        self._query_adapter = "query_reasoner"

    # -- encoding --------------------------------------------------------------------------------

    def encode(self, texts: str | Sequence[str], *, truncate: bool = False) -> mx.array:
        """Compress texts of one chunk each: (n, memory_tokens, hidden) float32.

        An empty text has a latent of its own (the reference's behaviour); no texts give n = 0.

        Args:
            texts: One text or several.
            truncate: Whether to cut longer texts silently, as the reference does; for parity only.

        Raises:
            TextTooLong: A text has more than doc_max_length tokens and ``truncate`` is off.
        """
        texts = [texts] if isinstance(texts, str) else texts
        inputs = self._encoder_inputs(texts, truncate)
        return self._encode([len(ids) for ids in inputs], lambda i: inputs[i], "encoder")

    def encode_chunks(self, texts: Sequence[str], /) -> list[np.ndarray[Any, Any]]:
        """`encode` as numpy arrays, one (memory_tokens, hidden) float32 for each text."""
        return list(np.array(self.encode(texts)))

    def encode_query(self, text: str, *, truncate: bool = False) -> mx.array:
        """Encode a question for `rank`: (memory_tokens, hidden) float32.

        Uses the query reasoner; a checkpoint without one uses its encoder adapter, which is how
        the reference starts training the reasoner. Raises `TextTooLong` as `encode` does.
        """
        inputs = self._encoder_inputs([text], truncate)
        return self._encode([len(inputs[0])], lambda i: inputs[i], self._query_adapter)[0]

    def compress(self, text: str, *, progress: Progress | None = None) -> Compressed:
        """Split a text of any length into chunks and compress them; see `Compressed`."""
        return self.compress_batch([text], progress=progress)[0]

    def compress_batch(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> list[Compressed]:
        """Compress several texts; their chunks share batches. An empty text has no chunks."""
        limit = self.config.doc_max_length
        chunked = [tuple(chunking.split(text, self.tokenizer, limit)) for text in texts]
        pieces = [
            (text, chunk) for text, chunks in zip(texts, chunked, strict=True) for chunk in chunks
        ]

        def input_of(i: int) -> list[int]:  # late, as ids take more memory than text
            text, chunk = pieces[i]
            return self._encoder_inputs([text[chunk.start : chunk.end]], truncate=False)[0]

        layout = len(self.prompts.encoder_input([]))
        lengths = [chunk.tokens + layout for _, chunk in pieces]
        latents = self._encode(lengths, input_of, "encoder", progress)
        compressed = []
        start = 0
        for chunks in chunked:
            compressed.append(Compressed(latents[start : start + len(chunks)], chunks))
            start += len(chunks)
        return compressed

    def _encoder_inputs(self, texts: Sequence[str], truncate: bool) -> list[list[int]]:
        """Ids of the encoder inputs of texts, which must fit one chunk each unless ``truncate``."""
        limit = self.config.doc_max_length
        # Above this length a text can't fit; don't tokenise 50 MB to find that out.
        longest = 4 * self.tokenizer.longest_token * (limit + 2)
        for index, text in enumerate(texts):
            if len(text) > longest and not truncate:
                raise TextTooLong(index, limit + 1, limit, exact=False)
        tokenised = self.tokenizer.encode_batch([text[:longest] for text in texts])
        for index, ids in enumerate(tokenised):
            if len(ids) > limit and not truncate:
                raise TextTooLong(index, len(ids), limit)
        return [self.prompts.encoder_input(ids, truncate=truncate) for ids in tokenised]

    def _encode(
        self,
        lengths: list[int],
        input_of: Callable[[int], list[int]],
        adapter: str,
        progress: Progress | None = None,
    ) -> mx.array:
        """Latents (n, memory_tokens, hidden) float32 of encoder inputs; evaluates each batch.

        ``input_of`` gives the ids of an input when its batch is due; ``lengths`` are their numbers.
        """
        memory_tokens = self.config.memory_tokens
        if not lengths:
            return mx.zeros((0, memory_tokens, self.config.hidden_size))
        order: list[int] = []
        done: list[mx.array] = []
        for batch in batches(lengths, padded=not is_plain(self.network)):
            with self.lora.use(adapter):
                states = encode_batch(self.network, [input_of(i) for i in batch], memory_tokens)
            done.append(states.astype(mx.float32))
            mx.eval(done[-1])
            order += batch
            if progress:
                progress(len(order), len(lengths))
        return mx.concatenate(done)[mx.argsort(mx.array(order))]

    # -- ranking ---------------------------------------------------------------------------------

    def rank(self, query: str | mx.array, latents: Latents) -> mx.array:
        """Cosines (n,) float32 of a question and of latents (n, memory_tokens, hidden), flattened.

        The question is a text, or what `encode_query` returned for it.
        """
        encoded = self.encode_query(query) if isinstance(query, str) else query
        q = self._checked(encoded).reshape(-1)
        documents = self._checked(latents)
        d = documents.reshape(documents.shape[0], q.size)
        norms = mx.linalg.norm(d, axis=-1) * mx.linalg.norm(q)
        return (d @ q) / mx.maximum(norms, 1e-12)

    def _checked(self, latents: Latents) -> mx.array:
        """Latents as (k, memory_tokens, hidden) float32; a single one is given its k = 1."""
        if not isinstance(latents, mx.array | np.ndarray):
            latents = np.stack(latents) if latents else np.empty((0, *self.latent_shape))
        array = mx.array(latents).astype(mx.float32)
        if array.ndim == 2:
            array = array[None]
        expected = (self.config.memory_tokens, self.config.hidden_size)
        if array.ndim != 3 or array.shape[1:] != expected:
            raise ClaraError(
                f"latents have shape {tuple(array.shape)}, but this model's are "
                f"(k, {expected[0]}, {expected[1]})"
            )
        return array

    # -- generation ------------------------------------------------------------------------------

    def answer(
        self,
        question: str,
        latents: Latents,
        max_tokens: int = 128,
        *,
        texts: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> str:
        """Answer a question from compressed documents, greedily unless sampling options are given.

        Args:
            question: The question, which is never cut.
            latents: The documents' latents (k, memory_tokens, hidden), best document first.
            max_tokens: Tokens to generate at most; the answer ends earlier at ``</s>``.
            texts: What the documents say, if it is at hand. Nothing of it is read: an answer that
                copies from it takes fewer passes (`clara_mlx.model.lookup`).
            sampling: Options as mlx-lm names them, see `Sampling`.

        Raises:
            PromptTooLong: Question, documents and answer exceed the window; it says how many
                documents would fit.
        """
        return "".join(self.stream_answer(question, latents, max_tokens, texts=texts, **sampling))

    def stream_answer(
        self,
        question: str,
        latents: Latents,
        max_tokens: int = 128,
        *,
        texts: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> Iterator[str]:
        """`answer` piece by piece, as the text becomes certain; errors are raised at once."""
        return _texts(self.stream_responses(question, latents, max_tokens, texts=texts, **sampling))

    def stream_responses(
        self,
        question: str,
        latents: Latents,
        max_tokens: int = 128,
        *,
        texts: Sequence[str] = (),
        **sampling: Unpack[Sampling],
    ) -> Iterator[GenerationResponse]:
        """`answer` token by token: mlx-lm's responses, with token ids, counts and rates."""
        documents = self._checked(latents)
        window = self.config.window
        if len(question) > 4 * self.tokenizer.longest_token * window:  # as in _encoder_inputs
            raise PromptTooLong(window + 1, window, documents.shape[0], 0, exact=False)
        prompt = self.prompts.answer(question, documents.shape[0])
        return self._generate(prompt, documents, max_tokens, sampling, texts)

    def documents_that_fit(self, question: str, max_tokens: int = 128) -> int:
        """Number of documents that `answer` can read with this question and room for its answer."""
        return self.prompts.documents_that_fit(self.prompts.answer(question, 1), max_tokens)

    def paraphrase(
        self,
        latents: Latents,
        max_tokens: int = 128,
        *,
        instruction: str = PARAPHRASE_USER,
        **sampling: Unpack[Sampling],
    ) -> str:
        """Write out the text of compressed documents, as the model was pretrained to.

        ``instruction`` is the user turn, with ``{slots}`` where the memory tokens go; the other
        arguments are those of `answer`.
        """
        documents = self._checked(latents)
        prompt = self.prompts.paraphrase(documents.shape[0], instruction)
        return "".join(_texts(self._generate(prompt, documents, max_tokens, sampling)))

    def _generate(
        self,
        prompt: DecoderPrompt,
        documents: mx.array,
        max_tokens: int,
        sampling: Sampling,
        texts: Sequence[str] = (),
    ) -> Iterator[GenerationResponse]:
        if max_tokens < 1:
            raise ClaraError(f"max_tokens must be at least 1, not {max_tokens}")
        if documents.shape[0] == 0:
            raise ClaraError("no latents were given, so there is nothing to answer from")
        self.prompts.check_window(prompt, max_tokens)
        return self._decoder.stream(prompt, documents, max_tokens, sampling, texts)


def _texts(responses: Iterator[GenerationResponse]) -> Iterator[str]:
    return (response.text for response in responses if response.text)
