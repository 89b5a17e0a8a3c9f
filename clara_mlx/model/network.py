"""The base as mlx-lm builds it from a config, and whether CLaRa can work on it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.models
from mlx.utils import tree_flatten
from mlx_lm.utils import MODEL_REMAPPING

from clara_mlx.errors import CheckpointError
from clara_mlx.model.lora import TARGETS


def build_network(config: dict[str, Any], *, where: Path) -> nn.Module:
    """mlx-lm's model of a config; its weights are random, and not computed until they are used.

    Args:
        config: The content of a base's ``config.json``, unquantised.
        where: That file, for errors.

    Raises:
        CheckpointError: mlx-lm has no such model, or can't build it.
    """
    named = config.get("model_type")
    kind = MODEL_REMAPPING.get(named, named) if isinstance(named, str) else named
    if kind not in {module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)}:
        raise CheckpointError(f"{where}: mlx-lm has no model for model_type {named!r:.40}")
    try:
        module = importlib.import_module(f"mlx_lm.models.{kind}")
        network: nn.Module = module.Model(module.ModelArgs.from_dict(config))
    except Exception as error:  # whatever a model's own code makes of an odd config
        raise CheckpointError(
            f"{where}: mlx-lm can't build this base (model_type {named!r:.40}): "
            f"{type(error).__name__}: {error!s:.200}"
        ) from error
    return network


def evaluate(network: nn.Module) -> None:
    """Compute all arrays of a network, so that another thread than this one can use it.

    Some are no parameters: the frequencies of Llama 3's rotary positions, for one. Left for later
    they would belong to the stream of the thread that made them, which no other thread has.
    """
    mx.eval([a for module in network.modules() for a in module.values() if isinstance(a, mx.array)])


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of every weight by its name, which is the base's own."""
    arrays: Any = tree_flatten(network.parameters())
    return {name: tuple(array.shape) for name, array in arrays}


def check_network(network: Any, *, where: Path) -> None:
    """Refuse a network that has no place for memory tokens and adapters.

    Raises:
        CheckpointError: One line that names what is missing.
    """
    missing = _missing(network)
    if missing:
        kind = getattr(network, "model_type", type(network).__name__)
        raise CheckpointError(
            f"{where}: model_type {kind!r:.40} is not supported: {missing}; CLaRa's base is a "
            "Llama-like model, such as Mistral, Llama, Qwen2 or Qwen3"
        )


def _missing(network: Any) -> str:
    """What CLaRa needs and a network does not have; empty if it has all."""
    modules = dict(network.named_modules())
    for name in ("model.embed_tokens", "model.norm", "lm_head"):
        if name not in modules:
            return f"it has no {name}"
    for part in (network, network.model):
        if "input_embeddings" not in inspect.signature(type(part).__call__).parameters:
            return "mlx-lm's model takes no embeddings in place of tokens"
    for i in range(len(network.layers)):
        for target in TARGETS:
            if not isinstance(modules.get(f"model.layers.{i}.{target}"), nn.Linear):
                return f"its layer {i} has no linear {target} for an adapter"
    return ""
