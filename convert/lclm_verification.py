"""Comparing an LCLM model folder with its source: tensor by tensor, and by the latents it gives."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx

from clara_mlx.compressors.lclm.encoder import Adapter, Encoder
from clara_mlx.compressors.lclm.folder import (
    ADAPTER_FILE,
    DECODER,
    ENCODER,
    ROWS,
    ROWS_FILE,
    LclmFolder,
)
from clara_mlx.compressors.lclm.lclm import from_folder
from clara_mlx.convert.lclm import memory_rows
from clara_mlx.convert.lclm_source import LclmPart, LclmSource
from clara_mlx.convert.verification import TEXTS, Verification, compare_network
from clara_mlx.convert.weight_map import inverse
from clara_mlx.errors import Progress
from clara_mlx.model.folder import load_arrays
from clara_mlx.model.network import build_network
from clara_mlx.model.schemes import Scheme


def verify_lclm(
    folder: str | Path, source: LclmSource, *, progress: Progress | None = None
) -> Verification:
    """Compare every tensor of an LCLM folder with its source, then latents with float32 ones.

    Tensors are compared as `clara_mlx.convert.verify` does. For the latents, the source's encoder
    is read whole in float32 (2.4 GB at 0.6B); the decoder is compared by its tensors alone.
    """
    opened = LclmFolder.open(folder)
    result = Verification()
    quantised = opened.description["quantization"] or {}
    for name, part in ((ENCODER, source.encoder), (DECODER, source.decoder)):
        scheme = Scheme.read(quantised[name]) if name in quantised else None
        files = sorted((opened.path / name).glob("model*.safetensors"))
        lines = inverse(part.table, 1)
        compare_network(files, lines, part.tensors, scheme, opened.dtype, result, progress)
    adapter = inverse(source.adapter.table, 1)
    files = [opened.path / ADAPTER_FILE]
    compare_network(files, adapter, source.adapter.tensors, None, opened.dtype, result)
    rows, kept = memory_rows(source), load_arrays(opened.path / ROWS_FILE).get(ROWS)
    result.tensors += 1
    if kept is not None and kept.dtype == rows.dtype and mx.array_equal(kept, rows):
        result.identical += 1
    else:
        result.problems.append("the added tokens' rows are not exactly the checkpoint's")
    if not result.problems:
        result.cosines[ENCODER] = _cosines(opened, source)
    return result


def _cosines(folder: LclmFolder, source: LclmSource) -> list[float]:
    """The cosine of each text's latents, flattened, to those of the source in float32."""
    lclm = from_folder(folder)
    latents = [lclm.encode(text) for text in TEXTS]
    config = source.config
    network = build_network(source.encoder.mlx_config, where=source.encoder.path / "config.json")
    network.load_weights(_float32(source.encoder))
    adapter = Adapter(config.encoder_hidden, config.hidden_size)
    adapter.load_weights(_float32(source.adapter))
    encoder = Encoder(network, config.ratio, config.encoder_window, mx.float32)
    cosines = []
    for text, ours in zip(TEXTS, latents, strict=True):
        pooled = encoder.pool_windows(encoder.windows(lclm.tokenizer.encode(text)))
        exact, flat = adapter(mx.concatenate(pooled)).flatten(), ours.flatten()
        norms = mx.linalg.norm(exact) * mx.linalg.norm(flat)
        cosines.append(float((exact * flat).sum() / norms))
    return cosines


def _float32(part: LclmPart) -> list[tuple[str, mx.array]]:
    """A part's weights by the names that mlx-lm gives them."""
    return [
        (str(line.target), part.tensors[line.source].read().astype(mx.float32))
        for line in part.table
    ]
