"""The reasoner of bench/replay.py: its tokenizer, and a tiny model for a real mlx_lm.server."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "support"))
import httpx2
import mlx.core as mx
import tiny_models
import tiny_reasoner
from mlx.utils import tree_flatten
from mlx_lm import tokenizer_utils
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from clara_mlx.context.messages import Message
from clara_mlx.evaluate.corpus import TOOLS, generate

VOCABULARY = 8_192  # tokens

served = tiny_reasoner.served


class Tokens:
    """Token ids of rendered prompts; the text between two special tokens is encoded only once."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = tokenizer_utils.load(folder)
        self._end = self._tokenizer.eos_token
        self._pieces: dict[str, list[int]] = {}

    def ids(self, messages: list[Message], tools: list[Any]) -> list[list[int]]:
        """The prompt's ids in pieces, each of which begins with the end-of-turn token."""
        served = json.loads(json.dumps(messages))
        for message in served:
            for call in message.get("tool_calls") or ():
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        text = self._tokenizer.apply_chat_template(
            served, tools=tools, add_generation_prompt=True, tokenize=False
        )
        first, *others = text.split(self._end)
        return [self._piece(piece) for piece in (first, *(self._end + one for one in others))]

    def _piece(self, text: str) -> list[int]:
        if text not in self._pieces:
            self._pieces[text] = self._tokenizer.encode(text, add_special_tokens=False)
        return self._pieces[text]

    def count(self, messages: list[Message], tools: list[Any]) -> int:
        """Tokens of the prompt."""
        return sum(map(len, self.ids(messages, tools)))


def common_tokens(a: list[list[int]], b: list[list[int]]) -> int:
    """Tokens of the longest common prefix."""
    total = 0
    for one, other in zip(a, b, strict=False):
        if one == other:
            total += len(one)
            continue
        same = (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y)
        return total + next(same, min(len(one), len(other)))
    return total


def ask_cached_tokens(url: str, messages: list[Message], tools: list[Any]) -> int:
    """Ask the server for one token; returns the tokens of the prompt that it had cached."""
    body = {"messages": messages, "tools": tools, "max_tokens": 1, "model": "default_model"}
    answer = httpx2.post(f"{url}/chat/completions", json=body, timeout=600, trust_env=False)
    answer.raise_for_status()
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def make_tiny_reasoner(path: Path) -> Path:
    """Write a qwen3_moe with random weights that is quick on a CPU, and a tokenizer for outputs.

    A token has about as many characters as those of large models. The tokenizer is trained on
    outputs that share no names with those of the trajectories.
    """
    heads = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    sizes = {"hidden_size": 32, "moe_intermediate_size": 32, "vocab_size": VOCABULARY}
    model = tiny_models.make_model(tiny_reasoner.CONFIG | heads | sizes | {"eos_token_id": 0}, path)
    mx.save_safetensors(str(path / "model.safetensors"), dict(tree_flatten(model.parameters())))
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(0)
    outputs = (generate(rng, rng.choice(TOOLS), "train", "long").text for _ in range(2_000))
    words.train_from_iterator(outputs, trainer)
    words.save(str(path / "tokenizer.json"))
    template = tiny_reasoner.TEMPLATE.replace("{{ tool.function.name }}", "{{ tool | tojson }}")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    return path
