"""The plan: a Mac's limits, what fits, and the nearest setup that does."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.utils import quantize_model, save_config, save_model
from tiny_models import MOE, make_model

from clara_mlx.errors import ClaraError
from clara_mlx.plan import shapes
from clara_mlx.plan.footprint import ClaraFootprint
from clara_mlx.plan.inputs import NamedClara, NamedReasoner
from clara_mlx.plan.mac import GIB, default_wired_limit, mac_of
from clara_mlx.plan.planner import Planner, Setup


def planner(memory: float = 128, name: str = "Qwen3-235B-A22B") -> Planner:
    return Planner(mac_of(memory), NamedReasoner(name), NamedClara("q8"))


BIG = planner()


@pytest.mark.parametrize(
    ("memory", "limit"), [(16, 10.67), (32, 21.33), (36, 27), (96, 72), (128, 96)]
)
def test_documented_limits(memory: int, limit: float) -> None:
    assert default_wired_limit(memory * GIB) / GIB == pytest.approx(limit, abs=0.01)


def test_235b_on_128_gb() -> None:
    four, three, two = (Setup(bits) for bits in (4, 3, 2))
    assert not BIG.fits(four)
    assert BIG.reasoner(4).weight_bytes > BIG.mac.ceiling  # whatever else is given up
    assert BIG.fits(three) and BIG.total(three) > BIG.mac.wired_limit
    assert BIG.fits(two) and BIG.sysctl_mb(two) is None
    assert BIG.nearest(four) == three
    assert planner(BIG.smallest_memory(four) / GIB).fits(four)


def halved(value: int, least: int) -> int:
    while value // 2 >= least:
        value //= 2
    return value


@settings(max_examples=60, deadline=None)
@given(
    memory=st.integers(16, 512),
    setup=st.builds(
        Setup,
        bits=st.sampled_from(shapes.BITS),
        kv_bits=st.sampled_from([16, 8, 4]),
        context=st.integers(1, 200_000),
        sequences=st.integers(1, 8),
        prefill_step=st.integers(1, 4096),
        clara_bits=st.sampled_from([8, 6, 4, None]),
    ),
)
def test_the_nearest_setup(memory: int, setup: Setup) -> None:
    here = copy(BIG)  # with the footprints that it has computed
    here.mac = mac_of(memory)
    nearest = here.nearest(setup)
    assert here.total(setup) == sum(part.nbytes for part in here.parts(setup))
    if here.fits(setup):
        assert nearest == setup
    if nearest is None:
        context = halved(setup.context, 8192)
        step = halved(setup.prefill_step, 512)
        assert here.total(Setup(2, 4, context, 1, step, None)) > here.mac.ceiling
        return
    assert here.fits(nearest)
    for field in ("bits", "kv_bits", "context", "sequences", "prefill_step"):
        assert 1 <= getattr(nearest, field) <= getattr(setup, field)
    assert (nearest.clara_bits or 0) <= (setup.clara_bits or 0)
    megabytes = here.sysctl_mb(nearest)
    if megabytes is None:
        assert here.total(nearest) <= here.mac.wired_limit
    else:
        assert here.mac.wired_limit < here.total(nearest) <= megabytes * 2**20 <= here.mac.ceiling


def test_a_quantised_cache_needs_the_scores() -> None:
    whole, packed = Setup(2), Setup(2, kv_bits=8)
    one = {part.name: part.nbytes for part in BIG.parts(packed)}["reasoner: one pass"]
    assert one > 2 * 64 * 2048 * 32768 * 2
    assert BIG.total(packed) > BIG.total(whole)
    assert BIG.total(Setup(2, kv_bits=8, prefill_step=512)) < BIG.total(packed)


def test_a_windowed_reasoner_is_never_offered_a_quantised_cache() -> None:
    small = planner(64, "gpt-oss-120b")
    nearest = small.nearest(Setup(8))
    assert nearest is not None and nearest.kv_bits == 16


def test_limits_of_a_mac() -> None:
    assert mac_of(128, None, 8).ceiling == 120 * GIB
    assert mac_of(128, 107.5, 8).wired_limit == int(107.5 * GIB)
    assert mac_of(16, None, 8).ceiling == default_wired_limit(16 * GIB)
    with pytest.raises(ClaraError, match="reserve of 8 GB"):
        mac_of(8, None, 8)
    with pytest.raises(ClaraError, match="limit of 200 GB is impossible with 128 GB"):
        mac_of(128, 200, 8)
    here = mac_of(None, reserve=0)
    assert 0 < here.wired_limit <= here.memory
    assert mx.metal.is_available() or "not a Mac" in here.limit_source


def test_bits_that_a_reasoner_can_have(tmp_path: Path) -> None:
    model, config = quantize_model(make_model(MOE, tmp_path), dict(MOE), 64, 4)
    save_model(tmp_path, model)
    save_config(config, tmp_path / "config.json")
    stored = NamedReasoner(str(tmp_path))
    assert stored.choices == (4,)
    assert stored.folder(4) == (str(tmp_path), None)
    assert stored.name == tmp_path.name
    other = NamedReasoner(str(tmp_path), bits=3)
    assert other.asked == shapes.from_config(MOE, where="test", bits=3)
    with pytest.raises(ClaraError, match="Qwen3-235B-A22B"):
        NamedReasoner("no-such-model")


def test_bits_that_clara_can_have(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder("c16", "e2e", "-q", "4")
    own = NamedClara(str(path))
    assert (own.bits, own.choices, own.folder(4)) == (4, (4,), str(path))
    assert isinstance(own.footprint(4), ClaraFootprint)
    assert NamedClara("none").bits is None
    with pytest.raises(ClaraError, match="no such model folder"):
        NamedClara("q5")
    with pytest.raises(ClaraError, match="not a model folder"):
        NamedClara(str(tmp_path))
