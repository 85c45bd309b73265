"""Which tags are right for a label, and how they are counted."""

import numpy as np
import pytest
from test_makers import Seer

from benchmarks.tags import measure, right_tags
from features.makers.model import ClassTags


def test_what_a_label_is_a_kind_of_is_right():
    tags = ClassTags(Seer())
    right = dict(zip(tags.names, right_tags("Dalmatian", tags).tolist(), strict=True))
    assert right["dalmatian"] and right["dog"] and right["animal"]
    assert not right["beagle"] and not right["boat"] and not right["gizmo"]
    assert {name for name, is_right in zip(tags.names, right_tags("gizmo", tags), strict=True) if is_right} == {"gizmo"}


def test_right_tags_are_counted():
    certain = np.array([[0.9, 0.6], [0.2, 0.7], [0.1, 0.1]], np.float32)
    right = np.array([[True, False], [True, True], [True, True]])
    assert measure(certain, right, 0.5) == pytest.approx((2 / 3, 1.0, 2 / 3))
    assert measure(certain, right, 0.95) == (1.0, 0.0, 0.0)
