"""Sketches, their index, and the search that scores few documents exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clara_mlx.errors import ClaraError
from clara_mlx.store.sketch import LEAST_FOR_MEAN, RunningMean, Sketcher
from clara_mlx.store.sketch_index import NearestFirst, Scan, SketchIndex

DIMS = 2048


def random_sketches(n: int, bits: int, seed: int = 0) -> np.ndarray:
    """In clusters, so that distances vary."""
    r = np.random.default_rng(seed)
    centres = r.integers(0, 256, (max(1, n // 20), bits // 8), dtype=np.uint8)
    flips = r.integers(0, 256, (3, n, bits // 8), dtype=np.uint8)
    noise = flips[0] & flips[1] & np.where(r.random((n, 1)) < 0.5, flips[2], 255).astype(np.uint8)
    return centres[r.integers(len(centres), size=n)] ^ noise


def plain_scan(sketches: np.ndarray, query: np.ndarray) -> np.ndarray:
    return np.bitwise_count(sketches ^ query).sum(axis=1, dtype=np.int64)


def clustered(n: int, seed: int = 0) -> np.ndarray:
    """Vectors with a large common part, in clusters of about 20."""
    r = np.random.default_rng(seed)
    common = np.random.default_rng(99).standard_normal(DIMS)
    centres = r.standard_normal((n // 20, DIMS))[r.integers(n // 20, size=n)]
    own = 0.6 * centres + 0.8 * r.standard_normal((n, DIMS))
    return (1.4 * common + own).astype(np.float32)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return (a @ b.T).astype(np.float32)


# -- sketches ------------------------------------------------------------------------------------


def test_equal_arguments_give_equal_sketches():
    vectors = clustered(40)
    mean = vectors.mean(axis=0)
    sketches = Sketcher(DIMS, 512, seed=3, mean=mean).sketch(vectors)
    assert sketches.shape == (40, 64)
    assert sketches.dtype == np.uint8
    np.testing.assert_array_equal(sketches, Sketcher(DIMS, 512, 3, mean).sketch(vectors))
    one_by_one = [Sketcher(DIMS, 512, 3, mean).sketch(vector[None])[0] for vector in vectors]
    assert plain_scan(sketches, np.stack(one_by_one)).max() <= 2  # other sums round differently
    assert (sketches != Sketcher(DIMS, 512, 4, mean).sketch(vectors)).mean() > 0.9


def test_sketches_never_change():
    # Stored ones depend on it.
    vectors = np.outer([1, -3], np.arange(1, 21)).astype(np.float32)
    assert Sketcher(20, 32, seed=5).sketch(vectors).tobytes().hex() == "5513925faaec6da0"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.sampled_from([8, 64, 256, 8192]), st.integers(0, 3))
def test_any_size(dims, bits, n):
    sketcher = Sketcher(dims, bits)
    assert sketcher.bits % 8 == 0
    assert sketcher.bits <= min(bits, max(8, 2 * dims))
    assert sketcher.sketch(np.ones((n, dims), np.float32)).shape == (n, sketcher.bits // 8)


def test_lengths_do_not_matter_and_distances_follow_angles():
    vectors = clustered(200)
    mean = RunningMean(DIMS)
    mean.update(vectors)
    sketcher = Sketcher(DIMS, 2048, mean=mean.mean)
    sketches = sketcher.sketch(vectors)
    longer = sketcher.sketch(vectors * np.float32(7))
    assert plain_scan(sketches, longer).max() <= 2
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) - mean.mean
    angles = np.arccos(np.clip(cosines(unit[:1], unit)[0], -1, 1)) / np.pi
    shares = plain_scan(sketches, sketches[0]) / 2048
    assert np.abs(shares - angles).max() < 4 * 0.5 / np.sqrt(2048)


def test_a_probe_knows_the_centred_cosines():
    vectors, query = clustered(50), clustered(20, seed=5)[0] + np.float32(0.3)
    running = RunningMean(DIMS)
    running.update(vectors)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for mean in (None, running.mean):
        sketcher = Sketcher(DIMS, 512, 0, mean)
        sketched = sketcher.sketch_query(query)
        assert sketched.vectors.shape == (1 if mean is None else 2, DIMS)
        np.testing.assert_array_equal(sketched.sketch, sketcher.sketch(query[None])[0])
        centre = np.zeros(DIMS) if mean is None else mean
        expected = cosines((query / np.linalg.norm(query) - centre)[None], unit - centre)[0]
        got = sketched.centred(cosines(sketched.vectors, vectors))
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_bad_arguments_of_a_sketcher():
    with pytest.raises(ClaraError, match="12 bits"):
        Sketcher(DIMS, 12)
    with pytest.raises(ClaraError, match="shape"):
        Sketcher(DIMS, mean=np.zeros(3, np.float32))
    with pytest.raises(ClaraError, match="shape"):
        Sketcher(DIMS).sketch(np.zeros((1, 3), np.float32))


# -- the mean ------------------------------------------------------------------------------------


def test_a_running_mean_is_the_mean_of_unit_vectors():
    vectors = clustered(100)
    mean = RunningMean(DIMS)
    for start in range(0, 100, 30):
        mean.update(vectors[start : start + 30])
    mean.update(vectors[:0])
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert mean.count == 100
    np.testing.assert_allclose(mean.mean, unit.mean(axis=0), atol=1e-6)


def test_a_mean_is_stale_when_the_data_have_moved():
    vectors = clustered(2000)
    mean = RunningMean(DIMS)
    mean.update(vectors[: LEAST_FOR_MEAN - 1])
    assert not mean.is_stale(None)
    mean.update(vectors[LEAST_FOR_MEAN - 1 : LEAST_FOR_MEAN])
    assert mean.is_stale(None)
    used = mean.mean.copy()
    mean.update(vectors[LEAST_FOR_MEAN:])
    assert not mean.is_stale(used)
    mean.update(-vectors)
    assert mean.is_stale(used)


# -- the index -----------------------------------------------------------------------------------


def nearest(index, sketch, k, allowed=None):
    """Ids and distances of the k nearest: near ones say how far to look for nearer ones."""
    scan = Scan(index, sketch, allowed)
    rows = scan.near(k)
    if len(rows):
        rows = scan.within(float(scan.distances[rows[-1]]))[:k]
    return index.ids[rows], scan.distances[rows]


@pytest.mark.parametrize("bits", [8, 72, 256, 2048, 4096])
@pytest.mark.parametrize("k", [1, 10, 100, 5000])
def test_nearest_is_the_plain_scan(bits, k):
    # Sketches of more than 2,048 bits are compared in two steps, which may lose a few in 100,000.
    sketches = random_sketches(3000, bits)
    index = SketchIndex(bits)
    index.extend(np.arange(3000) * 7, sketches)
    for query in (sketches[11], *random_sketches(3, bits, seed=1)):
        expected = plain_scan(sketches, query)
        order = np.argsort(expected, kind="stable")[:k]
        ids, distances = nearest(index, query, k)
        np.testing.assert_array_equal(ids, order * 7)
        np.testing.assert_array_equal(distances, expected[order])


@pytest.mark.parametrize("bits", [256, 4096])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.5])
def test_k_come_back_whenever_k_are_allowed(bits, share):
    sketches = random_sketches(3000, bits)
    index = SketchIndex(bits)
    index.extend(np.arange(3000), sketches)
    allowed = np.random.default_rng(2).random(3000) < share
    query = sketches[0]
    expected = np.where(allowed, plain_scan(sketches, query), 1 << 20)
    for k in (0, 1, 20, 4000):
        ids, _ = nearest(index, query, k, allowed)
        order = np.argsort(expected, kind="stable")[: min(k, allowed.sum())]
        np.testing.assert_array_equal(ids, order)


def test_two_steps_lose_no_more_than_stated():
    # The worst case: all rows lie just within the radius.
    r = np.random.default_rng(0)
    bits, n, radius = 8192, 5000, 3000
    flips = np.argsort(r.random((n, bits), dtype=np.float32), axis=1) < radius
    index = SketchIndex(bits)
    index.extend(np.arange(n), np.packbits(flips, axis=1))
    scan = Scan(index, np.zeros(bits // 8, np.uint8))
    assert len(scan.within(radius)) >= n - 2
    assert len(scan.within(radius - 1)) == 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_index_grows(data):
    bits = data.draw(st.sampled_from([64, 136, 2304]))
    pool = random_sketches(200, bits)
    index, added = SketchIndex(bits), list[int]()
    for _ in range(data.draw(st.integers(1, 6))):
        fresh = data.draw(st.lists(st.integers(0, 199), unique=True))
        fresh = [id for id in fresh if id not in added]
        index.extend(np.array(fresh, np.int64), pool[fresh])
        added += fresh
        assert len(index) == len(added)
        assert index.ids.tolist() == added
        ids, distances = nearest(index, pool[3], 200)
        expected = plain_scan(pool, pool[3])
        assert sorted(ids.tolist()) == sorted(added)
        np.testing.assert_array_equal(distances, np.sort(expected[ids]))
        np.testing.assert_array_equal(distances, expected[ids])


def test_bad_arguments_of_an_index():
    with pytest.raises(ClaraError, match="12 bits"):
        SketchIndex(12)
    index = SketchIndex(64)
    with pytest.raises(ClaraError, match="shape"):
        index.extend(np.arange(2), np.zeros((2, 9), np.uint8))
    with pytest.raises(ClaraError, match="3 ids for 2 sketches"):
        index.extend(np.arange(3), np.zeros((2, 8), np.uint8))
    with pytest.raises(ClaraError, match="allowed"):
        nearest(index, np.zeros(8, np.uint8), 1, np.ones(2, bool))


# -- exact scores of few -------------------------------------------------------------------------


class Documents:
    """An index over clustered vectors that counts how many are scored."""

    def __init__(self, n: int, bits: int = 2048) -> None:
        self.vectors = clustered(n)
        mean = RunningMean(DIMS)
        mean.update(self.vectors)
        self.sketcher = Sketcher(DIMS, bits, mean=mean.mean)
        self.index = SketchIndex(bits)
        self.index.extend(np.arange(n), self.sketcher.sketch(self.vectors))
        self.scored = 0

    def search(self, query, k, allowed=None, **options):
        self.scored = 0
        sketched = self.sketcher.sketch_query(query)
        search = NearestFirst(Scan(self.index, sketched.sketch, allowed), sketched, k, **options)
        while len(ids := search.next_ids()):
            self.scored += len(ids)
            search.add_scores(cosines(sketched.vectors, self.vectors[ids]))
        return search.best()

    def brute_force(self, query, k):
        exact = cosines(query[None], self.vectors)[0]
        return np.argsort(-exact, kind="stable")[:k]


@pytest.fixture(scope="module")
def documents():
    return Documents(4000)


def test_rescoring_finds_what_brute_force_finds(documents):
    r = np.random.default_rng(1)
    shared = few = 0
    for target in range(0, 4000, 100):
        noise = r.standard_normal(DIMS).astype(np.float32)
        query = documents.vectors[target] + np.float32(0.5) * noise
        ids, scores = documents.search(query, 10)
        assert (np.diff(scores) <= 0).all()
        exact = cosines(query[None], documents.vectors[ids])[0]
        np.testing.assert_allclose(scores, exact, rtol=1e-5)
        shared += len(np.intersect1d(ids, documents.brute_force(query, 10)))
        few += documents.scored < 200
    assert shared >= 0.99 * 400
    assert few >= 38


def test_a_hopeless_query_still_ends(documents):
    query = np.random.default_rng(3).standard_normal(DIMS).astype(np.float32)
    ids, _ = documents.search(query, 10)
    shared = np.intersect1d(ids, documents.brute_force(query, 10))
    assert len(shared) >= 9
    assert documents.scored > 500


def test_rescoring_respects_what_is_allowed(documents):
    allowed = np.zeros(4000, bool)
    allowed[5::1000] = True
    ids, _ = documents.search(documents.vectors[0], 10, allowed=allowed)
    assert sorted(ids.tolist()) == [5, 1005, 2005, 3005]
    ids, _ = documents.search(documents.vectors[0], 3, allowed=allowed)
    assert set(ids.tolist()) <= {5, 1005, 2005, 3005}
    assert len(ids) == 3
    ids, _ = documents.search(documents.vectors[0], 3, allowed=np.zeros(4000, bool))
    assert len(ids) == 0


def test_sure_of_fewer_than_come_back(documents):
    """The best are as good as ever, and the others take no further scoring."""
    query = documents.vectors[7] + np.float32(0.5)
    ids, scores = documents.search(query, 5)
    alone = documents.scored
    more, more_scores = documents.search(query, 60, sure=5)
    assert len(more) == 60
    assert documents.scored <= max(60, 2 * alone)
    np.testing.assert_array_equal(more[:5], ids)
    np.testing.assert_array_equal(more_scores[:5], scores)
    assert (np.diff(more_scores) <= 0).all()
    documents.search(query, 60)
    assert documents.scored > 1000  # the 60th best is no relative


def test_none_wanted_none_scored(documents):
    ids, scores = documents.search(documents.vectors[0], 0)
    assert len(ids) == len(scores) == documents.scored == 0


def test_documents_that_vanish_are_left_out(documents):
    sketched = documents.sketcher.sketch_query(documents.vectors[0])
    search = NearestFirst(Scan(documents.index, sketched.sketch), sketched, 10)
    while len(ids := search.next_ids()):
        got = cosines(sketched.vectors, documents.vectors[ids])
        got[0, ids % 2 == 0] = -np.inf
        search.add_scores(got)
    ids, scores = search.best()
    assert len(ids) == 10
    assert (ids % 2 == 1).all()
    assert np.isfinite(scores).all()


def test_an_empty_index():
    sketcher = Sketcher(DIMS, 256)
    sketched = sketcher.sketch_query(np.ones(DIMS, np.float32))
    search = NearestFirst(Scan(SketchIndex(256), sketched.sketch), sketched, 5)
    assert len(search.next_ids()) == 0
    ids, scores = search.best()
    assert len(ids) == len(scores) == 0
