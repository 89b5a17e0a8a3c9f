"""Metrics and intervals, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sizes import sized

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


@settings(deadline=None, max_examples=sized(100, 2000))
@given(st.text(max_size=40), st.text(max_size=40))
def test_exact_means_f1_of_one(a: str, b: str) -> None:
    assert metrics.f1(a, b) == metrics.f1(b, a)
    assert 0 <= metrics.f1(a, b) <= 1
    assert metrics.normalise(metrics.normalise(a)) == metrics.normalise(a)
    if metrics.exact(a, b):
        assert metrics.f1(a, b) == 1


Z = 1.959964


def wilson(share: float, probes: float) -> list[float]:
    """Shares p that are 1.96 of their standard errors away: (share - p)^2 = z^2 p (1 - p) / n."""
    q = Z**2 / probes
    return sorted(np.roots([1 + q, -2 * share - q, share**2]).tolist())


def test_one_probe_a_document_is_wilsons_interval() -> None:
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # as textbooks print it
    ten = list(range(10))
    estimate = metrics.share(ten, [1] * 8 + [0] * 2)
    assert estimate.mean == 0.8
    # The variance between documents divides by 9, so 8 in 10 counts as 9 independent probes.
    assert [estimate.low, estimate.high] == pytest.approx(wilson(0.8, 9))
    none = metrics.share(ten, [0] * 10)
    assert (none.mean, none.low, none.high) == pytest.approx((0, 0, 0.2775), abs=1e-4)
    every = metrics.share(ten, [1] * 10)
    assert (every.mean, every.low, every.high) == pytest.approx((1, 0.7225, 1), abs=1e-4)


def test_interval_of_many_documents_is_the_known_one() -> None:
    # 400 documents of one probe each, half right: normal approximation 0.5 +- 1.96 * 0.025.
    estimate = metrics.share(list(range(400)), [0, 1] * 200)
    assert estimate.mean == 0.5
    assert estimate.low == pytest.approx(0.451, abs=0.001)
    assert estimate.high == pytest.approx(0.549, abs=0.001)


def test_documents_count_not_probes() -> None:
    """Ten probes of a document that are all right or all wrong are as certain as one probe."""
    right = [number % 3 > 0 for number in range(30)]
    ones = metrics.share(list(range(30)), right)
    tens = metrics.share(list(np.repeat(range(30), 10)), np.repeat(right, 10))
    assert tens.mean == pytest.approx(ones.mean)
    assert (tens.low, tens.high) == pytest.approx((ones.low, ones.high))
    alike = metrics.share(list(np.repeat(range(30), 10)), np.ones(300))
    assert alike == metrics.share(list(range(30)), np.ones(30))


def test_the_variance_between_documents_by_hand() -> None:
    # Documents of 3 and 1 probes, means 1 and 0, mean 3/4: surpluses 3 - 9/4 and 0 - 3/4.
    # Variance 2 * (9/16 + 9/16) / 16 = 9/64 exceeds 3/16 / 2: 4/3 independent probes.
    estimate = metrics.share([7, 7, 7, 3], [1, 1, 1, 0])
    assert estimate.mean == 0.75
    assert [estimate.low, estimate.high] == pytest.approx(wilson(0.75, 4 / 3))
    difference = metrics.difference([7, 7, 7, 3], [0.5, 0.5, 0.5, 0])
    assert difference.mean == 0.375
    # Differences 1/2, 1/2, 1/2, 0: variance 9/256 of 15/64 is that of 20/3 pairs, but there are 4.
    # Two more pairs as unlike as can be: 1.5 of 6 gained, 1.5 + 1 of 6 unlike.
    half = Z * (2.5 - 1.5**2 / 6) ** 0.5 / 6
    assert [difference.low, difference.high] == pytest.approx([0.25 - half, 0.25 + half])


@settings(deadline=None, max_examples=sized(100, 2000))
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from((0.0, 0.3, 1.0))), min_size=1))
def test_a_share_lies_in_its_interval(probes: list[tuple[int, float]]) -> None:
    documents, values = zip(*probes, strict=True)
    estimate = metrics.share(documents, values)
    assert (estimate.low is None) == (len(set(documents)) == 1)
    if estimate.low is not None and estimate.high is not None:
        assert 0 <= estimate.low <= estimate.mean + 1e-12
        assert estimate.mean - 1e-12 <= estimate.high <= 1


def test_what_all_documents_share_cancels_in_a_difference() -> None:
    random = np.random.default_rng(0)
    documents = random.integers(20, size=100).tolist()
    a, b = random.random(100), random.random(100)
    paired = metrics.difference(documents, a - b)
    assert paired.mean == pytest.approx(a.mean() - b.mean())
    assert metrics.difference(documents, (a + 0.25) - a).mean == pytest.approx(0.25)


def test_five_that_agree_are_no_certainty() -> None:
    five, right = list(range(5)), [1.0] * 5
    every = metrics.share(five, right)
    assert (every.mean, every.low, every.high) == pytest.approx((1, 0.5655, 1), abs=1e-4)
    alike = metrics.difference(five, [0.0] * 5)
    assert (alike.low, alike.high) == pytest.approx((-Z / 7, Z / 7))  # Agresti and Min: 1 of 7
    kept = metrics.kept(five, right, right)
    assert kept is not None and kept.low is not None and kept.high is not None
    assert kept.mean == 1 and kept.low < 0.7 and kept.low == pytest.approx(1 / kept.high)


def test_what_is_kept() -> None:
    many = list(range(1000))
    before = [1.0] * 800 + [0.0] * 200
    after = [1.0] * 760 + [0.0] * 240
    kept = metrics.kept(many, after, before)
    assert kept is not None and kept.low is not None and kept.high is not None
    # Of 800 the rest keeps 95%, as certain as a share of 800 independent probes.
    assert [kept.mean, kept.low, kept.high] == pytest.approx([0.95, *wilson(0.95, 800)], abs=3e-3)
    assert metrics.kept(many, after, [0.0] * 1000) is None
    assert metrics.kept([4, 4], [1, 0], [1, 1]) == Estimate(0.5, None, None)


def test_most_intervals_hold_what_is_kept() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        before = random.random(60) < 0.7
        after = before & (random.random(60) < 0.9)
        kept = metrics.kept(list(range(60)), after, before)
        assert kept is not None and kept.low is not None and kept.high is not None
        held += kept.low <= 0.9 <= kept.high
    assert held > 0.92 * 400


def test_most_intervals_hold_the_true_share() -> None:
    """Also when documents differ in difficulty, as real ones do."""
    random = np.random.default_rng(1)
    held = plain = 0
    for _ in range(400):
        difficulty = random.beta(4 * 0.8, 4 * 0.2, 30)
        documents = np.repeat(range(30), random.integers(1, 8, 30))
        values = random.random(len(documents)) < difficulty[documents]
        estimate = metrics.share(documents.tolist(), values)
        assert estimate.low is not None and estimate.high is not None
        held += estimate.low <= 0.8 <= estimate.high
        low, high = wilson(float(values.mean()), len(values))
        plain += low <= 0.8 <= high
    assert held > 0.9 * 400
    assert plain < 0.87 * 400  # probes are not independent, so plain intervals are too narrow


def test_one_document_has_no_interval_and_none_no_share() -> None:
    assert metrics.share([4, 4], [1, 0]) == Estimate(0.5, None, None)
    assert metrics.difference([4, 4], [1, 0]) == Estimate(0.5, None, None)
    with pytest.raises(ValueError, match="no probes"):
        metrics.share([], [])
