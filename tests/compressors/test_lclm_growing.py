"""A growing text is compressed only where it grows, to what the whole text becomes."""

from __future__ import annotations

import random
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lclm_files import document
from sizes import sized

from clara_mlx.compressors.lclm.encoder import Encoder
from clara_mlx.compressors.lclm.growing import GrowingText
from clara_mlx.compressors.lclm.lclm import Lclm
from clara_mlx.compressors.lclm.states import StateCache

Load = Callable[..., Lclm]

SAME = 1e-5  # difference of one pass from several; states have values about 1


@pytest.fixture(scope="module")
def small(lclm: Load) -> Encoder:
    """The encoder of c4 with windows of 32 tokens, of which a short text has several."""
    encoder = lclm("c4")._compressing.encoder
    return Encoder(encoder.network, encoder.ratio, 32, mx.float32)


def whole(encoder: Encoder, lclm_: Lclm, text: str) -> np.ndarray:
    ids = lclm_.tokenizer.encode(text)
    pooled = encoder.pool_windows(encoder.windows(ids))
    return np.array(mx.concatenate(pooled) if pooled else encoder.empty())


PIECES = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            ["", "e", " ", "\n", "é", "\u0301", "<|im_end|>", "FAILED tests/a.py::b\n", "🙂"]
        ),
    ),
    max_size=8,
)


@settings(max_examples=sized(8, 300), deadline=None, database=None, derandomize=True)
@given(pieces=PIECES)
def test_any_pieces_become_what_the_whole_becomes(
    lclm: Load, small: Encoder, pieces: list[str]
) -> None:
    """Also where the tokenizer joins the end of one with the start of the next."""
    model = lclm("c4")
    growing = GrowingText(small, model.tokenizer)
    for piece in pieces:
        growing.append(piece)
        assert np.abs(np.array(growing.states) - whole(small, model, growing.text)).max() < SAME
    assert growing.text == "".join(pieces)
    assert growing.tokens == len(model.tokenizer.encode(growing.text))


def test_a_log_is_run_only_where_it_grows(lclm: Load, small: Encoder) -> None:
    """Complete groups keep their values to the bit, and hardly a token is run twice."""
    model = lclm("c4")
    lines = document("c4", "code").splitlines(keepends=True) * 3
    growing = GrowingText(small, model.tokenizer)
    before = np.zeros((0, small.hidden))
    complete = 0
    for line in lines:
        ran = growing.append(line)
        states = np.array(growing.states)
        assert np.array_equal(states[:complete], before[:complete])
        assert ran <= len(model.tokenizer.encode(line)) + 4
        before, complete = states, (growing.tokens - 4) // small.ratio
    assert growing.encoded_tokens <= growing.tokens + 4 * len(lines)


def test_much_text_at_once_fills_windows(lclm: Load, small: Encoder) -> None:
    model = lclm("c4")
    text = document("c4", "windows")[:900]
    growing = GrowingText(small, model.tokenizer)
    for piece in (text[:50], text[50:700], text[700:]):
        growing.append(piece)
    assert np.abs(np.array(growing.states) - whole(small, model, text)).max() < SAME
    assert growing.tokens > 5 * small.window


def test_what_grew_can_be_read(lclm: Load) -> None:
    model = lclm("c16")
    growing = model.grow("The red valve is ")
    growing.append("in room 12.")
    text = "The red valve is in room 12."
    assert np.abs(np.array(growing.states) - np.array(model.compress(text).states)).max() < SAME
    assert model.answer("Where?", [growing], 4) == model.answer("Where?", [text], 4)
    assert np.array(model.grow().states).shape == (1, model.config.encoder_hidden)


def test_the_cache_drops_what_was_unused_longest() -> None:
    states = mx.zeros((4, 8))
    cache = StateCache(most_bytes=3 * states.nbytes)
    windows = [[i, i + 1] for i in range(4)]
    for window in windows[:3]:
        cache.put(window, states)
    assert cache.get(windows[0]) is states
    cache.put(windows[3], states)
    assert cache.get(windows[1]) is None
    assert all(cache.get(windows[i]) is states for i in (0, 2, 3))
    cache.put(windows[0], mx.ones((4, 8)))
    assert cache.get(windows[0]) is states


def test_batches_of_any_lengths_are_the_same(lclm: Load, small: Encoder) -> None:
    random.seed(5)
    windows = [[random.randrange(400) for _ in range(n)] for n in (1, 31, 4, 32, 7, 32, 2)]
    for window, pooled in zip(windows, small.pool_windows(windows), strict=True):
        alone = small.pool_windows([window])[0]
        assert pooled.shape == (-(-len(window) // small.ratio), small.hidden)
        assert np.abs(np.array(pooled) - np.array(alone)).max() < SAME
