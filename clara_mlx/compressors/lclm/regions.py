"""Regions: what of a prompt the decoder reads as latents, and the prompts that hold them.

Text from outside is never parsed for tokens: markers are added as ids, so that no text can open,
close or fill a region. The one exception is `marked_parts`, for prompts that are written in the
published form, with markers in the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np

from clara_mlx.compressors.lclm.config import MEMORY_TOKENS, LclmConfig
from clara_mlx.errors import ClaraError
from clara_mlx.model.tokenizer import TextTokenizer

_START, _END, _SLOT = MEMORY_TOKENS


@dataclass(frozen=True)
class Region:
    """A part of a prompt that is read as latents: a text, or what one was compressed to.

    Exactly one of the three is given.
    """

    text: str | None = None
    states: mx.array | np.ndarray[Any, Any] | None = None  # pooled, (n, encoder hidden)
    latents: mx.array | np.ndarray[Any, Any] | None = None  # (n, hidden)
    parse_specials: bool = False  # of the text, as in the published form; see `marked_parts`

    def __post_init__(self) -> None:
        if sum(part is not None for part in (self.text, self.states, self.latents)) != 1:
            raise ClaraError("a region is a text, states or latents: give exactly one of them")


#: What stands in a message: text, and regions anywhere between.
Content: TypeAlias = "str | Sequence[str | Region]"

#: A chat message: role and content, and of an assistant's possibly tool_calls.
Message: TypeAlias = Mapping[str, Any]

#: A piece of a prompt: plain text, an id, or a region.
Part: TypeAlias = "str | int | Region"


def marked_parts(prompt: str) -> list[str | Region]:
    """A prompt in the published form, cut at its regions ``<|memory_start|>text<|memory_end|>``.

    As in the reference, a region goes from a start marker to the next end marker, so an end marker
    in its text ends it early; an unclosed start marker is text.
    """
    parts: list[str | Region] = []
    position = 0
    while (start := prompt.find(_START, position)) >= 0:
        end = prompt.find(_END, start + len(_START))
        if end < 0:
            break
        parts.append(prompt[position:start])
        parts.append(Region(prompt[start + len(_START) : end], parse_specials=True))
        position = end + len(_END)
    return [*parts, prompt[position:]]


class Prompts:
    """Builds the decoder's prompts out of text, ids and regions.

    Args:
        config: The model's ids.
        tokenizer: The decoder's.
    """

    def __init__(self, config: LclmConfig, tokenizer: TextTokenizer) -> None:
        self._config = config
        self._tokenizer = tokenizer
        added = tokenizer.full.get_added_tokens_decoder().items()
        self._added = {token.content: id for id, token in added}

    def chat(
        self, messages: Iterable[Message], tools: Sequence[Mapping[str, Any]] = ()
    ) -> list[Part]:
        """The prompt of a conversation (ChatML), up to where the next answer is generated.

        Args:
            messages: Each with a ``role`` (system, user, assistant or tool) and its ``content``;
                an assistant's may have ``tool_calls`` as chat completions have them.
            tools: Tools that the model may call, as chat completions have them.

        Raises:
            ClaraError: A message is not one.
        """
        turns = [self._turn(message) for message in messages]
        if tools:
            system = turns.pop(0)[1] + ["\n\n"] if turns and turns[0][0] == "system" else []
            turns.insert(0, ("system", system + self._tool_section(tools)))
        parts: list[Part] = []
        for role, content in turns:
            parts += [self._config.turn_start_id, f"{role}\n", *content]
            parts += [self._config.turn_end_id, "\n"]
        return [*parts, self._config.turn_start_id, "assistant\n"]

    def question(self, question: str, regions: Sequence[Region]) -> list[Part]:
        """The prompt that asks about regions: one before the question, as the model card has it.

        Several are numbered, one a line, as the published agent does.
        """
        content: list[str | Region] = []
        if len(regions) == 1:
            content = [regions[0], f" {question}"]
        else:
            for number, region in enumerate(regions, 1):
                content += [f"Chunk {number}: ", region, "\n"]
            content.append(f"\nQuestion: {question}" if regions else question)
        return self.chat([{"role": "user", "content": content}])

    def ids(self, parts: Sequence[Part], latents: Sequence[int]) -> tuple[list[int], list[int]]:
        """Ids of a prompt, and the positions that latents take, in order.

        Args:
            parts: Texts side by side are tokenised as one.
            latents: The number of each region's latents.
        """
        config, counts = self._config, iter(latents)
        ids: list[int] = []
        slots: list[int] = []
        text = ""
        for part in [*parts, None]:
            if isinstance(part, str):
                text += part
                continue
            ids += self._tokenizer.encode(text, starts=not ids) if text else []
            text = ""
            if isinstance(part, int):
                ids.append(part)
            elif part is not None:
                count = next(counts)
                slots += range(len(ids) + 1, len(ids) + 1 + count)
                ids += [config.memory_start_id, *[config.memory_id] * count, config.memory_end_id]
        return ids, slots

    def marked_ids(
        self, parts: Sequence[str | Region], latents: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """`ids` of `marked_parts`: as one string, parsed for special tokens as in the reference.

        A placeholder that stands in the text outside of a region keeps its own embedding.
        """
        counts = iter(latents)
        text = "".join(
            part if isinstance(part, str) else f"{_START}{_SLOT * next(counts)}{_END}"
            for part in parts
        )
        ids = self._tokenizer.full.encode(text).ids
        slots: list[int] = []
        place = -1
        for count in latents:
            place = ids.index(self._config.memory_start_id, place + 1)
            if ids[place + 1 : place + 1 + count] != [self._config.memory_id] * count:
                raise ClaraError("the prompt's markers do not enclose its regions' places")
            slots += range(place + 1, place + 1 + count)
        return ids, slots

    def _turn(self, message: Message) -> tuple[str, list[Part]]:
        """Role and content of a message; a tool's result is a turn of the user's."""
        role = message.get("role")
        if role not in ("system", "user", "assistant", "tool"):
            raise ClaraError(f"a message's role is system, user, assistant or tool, not {role!r}")
        content = message.get("content")
        parts: list[Part] = [content] if isinstance(content, str) else list(content or ())
        if not all(isinstance(part, str | Region) for part in parts):
            raise ClaraError("a message's content is a text, or a list of texts and Regions")
        if role == "tool":
            opening, closing = self._token("<tool_response>"), self._token("</tool_response>")
            return "user", [opening, "\n", *parts, "\n", closing]
        for call in message.get("tool_calls") or ():
            function = call["function"]
            arguments = function["arguments"]
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            written = f'\n{{"name": {json.dumps(function["name"])}, "arguments": {arguments}}}\n'
            parts += ["\n"] if parts else []
            parts += [self._token("<tool_call>"), written, self._token("</tool_call>")]
        return role, parts

    def _tool_section(self, tools: Sequence[Mapping[str, Any]]) -> list[Part]:
        """What Qwen3 was trained to read about tools, at the end of the system text."""
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
        return [
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
            "You are provided with function signatures within <tools></tools> XML tags:\n"
            f"<tools>\n{listed}\n</tools>\n\nFor each function call, return a json object with "
            "function name and arguments within ",
            *(self._token("<tool_call>"), self._token("</tool_call>")),
            " XML tags:\n",
            self._token("<tool_call>"),
            '\n{"name": <function-name>, "arguments": <args-json-object>}\n',
            self._token("</tool_call>"),
        ]

    def _token(self, content: str) -> str | int:
        """An added token as its id; as text in a tokenizer that has none of this name."""
        return self._added.get(content, content)
