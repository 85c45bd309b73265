"""What answers are tested against: the definition of a distance in plain Python, and equality to the bit."""

import numpy as np
from hypothesis import strategies as st

from ivfpq.distances import normalised, pair_distances

F = np.float32


def slow_sum(terms):
    """`ivfpq.distances.ordered_sum` of one row: 16 lanes, then halves onto halves."""
    lanes = [F(0)] * 16
    for t, term in enumerate(terms):
        lanes[t % 16] = F(lanes[t % 16] + term)
    for half in (8, 4, 2, 1):
        lanes = [F(lanes[i] + lanes[i + half]) for i in range(half)]
    return lanes[0]


def same(one, two):
    """Whether two answers, each several arrays, are the same to the bit."""
    return all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in zip(one, two, strict=True))


def check_distances(index, queries, nprobe):
    """That a search through all its lists gives each stored code the defined distance, in the defined order."""
    asked = normalised(queries) if index.metric == "cosine" else queries
    view = index.lists.view
    found = index.search(queries, index.ntotal, nprobe=nprobe)
    for x, distances, ids in zip(asked, *found, strict=True):
        rows = index.lists.find(view, ids)
        codes = index.pq.from_rows(view.codes(rows))
        for distance, number, y in zip(distances, view.list_numbers(rows), index.pq.decode(codes), strict=True):
            c = index.centroids[number]
            if index.metric == "ip":
                want = F(slow_sum(x * c) + slow_sum(x * y))
            else:
                want = slow_sum(np.square(x - c - y))
                want = F(F(1) - F(want / F(2))) if index.metric == "cosine" else want
            assert distance == want
        gaps = np.diff(distances) if index.metric == "l2" else -np.diff(distances)
        assert (gaps >= 0).all() and (np.diff(ids)[gaps == 0] > 0).all()


@st.composite
def two_sets(draw, ny_min=1):
    """Two sets of vectors: from a coarse grid (ties) or not, of any size, and far from the origin (cancellation)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    nx, ny, d = draw(st.integers(1, 6)), draw(st.integers(ny_min, 40)), draw(st.integers(1, 40))
    scale = 10.0 ** draw(st.sampled_from([-30, -20, -5, 0, 0, 0, 5, 15, 18]))
    offset = draw(st.sampled_from([0, 0, 1, 100, 1e4]))
    if draw(st.booleans()):
        x, y = rng.integers(-2, 3, (nx, d)), rng.integers(-2, 3, (ny, d))
    else:
        x, y = rng.normal(size=(nx, d)), rng.normal(size=(ny, d))
    return ((x + offset) * scale).astype(F), ((y + offset) * scale).astype(F)


def slow_choice(x, y, k, metric):
    """The k rows of `y` nearest to each of `x`, best first, ties to the smaller number: lists of numbers."""
    rows = []
    for row in x:
        d = pair_distances(row[None].repeat(len(y), axis=0), y, metric)
        rows.append(sorted(range(len(y)), key=lambda j: (d[j] if metric == "l2" else -d[j], j))[:k])
    return rows
