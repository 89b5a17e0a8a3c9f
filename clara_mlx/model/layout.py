"""PromptLayout: what stands around the texts of a decoder prompt, as a chat template puts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from clara_mlx.errors import CheckpointError

#: A piece of a layout: text, or the id of a special token.
Part = str | int


@dataclass(frozen=True)
class PromptLayout:
    """The pieces of a prompt between which system text, user's text and answer stand.

    A chat template is rendered once, when a checkpoint is converted, and its pieces are kept in the
    model folder. So a model reads for ever what it was trained on, and no template runs later.
    """

    begin: tuple[Part, ...]  # before the system text
    between: tuple[Part, ...]  # after it, before the user's text
    end: tuple[Part, ...]  # after the user's text, up to where the answer is generated
    answer: tuple[Part, ...] = ()  # in training, between that and the answer
    close: tuple[Part, ...] = ()  # after the answer; its first special token ends generation
    trims_start: bool = False  # whether white space is cut where the user's text starts
    trims_end: bool = False  # whether white space is cut where the user's text ends
    trims_answer: bool = False  # whether white space is cut around the answer
    template: str = ""  # whose chat template this is: ``checkpoint`` or ``base``

    @classmethod
    def published(cls, bos_id: int | None, eos_id: int) -> PromptLayout:
        """The layout of the published checkpoints: ``<s> [INST] system user [/INST] answer</s>``.

        A base without ``<s>`` gets none.
        """
        begin = () if bos_id is None else (bos_id,)
        return cls((*begin, " [INST] "), ("\n\n",), (" [/INST]",), (" ",), (eos_id,))

    @classmethod
    def from_dict(cls, raw: Any) -> PromptLayout:
        """Read a layout from JSON values.

        Raises:
            CheckpointError: It is not one.
        """
        if isinstance(raw, PromptLayout):
            return raw
        names = {field.name for field in fields(cls)}
        if not isinstance(raw, Mapping) or not {"begin", "between", "end"} <= set(raw) <= names:
            raise CheckpointError("prompt is not a layout of prompts")
        given: Any = {n: tuple(v) if isinstance(v, list) else v for n, v in raw.items()}
        layout = cls(**given)
        for field in fields(cls):
            value = getattr(layout, field.name)
            kinds = {"bool": (bool,), "str": (str,)}.get(str(field.type), (str, int))
            values = value if isinstance(value, tuple) else (value,)
            if not all(type(one) in kinds for one in values):
                raise CheckpointError(f"prompt: {field.name} can't be {value!r:.80}")
        return layout

    def ids(self) -> Iterator[int]:
        """The special tokens in it."""
        for parts in (self.begin, self.between, self.end, self.answer, self.close):
            yield from (part for part in parts if isinstance(part, int))

    @property
    def turn_end(self) -> int | None:
        """The special token that ends an answer, if the template puts one there."""
        return next((part for part in self.close if isinstance(part, int)), None)
