"""Latents as blobs: what comes back, and cosines from the blobs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.errors import ClaraError
from clara_mlx.store import hadamard
from clara_mlx.store.codec import CODECS, Codec

# 1 - cosine between latents and what is decoded from their blobs.
TOLERANCE = {"int8": 1e-4, "int4": 1e-2, "fp16": 1e-6}


def random_latents(n: int, memory_tokens: int, hidden: int, seed: int = 0) -> np.ndarray:
    """A large common part, and a few dimensions far larger than the others."""
    r = np.random.default_rng(seed)
    common = r.standard_normal((memory_tokens, hidden))
    common[:, r.integers(hidden, size=max(1, hidden // 500))] *= 12
    return (common + 0.7 * r.standard_normal((n, memory_tokens, hidden))).astype(np.float32)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x.reshape(len(x), x[:1].size).astype(np.float64) for x in (a, b))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)


def scores(kept: Codec, queries: np.ndarray, blobs: list[bytes]) -> np.ndarray:
    """Cosines (q, n) of queries, or (n,) of one."""
    found = kept.scores(kept.rotate_queries(queries), blobs)
    return found if queries.ndim == 3 else found[0]


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("shape", [(16, 4096), (4, 5120), (8, 256), (1, 64), (2, 100), (3, 7)])
def test_what_comes_back_points_the_same_way(name, shape):
    latents = random_latents(5, *shape)
    kept = Codec(name, *shape)
    blobs = kept.encode(latents)
    assert {len(blob) for blob in blobs} == {kept.nbytes}
    decoded = kept.decode(blobs)
    assert decoded.shape == latents.shape
    assert decoded.dtype == np.float32
    assert (1 - cosines(latents, decoded)).max() < TOLERANCE[name]
    lengths = [np.linalg.norm(x.reshape(5, -1), axis=1) for x in (latents, decoded)]
    np.testing.assert_allclose(*lengths, rtol=0.03)


@pytest.mark.parametrize(("name", "size"), [("int8", 65_604), ("int4", 36_868), ("fp16", 131_076)])
def test_sizes_at_16_x_4096(name, size):
    assert Codec(name, 16, 4096).nbytes == size


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(CODECS),
    st.integers(0, 4),
    st.integers(1, 5),
    st.integers(1, 300),
    st.floats(1e-6, 500),
)
def test_scores_are_the_cosines_of_what_is_decoded(name, n, memory_tokens, hidden, scale):
    kept = Codec(name, memory_tokens, hidden)
    latents = random_latents(n, memory_tokens, hidden) * np.float32(scale)
    blobs = kept.encode(latents)
    queries = random_latents(2, memory_tokens, hidden, seed=1)
    found = scores(kept, queries, blobs)
    decoded = kept.decode(blobs)
    assert found.shape == (2, n)
    for query, of_query in zip(queries, found, strict=True):
        expected = cosines(decoded, np.broadcast_to(query, decoded.shape))
        np.testing.assert_allclose(of_query, expected, atol=1e-5)
        np.testing.assert_allclose(scores(kept, query, blobs), of_query, atol=1e-6)


@pytest.mark.parametrize("name", CODECS)
def test_ranking_is_kept(name):
    latents = random_latents(300, 8, 256)
    query = latents[7] + random_latents(1, 8, 256, seed=2)[0]
    kept = Codec(name, 8, 256)
    found = scores(kept, query, kept.encode(latents))
    exact = cosines(latents, np.broadcast_to(query, latents.shape))
    shared = set(np.argsort(-found)[:10]) & set(np.argsort(-exact)[:10])
    assert len(shared) >= {"int8": 9, "int4": 6, "fp16": 9}[name]


@pytest.mark.parametrize("name", CODECS)
def test_zeros_and_constants(name):
    kept = Codec(name, 2, 128)
    latents = np.zeros((3, 2, 128), np.float32)
    latents[1] = 3.5
    latents[2, 0, 5] = -2
    blobs = kept.encode(latents)
    decoded = kept.decode(blobs)
    assert not decoded[0].any()
    assert (cosines(latents, decoded)[1:] > 1 - TOLERANCE[name] * 3).all()
    assert scores(kept, latents[1], blobs)[0] == 0
    assert not scores(kept, np.zeros((2, 128), np.float32), blobs).any()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_values_that_cannot_be_stored(name, bad):
    latents = random_latents(2, 2, 128)
    latents[1, 0, 3] = bad
    with pytest.raises(ClaraError, match="not finite, or too large"):
        Codec(name, 2, 128).encode(latents)


@pytest.mark.parametrize("name", CODECS)
def test_blobs_of_another_length(name):
    kept = Codec(name, 2, 128)
    (blob,) = kept.encode(random_latents(1, 2, 128))
    query = random_latents(1, 2, 128)[0]
    for wrong in (b"", blob[:-1], blob + b"\0"):
        with pytest.raises(ClaraError, match=f"{len(wrong)} bytes"):
            kept.decode([blob, wrong])
        with pytest.raises(ClaraError, match=f"{len(wrong)} bytes"):
            scores(kept, query, [wrong])


def test_an_unknown_codec_names_the_known_ones():
    with pytest.raises(ClaraError, match=r"'int5'.*int8, int4, fp16"):
        Codec("int5", 2, 128)


def test_other_shapes_are_refused():
    kept = Codec("int8", 2, 128)
    with pytest.raises(ClaraError, match="shape"):
        kept.encode(np.zeros((1, 3, 128), np.float32))
    with pytest.raises(ClaraError, match="shape"):
        scores(kept, np.zeros(256, np.float32), [])
    with pytest.raises(ClaraError, match="shape"):
        Codec("int8", 0, 128)


@pytest.mark.parametrize("n", [1, 2, 64, 128, 4096, 8192])
def test_the_rotation_is_its_own_inverse_and_keeps_lengths(n):
    x = random_latents(3, 2, n)
    y = hadamard.transform(x)
    np.testing.assert_allclose(hadamard.transform(y), x, atol=1e-4)
    lengths = [np.linalg.norm(each, axis=-1) for each in (x, y)]
    np.testing.assert_allclose(*lengths, rtol=1e-5)


def test_the_transform_is_hadamards():
    rows, columns = np.indices((128, 128))
    parity = np.bitwise_count(rows & columns) % 2  # Sylvester's construction
    expected = np.where(parity, -1, 1) / np.sqrt(128)
    np.testing.assert_allclose(hadamard.transform(np.eye(128, dtype=np.float32)), expected)


def test_signs_never_change():
    # Stored blobs and sketches depend on them.
    assert hadamard.signs(12, seed=0).tolist() == [-1, 1, -1, -1, -1, -1, -1, -1, -1, 1, -1, 1]
