"""Generating text from a prompt whose positions are embeddings, by mlx-lm."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypedDict

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.generate import GenerationResponse, stream_generate
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_logits_processors, make_sampler
from mlx_lm.tokenizer_utils import StreamingDetokenizer, TokenizerWrapper
from transformers import PreTrainedTokenizerFast

from clara_mlx.model.lookup import DRAFTED, Lookup, Verifying
from clara_mlx.model.tokenizer import TextTokenizer


class Sampling(TypedDict, total=False):
    """Sampling options with the names and meanings of mlx-lm; without any, decoding is greedy."""

    temp: float
    top_p: float
    min_p: float
    min_tokens_to_keep: int
    top_k: int
    xtc_probability: float
    xtc_threshold: float
    repetition_penalty: float
    repetition_context_size: int


_PROCESSOR_OPTIONS = ("repetition_penalty", "repetition_context_size")


# Positions of a prompt that are read in one pass, as in mlx-lm; it bounds the activations.
_READ_AT_ONCE = 2048

# How the bytes of a character that has more of them are decoded.
_UNFINISHED = "\ufffd"


class Generator:
    """Generates with a network, and turns its tokens into text.

    Args:
        network: What mlx-lm calls for logits; it takes embeddings in place of tokens.
        tokenizer: Turns the tokens into text.
        stop_ids: Ids that end an answer.
    """

    def __init__(self, network: nn.Module, tokenizer: TextTokenizer, stop_ids: list[int]) -> None:
        self._network = network
        self._text_tokenizer = tokenizer
        # mlx-lm asks a Hugging Face tokenizer for its vocabulary; text is ours.
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer.full)
        self._tokenizer = TokenizerWrapper(wrapped, partial(Detokenizer, tokenizer), stop_ids)

    def stream_copying(
        self,
        ids: Sequence[int],
        embeddings: mx.array,
        max_tokens: int,
        texts: Sequence[str],
        prompt_cache: list[Any] | None = None,
    ) -> Iterator[GenerationResponse]:
        """`stream` without sampling, faster where the answer copies from texts; see `lookup`.

        The arguments are those of `stream`; the prompt's last position must be a token.
        """
        cache = prompt_cache or make_prompt_cache(self._network)
        for start in range(0, len(ids) - 1, _READ_AT_ONCE):
            end = min(start + _READ_AT_ONCE, len(ids) - 1)
            read = mx.array([list(ids[start:end])], mx.int32)
            logits = self._network(read, cache=cache, input_embeddings=embeddings[None, start:end])
            mx.eval([layer.state for layer in cache])  # but not the logits
        lookup = Lookup(self._text_tokenizer.encode_batch(texts), logits.shape[-1])
        yield from stream_generate(
            Verifying(self._network, lookup),
            self._tokenizer,
            mx.array([ids[-1]]),
            max_tokens=max_tokens,
            draft_model=lookup,
            num_draft_tokens=DRAFTED,
            prompt_cache=[*cache, lookup],
        )

    def stream(
        self,
        ids: Sequence[int],
        embeddings: mx.array,
        max_tokens: int,
        sampling: Sampling,
        prompt_cache: list[Any] | None = None,
    ) -> Iterator[GenerationResponse]:
        """mlx-lm's responses, one per token; their texts joined are the whole answer.

        Args:
            ids: The prompt's ids, which a repetition penalty counts; none, and it counts only what
                is generated.
            embeddings: The prompt (tokens, hidden).
            max_tokens: Tokens to generate at most.
            sampling: Options as mlx-lm names them.
            prompt_cache: mlx-lm's cache of what precedes the prompt, if anything does.
        """
        options: dict[str, Any] = dict(sampling)
        processing = {name: options.pop(name) for name in _PROCESSOR_OPTIONS if name in options}
        yield from stream_generate(
            _Passes(self._network, max_tokens),
            self._tokenizer,
            mx.array(list(ids), mx.int32),
            max_tokens=max_tokens,
            sampler=make_sampler(**options),
            logits_processors=make_logits_processors(**processing),
            input_embeddings=embeddings,
            prompt_cache=prompt_cache,
        )


class _Passes(nn.Module):
    """The network for one answer, without the pass that nothing asks for.

    mlx-lm computes a token ahead of the one that it gives out, also when that was the last that was
    asked for. Its next token is never seen, so anything will do for it.
    """

    def __init__(self, network: nn.Module, max_tokens: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network = network
        self._left = max_tokens - 1  # passes over a generated token
        self._logits: mx.array | None = None

    def __call__(
        self, inputs: mx.array, cache: Any = None, input_embeddings: mx.array | None = None
    ) -> mx.array:
        if input_embeddings is None:
            self._left -= 1
            if self._left < 0 and self._logits is not None:
                return self._logits
        logits = self._network(inputs, cache=cache, input_embeddings=input_embeddings)
        if logits.shape[1] == 1:
            self._logits = logits
        return logits

    @property
    def layers(self) -> list[nn.Module]:
        return self._network.layers


class Detokenizer(StreamingDetokenizer):
    """Text as `TextTokenizer.decode` of all tokens gives it, so that a stream joins to the answer.

    A run of byte-fallback tokens is decoded as a whole, so it is held back until it ends; so is a
    character of which a byte-level token has only the first bytes.
    """

    def __init__(self, text_tokenizer: TextTokenizer, _: object) -> None:
        self._text_tokenizer = text_tokenizer
        self.reset()

    def reset(self) -> None:
        """Forget all tokens."""
        self.tokens: list[int] = []
        self.text = ""
        self.offset = 0

    def add_token(self, token: int) -> None:
        """Take the next token."""
        self.tokens.append(token)
        if self._text_tokenizer.is_open(token):
            return
        text = self._text_tokenizer.decode(self.tokens)
        if not text.endswith(_UNFINISHED):
            self.text = text

    def finalize(self) -> None:
        """Make the text of all tokens so far."""
        self.text = self._text_tokenizer.decode(self.tokens)
