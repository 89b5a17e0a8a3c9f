"""The token layout of the encoder input and of the decoder prompt.

The strings below are part of the trained weights' input format (SPEC, "Decoder prompt"). Layout
tokens are added as ids, so that no text can add or remove a memory slot.
"""

from __future__ import annotations

from dataclasses import dataclass

from clara_mlx.config import ClaraConfig
from clara_mlx.errors import ClaraError
from clara_mlx.tokenizer import TextTokenizer

ANSWER_SYSTEM = (
    "You are a helpful assistant. Your task is to extract relevant information from provided "
    "documents and to answer to questions as briefly as possible."
)
PARAPHRASE_SYSTEM = (
    "You are a helpful assistant. Your task is follow the instructions to paraphrase the "
    "background information."
)
SLOTS = "{slots}"  # where a user turn takes the memory tokens
ANSWER_USER = "Background:\n{slots}\n\nQuestion:"  # the question follows at once, without a space
PARAPHRASE_USER = "These two expressions are equivalent in essence:\n(1) {slots}\n(2)"


@dataclass(frozen=True)
class DecoderPrompt:
    """A decoder prompt as ids, and where its memory tokens are.

    ``slots[i]`` is the position of the i-th memory vector of the flattened ``(k * M, hidden)``
    latents; ``ids`` holds the memory tokens' own ids there.
    """

    ids: list[int]
    slots: list[int]


class Prompts:
    """Builds the model's inputs from outside text and a number of documents."""

    def __init__(self, config: ClaraConfig, tokenizer: TextTokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer

    def encoder_input(self, text_ids: list[int], *, truncate: bool = False) -> list[int]:
        """Ids of ``<ENC><s>`` text ``</s>`` and the memory tokens, unpadded.

        ``truncate`` cuts as the reference does: from the right to doc_max_length + 3, so that a
        longer text keeps doc_max_length + 1 tokens and loses its ``</s>``. Without it the caller
        has checked the length. The same layout serves documents and questions.
        """
        config = self.config
        ids = [config.enc_id, config.bos_id, *text_ids, config.eos_id]
        if truncate:
            ids = ids[: config.doc_max_length + 3]
        return ids + config.memory_ids

    def answer(self, question: str, documents: int) -> DecoderPrompt:
        """The prompt that asks a question about ``documents`` compressed documents."""
        before, after = ANSWER_USER.split(SLOTS)
        # The reference rewrites its user turn so; "C:\\ drive" was never seen in training.
        after = (after + question).replace(":\\ ", ": ")
        return self._decoder(ANSWER_SYSTEM, before, after, documents)

    def paraphrase(self, documents: int, instruction: str = PARAPHRASE_USER) -> DecoderPrompt:
        """The prompt that asks for the text of compressed documents.

        Raises:
            ClaraError: the instruction does not have ``{slots}`` exactly once.
        """
        if instruction.count(SLOTS) != 1:
            raise ClaraError(f"a paraphrase instruction needs {SLOTS} once, got {instruction!r}")
        before, after = instruction.split(SLOTS)
        return self._decoder(PARAPHRASE_SYSTEM, before, after, documents)

    def _decoder(self, system: str, before: str, after: str, documents: int) -> DecoderPrompt:
        config, encode = self.config, self.tokenizer.encode
        head = [config.bos_id, *encode(f" [INST] {system}\n\n{before}")]
        block = [*config.memory_ids, config.sep_id]
        slots = [
            len(head) + document * len(block) + i
            for document in range(documents)
            for i in range(config.memory_tokens)
        ]
        return DecoderPrompt([*head, *block * documents, *encode(f"{after} [/INST]")], slots)
