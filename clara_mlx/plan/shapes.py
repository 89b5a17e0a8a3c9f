"""Computing the footprints of models from their shapes alone.

mlx-lm's own code builds the model and its cache. As MLX is lazy, shapes and dtypes are known, but
no array is ever filled. The sizes are therefore those of the code that will serve the model, for
every architecture it knows, and a 235B model takes a fraction of a second and no memory.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_map_with_path, tree_reduce
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    KVCache,
    RotatingKVCache,
    make_prompt_cache,
)

from clara_mlx.errors import ClaraError, reason
from clara_mlx.model.folder import ModelFolder
from clara_mlx.model.lora import TARGETS, dims
from clara_mlx.model.regular import MOST_CONFIG, check_folder, read_regular
from clara_mlx.model.schemes import Quantisation, Scheme
from clara_mlx.plan.footprint import ClaraFootprint, Footprint, LayerCache

#: Bits per weight that mlx can quantise to; 16 means not quantised.
BITS = (16, 8, 6, 5, 4, 3, 2)
#: Numbers of weights that can share a scale and a bias.
GROUP_SIZES = (32, 64, 128)

_EXPERTS_PER_TOKEN = ("num_experts_per_tok", "moe_topk", "num_experts_per_token", "top_k_experts")
_DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


def read(path: Path, *, bits: int | None = None, group_size: int = 64) -> Footprint:
    """Compute the footprint of a model folder or of a ``config.json``.

    A folder with weights is measured as it is stored, from the files' headers, unless ``bits``
    asks for another quantisation. Everything else is computed by `from_config`.

    Raises:
        ClaraError: There is no such file, or mlx-lm can't build the model.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        if path.is_dir():
            check_folder(path)
        config = json.loads(read_regular(file, MOST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise ClaraError(
            f"{file}: {reason(error)}; name a model folder or a config.json"
        ) from error
    if not isinstance(config, dict):
        raise ClaraError(f"{file}: not a JSON object; name a model folder or a config.json")
    if bits is not None or not any(path.glob("model*.safetensors")):
        return from_config(config, where=str(file), bits=bits, group_size=group_size)
    with _mlx_lm_errors(str(path)):
        from mlx_lm.utils import load_model

        model, _ = load_model(path, lazy=True)
        own = _own_scheme(config)
        return _measure(model, config, own.get("bits", 16), own.get("group_size", group_size))


def from_config(
    config: dict[str, Any], *, where: str, bits: int | None = None, group_size: int = 64
) -> Footprint:
    """Compute the footprint of the folder that ``mlx_lm.convert -q --q-bits BITS`` would make.

    mlx-lm decides which matrices are quantised, and that routers keep 8 bits (`quantize_model` and
    the architecture's ``quant_predicate``).

    Args:
        config: A Hugging Face or mlx-lm ``config.json``.
        where: The config's name, for messages.
        bits: Bits per weight; 16 means not quantised. None takes those of the config, or 4.
        group_size: Number of weights that share a scale and a bias.

    Raises:
        ClaraError: mlx-lm does not know the architecture, or the config does not fit it.
    """
    with _mlx_lm_errors(where):
        own = _own_scheme(config) if bits is None else {}
        bits = own.get("bits", 4) if bits is None else bits
        group_size = own.get("group_size", group_size)
        model = _build(config, where, bits, group_size, own)
        return _measure(model, config, bits, group_size)


def clara_folder(path: Path) -> ClaraFootprint:
    """Measure one of our model folders, from the files' headers.

    Raises:
        ClaraError: It is not a model folder, or it is damaged.
    """
    folder = ModelFolder.open(path)
    adapters = [array for name in folder.adapters for array in folder.adapter(name).values()]
    return ClaraFootprint(
        read(path),
        adapter_bytes=sum(array.nbytes for array in adapters),
        row_bytes=folder.memory_rows().size * folder.dtype.size,
    )


def clara_from_config(
    config: dict[str, Any], *, bits: int, added_tokens: int, rank: int, adapters: int = 3
) -> ClaraFootprint:
    """Compute the footprint of the model folder that ``clara-mlx convert`` would make of a base.

    Args:
        config: The base's ``config.json``.
        bits: 8, 6 or 4; 16 means not quantised.
        added_tokens: Number of memory tokens and layout tokens, which follow the base's vocabulary.
        rank: Rank of every adapter.
        adapters: Number of adapters.
    """
    config = config | {
        "vocab_size": config["vocab_size"] + added_tokens,
        "tie_word_embeddings": False,
    }
    model = _build(config, "CLaRa's base", 16, 64)
    if bits != 16:
        arrays: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
        shapes_by_name = {name: array.shape for name, array in arrays.items()}
        _quantise_as_recorded(model, Scheme.fit(Quantisation(bits), shapes_by_name).to_dict())
    base = _measure(model, config, bits, 64)
    shapes = [
        dims(module)
        for layer in model.layers
        for path, module in layer.named_modules()
        if path in TARGETS
    ]
    return ClaraFootprint(
        base,
        adapter_bytes=adapters * rank * sum(map(sum, shapes)) * base.itemsize,
        row_bytes=added_tokens * config["hidden_size"] * base.itemsize,
    )


# -- building a model without filling it -----------------------------------------------------------


@contextmanager
def _mlx_lm_errors(where: str) -> Iterator[None]:
    """Raise whatever mlx-lm raises for a config that it can't use as a ClaraError."""
    try:
        yield
    except (ValueError, TypeError, KeyError, RuntimeError, OSError, AttributeError) as error:
        raise ClaraError(
            f"{where}: mlx-lm {version('mlx-lm')} can't build this model ({error!r}), so "
            "mlx_lm.server can't serve it; check the file, or update mlx-lm"
        ) from error


def _own_scheme(config: dict[str, Any]) -> dict[str, Any]:
    """What a config says about how mlx-lm quantised it; empty if it says nothing."""
    own = config.get("quantization") or {}
    return own if isinstance(own, dict) else {}


def _build(
    config: dict[str, Any],
    where: str,
    bits: int,
    group_size: int,
    own: Mapping[str, Any] = MappingProxyType({}),
) -> Any:
    """Build a model in the config's dtype and quantise it, both by mlx-lm and both lazily.

    ``own`` is the scheme that a quantised folder's config records: its mode, and matrices that
    are quantised otherwise, by their path.
    """
    from mlx_lm.utils import load_model, quantize_model

    if not own and (bits not in BITS or group_size not in GROUP_SIZES):
        raise ClaraError(
            f"{where}: {bits} bits in groups of {group_size} are not possible; bits can be "
            f"{', '.join(map(str, BITS))}, and groups 32, 64 or 128"
        )
    # These fields describe files that are quantised already.
    foreign = ("quantization", "quantization_config")
    config = {key: value for key, value in config.items() if key not in foreign}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        model, _ = load_model(Path(folder), lazy=True, strict=False)
    name = _field(config, "torch_dtype") or _field(config, "dtype")
    dtype = _DTYPES.get(name, mx.bfloat16)
    castable = getattr(model, "cast_predicate", lambda path: True)
    model.update(
        tree_map_with_path(
            lambda path, array: array.astype(dtype) if castable(path) else array,
            model.parameters(),
        )
    )
    if own:
        _quantise_as_recorded(model, own)
    elif bits != 16:
        with redirect_stdout(io.StringIO()):  # it prints what it did
            model, _ = quantize_model(model, config, group_size, bits)
    return model


def _quantise_as_recorded(model: nn.Module, own: Mapping[str, Any]) -> None:
    """Quantise the matrices that mlx-lm quantised, each as the config says."""
    of_model = getattr(model, "quant_predicate", None)

    def choose(path: str, module: nn.Module) -> Any:
        if path in own:
            return own[path]
        if not hasattr(module, "to_quantized") or module.weight.shape[-1] % own["group_size"]:
            return False
        return of_model(path, module) if of_model else True

    mode = own.get("mode", "affine")
    nn.quantize(model, own["group_size"], own["bits"], mode=mode, class_predicate=choose)


def _measure(model: Any, config: dict[str, Any], bits: int, group_size: int) -> Footprint:
    """Compute the footprint of a lazy mlx-lm model; its arrays are replaced with zeros."""
    parameters = sum(_count_parameters(module) for module in model.modules())
    weight_bytes = tree_reduce(lambda size, array: size + array.nbytes, model.parameters(), 0)
    # A broadcast zero takes no memory, should an architecture evaluate something on the way.
    model.update(
        tree_map(lambda a: mx.broadcast_to(mx.zeros((), a.dtype), a.shape), model.parameters())
    )
    cache = make_prompt_cache(model)
    logits = model(mx.zeros((1, 1), mx.int32), cache=cache)
    chosen = _field(config, *_EXPERTS_PER_TOKEN)
    return Footprint(
        parameters=parameters,
        weight_bytes=weight_bytes,
        bits=bits,
        group_size=group_size,
        caches=tuple(grown for layer in cache for grown in _layer_caches(layer)),
        heads=_field(config, "num_attention_heads") or 0,
        layer_width=max(_layer_width(layer, chosen) for layer in model.layers),
        vocabulary=logits.shape[-1],
        longest_context=_field(config, "max_position_embeddings"),
        itemsize=logits.dtype.size,
    )


def _count_parameters(module: nn.Module) -> int:
    """Number of a module's own weights, without its children's, as before packing."""
    arrays = {name: value for name, value in module.items() if isinstance(value, mx.array)}
    if "scales" in arrays:
        packed = arrays.pop("weight").size * 32 // module.bits
        return packed + (arrays["bias"].size if "bias" in arrays else 0)
    return sum(array.size for name, array in arrays.items() if not name.startswith("_"))


def _field(config: dict[str, Any], *names: str) -> Any:
    """The first of these fields that a config, or its text part, has a value for."""
    text = config.get("text_config") or {}
    found = (part[name] for part in (config, text) for name in names if part.get(name) is not None)
    return next(found, None)


def _layer_caches(cache: Any) -> Iterator[LayerCache]:
    """Describe a layer's cache from mlx-lm's own, after a pass over one token."""
    if isinstance(cache, CacheList):
        for part in cache.caches:
            yield from _layer_caches(part)
    elif isinstance(cache, KVCache | RotatingKVCache):
        if cache.keys is not None:  # some layers read another layer's
            _, heads, _, key_dim = cache.keys.shape
            window = cache.max_size if isinstance(cache, RotatingKVCache) else None
            value_dim = cache.values.shape[-1]
            yield LayerCache(heads, key_dim, value_dim, cache.keys.dtype.size, window)
    elif isinstance(cache, ArraysCache):
        yield LayerCache(fixed_bytes=cache.nbytes)
    else:
        raise ValueError(f"a cache of unknown growth, {type(cache).__name__}")


def _layer_width(layer: nn.Module, chosen: int | None) -> int:
    """Inputs and outputs per token of all matrices of a layer; of its experts, the chosen ones."""
    width = 0
    for _, module in layer.named_modules():
        weight = module.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        *experts, outputs, inputs = weight.shape
        if "scales" in module:
            inputs = module.scales.shape[-1] * module.group_size
        times = min(chosen or prod(experts), prod(experts))
        width += times * (inputs + outputs)
    return width
