import numpy as np
import pytest

from ivfpq import IndexIVFPQ, kernels
from ivfpq.codeword_groups import in_groups


def sorted_rows(x):
    return x[np.lexsort(x.T)]


@pytest.mark.parametrize(("ksub", "dsub"), [(256, 8), (64, 3), (32, 1), (256, 40), (256, 2)])
def test_codewords_only_get_new_numbers(ksub, dsub):
    x = np.random.default_rng(0).standard_normal((ksub, dsub)).astype(np.float32)
    assert np.array_equal(sorted_rows(in_groups(x)), sorted_rows(x))


@pytest.mark.parametrize("ksub", [1, 2, 16, 512])
def test_where_no_kernel_has_groups_they_keep_their_numbers(ksub):
    x = np.random.default_rng(0).standard_normal((ksub, 2)).astype(np.float32)
    assert in_groups(x) is x


@pytest.mark.parametrize("scale", [0, 1e-30, 1e18])
def test_equal_tiny_and_huge_codewords_have_numbers(scale):
    x = (scale * np.random.default_rng(0).standard_normal((256, 4))).astype(np.float32)
    assert np.array_equal(sorted_rows(in_groups(x)), sorted_rows(x))


def test_neighbours_share_their_low_bits_and_groups_are_alike_inside():
    rng = np.random.default_rng(1)
    middles = 100 * np.stack(np.meshgrid([0, 1.1], [0, 1.3], [0, 1.7], [0, 2.1]), axis=-1).reshape(16, 4)
    places = np.stack(np.meshgrid([0, 1.2], [0, 1.5], [0, 1.9], [0, 2.4]), axis=-1).reshape(16, 4)
    x = (middles[:, None] + places).reshape(256, 4).astype(np.float32)
    found = in_groups(x[rng.permutation(256)]).reshape(16, 16, 4)  # by place, by group
    group = np.argmin(np.linalg.norm(found[:, :, None] - middles, axis=-1), axis=-1)
    assert (group == group[0]).all() and len(set(group[0].tolist())) == 16
    place = np.argmin(np.linalg.norm((found - middles[group])[:, :, None] - places, axis=-1), axis=-1)
    assert (place == place[:, :1]).all() and len(set(place[:, 0].tolist())) == 16


@pytest.mark.parametrize("metric", ["l2", "ip"])
@pytest.mark.parametrize(("M", "nbits"), [(3, 8), (4, 6), (1, 8)])
def test_where_codes_lie_evenly_the_answer_is_the_same(metric, M, nbits, monkeypatch):
    """Hardly a code is left out by groups alone, so that `avx2` looks at places, too."""
    rng = np.random.default_rng(2)
    index = IndexIVFPQ(12, nlist=4, M=M, nbits=nbits, metric=metric, nprobe=4)
    x = rng.standard_normal((6000, 12)).astype(np.float32)
    index.train(x[:1500])
    index.add(x)
    queries = rng.standard_normal((20, 12)).astype(np.float32)
    queries[:5] *= 0.1
    answers = {}
    for name in ("reference", *(name for name in kernels.available() if name != "reference")):
        monkeypatch.setenv("IVFPQ_KERNEL", name)
        answers[name] = index.search(queries, 10)
        alone = [index.search(query[None], 10) for query in queries]
        assert np.array_equal(np.concatenate([found.ids for found in alone]), answers[name].ids)
    for found in answers.values():
        assert np.array_equal(found.ids, answers["reference"].ids)
        assert np.array_equal(found.distances, answers["reference"].distances)
