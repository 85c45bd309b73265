"""Splits of labelled images: every class on every side, no image on two."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.datasets import DatasetError
from features.split import split

NAMES = "abcdef"


@st.composite
def labelled(draw):
    """A few classes of 4 to 30 images, some with a second label, and images without any; shuffled."""
    labels = [(name,) for name in draw(st.sets(st.sampled_from(NAMES), min_size=3)) for _ in range(draw(COUNTS))]
    labels += draw(st.lists(st.sets(st.sampled_from(sorted({name for (name,) in labels})), max_size=2).map(tuple)))
    return draw(st.permutations(labels))


COUNTS = st.integers(4, 30)


@settings(deadline=None, max_examples=60)
@given(labelled(), st.floats(0.1, 0.5), st.integers(0, 1), st.integers(0, 3))
def test_each_labelled_image_is_on_one_side(labels, held_out, hold_out_classes, seed):
    parts = split(labels, held_out=held_out, hold_out_classes=hold_out_classes, seed=seed)
    sides = [parts.train, parts.validation, parts.held_out, parts.unseen]
    assert sorted(np.concatenate(sides).tolist()) == [id for id, several in enumerate(labels) if several]
    assert all(np.array_equal(side, np.sort(side)) for side in sides)
    assert len(parts.unseen_classes) == hold_out_classes
    for side in sides[:3]:
        assert not any(set(labels[id]) & set(parts.unseen_classes) for id in side)
    assert all(set(labels[id]) & set(parts.unseen_classes) for id in parts.unseen)
    assert {label for id in parts.train for label in labels[id]} == set(parts.classes)
    again = split(labels, held_out=held_out, hold_out_classes=hold_out_classes, seed=seed)
    assert all(np.array_equal(getattr(parts, side), getattr(again, side)) for side in ("train", "held_out", "unseen"))


def test_each_class_keeps_its_share():
    labels = [(name,) for name, count in (("few", 20), ("many", 200)) for _ in range(count)]
    parts = split(labels, held_out=0.25)
    for name, count in (("few", 20), ("many", 200)):
        sizes = [sum(labels[id] == (name,) for id in side) for side in (parts.held_out, parts.validation)]
        assert sizes == [count // 4, round(count * 0.75 * 0.1)]


def test_an_image_counts_for_its_rarest_label():
    labels = [("common",)] * 40 + [("common", "rare")] * 8
    parts = split(labels, held_out=0.25)
    assert sum("rare" in labels[id] for id in parts.held_out) == 2


def test_the_seed_draws():
    labels = [(name,) for name in NAMES for _ in range(20)]
    first, second = (split(labels, held_out=0.2, hold_out_classes=2, seed=seed) for seed in (0, 1))
    assert first.unseen_classes != second.unseen_classes
    assert first.held_out.tolist() != second.held_out.tolist()


@pytest.mark.parametrize(
    ("labels", "hold_out_classes", "message"),
    [
        ([(), ()], 0, "no image has a label"),
        ([("a",)] * 9, 0, "at least two classes .* got 1"),
        ([("a",)] * 9 + [("b",)] * 9, 1, "at least two classes .* got 2 of which 1 held out"),
        ([("a",)] * 3 + [("b",)] * 3, 0, "no class has the four images"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(labels, hold_out_classes, message):
    with pytest.raises(DatasetError, match=message):
        split(labels, held_out=0.2, hold_out_classes=hold_out_classes)
