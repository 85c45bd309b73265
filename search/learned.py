"""Tags that are learnt from judged hits, kept, and asked for: ``tag:~sunset``."""

from __future__ import annotations

import difflib
import math
import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.learned_tags import (
    LearnedTag,
    decided,
    example_counts,
    fingerprint,
    keep_learned,
    learned_tag,
    learned_tags,
)
from features.collection.lru_cache import LruCache
from features.collection.said import clean_tag
from features.collection.store import FeatureStore
from search.errors import QueryError
from search.feedback import cosines
from search.fusion import sample_of
from search.searcher import SpaceSearcher
from search.space import ADD_BLOCK, VISUAL

SURE_AS_EXAMPLES = 0.95
"""Certainty of a picture that is as like what was learnt as the examples are, on average."""
SELDOM = 0.99
"""Share of pictures at random that are less like it than where the certainty is a half."""
GAP_MIN = 0.02
"""Of cosines, between that and the examples, where they do not differ."""
LIKELY = 0.5
"""Certainty from which on a person is asked whether a picture bears a tag."""


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


def usable_tag(tag: str, store: FeatureStore) -> LearnedTag:
    """A learned tag of a collection, by its name in whatever case.

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
    return found


class Suggestions(NamedTuple):
    """The pictures that a learned tag may fit, the surest first: ids int64 (n,), certainties float32 (n,)."""

    ids: NDArray[np.int64]
    certainties: NDArray[np.float32]


class TagSuggester:
    """Finds the pictures of a collection that its learned tags may fit. Safe to use from many threads.

    What a person has said is not asked again: pictures that were given the tag, those that it was taken from, and those
    that were not meant when it was learnt.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._certainties = LruCache[tuple[bytes, float, float], NDArray[np.float32]]()

    def suggest(self, tag: str) -> Suggestions:
        """Of a learned tag.

        Raises
        ------
        QueryError
            See `usable_tag`.
        """
        learned = usable_tag(tag, self._store)
        ids, certain = self._store.ids, self._certain(learned)
        asked = (certain >= LIKELY) & ~np.isin(ids, [*learned.less, *decided(self._store.annotations, learned.tag)])
        ids, certain = ids[asked], certain[asked]
        order = np.lexsort((ids, -certain))
        return Suggestions(ids[order], certain[order])

    def suggestions_of(self, id: int) -> dict[str, float]:
        """The learned tags that may fit one picture of the collection, each with its certainty, the surest first."""
        store = self._store
        own = fingerprint(store.manifest["encoder"])
        known = learned_tags(store.annotations) if store.has_annotations else {}
        vector = np.asarray(store.features[[id]], np.float32)
        certain = {name: float(each.certainties(vector)[0]) for name, each in known.items() if each.encoder == own}
        return {
            name: certain[name]
            for name in sorted(certain, key=lambda name: -certain[name])
            if certain[name] >= LIKELY and id not in known[name].less and id not in decided(store.annotations, name)
        }

    def _certain(self, learned: LearnedTag) -> NDArray[np.float32]:
        """How sure the tag is of each usable picture, float32 (n,), in the order of their ids."""
        key = learned.vector.tobytes(), learned.middle, learned.slope
        with self._lock:
            known = self._certainties.get(key)
            if known is None:
                ids = self._store.ids
                known = np.empty(ids.size, np.float32)
                for start in range(0, ids.size, ADD_BLOCK):
                    block = slice(start, start + ADD_BLOCK)
                    known[block] = learned.certainties(self._store.features[ids[block]])
                self._certainties.keep(key, known, known.nbytes + len(key[0]))
            return known
