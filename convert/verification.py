"""Comparing a model folder with its source: tensor by tensor, and by the latents it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx

from clara_mlx.convert.quantise import (
    Error,
    measure_error,
    quantise_tensor,
    steps_between,
)
from clara_mlx.convert.source import Source
from clara_mlx.convert.streamed import float32_embeds, float32_states
from clara_mlx.convert.tensors import TensorRef
from clara_mlx.convert.weight_map import ADAPTER, Weight, inverse
from clara_mlx.errors import Progress
from clara_mlx.model.clara import Clara, from_folder
from clara_mlx.model.decoder import fill_slots, sources
from clara_mlx.model.folder import ModelFolder, load_arrays
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


#: The question that the decoder is asked about each text, and how many of the last positions of
#: its prompt are compared.
QUESTION = "What is this about?"
POSITIONS = 16

#: Nats. An unquantised folder in half precision is well below it on any device.
_MOST_KL = 0.05


@dataclass(frozen=True)
class NextTokens:
    """How far the decoder's next tokens are from those of the source in float32."""

    positions: int  # that were compared
    same: int  # at which the likeliest token is the same
    kl: float  # mean divergence from the source's distribution, in nats
    shift: float  # mean distance of a logit from the source's, after both are centred

    @classmethod
    def between(cls, expected: mx.array, logits: mx.array) -> NextTokens:
        """Compare the source's logits with others, both (positions, vocabulary) float32."""
        p, q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (expected, logits))
        centred = [x - x.mean(-1, keepdims=True) for x in (expected, logits)]
        return cls(
            positions=expected.shape[0],
            same=int((expected.argmax(-1) == logits.argmax(-1)).sum()),
            kl=max(0.0, float((mx.exp(p) * (p - q)).sum(-1).mean())),
            shift=float(mx.abs(centred[0] - centred[1]).mean()),
        )


@dataclass
class Verification:
    """The result of a comparison; ``problems`` is empty if the folder agrees with its source."""

    tensors: int = 0
    identical: int = 0  # bit for bit what quantising the source here gives
    problems: list[str] = field(default_factory=list)
    errors: dict[str, Error] = field(default_factory=dict)  # worst by kind of tensor
    cosines: dict[str, list[float]] = field(default_factory=dict)  # by adapter, one per text
    next_tokens: NextTokens | None = None  # None if tensors differ

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def verify(folder: str | Path, source: Source, *, progress: Progress | None = None) -> Verification:
    """Compare every tensor of a model folder with its source, then latents with float32 ones.

    Unquantised tensors, adapters and the added tokens' rows must be equal (after the cast to the
    folder's dtype; the rows exactly). Quantised tensors must equal the source when it is quantised
    again, up to the rounding of another device. The float32 latents, and the decoder's next tokens
    after prompts with them, are computed layer by layer, so that the source never has to fit in
    memory; they are not compared if tensors differ.
    """
    opened = ModelFolder.open(folder)
    result = Verification()
    compare_network(
        sorted(opened.path.glob("model*.safetensors")),
        inverse(source.base_table, source.sizes["layers"]),
        source.base,
        Scheme.of(opened),
        opened.dtype,
        result,
        progress,
    )
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
    tokens = result.next_tokens
    if tokens and not opened.is_quantised and not tokens.kl < _MOST_KL:  # NaN fails this too
        result.problems.append("the decoder's next tokens are not those of the source")
    return result


def compare_network(
    files: Sequence[Path],
    lines: Mapping[str, Weight],
    tensors: Mapping[str, TensorRef],
    scheme: Scheme | None,
    dtype: mx.Dtype,
    result: Verification,
    progress: Progress | None = None,
) -> None:
    """Quantise every tensor of a network's source again, and compare it with the stored one.

    Args:
        files: Where the network is stored.
        lines: The weight map, by the stored names.
        tensors: The source's, by its own names.
        scheme: How matrices are quantised, if they are.
        dtype: The type of everything else.
        result: Where what is found is added.
        progress: Called as tensors are done.
    """
    stored: dict[str, mx.array] = {}  # lazy: read when compared
    for file in files:
        stored |= load_arrays(file)
    for number, (name, line) in enumerate(lines.items(), 1):
        original = tensors[line.source].read()
        path = name.removesuffix(".weight")
        names = [n for n in (name, f"{path}.scales", f"{path}.biases") if n in stored]
        result.tensors += 1
        if name not in names:
            result.problems.append(f"missing {name}")
            continue
        arrays = {n: stored.pop(n) for n in names}
        quantisation = scheme.format_of(name, original.shape) if scheme else None
        expected = quantise_tensor(name, original, dtype, quantisation)
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
        exact = _float32_latents(source, clara, texts, adapter, progress)
        if adapter == "encoder":
            latents = clara.encode(texts)
            result.next_tokens = _compare_next_tokens(source, clara, exact, latents, progress)
        else:
            latents = mx.stack([clara.encode_query(text) for text in texts])
        result.cosines[adapter] = [
            float(clara.rank(e, latent)[0]) for e, latent in zip(exact, latents, strict=True)
        ]


def _float32_latents(
    source: Source,
    clara: Clara,
    texts: list[str],
    adapter: str,
    progress: Progress | None,
) -> list[mx.array]:
    """Latents of each text from the source's weights in float32."""
    prompts = Prompts(source.config, clara.tokenizer)
    inputs = [prompts.encoder_input(clara.tokenizer.encode(text)) for text in texts]
    states = float32_states(source, float32_embeds(source, inputs), adapter, progress)
    memory = source.config.memory_tokens
    return [h[len(ids) - memory : len(ids)] for h, ids in zip(states, inputs, strict=True)]


def _compare_next_tokens(
    source: Source,
    clara: Clara,
    exact: Sequence[mx.array],
    latents: mx.array,
    progress: Progress | None,
) -> NextTokens | None:
    """Compare what comes next in prompts with one text each, from source and folder.

    ``exact`` are the texts' latents in float32, ``latents`` (texts, M, hidden) the folder's.
    """
    prompt = clara.prompts.answer(QUESTION, 1)
    if len(prompt.ids) >= clara.config.window:
        return None
    slots = mx.array(sources(prompt))
    embeds = float32_embeds(source, [prompt.ids] * len(exact))
    embeds = mx.stack([fill_slots(row, slots, z) for row, z in zip(embeds, exact, strict=True)])
    states = float32_states(source, embeds, "decoder", progress)[:, -POSITIONS:]
    head = source.base["lm_head.weight"].read()
    expected = mx.concatenate([h @ head.T.astype(mx.float32) for h in states])
    del head
    own = clara.network.model.embed_tokens(mx.array(prompt.ids))
    rows = mx.stack([fill_slots(own, slots, z) for z in latents])
    ids = mx.array([prompt.ids] * len(exact))
    with clara.lora.use("decoder"):
        logits = clara.network(ids, None, rows)[:, -POSITIONS:].astype(mx.float32)
    return NextTokens.between(expected, logits.reshape(expected.shape))
