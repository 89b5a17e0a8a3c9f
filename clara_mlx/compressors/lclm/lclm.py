"""Lclm: compress text into latents, and chat with prompts that mix them with text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, Unpack

import mlx.core as mx
import numpy as np

from clara_mlx.compressors.lclm.compressing import CompressedText, Compressing
from clara_mlx.compressors.lclm.config import LclmConfig
from clara_mlx.compressors.lclm.encoder import Adapter, Encoder
from clara_mlx.compressors.lclm.folder import DECODER, ENCODER, NAME, LclmFolder
from clara_mlx.compressors.lclm.growing import GrowingText
from clara_mlx.compressors.lclm.prefix import PrefixCache, Prompt
from clara_mlx.compressors.lclm.regions import Message, Part, Prompts, Region, marked_parts
from clara_mlx.errors import ClaraError, Progress, PromptTooLong, TextTooLong
from clara_mlx.model import few_rows
from clara_mlx.model.folder import resolve
from clara_mlx.model.generation import Generator, Sampling
from clara_mlx.model.network import evaluate
from clara_mlx.model.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from mlx_lm.generate import GenerationResponse

Array: TypeAlias = "mx.array | np.ndarray[Any, Any]"

# A repetition penalty counts the whole answer, as in the reference.
_WHOLE_ANSWER = 1 << 30


def load(path_or_hub_id: str | Path, *, revision: str | None = None) -> Lclm:
    """Load an LCLM model folder, made by ``clara-mlx convert``, from a path or the hub.

    Activations are float32 on a CPU and in the folder's dtype on a GPU.

    Raises:
        CheckpointError: The folder can't be found, or is damaged; the message says which file.
    """
    return from_folder(LclmFolder.open(resolve(path_or_hub_id, revision)))


def from_folder(folder: LclmFolder, dtype: mx.Dtype | None = None) -> Lclm:
    """Build `Lclm` from an opened model folder, with another compute dtype if one is given."""
    dtype = dtype or folder.compute_dtype()
    config = folder.config
    network = folder.load_network(ENCODER, dtype)
    encoder = Encoder(network, config.ratio, config.encoder_window, dtype)
    adapter, decoder = folder.load_adapter(dtype), folder.load_decoder(dtype)
    few_rows.use_blocks(decoder)
    for part in (network, adapter, decoder):
        evaluate(part)
    tokenizers = folder.tokenizer(ENCODER), folder.tokenizer(DECODER)
    return Lclm(config, encoder, adapter, decoder, *tokenizers, folder.fingerprint)


class Lclm:
    """An LCLM model: an encoder, an adapter, and a chat model that reads latents. Made by `load`.

    It is a `clara_mlx.compressors.compressor.LatentCompressor`. A memory keeps its chunks as pooled
    encoder states, which are 2.5 times smaller than latents and can be compared with a question's;
    the adapter, a hundredth of a decoder layer's work, makes latents of them when they are read.

    Text is content, whatever it holds: special-token strings in it are plain characters; only
    `generate` with a string reads markers, see there. Not thread-safe.

    Attributes:
        config: Token counts and ids.
        tokenizer: The encoder's, which texts are cut and counted by.
        fingerprint: Identifies checkpoint, quantisation and dtype.
        searches: Whether a memory also searches by the cosine of mean states; off at first, as LCLM
            was not trained for it: words find more. Set it before the memory is opened.
        prompts: Builds what the decoder reads.
    """

    name: ClassVar[str] = NAME
    kind: ClassVar[Literal["latent"]] = "latent"
    pooling: ClassVar[Literal["mean"]] = "mean"

    def __init__(
        self,
        config: LclmConfig,
        encoder: Encoder,
        adapter: Adapter,
        decoder: Any,
        encoder_tokenizer: TextTokenizer,
        decoder_tokenizer: TextTokenizer,
        fingerprint: str,
    ) -> None:
        self.config = config
        self.decoder = decoder
        self.tokenizer = encoder_tokenizer
        self.decoder_tokenizer = decoder_tokenizer
        self.fingerprint = fingerprint
        self.searches = False
        self.prompts = Prompts(config, decoder_tokenizer)
        self._compressing = Compressing(encoder, adapter, encoder_tokenizer)
        self._generator = Generator(decoder, decoder_tokenizer, [config.turn_end_id])

    @property
    def encoded_tokens(self) -> int:
        """Tokens that the encoder has run so far; windows that are known are not run again."""
        return self._compressing.encoded_tokens

    @property
    def chunk_tokens(self) -> int:
        """Tokens of the longest chunk that a memory makes of a text."""
        return self.config.chunk_tokens

    @property
    def latent_shape(self) -> tuple[int, int]:
        """The most states that a chunk becomes, and the length of each."""
        return self.config.latents(self.chunk_tokens), self.config.encoder_hidden

    @cached_property
    def separators(self) -> int:
        """Positions of the decoder that a document takes beside its latents."""
        return 2 + len(self.decoder_tokenizer.encode("Chunk 100: \n"))

    # -- encoding --------------------------------------------------------------------------------

    def encode(self, text: str, *, parse_specials: bool = False) -> mx.array:
        """Compress a text of any length: (latents, hidden) float32.

        One latent for every `config.ratio` tokens, the last of which may stand for fewer. An empty
        text has one latent (the reference's behaviour).

        Args:
            text: The text, which is cut into the encoder's windows.
            parse_specials: Read special-token strings in it as the reference does; for parity only.
        """
        ids = self._compressing.ids(text, parse_specials=parse_specials)
        return self._compressing.latents(self._compressing.states([ids])[0])

    def encode_chunks(self, texts: Sequence[str], /) -> list[np.ndarray[Any, Any]]:
        """What a memory keeps of each text: its pooled states, (n, encoder hidden) float32.

        Raises:
            TextTooLong: A text has more than `chunk_tokens` tokens; nothing is ever cut.
        """
        limit = self.chunk_tokens
        longest = 4 * self.tokenizer.longest_token * (limit + 2)
        for index, text in enumerate(texts):
            if len(text) > longest:  # don't tokenise 50 MB to find out that it can't fit
                raise TextTooLong(index, limit + 1, limit, exact=False)
        tokenised = self.tokenizer.encode_batch(texts)
        for index, ids in enumerate(tokenised):
            if len(ids) > limit:
                raise TextTooLong(index, len(ids), limit)
        return [np.array(states) for states in self._compressing.states(tokenised)]

    def encode_query(self, text: str, /) -> mx.array:
        """A question as chunks are compared with it: its mean state (1, encoder hidden) float32."""
        states = self._compressing.states([self.tokenizer.encode(text)])[0]
        return states.mean(0, keepdims=True)

    def compress(self, text: str, *, progress: Progress | None = None) -> CompressedText:
        """Compress a text of any length; see `CompressedText`."""
        return self.compress_batch([text], progress=progress)[0]

    def compress_batch(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> list[CompressedText]:
        """Compress several texts; their windows share batches."""
        return self._compressing.compress(texts, progress)

    def grow(self, text: str = "") -> GrowingText:
        """A text that more text will be appended to, compressed only where it grows."""
        growing = GrowingText(self._compressing.encoder, self.tokenizer)
        growing.append(text)
        return growing

    # -- reading ---------------------------------------------------------------------------------

    def answer(
        self,
        question: str,
        regions: Iterable[str | Region | CompressedText | GrowingText | Array],
        max_tokens: int = 128,
        **sampling: Unpack[Sampling],
    ) -> str:
        """Answer a question from compressed texts, greedily unless sampling options are given.

        Args:
            question: The question, which is never cut.
            regions: What to read, in order: texts, `Region`s, what `compress` or `grow` returned,
                or the latents that `encode` returned.
            max_tokens: Tokens to generate at most; the answer ends earlier at ``<|im_end|>``.
            sampling: Options as mlx-lm names them. A repetition penalty counts only the answer.

        Raises:
            PromptTooLong: All of it exceeds the decoder's window.
        """
        prompt = self._question(question, [self._region(one) for one in regions], max_tokens)
        return "".join(_texts(self._generate(prompt, max_tokens, None, sampling)))

    def stream_answer(
        self,
        question: str,
        documents: Sequence[Array],
        max_tokens: int = 128,
        /,
        **sampling: Unpack[Sampling],
    ) -> Iterator[str]:
        """`answer` piece by piece, from the states that `encode_chunks` returned."""
        regions = [Region(states=states) for states in documents]
        prompt = self._question(question, regions, max_tokens)
        return _texts(self._generate(prompt, max_tokens, None, sampling))

    def documents_that_fit(self, question: str, max_tokens: int = 128, /) -> int:
        """Number of chunks that `answer` can read with this question and room for its answer."""
        ids, _ = self.prompts.ids(self.prompts.question(question, []), [])
        room = self.config.window - max_tokens - len(ids) - len("\n\nQuestion: ")
        return max(0, room // (self.latent_shape[0] + self.separators))

    def generate(
        self,
        prompt: str | Iterable[Message],
        max_tokens: int = 512,
        *,
        tools: Sequence[dict[str, Any]] = (),
        prefix: PrefixCache | None = None,
        **sampling: Unpack[Sampling],
    ) -> str:
        """Generate an answer to messages, or go on from a prompt.

        Args:
            prompt: Chat messages, whose content is a text or a list of texts and `Region`s. Or a
                string in the published form: a finished prompt with regions between
                ``<|memory_start|>`` and ``<|memory_end|>``, in which special-token strings are
                tokens; build none from text that others wrote.
            max_tokens: Tokens to generate at most.
            tools: Tools that the model may call, as chat completions have them.
            prefix: What is kept between calls, see `PrefixCache`.
            sampling: Options as mlx-lm names them. A repetition penalty counts only the answer.

        Raises:
            ClaraError: A message is not one, or the prompt does not fit the decoder's window.
        """
        return "".join(
            _texts(
                self.stream_responses(prompt, max_tokens, tools=tools, prefix=prefix, **sampling)
            )
        )

    def stream_responses(
        self,
        prompt: str | Iterable[Message],
        max_tokens: int = 512,
        *,
        tools: Sequence[dict[str, Any]] = (),
        prefix: PrefixCache | None = None,
        **sampling: Unpack[Sampling],
    ) -> Iterator[GenerationResponse]:
        """`generate` token by token: mlx-lm's responses, with token ids, counts and rates."""
        built = self.prompt(prompt, tools)
        needed = len(built.ids) + max_tokens
        if needed > self.config.window:
            raise ClaraError(
                f"the prompt and its answer need {needed} tokens, but the decoder's window is "
                f"{self.config.window}; leave messages out, or compress more of them"
            )
        return self._generate(built, max_tokens, prefix, sampling)

    def prompt(
        self, prompt: str | Iterable[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> Prompt:
        """What the decoder reads for `generate`'s first argument."""
        if isinstance(prompt, str):
            marked = marked_parts(prompt)
            regions = self._read([part for part in marked if isinstance(part, Region)])
            ids, slots = self.prompts.marked_ids(marked, [len(latents) for latents in regions])
            return Prompt(ids, slots, regions)
        return self._prompt(self.prompts.chat(prompt, tools))

    def embeddings(self, prompt: Prompt) -> mx.array:
        """What stands at each position of a prompt, (positions, hidden)."""
        embeds: mx.array = self.decoder.model.embed_tokens(mx.array(prompt.ids, mx.int32))
        if prompt.slots:
            embeds[mx.array(prompt.slots)] = mx.concatenate(prompt.regions).astype(embeds.dtype)
        return embeds

    def _question(self, question: str, regions: Sequence[Region], max_tokens: int) -> Prompt:
        prompt = self._prompt(self.prompts.question(question, regions))
        needed = len(prompt.ids) + max_tokens
        if needed > self.config.window:
            fitting = self.documents_that_fit(question, max_tokens)
            raise PromptTooLong(needed, self.config.window, len(regions), fitting)
        return prompt

    def _prompt(self, parts: list[Part]) -> Prompt:
        regions = self._read([part for part in parts if isinstance(part, Region)])
        ids, slots = self.prompts.ids(parts, [len(latents) for latents in regions])
        return Prompt(ids, slots, regions)

    def _region(self, given: str | Region | CompressedText | GrowingText | Array) -> Region:
        match given:
            case Region():
                return given
            case str():
                return Region(given)
            case CompressedText():
                return given.region
            case GrowingText():
                return Region(states=given.states)
        return Region(latents=given)

    def _read(self, regions: Sequence[Region]) -> list[mx.array]:
        """The latents (n, hidden) of each region; those of texts are made together."""
        compressing, config = self._compressing, self.config
        texts = [region for region in regions if region.text is not None]
        ids = [compressing.ids(str(r.text), parse_specials=r.parse_specials) for r in texts]
        of_texts = iter(compressing.states(ids))
        latents = []
        for region in regions:
            if region.latents is not None:
                latents.append(self._checked(region.latents, config.hidden_size))
                continue
            states = next(of_texts) if region.states is None else region.states
            latents.append(compressing.latents(self._checked(states, config.encoder_hidden)))
        return latents

    @staticmethod
    def _checked(vectors: Array, length: int) -> mx.array:
        array = mx.array(vectors).astype(mx.float32)
        if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] != length:
            raise ClaraError(
                f"a region's vectors have shape {tuple(array.shape)}, but this model's are "
                f"(n, {length})"
            )
        return array

    def _generate(
        self, prompt: Prompt, max_tokens: int, prefix: PrefixCache | None, sampling: Sampling
    ) -> Iterator[GenerationResponse]:
        if max_tokens < 1:
            raise ClaraError(f"max_tokens must be at least 1, not {max_tokens}")
        if "repetition_penalty" in sampling:
            sampling = {"repetition_context_size": _WHOLE_ANSWER, **sampling}
        return self._stream(prompt, max_tokens, prefix or PrefixCache(), sampling)

    def _stream(
        self, prompt: Prompt, max_tokens: int, prefix: PrefixCache, sampling: Sampling
    ) -> Iterator[GenerationResponse]:
        generated: list[int] = []
        with prefix.continued(self.decoder, prompt, generated) as (cache, known):
            embeds = self.embeddings(prompt)[known:]
            # Without ids, which would make the prompt count as a repetition.
            for response in self._generator.stream([], embeds, max_tokens, sampling, cache):
                generated.append(response.token)
                yield replace(response, prompt_tokens=len(prompt.ids))


def _texts(responses: Iterator[GenerationResponse]) -> Iterator[str]:
    return (response.text for response in responses if response.text)
