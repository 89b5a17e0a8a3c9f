"""ClaraConfig: what a CLaRa checkpoint says about itself, as numbers and token ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from clara_mlx.errors import CheckpointError
from clara_mlx.model.layout import PromptLayout

# Types of the fields that are not named by their annotation.
_TYPES = {
    "bos_id": ("int", "NoneType"),
    "more_stop_ids": ("tuple",),
    "prompt": ("PromptLayout", "NoneType"),
}


@dataclass(frozen=True)
class ClaraConfig:
    """The fields of a CLaRa ``config.json`` that shape inference, and those of its base.

    The added tokens follow the base vocabulary in this order: the memory tokens, ``<AE>``,
    ``<ENC>``, ``<SEP>`` (reference behaviour; CLaRa paper, section 3).
    """

    doc_max_length: int  # text tokens one chunk holds, e.g. 256
    compr_rate: int  # text tokens per memory token, e.g. 16
    lora_r: int  # rank of every adapter; the reference fixes alpha = 2r
    hidden_size: int  # width of the base, and so of a latent
    base_vocab_size: int  # rows before the added tokens; the first added token's id
    window: int  # tokens the base can attend to
    bos_id: int | None = 1  # None: the base has none, and none is put in
    eos_id: int = 2  # in the layouts
    different_mem_tokens: bool = True  # false: one <MEM> token, repeated
    sep: bool = True
    training_stage: str = ""  # stage1 (Base), stage1_2 (Instruct), stage2 (E2E)
    generation_top_k: int = 5  # documents per question at training time
    max_new_tokens: int = 128
    more_stop_ids: tuple[int, ...] = ()  # which end an answer, too
    prompt: PromptLayout | None = None  # None: the published layout

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            # bool is an int to Python, but not to a config.
            if type(value).__name__ not in _TYPES.get(field.name, (field.type,)):
                raise CheckpointError(
                    f"config: {field.name} must be of type {field.type}, got {value!r}"
                )
        sizes = ("doc_max_length", "compr_rate", "lora_r", "hidden_size", "window")
        for name in (*sizes, "base_vocab_size"):
            if getattr(self, name) < 1:
                raise CheckpointError(f"config: {name} must be positive, got {getattr(self, name)}")
        ids: list[tuple[str, Any]] = [("bos_id", self.bos_id), ("eos_id", self.eos_id)]
        ids += [("eos_id", id) for id in self.more_stop_ids]
        ids += [("prompt", id) for id in (self.prompt.ids() if self.prompt else ())]
        for name, id in ids:
            if id is None:
                continue
            if type(id) is not int or not 0 <= id < self.base_vocab_size:
                raise CheckpointError(
                    f"config: {name} {id!r:.40} is not in the base vocabulary of "
                    f"{self.base_vocab_size}"
                )
        # 2**20 is far above any published value; it keeps a hostile config from costing memory.
        if not 1 <= self.memory_tokens <= 2**20:
            raise CheckpointError(
                f"config: doc_max_length {self.doc_max_length} // compr_rate {self.compr_rate} "
                f"leaves {self.memory_tokens} memory tokens"
            )

    @property
    def memory_tokens(self) -> int:
        """M, the number of vectors that one chunk becomes."""
        return self.doc_max_length // self.compr_rate

    @property
    def added_tokens(self) -> list[str]:
        """Names of the added tokens, in the order of their ids."""
        if self.different_mem_tokens:
            memory = [f"<MEM{i}>" for i in range(self.memory_tokens)]
        else:
            memory = ["<MEM>"]
        return [*memory, "<AE>", "<ENC>", "<SEP>"]

    @property
    def memory_ids(self) -> list[int]:
        """Token ids of the M memory tokens, in order."""
        first = self.base_vocab_size
        step = 1 if self.different_mem_tokens else 0
        return [first + i * step for i in range(self.memory_tokens)]

    @property
    def layout(self) -> PromptLayout:
        """What stands around the texts of a decoder prompt."""
        return self.prompt or PromptLayout.published(self.bos_id, self.eos_id)

    @property
    def stop_ids(self) -> list[int]:
        """Ids that end an answer: the base's, and the one that its chat template ends a turn with.

        The one of the layout is the first.
        """
        ends = (self.eos_id, self.layout.turn_end, *self.more_stop_ids)
        return list(dict.fromkeys(id for id in ends if id is not None))

    @property
    def enc_id(self) -> int:
        """Id of ``<ENC>``, which opens every encoder input."""
        return self.vocab_size - 2

    @property
    def sep_id(self) -> int:
        """Id of ``<SEP>``, which follows the memory tokens of each document."""
        return self.vocab_size - 1

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding table, added tokens included."""
        return self.base_vocab_size + len(self.added_tokens)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for ``clara.json``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, where: str) -> ClaraConfig:
        """Read the fields from a mapping, which may have others too.

        Raises:
            CheckpointError: a field is missing or has the wrong type; ``where`` names the file.
        """
        names = [field.name for field in fields(cls)]
        required = [field.name for field in fields(cls) if field.default is MISSING]
        missing = [name for name in required if name not in raw]
        if missing:
            raise CheckpointError(f"{where}: not a CLaRa config: it has no {', '.join(missing)}")
        try:
            given = {name: raw[name] for name in names if name in raw}
            if isinstance(given.get("more_stop_ids"), list):
                given["more_stop_ids"] = tuple(given["more_stop_ids"])
            if given.get("prompt") is not None:
                given["prompt"] = PromptLayout.from_dict(given["prompt"])
            return cls(**given)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from error
