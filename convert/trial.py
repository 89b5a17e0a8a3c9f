"""A trial of a base before it gets a folder: its network runs once, with functions for weights.

All that depends on the config is real (rotary positions, norms, masks, caches), and no weight is
read, so the trial of any base takes no time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.models.cache import make_prompt_cache

from clara_mlx.errors import CheckpointError, PromptTooLong
from clara_mlx.model.config import ClaraConfig
from clara_mlx.model.encoder import encode_batch
from clara_mlx.model.folder import LAYOUT, ModelFolder, load_arrays
from clara_mlx.model.prompts import Prompts
from clara_mlx.model.tokenizer import TextTokenizer

_TEXTS = ([5, 2, 7, 1, 3], [4, 6])  # token ids of the two rows, before their memory tokens
_MEMORY = [8, 9, 10]
_EXACT = 1e-3  # how near two ways to the same float32 states are


def try_folder(path: Path) -> None:
    """Open a finished folder as a user will, and run its network once.

    Raises:
        CheckpointError: Something in it can't be read, or can't be run.
    """
    folder = ModelFolder.open(path)
    folder.tokenizer()
    for name in folder.adapters:
        load_arrays(path / LAYOUT.adapter.format(name))
    try_network(folder.load_base(), folder.config, where=path / LAYOUT.config)


def try_prompt(config: ClaraConfig, tokenizer: TextTokenizer, *, where: Path) -> None:
    """Build the shortest prompt that asks anything of one document.

    Raises:
        CheckpointError: It does not fit the window of the base, whose config is at ``where``.
    """
    prompts = Prompts(config, tokenizer)
    try:
        prompts.check_window(prompts.answer("x", 1), 1)
    except PromptTooLong as error:
        raise CheckpointError(
            f"{where}: the base can attend to {error.window} tokens "
            f"(max_position_embeddings or sliding_window), but a prompt needs {error.tokens}"
        ) from error


def try_network(network: Any, config: ClaraConfig, *, where: Path) -> None:
    """Run encoder and decoder on two rows of different length; the network is of no use after.

    Args:
        network: As mlx-lm builds it; its weights are replaced.
        config: The checkpoint's.
        where: The base's config, for errors.

    Raises:
        CheckpointError: It can't be run, or its own pass gives other states than CLaRa's encoder
            does.
    """
    needed = config.doc_max_length + 3 + config.memory_tokens
    if needed > config.window:
        raise CheckpointError(
            f"{where}: a chunk of the checkpoint has {needed} tokens, but the base can attend to "
            f"{config.window} (max_position_embeddings or sliding_window)"
        )
    problem = find_problem(network, config.hidden_size)
    if problem:
        raise CheckpointError(
            f"{where}: a trial of this base failed: {problem}; mlx-lm can't run it as its config "
            "says, so choose another base, or correct the config"
        )


def find_problem(network: Any, hidden: int) -> str:
    """What is wrong with a network's passes, run once; empty if nothing is.

    The network is of no use after: its weights are replaced, and those of a folder never read.
    """
    try:
        return _run(network, hidden)
    except Exception as error:  # whatever a model's own code makes of an odd config
        return f"{type(error).__name__}: {error!s:.200}".replace("\n", " ")


def _run(network: Any, hidden: int) -> str:
    _replace_weights(network, hidden)
    rows = [[*ids, *_MEMORY] for ids in _TEXTS]
    count = len(_MEMORY)
    batch = encode_batch(network, rows, count)
    for i, ids in enumerate(rows):
        alone = encode_batch(network, [ids], count)[0]
        own = network.model(mx.array([ids]))[0, -count:]
        if not mx.all(mx.isfinite(own)):
            return "its states are not finite numbers"
        if not mx.allclose(alone, own, _EXACT, _EXACT):
            return "its layers compute more than CLaRa's encoder does"
        if not mx.allclose(batch[i], alone, _EXACT, _EXACT):
            return "texts of different length in one batch change each other"
    cache = make_prompt_cache(network)
    network(mx.array([rows[0]]), cache)
    logits = network(mx.array([_MEMORY[:1]]), cache)
    whole = network(mx.array([[*rows[0], *_MEMORY[:1]]]))
    if not mx.allclose(logits[0, -1], whole[0, -1], _EXACT, _EXACT):
        return "its cache changes what it computes"
    return ""


def _replace_weights(network: nn.Module, hidden: int) -> None:
    """Put functions in place of all matrices and tables, so that none of them is read."""
    stand_ins: list[tuple[str, nn.Module]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding | nn.QuantizedEmbedding):
            stand_ins.append((name, _Rows(hidden)))
        elif isinstance(module, nn.Linear | nn.QuantizedLinear):
            stand_ins.append((name, _Matrix(module["weight"].shape[0])))
    network.update_modules(tree_unflatten(stand_ins))
    network.set_dtype(mx.float32)


class _Rows(nn.Module):
    """In place of an embedding: ids (...) -> (..., width), another vector for each id."""

    def __init__(self, width: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._steps = mx.arange(1, width + 1) / 7

    def __call__(self, ids: mx.array) -> mx.array:
        return mx.sin(ids[..., None] * self._steps)

    def as_linear(self, h: mx.array) -> mx.array:
        """In place of logits, where the table is the output layer, too."""
        return h


class _Matrix(nn.Module):
    """In place of a linear layer: x (..., inputs) -> (..., outputs), mixed from two means of x."""

    def __init__(self, outputs: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._angles = mx.arange(outputs) / 5

    def __call__(self, x: mx.array) -> mx.array:
        even, odd = x[..., ::2], x[..., 1::2]
        means = even.mean(-1, keepdims=True), odd.mean(-1, keepdims=True)
        return 3 * (means[0] * mx.cos(self._angles) + means[1] * mx.sin(self._angles))
