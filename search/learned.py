"""Tags that are learnt from judged hits, kept, and asked for: ``tag:~sunset``."""

from __future__ import annotations

import difflib
import math

import numpy as np
from numpy.typing import NDArray

from features.collection.learned_tags import LearnedTag, example_counts, fingerprint, keep_learned, learned_tag
from features.collection.said import clean_tag
from features.collection.store import FeatureStore
from search.errors import QueryError
from search.feedback import cosines
from search.fusion import sample_of
from search.searcher import SpaceSearcher
from search.space import VISUAL

SURE_AS_EXAMPLES = 0.95
"""Certainty of a picture that is as like what was learnt as the examples are, on average."""
SELDOM = 0.99
"""Share of pictures at random that are less like it than where the certainty is a half."""
GAP_MIN = 0.02
"""Of cosines, between that and the examples, where they do not differ."""


def keep_as_tag(
    tag: str, vector: NDArray[np.float32], more: tuple[int, ...], less: tuple[int, ...], searcher: SpaceSearcher
) -> LearnedTag:
    """Keep what was learnt from judged hits under a name, in place of a learned tag of that name.

    Its certainty is a half where it is as like as only one in a hundred pictures at random, or halfway from the likest
    of those that are not meant to the examples, whichever is more.

    Parameters
    ----------
    vector : float32 (dim,)
        See `search.feedback.learnt_vector`.
    more, less : tuple of int
        Ids of the pictures that it was learnt from.

    Raises
    ------
    QueryError
        The tag has no name, there is no picture that is meant, or it was learnt in another space than `VISUAL`.
    features.collection.errors.StoreError
        It cannot be written.
    """
    if not clean_tag(tag):
        raise QueryError("what was learnt needs a name of at least one character")
    if not more:
        raise QueryError(f"to learn {clean_tag(tag)} at least one picture must be meant")
    if searcher.space.name != VISUAL:
        raise QueryError(f"tags are learnt in the space {VISUAL}, and this is {searcher.space.name}")
    store, near = searcher.space.store, cosines(vector, searcher)
    meant = float(near[list(more)].mean())
    middle = float(np.quantile(near[sample_of(store.ids)], SELDOM))
    if less:
        middle = max(middle, (meant + float(near[list(less)].max())) / 2)
    middle = min(middle, meant - GAP_MIN)
    slope = math.log(SURE_AS_EXAMPLES / (1 - SURE_AS_EXAMPLES)) / (meant - middle)
    learned = LearnedTag(clean_tag(tag), vector, middle, slope, fingerprint(store.manifest["encoder"]), more, less)
    keep_learned(store.annotations, learned)
    return learned


def vector_of_tag(tag: str, store: FeatureStore) -> NDArray[np.float32]:
    """The vector (dim,) of a learned tag.

    Raises
    ------
    QueryError
        There is no such tag, or it was learnt from vectors of another encoder.
    """
    found = learned_tag(store.annotations, tag) if store.has_annotations else None
    if found is None:
        known = example_counts(store.annotations) if store.has_annotations else {}
        nearest = difflib.get_close_matches(tag, known, 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise QueryError(f"there is no learned tag {tag!r}{hint}")
    if found.encoder != fingerprint(store.manifest["encoder"]):
        raise QueryError(
            f"the learned tag {found.tag!r} was learnt from vectors of another encoder than those of "
            f"{store.folder.name}: learn it again"
        )
    return found.vector
