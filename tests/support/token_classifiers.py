"""Tiny checkpoints of LLMLingua-2's two kinds of encoder, with random weights and real tokenizers.

Weights come from numpy's generator, so that every machine has the same ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from golden_files import ROOT
from safetensors.numpy import save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

GOLDEN = ROOT / "tests" / "golden-llmlingua2"

#: The kinds, by names that the package ``llmlingua`` tells them by.
KINDS = {"xlm-roberta": "xlm-roberta-large", "bert": "bert-base-multilingual-cased"}

# What the tokenizers are trained on.
_CORPUS = [
    "def parse_header(line: str) -> dict[str, int]:",
    "    return {key: int(value) for key, value in line.split(';')}",
    "FAILED tests/shop/test_prices.py::test_rounding[eur] - AssertionError: 12.50 != 12.49",
    "src/app/main.py:42: error: Incompatible return value type (got 'str', expected 'int')",
    "==== 1 failed, 27 passed, 3 skipped in 4.51s ====",
    "The meeting of the council was opened at nine, and the members agreed on the new budget.",
    "We want the project to succeed, so we should consider revising the timeline. Really?",
    "total 48 drwxr-xr-x 2 root root 4096 Nov 30 09:12 docs",
    "Größe und Straße, naïve café, 新闻内容 海口市疾病预防控制中心, привет мир",
    "commit 3f2a9c1d: fix the race in worker.c, thanks to everyone who reported it!",
]
_LAYERS, _HIDDEN, _HEADS, _MLP = 2, 64, 4, 96


def make_tokenizer(kind: str) -> str:
    """A ``tokenizer.json`` of the form that the published checkpoints have.

    Those in tests/golden-llmlingua2 were made by this.
    """
    texts = [*_CORPUS, *map(str.upper, _CORPUS), *map(str.title, _CORPUS)]
    tokenizer: Any
    if kind == "bert":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=500, special_tokens=special, show_progress=False
        )
        first, last = "[CLS]", "[SEP]"
    else:
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
        )
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=500, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        first, last = "<s>", "</s>"
    tokenizer.train_from_iterator(texts, trainer)
    if kind != "bert":
        tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        special_tokens=[(one, tokenizer.token_to_id(one)) for one in (first, last)],
    )
    return str(tokenizer.to_str())


def make_config(kind: str, vocab_size: int) -> dict[str, Any]:
    """A ``config.json`` as transformers writes it."""
    is_bert = kind == "bert"
    return {
        "architectures": [
            "BertForTokenClassification" if is_bert else "XLMRobertaForTokenClassification"
        ],
        "model_type": kind,
        "vocab_size": vocab_size,
        "hidden_size": _HIDDEN,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "intermediate_size": _MLP,
        "max_position_embeddings": 512 if is_bert else 514,
        "type_vocab_size": 2 if is_bert else 1,
        "layer_norm_eps": 1e-12 if is_bert else 1e-5,
        "pad_token_id": 0 if is_bert else 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    }


def make_weights(config: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Random tensors by Hugging Face's names, large enough that probabilities spread."""
    rng = np.random.default_rng(seed)
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    prefix = "bert" if config["model_type"] == "bert" else "roberta"
    tensors: dict[str, np.ndarray[Any, Any]] = {}

    def add(name: str, *shape: int, scale: float = 0.3, around: float = 0.0) -> None:
        values = rng.standard_normal(shape).astype(np.float32) * scale + around
        tensors[name] = values.astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns)
        add(f"{name}.bias", rows, scale=0.1)

    def norm(name: str) -> None:
        add(f"{name}.weight", hidden, scale=0.1, around=1.0)
        add(f"{name}.bias", hidden, scale=0.1)

    add(f"{prefix}.embeddings.word_embeddings.weight", config["vocab_size"], hidden)
    add(
        f"{prefix}.embeddings.position_embeddings.weight", config["max_position_embeddings"], hidden
    )
    add(f"{prefix}.embeddings.token_type_embeddings.weight", config["type_vocab_size"], hidden)
    norm(f"{prefix}.embeddings.LayerNorm")
    for i in range(config["num_hidden_layers"]):
        layer = f"{prefix}.encoder.layer.{i}"
        for part in ("query", "key", "value"):
            linear(f"{layer}.attention.self.{part}", hidden, hidden)
        linear(f"{layer}.attention.output.dense", hidden, hidden)
        norm(f"{layer}.attention.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", mlp, hidden)
        linear(f"{layer}.output.dense", hidden, mlp)
        norm(f"{layer}.output.LayerNorm")
    linear("classifier", 2, hidden)
    return tensors


def make_checkpoint(kind: str, to: Path, tokenizer: str | None = None) -> Path:
    """Write a checkpoint as a Hugging Face folder, in safetensors."""
    to.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer or (GOLDEN / kind / "tokenizer.json").read_text(encoding="utf-8")
    (to / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    size = Tokenizer.from_str(tokenizer).get_vocab_size()
    config = make_config(kind, size)
    (to / "config.json").write_text(json.dumps(config))
    special = (
        {
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "unk_token": "[UNK]",
            "pad_token": "[PAD]",
            "mask_token": "[MASK]",
        }
        if kind == "bert"
        else {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "cls_token": "<s>",
            "sep_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        }
    )
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    (to / "tokenizer_config.json").write_text(json.dumps(settings))
    (to / "README.md").write_text("---\nlicense: mit\n---\n# a tiny encoder\n")
    save_file(make_weights(config), to / "model.safetensors", metadata={"format": "pt"})
    return to
