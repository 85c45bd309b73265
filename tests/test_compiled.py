"""The kernels give the same answer, bit for bit: `reference` is the definition, the others are measured by it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ivfpq import IndexIVFPQ, IndexIVFRQ, kernels
from ivfpq.distances import normalised
from ivfpq.kernels import compiled, panels

F = np.float32
COMPILED = [name for name in kernels.available() if name != "reference"]
METRICS = ["l2", "ip", "cosine"]
KINDS = [IndexIVFPQ, IndexIVFRQ]


def made(rng, metric, nlist, M, dsub, nbits, n, *, shift=0.0, scale=1.0, grid=False, kind=IndexIVFPQ):
    """An index of random quantizers and codes, with ties, one list empty and one long; ids in no order."""
    d = M * dsub if kind is IndexIVFPQ else dsub

    def draw(*shape):
        return rng.integers(-2, 3, shape).astype(F) if grid else rng.standard_normal(shape).astype(F)

    index = kind(d, nlist, M, nbits, metric=metric)
    index.install(draw(nlist, d) * F(3 * scale) + F(shift * scale), draw(M, 1 << nbits, dsub) * F(scale))
    return with_random_codes(index, rng, n)


def with_random_codes(index, rng, n):
    """The index with n codes, many of them the same, one list empty and one long; ids in no order."""
    codes = rng.integers(0, 1 << index.nbits, (n, index.M)).astype(index.lists.dtype)
    codes[n // 2 :: 3] = codes[:1]
    numbers = rng.integers(0, index.nlist, n)
    numbers[numbers == index.nlist - 1] = 0
    ids = rng.permutation(3 * n)[:n] + (2**40 if n % 2 else 0)
    for part in np.array_split(np.arange(n), 3):
        index.add_codes(numbers[part], codes[part], ids[part])
    return index


def answers(monkeypatch, name, index, x, k, nprobe, ids, radius):
    monkeypatch.setattr(kernels, "active", lambda: name)
    with np.errstate(all="ignore"):
        return [*index.search(x, k, nprobe=nprobe, ids=ids), *index.range_search(x, radius, nprobe=nprobe, ids=ids)]


def check(index, x, k, nprobe, ids=None):
    """All kernels, all queries at once and one by one, by number and by radius."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "active", lambda: "reference")
        distances = index.search(x[:1], k, nprobe=nprobe, ids=ids).distances[0]
        distances = distances[np.isfinite(distances)]
        radius = float(distances[len(distances) // 2]) if len(distances) else 0.0  # one that is met exactly
        want = answers(patch, "reference", index, x, k, nprobe, ids, radius)
        for name in COMPILED:
            for got, wanted in zip(answers(patch, name, index, x, k, nprobe, ids, radius), want, strict=True):
                assert got.dtype == wanted.dtype and got.tobytes() == wanted.tobytes(), name
            parts = index.lists.published.parts
            some = index.candidates(x, k, nprobe, ids, name, parts)
            assert some.dtype == want[1].dtype and np.sort(some).tobytes() == np.sort(want[1]).tobytes(), name
            for i in range(min(len(x), 3)):
                assert (
                    np.sort(index.candidates(x[i : i + 1], k, nprobe, ids, name, parts)).tobytes()
                    == np.sort(some[i]).tobytes()
                )
                one = index.search(x[i : i + 1], k, nprobe=nprobe, ids=ids)
                assert one.ids.tobytes() == want[1][i : i + 1].tobytes(), name
                assert one.distances.tobytes() == want[0][i : i + 1].tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), metric=st.sampled_from(METRICS), grid=st.booleans())
@settings(max_examples=120, deadline=None)
def test_kernels_one_answer(kind, data, metric, grid):
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nlist, M, dsub = draw(st.integers(1, 9)), draw(st.integers(1, 20)), draw(st.sampled_from([1, 2, 5, 16, 19, 70]))
    nbits = draw(st.integers(1, 10))
    n = draw(st.sampled_from([0, 1, 5, 63, 64, 65, 200, 700]))
    scale = draw(st.sampled_from([1.0, 1.0, 1e-12, 1e-21, 1e12, 1e19]))
    if metric == "ip":
        scale = min(scale, 1e15)  # beyond, infinity less infinity has no order
    shift = draw(st.sampled_from([0.0, 0.0, 100.0]))
    index = made(rng, metric, nlist, M, dsub, nbits, n, shift=shift, scale=scale, grid=grid, kind=kind)
    x = rng.standard_normal((draw(st.integers(1, 5)), index.d))
    x = ((np.rint(2 * x) if grid else 3 * x) * scale + shift * scale).astype(F)
    ids = draw(st.sampled_from([None, None, "some", "none"]))
    if ids is not None:
        stored = index.lists.view.ids(index.lists.view.rows())
        ids = rng.permutation(stored)[: len(stored) // 2] if ids == "some" else []
    with np.errstate(all="ignore"):
        check(index, x, draw(st.integers(1, 120)), draw(st.integers(1, nlist)), ids)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("M", "nbits", "n"),
    [(8, 8, 20_000), (64, 8, 3000), (256, 8, 700), (300, 4, 400), (4, 12, 9000), (2, 16, 9000), (8, 6, 20_000)],
)
def test_long_lists(metric, kind, M, nbits, n):
    rng = np.random.default_rng(0)
    index = made(rng, metric, 4, M, (2 if nbits == 16 else 3) * (1 if kind is IndexIVFPQ else 8), nbits, n, kind=kind)
    x = rng.standard_normal((5, index.d)).astype(F) * 3
    for k in (1, 10, 300):
        check(index, x, k, 3)


def test_one_list_of_many_tiles():
    rng = np.random.default_rng(3)
    index = made(rng, "l2", 1, 8, 2, 8, 40_000)
    assert index.lists.width == 8  # a single list has no terms
    check(index, rng.standard_normal((3, 16)).astype(F), 10, 1)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_codes_tie_by_id(metric):
    rng = np.random.default_rng(5)
    index = made(rng, metric, 3, 8, 4, 8, 0)
    codes = np.repeat(rng.integers(0, 256, (1, 8)).astype(np.uint8), 5000, axis=0)
    index.add_codes(rng.integers(0, 3, 5000), codes, rng.permutation(5000))
    check(index, rng.standard_normal((2, 32)).astype(F), 25, 3)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("nearest_first", [True, False])
def test_lists_in_order_of_the_distances(metric, nearest_first):
    """No sample is like the rest; and codes that are gone, or in another place, are not found where they were."""
    rng = np.random.default_rng(6)
    index = made(rng, metric, 3, 8, 4, 8, 0)
    x = rng.standard_normal((2, 32)).astype(F)
    numbers, codes = rng.integers(0, 3, 9001), rng.integers(0, 256, (9001, 8)).astype(np.uint8)
    y = index.centroids[numbers] + index.pq.decode(codes)
    order = np.argsort(y @ x[0] if metric == "ip" else -np.square(y - x[0]).sum(axis=1))
    order = order[::-1] if nearest_first else order
    index.add_codes(numbers[order], codes[order], np.arange(9001))
    check(index, x, 10, 3)
    index.remove_ids(np.arange(0, 9001, 3))
    check(index, x, 64, 3)
    index.update(np.arange(1, 9001, 300), rng.standard_normal((30, 32)).astype(F))
    check(index, x, 65, 2, np.arange(2, 9001, 7))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("M", [1, 3, 16, 33, 64])
@pytest.mark.parametrize("far", [0.0, 40.0, 1e9])
def test_entries_far_from_each_other(metric, M, far):
    """Some codewords are so far out that no 8 bits hold them beside the others; or all are at one place."""
    rng = np.random.default_rng(10)
    index = made(rng, metric, 2, M, 2, 8, 0)
    codebooks = np.array(index.pq.codebooks) * (0.0 if far == 0.0 else 1.0)
    codebooks[:, rng.random(256) < 0.3] *= F(far)
    index.install(index.centroids, codebooks)
    with_random_codes(index, rng, 1000)
    x = 3 * rng.standard_normal((2, index.d)).astype(F)
    for k in (1, 100):
        check(index, x, k, 2)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dsub", [4, 96])
def test_lists_at_nearly_the_same_distance_are_told_apart(metric, dsub):
    """Centroids that differ in the last bits: which ones are probed is a matter of the defined distance alone."""
    rng = np.random.default_rng(11)
    centroids = np.repeat(rng.standard_normal((1, 4 * dsub)).astype(F), 40, 0)
    for _ in range(3):
        centroids = np.nextafter(centroids, np.where(rng.random(centroids.shape) < 0.5, F(9), F(-9)).astype(F))
    index = made(rng, metric, 40, 4, dsub, 4, 0)
    index.install(centroids, index.pq.codebooks)
    index.add_codes(rng.integers(0, 40, 1000), rng.integers(0, 16, (1000, 4)).astype(np.uint8), np.arange(1000))
    check(index, rng.standard_normal((6, 4 * dsub)).astype(F), 20, 7)


@pytest.mark.parametrize("metric", METRICS)
def test_neither_threads_nor_neighbours_in_the_batch_change_an_answer(metric, monkeypatch):
    rng = np.random.default_rng(7)
    index = made(rng, metric, 9, 8, 4, 8, 9000)
    x = rng.standard_normal((301, 32)).astype(F)
    found = {}
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        assert compiled.threads() == int(threads)
        found[threads] = (*index.search(x, 10, nprobe=4), *index.range_search(x, 0.3, nprobe=4))
    monkeypatch.setattr(compiled, "MAX_CHUNK", 16)
    found["chunks"] = (*index.search(x, 10, nprobe=4), *index.range_search(x, 0.3, nprobe=4))
    assert len({tuple(part.tobytes() for part in parts) for parts in found.values()}) == 1


def test_a_read_only_query_and_a_read_only_index_are_no_new_case(tmp_path):
    from ivfpq import load, save

    index = made(np.random.default_rng(9), "l2", 5, 4, 3, 8, 999)
    save(index, tmp_path / "a.index")
    mapped = load(tmp_path / "a.index", mmap=True)
    x = np.random.default_rng(1).standard_normal((4, 12)).astype(F)
    x.flags.writeable = False
    for one, two in zip(mapped.search(x, 9, nprobe=3), index.search(x.copy(), 9, nprobe=3), strict=True):
        assert one.tobytes() == two.tobytes()
    check(mapped, x, 20, 5)


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("kind", KINDS)
def test_the_screen_keeps_its_word(name, kind, monkeypatch):
    """Lower bounds, read off the compiled code, are below the defined distances, and not by much."""
    from ivfpq.kernels import scan

    monkeypatch.setattr(kernels, "active", lambda: name)
    rng = np.random.default_rng(2)
    for metric in METRICS:
        index = made(rng, metric, 6, 16, 8, 8, 3000, kind=kind)
        x = rng.standard_normal((4, index.d)).astype(F)
        x = normalised(x) if metric == "cosine" else x
        quantizers = compiled.CompiledQuantizers(index._quantizers)
        first = compiled._arguments(quantizers, index.lists.view, x, 6, name)
        q, value, _ = scan.range_search(*first, np.inf)
        assert len(q) == 4 * 3000  # an infinite radius leaves nothing out
        for limit in np.quantile(value, [0.0, 0.01, 0.5]):
            got = scan.range_search(*first, 2 * limit + 2 if metric == "cosine" else limit)[1]
            inside = np.count_nonzero(value <= limit)
            assert np.count_nonzero(got <= limit) == inside  # none is lost
            assert len(got) <= inside + 4 * 3000 * 0.25  # and the screen does leave out


@pytest.mark.parametrize("scale", [1e-40, 1e-21, 1.0, 1e19])
@pytest.mark.parametrize("width", [5, 6])
def test_panels_stand_for_their_rows_within_their_loss(scale, width):
    rng = np.random.default_rng(4)
    y = (rng.standard_normal((3, 70, 2 * width)) * scale).astype(F)
    y[1] *= F(0.01)
    even = panels.with_even_parts(y, width)
    assert even.shape == (3, 70, 12) and (width == 6 or not even[..., [5, 11]].any())
    cut = panels.Panels.of(even, 40000.0)
    words = cut.words.transpose(0, 1, 3, 2, 4).reshape(3, 128, 12).astype(np.float64)
    assert np.sqrt(np.square(words).sum(axis=2)).max() < 40000 + 4
    rows = np.pad(even, ((0, 0), (0, 58), (0, 0)), mode="edge").astype(np.float64)
    np.testing.assert_allclose(cut.squares, np.square(rows).sum(axis=2), rtol=1e-12)
    off = np.square(rows - words * np.float64(cut.scale)).sum(axis=2)
    np.testing.assert_allclose(cut.losses, np.sqrt(off.max(axis=1)), rtol=1e-12)
    if scale > 1e-30:
        assert cut.losses.max() < 2e-4 * np.abs(rows).max()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dsub", [129, 256, 300])
def test_products_of_many_numbers_do_not_overflow(metric, dsub):
    """The largest integers everywhere, all of one sign: sums of 32 bits hold a stretch of them and no more."""
    rng = np.random.default_rng(8)
    index = made(rng, metric, 5, 3, dsub, 4, 0)
    index.install(
        np.full((5, 3 * dsub), 7) * np.arange(1, 6)[:, None], np.full((3, 16, dsub), 3) * rng.random((3, 16, 1))
    )
    index.add_codes(rng.integers(0, 5, 900), rng.integers(0, 16, (900, 3)).astype(np.uint8), np.arange(900))
    check(index, np.full((5, index.d), 9, F) * rng.random((5, 1), F), 100, 3)


def test_a_query_along_what_the_panels_lose_finds_its_neighbour():
    """The nearest code differs from one that is lost in the panels' rounding; the other code is kept exactly."""
    d, M = 2048, 16
    step, direction = 1 / 32766, np.where(np.arange(d) % 3, 1, -1)
    codebooks = np.zeros((M, 256, d // M), F)
    codebooks[0, -1, 0] = 1  # gives the panels their step
    codebooks[:, 0] = 0.49 * step * direction.reshape(M, -1)
    codebooks[:, 1, 0] = 31 * step * direction[:: d // M]  # half as far along the direction
    index = IndexIVFPQ(d, 1, M)
    index.install(np.zeros((1, d)), codebooks)
    index.add_codes(np.zeros(200, np.int64), np.repeat([[1]] * 199 + [[0]], M, axis=1).astype(np.uint8), np.arange(200))
    x = (direction / np.sqrt(d)).astype(F)[None]
    assert index.search(x, 1).ids.tolist() == [[199]]
    check(index, x, 1, 1)


def test_a_query_along_what_the_panels_lose_of_centroids_probes_the_nearest_list():
    """One centroid is lost in the panels' rounding, another, half as near, is kept exactly."""
    d = 256
    step, direction = 1 / 32766, np.where(np.arange(d) % 3, 1, -1)
    lost, kept, far = 0.49 * step * direction, step * direction * (np.arange(d) % 4 == 0), np.eye(d)[0]
    index = IndexIVFPQ(d, 6, 1, 1)  # `far` gives the panels their step, and opposites keep the centre at the origin
    index.install([lost, -lost, kept, -kept, far, -far], np.zeros((1, 2, d)))
    index.add_codes(np.arange(6), np.zeros((6, 1), np.uint8), np.arange(6))
    x = (direction / np.sqrt(d)).astype(F)[None]
    assert index.search(x, 1, nprobe=1).ids.tolist() == [[0]]
    check(index, x, 1, 1)
