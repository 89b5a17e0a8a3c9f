"""Make clara-nano's tokenizer: BPE with byte fallback in Mistral's form, learned from tool outputs.

The prompts that CLaRa's weights are trained with are long for a small model. Each fixed piece of
them therefore gets a token of its own: merges are appended until the piece is one token.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from clara_mlx.evaluate.corpus import BRIEF_TOOLS, LEFT_OUT, TOOLS, generate
from clara_mlx.model.prompts import (
    ANSWER_SYSTEM,
    ANSWER_USER,
    PARAPHRASE_SYSTEM,
    PARAPHRASE_USER,
    SLOTS,
)

SPECIAL = ("<unk>", "<s>", "</s>")
OUTPUTS = 24_000  # outputs that merges are learned from
#: Pieces that merges stay inside. At most two digits go together, so that few pieces repeat in a
#: number. A word does not take the blank before it: it has the same tokens at a line's start, in a
#: path and in a question, so that a small model can find and copy it.
PIECES = Regex("[A-Za-z]+|[0-9]{1,2}|[?]|[^\\sA-Za-z0-9▁?]{1,3}▁?|▁+|\\s+")
CHAT_TEMPLATE = (
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content'] + '\n\n' -%}"
    "{%- set turns = messages[1:] -%}{%- else -%}{%- set system = '' -%}"
    "{%- set turns = messages -%}{%- endif -%}{{- bos_token -}}{%- for turn in turns -%}"
    "{%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{- raise_exception('user and assistant turns must alternate') -}}{%- endif -%}"
    "{%- if turn['role'] == 'user' -%}"
    "{{- ' [INST] ' + (system if loop.first else '') + turn['content'] + ' [/INST]' -}}"
    "{%- else -%}{{- ' ' + turn['content'] + eos_token -}}{%- endif -%}{%- endfor -%}"
)


def fixed_pieces() -> list[str]:
    """The parts of the prompts that never vary, as they are encoded."""
    before, after = ANSWER_USER.split(SLOTS)
    opening, closing = PARAPHRASE_USER.split(SLOTS)
    return [
        f" [INST] {ANSWER_SYSTEM}\n\n{before}",
        f" [INST] {PARAPHRASE_SYSTEM}\n\n{opening}",
        after,
        closing,
        "[/INST]",
    ]


def corpus(seed: int, count: int) -> list[str]:
    """Texts of the training split, with their questions and answers."""
    rng = random.Random(seed)
    tools = [tool for tool in TOOLS if tool != LEFT_OUT]
    texts = []
    for number in range(count):
        if number % 16:
            output = generate(rng, rng.choice(BRIEF_TOOLS), size="brief")
        else:
            output = generate(rng, rng.choice(tools))
        texts.append(output.text)
        for probe in output.probes:
            texts += [f"{probe.question} [/INST]", probe.answer]
    return texts


def train(texts: list[str], vocab_size: int) -> dict[str, Any]:
    """Learn a ``tokenizer.json`` of ``vocab_size`` entries, fixed pieces included."""
    size = vocab_size
    while True:  # the fixed pieces take the entries they need; the others are learned
        spec = _learn(texts, size)
        # Otherwise an answer after "[/INST]" would begin with other tokens than a generated one.
        spec["model"]["merges"].remove(["]", "▁"])
        for piece in fixed_pieces():
            _merge_whole(spec, piece)
        excess = len(spec["model"]["vocab"]) - vocab_size
        if excess == 0:
            return spec
        size -= excess


def _learn(texts: list[str], vocab_size: int) -> dict[str, Any]:
    """Learn merges from texts, and give them the form of Mistral's ``tokenizer.json``."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(PIECES, "isolated")
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[*SPECIAL, *bytes_],
            initial_alphabet=[chr(code) for code in range(33, 127)] + ["▁", "\n", "\t"],
            limit_alphabet=200,
            show_progress=False,
        ),
    )
    spec: dict[str, Any] = json.loads(tokenizer.to_str())
    # Mistral's file has no pre-tokenizer; its only added tokens are the three special ones.
    spec["pre_tokenizer"] = None
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] in SPECIAL]
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<s>", "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    return spec


def _merge_whole(spec: dict[str, Any], text: str) -> None:
    """Append merges until ``text`` is one token; they rank last, so other texts don't change."""
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    tokens = Tokenizer.from_str(json.dumps(spec)).encode(text, add_special_tokens=False).tokens
    whole = tokens[0]
    for token in tokens[1:]:
        merges.append([whole, token])
        whole += token
        vocab.setdefault(whole, len(vocab))


def write(spec: dict[str, Any], folder: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json``, as a Mistral folder has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=1) + "\n")
    config = {
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": None,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def main() -> None:
    """Command line: the folder to write to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary", type=int, default=1344)
    parser.add_argument("--seed", type=int, default=20261123)
    arguments = parser.parse_args()
    write(train(corpus(arguments.seed, OUTPUTS), arguments.vocabulary), arguments.folder)


if __name__ == "__main__":
    main()
