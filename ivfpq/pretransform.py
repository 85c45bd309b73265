"""IndexPreTransform: vectors go through transforms (PCA, OPQ, scaling to length 1) on their way into an index."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ivfpq import cosine
from ivfpq.base import StoredIndex
from ivfpq.checks import Floats, Ids, Metric, as_metric
from ivfpq.distances import normalised
from ivfpq.invlists import InvertedLists
from ivfpq.publication import Change
from ivfpq.results import RangeResult, SearchResult
from ivfpq.transforms import OPQ, PCA, L2Norm, LinearTransform, Transform

_TRANSFORMS: dict[str, Any] = {kind.__name__: kind for kind in (LinearTransform, PCA, OPQ, L2Norm)}


class IndexPreTransform(StoredIndex):
    """Transforms, one after the other, and the index of what they give.

    Parameters
    ----------
    transforms : sequence of PCA, OPQ, L2Norm or LinearTransform
        At least one; each takes the dimension that the one before gives. The index keeps copies.
    index : an index that is put around no other
        For the last dimension, with the metric l2 or ip.
    metric : {"l2", "ip", "cosine"}, optional
        The metric of `index` if not given. "cosine" goes with an index for l2: vectors are scaled to length 1 before
        the transforms, and the similarity is 1 - d / 2 of the distance d found there. Ranks, ties and radii then go by
        that distance, in which there are more steps than in the similarity. That of a zero vector is 0: see `cosine`.
    seed : int
        Of the training of the transforms.

    Attributes
    ----------
    index : the index inside
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    The verbs are those of `IndexIVFPQ`. Distances are those between transformed vectors.
    """

    __slots__ = ("_metric", "_transforms_part", "index", "seed")
    layer = 1

    def __init__(
        self, transforms: Sequence[Transform], index: Any, *, metric: Metric | None = None, seed: int = 0
    ) -> None:
        self.check_inside(index, "index")
        if not transforms:
            raise ValueError("transforms must hold at least one")
        for transform in transforms:
            if _TRANSFORMS.get(type(transform).__name__) is not type(transform):
                raise TypeError(f"transforms must be of {', '.join(_TRANSFORMS)}, got {type(transform).__name__}")
        takes = [transform.d_in for transform in transforms[1:]] + [index.d]
        for transform, d in zip(transforms, takes, strict=True):
            if transform.d_out != d:
                raise ValueError(f"{transform} gives {transform.d_out} dimensions, what follows takes {d}")
        metric = index.metric if metric is None else as_metric(metric)
        if index.metric == "cosine" or index.metric != ("l2" if metric == "cosine" else metric):
            raise ValueError(f"the index inside must be for l2 (or ip, for ip), got {index.metric!r} for {metric!r}")
        self.index = index
        self._transforms_part = self.lists.published.append(tuple(copy.copy(transform) for transform in transforms))
        self._metric: Metric = metric
        self.seed = int(seed)
        self.metadata: dict[str, Any] = {}
        self._begin_settings()

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self.transforms))
        return f"IndexPreTransform([{inside}], {self.index!r}, metric={self.metric!r})"

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """What vectors go through, one after the other."""
        transforms: tuple[Transform, ...] = self.lists.published.parts[self._transforms_part]
        return transforms

    @property
    def lists(self) -> InvertedLists:
        """What is stored."""
        lists: InvertedLists = self.index.lists
        return lists

    @property
    def d(self) -> int:
        """Dimension of the vectors that come in."""
        return self.transforms[0].d_in

    @property
    def metric(self) -> Metric:
        """What a search ranks by."""
        return self._metric

    @property
    def nlist(self) -> int:
        """Cells of the index inside; an AttributeError if it has none."""
        return int(self.index.nlist)

    @property
    def nprobe(self) -> int:
        """Lists that a search looks into unless told otherwise; an AttributeError if there are none."""
        return int(self.index.nprobe)

    @nprobe.setter
    def nprobe(self, value: int) -> None:
        self.index.nprobe = value

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""
        return int(self.index.code_size)

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return bool(self.index.is_trained) and all(transform.is_trained for transform in self.transforms)

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return max(self.index.train_size_min, *(transform.train_size_min for transform in self.transforms))

    def learned(self, x: Floats) -> list[Change]:
        """Each transform trained on vectors (n, d), and then the index on what they make of them."""
        transforms = []
        for number, before in enumerate(self.transforms):
            transform = before
            if type(before) is not LinearTransform:  # which is always made elsewhere
                transform = type(before)(**before.parameters())
                transform.train(x, np.random.default_rng([self.seed, number]), centred=self.metric != "ip")
            x = _through([transform], x)
            transforms.append(transform)
        learned: list[Change] = self.index.relearned(x)
        return [(self._transforms_part, tuple(transforms)), *learned]

    def apply_chain(self, x: Any) -> Floats:
        """Vectors (n, d) as the index inside sees them: float32 (n, index.d)."""
        return _through(self.transforms, self._vectors(x, "x"))

    def encode(self, x: Floats) -> tuple[Ids, Any]:
        """As the index inside, of what the transforms make of the vectors. See `StoredIndex.encode`."""
        x = normalised(x) if self._metric == "cosine" else x
        list_numbers, stored = self.index.encode(_through(self.transforms, x))
        return cosine.apart(list_numbers, x, self.lists.nlist) if self._metric == "cosine" else list_numbers, stored

    def search_parts(self, x: Floats, k: int, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> SearchResult:
        """See `StoredIndex.search_parts`."""
        y = _through(parts[self._transforms_part], x)
        found: SearchResult = self.index.search_parts(y, k, nprobe, ids, parts)
        if self._metric != "cosine":
            return found
        found = SearchResult(cosine.similarity(found.distances), found.ids)
        return cosine.with_zero_vectors(found, x, self.lists, parts[self.lists.part].lists, ids)

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str, parts: tuple[Any, ...]) -> Ids:
        """The ids that `search` gives, or, of scalar-quantized vectors, nearly those. See `StoredIndex.candidates`.

        Where components are integers, the transform in front of them is one in integers too: see `integer_transform`.
        """
        x = normalised(x) if self._metric == "cosine" else x
        if self._metric == "cosine" and cosine.matters(x, self.lists, parts[self.lists.part].lists):
            return self.search_parts(x, k, nprobe, ids, parts).ids
        *before, last = parts[self._transforms_part]
        y = _through(before, x, kernel)
        in_integers = isinstance(last, LinearTransform) and self.index.components_are_integers
        y = last.nearly(y, kernel) if in_integers else last.apply(y, kernel)
        chosen: Ids = self.index.candidates(y, k, nprobe, ids, kernel, parts)
        return chosen

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors nearer than `radius` (more similar, for ip and cosine). See `StoredIndex.range_search`."""
        x = self._vectors(xq, "xq")
        y, radius = _through(self.transforms, x), float(np.float32(radius))
        if self.metric != "cosine":
            found: RangeResult = self.index.range_search(y, radius, nprobe=nprobe, ids=ids)
            return found
        # A little further than the radius, and then what the similarity as it is rounded says.
        lims, distances, kept = self.index.range_search(y, 2 - 2 * radius + 1e-5, nprobe=nprobe, ids=ids)
        similarity = cosine.similarity(distances)
        inside = similarity > radius
        ends = np.concatenate([[0], np.cumsum(inside)])
        found = RangeResult(ends[lims].astype(np.int64), similarity[inside], kept[inside])
        return cosine.within_zero_vectors(found, x, self.lists, self.lists.view, radius, ids)

    def reachable(self, x: Floats, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> Iterator[Ids]:
        """What `range_search` compares with. See `StoredIndex.reachable`."""
        x = normalised(x) if self._metric == "cosine" else x
        found: Iterator[Ids] = self.index.reachable(_through(parts[self._transforms_part], x), nprobe, ids, parts)
        if self._metric != "cosine":
            return found
        return cosine.reachable(found, x, self.lists, parts[self.lists.part].lists, ids)

    def reconstruct(self, id: int) -> Floats:
        """What the index holds under `id`, taken back through the transforms. float32 (d,); KeyError if nothing."""
        if self._metric == "cosine" and id in cosine.zero_vectors(self.lists, self.lists.view, None):
            return np.zeros(self.d, np.float32)
        x = self.index.reconstruct(id)[None]
        for transform in reversed(self.transforms):
            x = transform.reverse(x)
        return x[0]

    def _merged(self, other: IndexPreTransform, parts: tuple[Any, ...]) -> list[Change]:
        self._check_same(other, "metric")
        theirs = parts[other._transforms_part]
        if len(self.transforms) != len(theirs) or not all(
            mine.same_as(their) for mine, their in zip(self.transforms, theirs, strict=True)
        ):
            raise ValueError("the two indexes have different transforms: only indexes trained as one can be merged")
        changes: list[Change] = self.index.merged(other.index, parts)
        return changes

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        described, arrays = self.index.described()
        chain = []
        for number, transform in enumerate(self.transforms):
            chain.append({"kind": type(transform).__name__, "parameters": transform.parameters()})
            arrays.update({f"transform{number}.{name}": array for name, array in transform.arrays().items()})
        return {"transforms": chain, "index": described, "metric": self.metric, "seed": self.seed}, arrays

    @classmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> IndexPreTransform:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""
        transforms = []
        for number, described in enumerate(parameters["transforms"]):
            if described["kind"] not in _TRANSFORMS:
                raise ValueError(f"there is a transform of the unknown kind {described['kind']!r}")
            prefix = f"transform{number}."
            mine = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
            transform = _TRANSFORMS[described["kind"]](**described["parameters"])
            transform.restore(mine)
            transforms.append(transform)
        index = cls.from_description(parameters["index"], arrays)
        made = cls(transforms, index, metric=parameters["metric"], seed=parameters["seed"])
        if made.ntotal and not made.is_trained:
            raise ValueError(f"{made.ntotal} vectors are stored in an index that was never trained")
        return made


def _through(transforms: Sequence[Transform], x: Floats, kernel: str | None = None) -> Floats:
    """What the transforms, one after the other, make of vectors (n, d)."""
    y = x
    for transform in transforms:
        y = transform.apply(y, kernel)
    if not (math.isfinite(np.vdot(y, y)) or np.isfinite(y).all()):
        raise ValueError(
            f"vectors lie too far out for float32 to transform them: the largest number is {np.abs(x).max():g}"
        )
    return y
