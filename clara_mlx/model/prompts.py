"""The token layout of the encoder input and of the decoder prompt.

The reference was trained with exactly these strings, its mistakes included: another wording is an
input that the weights have not seen (tests/golden/README.md). What stands around them is the
checkpoint's or its base's chat template (`clara_mlx.model.layout`). Layout tokens are added as ids,
so that no text can add or remove a memory slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from clara_mlx.errors import ClaraError, PromptTooLong
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.layout import Part
from clara_mlx.model.tokenizer import TextTokenizer

ANSWER_SYSTEM = (
    "You are a helpful assistant. Your task is to extract relevant information from provided "
    "documents and to answer to questions as briefly as possible."
)
PARAPHRASE_SYSTEM = (
    "You are a helpful assistant. Your task is follow the instructions to paraphrase the "
    "background information."
)
QUESTIONS_SYSTEM = (
    "You are a helpful assistant. Given a document, your task is to generate some single questions "
    "to cover all key information of the document and answer them sequentially."
)
SLOTS = "{slots}"  # where a user turn takes the memory tokens
ANSWER_USER = "Background:\n{slots}\n\nQuestion:"  # the question follows at once, without a space
QUESTIONS_USER = "Background:\n{slots}"
PARAPHRASE_USER = "These two expressions are equivalent in essence:\n(1) {slots}\n(2)"
#: Of the reference's 13 paraphrase instructions, those that are known to have been trained.
PARAPHRASE_USERS = (
    PARAPHRASE_USER,
    "Strip away the mystery, and you'll find background: {slots} is simply another rendition of:",
)


@dataclass(frozen=True)
class DecoderPrompt:
    """A decoder prompt as ids, and where its memory tokens are.

    ``slots[i]`` is the position of the i-th memory vector of the flattened ``(k * M, hidden)``
    latents; ``ids`` holds the memory tokens' own ids there. With an answer, for training, the
    labels are ``ids[answer_from:]``, with the end of the turn. The first ``opening`` ids are
    those of every prompt of this kind, whatever it is about.
    """

    ids: list[int]
    slots: list[int]
    answer_from: int | None = None
    opening: int = 0


class Prompts:
    """Builds the model's inputs from outside text and a number of documents."""

    def __init__(self, config: ClaraConfig, tokenizer: TextTokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self._layout = config.layout

    def encoder_input(self, text_ids: list[int], *, truncate: bool = False) -> list[int]:
        """Ids of ``<ENC><s>`` text ``</s>`` and the memory tokens, unpadded.

        ``truncate`` cuts as the reference does: from the right to doc_max_length + 3, so that a
        longer text keeps doc_max_length + 1 tokens and loses its ``</s>``. Without it the caller
        has checked the length. The same layout serves documents and questions.
        """
        config = self.config
        bos = [] if config.bos_id is None else [config.bos_id]
        ids = [config.enc_id, *bos, *text_ids, config.eos_id]
        if truncate:
            ids = ids[: config.doc_max_length + 3]
        return ids + config.memory_ids

    def answer(
        self,
        question: str,
        documents: int,
        answer: str | None = None,
        *,
        text: Sequence[int] = (),
    ) -> DecoderPrompt:
        """The prompt that asks a question about ``documents`` compressed documents.

        Args:
            question: The question, as plain text.
            documents: Number of documents.
            answer: The answer that follows the prompt in training, here and in the other prompts.
            text: Ids of plain text to read after the documents, or instead of any.
        """
        before, after = ANSWER_USER.split(SLOTS)
        # The reference rewrites its user turn so; "C:\\ drive" was never seen in training.
        after = (after + question).replace(":\\ ", ": ")
        return self._decoder_prompt(ANSWER_SYSTEM, before, after, documents, answer, text)

    def questions(self, documents: int, answer: str | None = None) -> DecoderPrompt:
        """The prompt that asks for questions about documents, and their answers."""
        before, after = QUESTIONS_USER.split(SLOTS)
        return self._decoder_prompt(QUESTIONS_SYSTEM, before, after, documents, answer)

    def paraphrase(
        self, documents: int, instruction: str = PARAPHRASE_USER, answer: str | None = None
    ) -> DecoderPrompt:
        """The prompt that asks for the text of compressed documents.

        Raises:
            ClaraError: The instruction does not have ``{slots}`` exactly once.
        """
        if instruction.count(SLOTS) != 1:
            raise ClaraError(f"a paraphrase instruction needs {SLOTS} once, got {instruction!r}")
        before, after = instruction.split(SLOTS)
        return self._decoder_prompt(PARAPHRASE_SYSTEM, before, after, documents, answer)

    def documents_that_fit(self, prompt: DecoderPrompt, max_tokens: int) -> int:
        """Number of documents that a prompt could have if the window is to hold its answer, too."""
        per_document = self.config.memory_tokens + 1  # with <SEP>
        documents = len(prompt.slots) // self.config.memory_tokens
        room = self.config.window - max_tokens - (len(prompt.ids) - documents * per_document)
        return max(0, room // per_document)

    def check_window(self, prompt: DecoderPrompt, max_tokens: int) -> None:
        """Refuse a prompt that does not fit the model's window together with its answer.

        Raises:
            PromptTooLong: It says how many documents would fit.
        """
        needed = len(prompt.ids) + max_tokens
        if needed > self.config.window:
            documents = len(prompt.slots) // self.config.memory_tokens
            fitting = self.documents_that_fit(prompt, max_tokens)
            raise PromptTooLong(needed, self.config.window, documents, fitting)

    def _decoder_prompt(
        self,
        system: str,
        before: str,
        after: str,
        documents: int,
        answer: str | None,
        text: Sequence[int] = (),
    ) -> DecoderPrompt:
        """Ids of system and user turn, documents and text between its halves, and the answer."""
        config, layout = self.config, self._layout
        # Where a template cuts the edges of a turn, it would cut these.
        before = before.lstrip() if layout.trims_start else before
        after = after.rstrip() if layout.trims_end else after
        head = self._ids([*layout.begin, system, *layout.between, before], starts=True)
        block = [*config.memory_ids, config.sep_id]
        slots = [
            len(head) + document * len(block) + i
            for document in range(documents)
            for i in range(config.memory_tokens)
        ]
        ids = [*head, *block * documents, *text, *self._ids([after, *layout.end])]
        if answer is None:
            return DecoderPrompt(ids, slots, opening=len(head))
        # As the reference tokenises: prompt and answer as one text, the prompt counted on its own.
        answer = answer.strip() if layout.trims_answer else answer
        turn = self._ids([after, *layout.end, *layout.answer, answer, *layout.close])
        whole = [*head, *block * documents, *text, *turn]
        return DecoderPrompt(whole, slots, answer_from=len(ids), opening=len(head))

    def _ids(self, parts: Sequence[Part], *, starts: bool = False) -> list[int]:
        """Ids of consecutive pieces; texts side by side are one text, as they are in a template.

        ``starts``: whether the first piece stands at the start of the prompt.
        """
        ids: list[int] = []
        for kind, run in groupby(parts, key=type):
            if kind is int:
                ids += [part for part in run if isinstance(part, int)]
            elif text := "".join(map(str, run)):
                ids += self.tokenizer.encode(text, starts=starts and not ids)
        return ids
