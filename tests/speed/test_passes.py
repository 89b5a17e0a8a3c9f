"""Operations and bytes of a pass: counted from the config, and in the graph of a real pass."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import clara_mlx
from clara_mlx.errors import ClaraError
from clara_mlx.model.encoder import encode_batch
from clara_mlx.model.folder import ModelFolder
from clara_mlx.plan.known_macs import KNOWN_MACS, SOURCES, clara_7b, limits
from clara_mlx.plan.passes import BaseShape
from clara_mlx.plan.shapes import clara_folder


def base_of(folder: ModelFolder) -> BaseShape:
    return BaseShape.from_config(
        folder.base_config, rank=folder.config.lora_r, itemsize=folder.dtype.size
    )


def products_in(act: Callable[[mx.array], mx.array], ids: mx.array) -> tuple[int, int]:
    """Operations of the matrix products in what an act computes: of weights, and of attention.

    They are read from the graph that MLX would compute, whatever code made it. Attention's
    products have four dimensions, those of weights fewer.
    """
    steps: list[dict[str, Any]] = []
    mx.disable_compile()  # what is compiled is one step of the graph
    try:
        mx.export_function(steps.append, act, ids)
    finally:
        mx.enable_compile()
    of_weights = of_attention = 0
    for step in steps:
        if step.get("name") not in ("Matmul", "AddMM"):
            continue
        (_, left, _), (_, right, _), *_ = step["inputs"]
        operations = 2 * prod(left) * right[-1]
        if len(left) >= 4:
            of_attention += operations
        else:
            of_weights += operations
    return of_weights, of_attention


@pytest.mark.parametrize("variant", ["c16", "c4"])
def test_what_is_counted_is_what_a_pass_computes(
    folder: Callable[..., Path], clara: Callable[..., clara_mlx.Clara], variant: str
) -> None:
    """The encoder pass with its adapter, its last block at the memory tokens, without lm_head."""
    model = clara(variant, "e2e")
    base = base_of(ModelFolder.open(folder(variant, "e2e")))
    count = model.config.memory_tokens
    batch, length = 3, 40
    ids = [model.prompts.encoder_input(list(range(5, 5 + length))) for _ in range(batch)]
    positions = len(ids[0])

    def encode(_: mx.array) -> mx.array:
        with model.lora.use("encoder"):
            return encode_batch(model.network, ids, count)

    model.lora.tensors("encoder")  # not within the graph
    of_weights, of_attention = products_in(encode, mx.array(ids))
    counted = base.encode([positions] * batch, count).operations
    pairs = (base.layers - 1) * positions * (positions + 1) // 2
    pairs += sum(positions - count + 1 + n for n in range(count))
    causal = batch * pairs * 4 * base.heads * base.head_dim
    assert of_weights == counted - causal
    # On a CPU, MLX multiplies the whole square and masks it.
    square = (base.layers - 1) * positions**2 + count * positions
    assert of_attention in (0, batch * square * 4 * base.heads * base.head_dim)


def test_a_token_of_an_answer(
    folder: Callable[..., Path], clara: Callable[..., clara_mlx.Clara]
) -> None:
    model = clara("c16", "e2e")
    base = base_of(ModelFolder.open(folder("c16", "e2e")))
    model.lora.tensors("decoder")

    def decode(ids: mx.array) -> mx.array:
        with model.lora.use("decoder"):
            logits: mx.array = model.network(ids)
            return logits

    of_weights, _ = products_in(decode, mx.array([[7]]))
    attention = base.layers * 4 * base.heads * base.head_dim
    assert of_weights == base.decode(0).operations - attention
    assert base.decode(100).operations == base.decode(0).operations + 100 * attention


@pytest.mark.parametrize("options", [(), ("-q", "8"), ("-q", "4")])
def test_bytes_are_those_of_the_folder(
    folder: Callable[..., Path], options: tuple[str, ...]
) -> None:
    """All but the embeddings and the norms of the base; and the adapters."""
    path = folder("c16", "e2e", *options)
    opened = ModelFolder.open(path)
    base, stored = base_of(opened), clara_folder(path)
    modules = dict(opened.load_base().named_modules())
    others = sum(
        array.nbytes
        for name, module in modules.items()
        for array in module.values()
        if isinstance(array, mx.array) and ("norm" in name or "embed" in name)
    )
    assert base.block_bytes + base.head_bytes == stored.base.weight_bytes - others
    assert base.adapter_bytes * len(opened.adapters) == stored.adapter_bytes


def test_a_base_that_cannot_be_counted() -> None:
    with pytest.raises(ClaraError, match="intermediate_size"):
        BaseShape.from_config({"hidden_size": 8}, rank=8)


def test_limits_of_clara_7b() -> None:
    """A full chunk is 4 TFLOP (DESIGN: 'about 4'), and the weights are those of full_size.json."""
    base = clara_7b(8)
    work = base.encode([256 + 3 + 16], 16)
    assert work.operations == pytest.approx(3.8e12, rel=0.03)
    assert work.limit_seconds(1e13, 1e11) == pytest.approx(0.377, rel=0.01)
    assert (work.bound(1e13, 1e11), work.bound(1e15, 1e11)) == ("arithmetic", "memory")
    assert clara_7b(16).block_bytes == pytest.approx(2 * 6.98e9, rel=0.01)
    assert base.block_bytes / clara_7b(16).block_bytes == 8.5 / 16
    # One token reads all weights once; the cache comes on top.
    assert base.decode(0).nbytes == base.block_bytes + base.head_bytes + base.adapter_bytes
    cache = 2 * 32 * 8 * 128 * 2  # keys and values, 32 layers, 8 heads of 128, 2 bytes
    assert base.decode(1000).nbytes - base.decode(0).nbytes == 1000 * cache


def test_known_macs() -> None:
    assert [mac.name for mac in KNOWN_MACS if mac.has_accelerators] == ["M5", "M5 Pro", "M5 Max"]
    rows = limits()
    assert len(rows) == 3 * len(KNOWN_MACS)
    best = {(row["mac"]["name"], row["bits"]): row for row in rows}
    # A chunk is bound by arithmetic, a token of an answer by the memory: bits change only the last.
    one, other = best["M4 Max", 16], best["M4 Max", 4]
    assert one["chunk_seconds"] == other["chunk_seconds"] > 0.1 > best["M5 Max", 8]["chunk_seconds"]
    assert other["tokens_per_second"] > 3 * one["tokens_per_second"]
    assert all(source["read"] and "http" in source["url"] for source in SOURCES.values())
