"""Metrics and intervals, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clara_mlx.evaluate import metrics
from clara_mlx.evaluate.metrics import Estimate


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("tests/test_io.py", "tests/test_io.py", True),
        ('  "tests/test_io.py".\n', "tests/test_io.py", True),
        ("'it''s'", "it''s", True),
        ("no  such\tfile", "no such file", True),
        ("e\u0301t\u00e9", "\u00e9t\u00e9", True),  # composed and not
        ("Test_Load", "test_load", False),
        (".env", "env", False),  # a stop at the start is a name's
        ("tests/test_io.py::x", "tests/test_io.py", False),
        ("12", "12.0", False),
        ("", "12", False),
        ("...", ".", False),  # nothing would be left, so nothing is taken away
        ("''", "''", True),
    ],
)
def test_exact(answer: str, expected: str, right: bool) -> None:
    assert metrics.exact(answer, expected) is right


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("a b", "a b", 1.0),
        ("a b c", "a d", 2 * 1 / (3 + 2)),
        ("src/a.py", "src/b.py", 2 * 4 / (5 + 5)),  # src / . py of src / a . py
        ("x x", "x", 2 * 1 / (2 + 1)),  # multisets
        ("x", "X", 0.0),
        ("", "x", 0.0),
        ('"x"', "x", 1.0),
    ],
)
def test_f1(answer: str, expected: str, f1: float) -> None:
    assert metrics.f1(answer, expected) == pytest.approx(f1)


@given(st.text(max_size=40), st.text(max_size=40))
def test_exact_means_f1_of_one(a: str, b: str) -> None:
    assert metrics.f1(a, b) == metrics.f1(b, a)
    assert 0 <= metrics.f1(a, b) <= 1
    assert metrics.normalise(metrics.normalise(a)) == metrics.normalise(a)
    if metrics.exact(a, b):
        assert metrics.f1(a, b) == 1


def test_intervals_resample_documents_not_probes() -> None:
    # One document with three right probes, one with a wrong one: a sample of two documents gives
    # 1 (a quarter of the time), 3/4 or 0 (a quarter), so the 95% interval is all of [0, 1].
    (estimate,) = metrics.estimates([7, 7, 7, 3], [1, 1, 1, 0], seed=0)
    assert estimate == Estimate(0.75, 0.0, 1.0)
    # Were the four probes drawn by themselves, 0 would come once in 256 times and fall outside.


def test_interval_of_many_documents_is_the_known_one() -> None:
    # 400 documents of one probe each, half right: normal approximation 0.5 +- 1.96 * 0.025.
    (estimate,) = metrics.estimates(list(range(400)), [0, 1] * 200, seed=3)
    assert estimate.mean == 0.5
    assert estimate.low == pytest.approx(0.451, abs=0.006)
    assert estimate.high == pytest.approx(0.549, abs=0.006)


def test_estimates_share_their_samples() -> None:
    random = np.random.default_rng(0)
    documents = random.integers(20, size=100).tolist()
    a, b = random.random(100), random.random(100)
    one, two, both = metrics.estimates(documents, [a, b, a - b], seed=1)
    assert both.mean == pytest.approx(one.mean - two.mean)
    (alone,) = metrics.estimates(documents, a, seed=1)
    assert (alone.low, alone.high) == pytest.approx((one.low, one.high))
    assert metrics.estimates(documents, a, seed=1) == [alone]
    assert metrics.estimates(documents, a, seed=2) != [alone]
    # What is the same in all documents cancels in a paired difference.
    (none,) = metrics.estimates(documents, (a + 0.25) - a, seed=1)
    assert (none.low, none.high) == pytest.approx((0.25, 0.25))


def test_one_document_has_no_interval_and_none_no_share() -> None:
    assert metrics.estimates([4, 4], [1, 0], seed=0) == [Estimate(0.5, None, None)]
    with pytest.raises(ValueError, match="no probes"):
        metrics.estimates([], [], seed=0)
