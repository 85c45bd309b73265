"""What is said of how well duplicates are found."""

import numpy as np
import pytest
from PIL import Image
from test_duplicates import photograph

from benchmarks import duplicates
from benchmarks.duplicates import CHANGES, Pictures, found_among, told_apart


@pytest.fixture(scope="module")
def originals():
    return Pictures([photograph(seed) for seed in range(3)], np.eye(3, dtype=np.float32))


def test_every_change_leaves_a_picture_of_its_own():
    picture = Image.fromarray(photograph(0))
    changed = [change(picture) for change in CHANGES.values()]
    assert len(changed) == 17 and all(each.mode == "RGB" for each in changed)
    assert len({each.tobytes() for each in changed}) == 17


def test_a_copy_is_told_by_its_hash_or_its_vector_or_not_at_all(originals):
    mirrored = [np.ascontiguousarray(each[:, ::-1]) for each in originals.pixels[:2]] + [photograph(9)]
    vectors = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32)
    likely, proved = found_among(originals, Pictures(mirrored, vectors))
    assert likely.tolist() == [True, True, False]
    if duplicates.can_prove():
        assert proved.tolist() == [True, True, False]


def test_pairs_of_different_files_are_counted(originals):
    near = np.array([[1, 0, 0], [1, 0.1, 0], [0, 0, 1]], np.float32)
    likely, proved, looked_at, _ = told_apart(Pictures(originals.pixels, near))
    assert (likely, proved, looked_at) == (1, 0, 1)
