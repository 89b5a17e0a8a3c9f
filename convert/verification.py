"""Comparing a model folder with its source: tensor by tensor, and by the latents it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from clara_mlx.convert.quantise import (
    Error,
    measure_error,
    quantise_tensor,
    steps_between,
)
from clara_mlx.convert.source import Source
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.convert.weight_map import ADAPTER, inverse
from clara_mlx.errors import Progress
from clara_mlx.model.clara import Clara, from_folder
from clara_mlx.model.folder import ModelFolder, load_arrays
from clara_mlx.model.lora import SCALE, TARGETS
from clara_mlx.model.network import build_network
from clara_mlx.model.prompts import Prompts
from clara_mlx.model.schemes import Scheme

#: Texts whose latents are compared: a test failure, code, and prose.
TEXTS = (
    "FAILED tests/test_io.py::test_load - FileNotFoundError: data/config.toml\n1 failed, 41 passed",
    "def parse(line: str) -> int:\n    return int(line.split(':')[1], base=16)\n",
    "The scheduler retries a failed job three times and then reports the last error it saw.",
)

#: In quantisation steps: another device may round a value, and its group's bfloat16 scale, the
#: other way, which is a step each.
DEVICE_STEPS = 3.0


@dataclass
class Verification:
    """The result of a comparison; ``problems`` is empty if the folder agrees with its source."""

    tensors: int = 0
    identical: int = 0  # bit for bit what quantising the source here gives
    problems: list[str] = field(default_factory=list)
    errors: dict[str, Error] = field(default_factory=dict)  # worst by kind of tensor
    cosines: dict[str, list[float]] = field(default_factory=dict)  # by adapter, one per text

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def verify(folder: str | Path, source: Source, *, progress: Progress | None = None) -> Verification:
    """Compare every tensor of a model folder with its source, then latents with float32 ones.

    Unquantised tensors, adapters and the added tokens' rows must be equal (after the cast to the
    folder's dtype; the rows exactly). Quantised tensors must equal the source when it is quantised
    again, up to the rounding of another device. The float32 latents are computed layer by layer, so
    that the source never has to fit in memory; they are not compared if tensors differ.
    """
    opened = ModelFolder.open(folder)
    result = Verification()
    _compare_base(opened, source, result, progress)
    for name, tensors in source.adapters.items():
        _compare_adapter(opened, name, tensors, source.sizes["layers"], result)
    rows = source.memory_rows()
    kept = opened.memory_rows()
    result.tensors += 1
    if kept.dtype == rows.dtype and mx.array_equal(kept, rows):
        result.identical += 1
    else:
        result.problems.append("the added tokens' rows are not exactly the checkpoint's")
    if not result.problems:
        _compare_latents(opened, source, result, progress)
    return result


def _compare_base(
    folder: ModelFolder, source: Source, result: Verification, progress: Progress | None
) -> None:
    """Quantise every tensor of the source's base again, and compare it with the stored one."""
    scheme = Scheme.of(folder)
    stored: dict[str, mx.array] = {}  # lazy: read when compared
    for file in sorted(folder.path.glob("model*.safetensors")):
        stored |= load_arrays(file)
    lines = inverse(source.base_table, source.sizes["layers"])
    for number, (name, line) in enumerate(lines.items(), 1):
        original = source.base[line.source].read()
        path = name.removesuffix(".weight")
        names = [n for n in (name, f"{path}.scales", f"{path}.biases") if n in stored]
        result.tensors += 1
        if name not in names:
            result.problems.append(f"missing {name}")
            continue
        arrays = {n: stored.pop(n) for n in names}
        quantisation = scheme.format_of(name, original.shape) if scheme else None
        expected = quantise_tensor(name, original, folder.dtype, quantisation)
        if expected.keys() != arrays.keys() or any(
            arrays[n].shape != array.shape or arrays[n].dtype != array.dtype
            for n, array in expected.items()
        ):
            result.problems.append(f"{name} is not stored in the form that its source needs")
            continue
        error = measure_error(name, original, arrays, quantisation)
        kind = name.split(".")[-2]
        worst = result.errors.get(kind, error)
        result.errors[kind] = max(error, worst, key=lambda e: e.rms)
        if all(mx.array_equal(arrays[n], array) for n, array in expected.items()):
            result.identical += 1
        elif quantisation is None:
            result.problems.append(f"{name} differs from its source")
        elif (steps := steps_between(name, arrays, expected, quantisation)) > DEVICE_STEPS:
            result.problems.append(f"{name} is up to {steps:.1f} quantisation steps off its source")
        if progress:
            progress(number, len(lines), name)
    result.problems += [f"unexpected {name}" for name in stored]


def _compare_adapter(
    folder: ModelFolder, name: str, tensors: dict[str, TensorRef], layers: int, result: Verification
) -> None:
    """Compare an adapter's tensors, which must be equal after the cast to the folder's dtype."""
    if name not in folder.adapters:
        result.problems.append(f"missing adapter {name}")
        return
    kept = folder.adapter(name)
    for target, line in inverse(ADAPTER, layers).items():
        expected = tensors[line.source].read().T.astype(folder.dtype)
        result.tensors += 1
        if target in kept and mx.array_equal(kept.pop(target), expected):
            result.identical += 1
        else:
            result.problems.append(f"adapter {name}: {target} is missing or differs")
    result.problems += [f"adapter {name}: unexpected {target}" for target in kept]


def _compare_latents(
    folder: ModelFolder, source: Source, result: Verification, progress: Progress | None
) -> None:
    """Compute the cosine of each text's latents to those of the source in float32."""
    clara = from_folder(folder)
    limit = clara.config.doc_max_length
    texts = [text for text in TEXTS if len(clara.tokenizer.encode(text)) <= limit]
    if not texts:
        return
    for adapter in dict.fromkeys(("encoder", folder.query_adapter)):
        exact = _float32_latents(folder, source, clara, texts, adapter, progress)
        if adapter == "encoder":
            latents = clara.encode(texts)
        else:
            latents = mx.stack([clara.encode_query(text) for text in texts])
        result.cosines[adapter] = [
            float(clara.rank(e, latent)[0]) for e, latent in zip(exact, latents, strict=True)
        ]


def _float32_latents(
    folder: ModelFolder,
    source: Source,
    clara: Clara,
    texts: list[str],
    adapter: str,
    progress: Progress | None,
) -> list[mx.array]:
    """Latents of each text from the source's weights in float32, one layer in memory at a time."""
    prompts = Prompts(source.config, clara.tokenizer)
    inputs = [prompts.encoder_input(clara.tokenizer.encode(text)) for text in texts]
    longest = max(map(len, inputs))
    padded = mx.array([[*ids, *[0] * (longest - len(ids))] for ids in inputs])
    table = source.base["model.embed_tokens.weight"].read()
    embeds = table[padded].astype(mx.float32)  # (texts, longest, hidden)
    mx.eval(embeds)
    del table
    network: Any = build_network(source.base_config, where=source.base_path / "config.json")
    layers = source.sizes["layers"]

    def read_layer(i: int) -> list[tuple[str, mx.array]]:
        if progress:
            progress(i + 1, layers, f"float32 {adapter} pass")
        return _merged_layer(source, adapter, i)

    network.model.layers = [
        _StreamedLayer(layer, partial(read_layer, i)) for i, layer in enumerate(network.layers)
    ]
    network.model.norm.weight = source.base["model.norm.weight"].read().astype(mx.float32)
    # The model's own forward pass, so that this shares nothing with the encoder that it checks.
    states = network.model(padded, input_embeddings=embeds)
    memory = source.config.memory_tokens
    return [h[len(ids) - memory : len(ids)] for h, ids in zip(states, inputs, strict=True)]


class _StreamedLayer:
    """A block that reads its weights when it is run, and forgets them."""

    def __init__(self, block: nn.Module, read: Callable[[], list[tuple[str, mx.array]]]) -> None:
        self._block: Any = block
        self._read = read

    def __call__(self, *args: Any, **options: Any) -> mx.array:
        empty = self._block.parameters()
        self._block.load_weights(self._read())
        output: mx.array = self._block(*args, **options)
        mx.eval(output)
        self._block.update(empty)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._block, name)


def _merged_layer(source: Source, adapter: str, layer: int) -> list[tuple[str, mx.array]]:
    """One layer's float32 weights with an adapter merged into them."""
    prefix = f"model.layers.{layer}."
    weights = {
        name.removeprefix(prefix): ref.read().astype(mx.float32)
        for name, ref in source.base.items()
        if name.startswith(prefix)
    }
    lora = source.adapters[adapter]
    for target in TARGETS:
        a = lora[f"{prefix}{target}.lora_A.weight"].read().astype(mx.float32)
        b = lora[f"{prefix}{target}.lora_B.weight"].read().astype(mx.float32)
        weights[f"{target}.weight"] += SCALE * (b @ a)
    return list(weights.items())
