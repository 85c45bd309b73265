"""What answers are tested against: the definition of a distance in plain Python, and equality to the bit."""

import numpy as np

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
