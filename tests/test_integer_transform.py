"""A linear transform in integers."""

import numpy as np
import pytest

from ivfpq import kernels
from ivfpq.integer_transform import IntegerTransform
from ivfpq.transforms import LinearTransform

F = np.float32


def transform(d_in, d_out, seed=0):
    rng = np.random.default_rng(seed)
    made = LinearTransform(d_in, d_out)
    made.install(np.linalg.qr(rng.normal(size=(d_in, d_out)))[0].T, rng.normal(size=d_out))
    return made


def test_by_hand():
    made = IntegerTransform(np.array([[1, 0, 0], [0, 0.6, 0.8]], F), np.array([-5, 0], F))
    np.testing.assert_array_equal(made.centre, F([5, 0, 0]))
    np.testing.assert_array_equal(made.matrix, [[255, 128, 128], [128, 223, 255], [1, 1, 1]])  # 95.25 and 127 steps
    np.testing.assert_allclose(made.scales, np.array([1, 0.8]) / 127, rtol=1e-7)
    assert made.top == 32766 and IntegerTransform(np.eye(1, 2048, dtype=F), np.zeros(1, F)).top == 4112
    # x - m = (2, 0, -1): w = (32766, 0, -16383)
    z, odd = made(np.array([[7, 0, -1], [5, 0, 0]], F), "reference")
    assert odd.tolist() == [False, True]
    np.testing.assert_allclose(z[0], [127 * 2 / 127, -127 * 0.8 / 127], rtol=1e-7)


@pytest.mark.parametrize(("d_in", "d_out"), [(1, 1), (5, 5), (33, 7), (64, 4), (100, 3), (2048, 21)])
def test_kernels_give_the_same_and_nearly_what_is_defined(d_in, d_out):
    made, rng = transform(d_in, d_out), np.random.default_rng(1)
    x = rng.normal(size=(300, d_in)).astype(F)
    near = made.nearly(x, "reference")
    length = np.linalg.norm(x - IntegerTransform(made.A, made.b).centre, axis=1)
    # Half a step of A' and of w in each component, added up as if at random.
    assert (np.abs(near - made.apply(x)) <= 4 * length[:, None] / 127 * np.abs(made.A).max(axis=1)).all()
    for name in kernels.available()[1:]:
        for n in (1, 2, 300):
            assert made.nearly(x[:n], name).tobytes() == near[:n].tobytes()


def test_what_integers_cannot_stand_for_is_transformed_as_defined():
    made = transform(40, 6)
    centre = IntegerTransform(made.A, made.b).centre
    x = np.stack([np.zeros(40, F), centre, np.full(40, 1e31, F), np.full(40, -3e38, F), centre + F(1)])
    with np.errstate(over="ignore"):
        want = made.apply(x)
    for name in kernels.available():
        with np.errstate(over="ignore"):
            got = made.nearly(x, name)
        assert got[1:4].tobytes() == want[1:4].tobytes()
        np.testing.assert_allclose(got, want, rtol=0.1, atol=0.1)


def test_the_largest_products_do_not_overflow():
    d = 2048
    made = LinearTransform(d, 2)
    made.install(np.stack([np.full(d, d**-0.5), np.tile([1, -1], d // 2) * d**-0.5]), np.zeros(2))
    x = np.stack([np.full(d, 9), np.full(d, -9), np.tile([9, -9], d // 2)]).astype(F)
    for name in kernels.available():
        np.testing.assert_allclose(made.nearly(x, name), made.apply(x), rtol=1e-3, atol=1e-3)


def test_a_copy_and_a_retrained_one_have_their_own():
    import copy

    made = transform(10, 3)
    x = np.random.default_rng(2).normal(size=(4, 10)).astype(F)
    first = made.nearly(x, kernels.active())
    other = copy.copy(made)
    assert other.nearly(x, kernels.active()).tobytes() == first.tobytes()
    made.install(transform(10, 3, 5).A, np.zeros(3))
    assert np.abs(made.nearly(x, kernels.active()) - made.apply(x)).max() < 0.1
    assert other.nearly(x, kernels.active()).tobytes() == first.tobytes()
