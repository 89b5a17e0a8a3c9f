"""Makes what reference.py compares two programs with: a random checkpoint, and texts for it.

The checkpoint has CLaRa-7B's proportions, vocabulary and file layout. Its weights are random
bfloat16 numbers, which both programs compute with in float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx

from clara_mlx.convert.pth_writer import write_pth
from clara_mlx.model.lora import TARGETS
from clara_mlx.model.tokenizer import TextTokenizer

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
VOCABULARY = 32000  # of the base
ADDED = 19  # 16 memory tokens, <AE>, <ENC>, <SEP>
LIMIT = 256  # text tokens of a chunk
RATE = 16  # text tokens for each memory token
RANK = 16
HEAD = 64  # width of an attention head
SHARED_HEADS = 4  # attention heads for each head of keys and values
ADAPTERS = ("encoder_adapter", "decoder_adapter", "query_reasoner_adapter")


def write_checkpoint(folder: Path, hidden: int, layers: int) -> None:
    """Write ``base`` and ``checkpoint`` in the layout of the published ones."""
    base, checkpoint = folder / "base", folder / "checkpoint"
    base.mkdir(parents=True)
    checkpoint.mkdir()
    mx.random.seed(0)
    shapes = matrix_shapes(hidden)
    tensors = {"model.norm.weight": mx.ones((hidden,), mx.bfloat16)}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = noise((VOCABULARY, hidden))
    for i in range(layers):
        for target, shape in shapes.items():
            tensors[f"model.layers.{i}.{target}.weight"] = noise(shape)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{norm}.weight"] = mx.ones((hidden,), mx.bfloat16)
    mx.save_safetensors(str(base / "model.safetensors"), tensors, {"format": "pt"})
    config = json.loads((GOLDEN / "tiny-base" / "config.json").read_text())
    config |= {
        "hidden_size": hidden,
        "intermediate_size": hidden * 7 // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // HEAD,
        "num_key_value_heads": hidden // HEAD // SHARED_HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 32768,
    }
    (base / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((GOLDEN / "tiny-base" / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary |= {f"filler{i}": i for i in range(len(vocabulary), VOCABULARY)}
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name in ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        shutil.copy(GOLDEN / "tiny-base" / name, base)
    write_pth(checkpoint / "adapters.pth", {name: adapter(shapes, layers) for name in ADAPTERS})
    tables = {
        name: mx.concatenate([tensors[name], noise((ADDED, hidden))])
        for name in ("model.embed_tokens.weight", "lm_head.weight")
    }
    write_pth(checkpoint / "decoder_first_last_layers.pth", tables)
    config = json.loads((GOLDEN / "c16" / "e2e" / "config.json").read_text())
    config |= {
        "doc_max_length": LIMIT,
        "compr_rate": RATE,
        "lora_r": RANK,
        "decoder_model_name": str(base.resolve()),
        "pure_inference": True,  # otherwise the original doesn't load all of its adapters
    }
    (checkpoint / "config.json").write_text(json.dumps(config))


def matrix_shapes(hidden: int) -> dict[str, tuple[int, int]]:
    """(out, in) of each adapted matrix of a block."""
    mlp, shared = hidden * 7 // 2, hidden // SHARED_HEADS
    shapes = [(hidden, hidden), (shared, hidden), (shared, hidden), (hidden, hidden)]
    shapes += [(mlp, hidden), (mlp, hidden), (hidden, mlp)]
    return dict(zip(TARGETS, shapes, strict=True))


def noise(shape: tuple[int, ...]) -> mx.array:
    """Normally distributed bfloat16 numbers, of the size that a base is initialised with."""
    return (0.02 * mx.random.normal(shape)).astype(mx.bfloat16)


def adapter(shapes: Mapping[str, tuple[int, int]], layers: int) -> dict[str, mx.array]:
    """The matrices of an adapter by their names in a checkpoint."""
    tensors = {}
    for i in range(layers):
        for target, (rows, columns) in shapes.items():
            tensors[f"model.layers.{i}.{target}.lora_A.weight"] = noise((RANK, columns))
            tensors[f"model.layers.{i}.{target}.lora_B.weight"] = noise((rows, RANK))
    return tensors


class Texts:
    """Texts of exact lengths in tokens, cut from this repository's own files."""

    def __init__(self, base: Path) -> None:
        self._tokenizer = TextTokenizer((base / "tokenizer.json").read_text())
        files = sorted((ROOT / "clara_mlx").rglob("*.py"))
        self._source = "\n".join(file.read_text() for file in files[:40])
        self._at = 0

    def of(self, lengths: Sequence[int]) -> list[str]:
        """One text for each number of tokens; no two are the same."""
        return [self._next(tokens) for tokens in lengths]

    def _next(self, tokens: int) -> str:
        while True:
            self._at = (self._at + 997) % (len(self._source) // 2)
            piece = self._source[self._at : self._at + 16 * tokens + 64]
            text = piece[: self._tokenizer.ends(piece)[tokens - 1]]
            if len(self._tokenizer.encode(text)) == tokens:
                return text
