"""IndexPreTransform: vectors go through transforms (PCA, OPQ, scaling to length 1) on their way into an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ivfpq.checks import Floats, Ids, Metric, as_metric, as_vectors
from ivfpq.distances import normalised
from ivfpq.flat import IndexFlat
from ivfpq.index import IndexIVFPQ, IndexPQ
from ivfpq.results import RangeResult, SearchResult
from ivfpq.rq import IndexIVFRQ, IndexRQ
from ivfpq.transforms import OPQ, PCA, L2Norm, LinearTransform, Transform

INNER: dict[str, Any] = {kind.__name__: kind for kind in (IndexFlat, IndexPQ, IndexRQ, IndexIVFPQ, IndexIVFRQ)}
_TRANSFORMS: dict[str, Any] = {kind.__name__: kind for kind in (LinearTransform, PCA, OPQ, L2Norm)}


class IndexPreTransform:
    """Transforms, one after the other, and the index of what they give.

    Parameters
    ----------
    transforms : sequence of PCA, OPQ, L2Norm or LinearTransform
        At least one; each takes the dimension that the one before gives.
    index : IndexFlat, IndexPQ, IndexRQ, IndexIVFPQ or IndexIVFRQ
        For the last dimension, with the metric l2 or ip.
    metric : {"l2", "ip", "cosine"}, optional
        The metric of `index` if not given. "cosine" goes with an index for l2: vectors are scaled to length 1 before
        the transforms, and the similarity is 1 - d / 2 of the distance d found there. Ranks, ties and radii then go by
        that distance, in which there are more steps than in the similarity.
    seed : int
        Of the training of the transforms.

    Attributes
    ----------
    transforms : tuple
    index : the index inside
    metadata : dict
        Free for the user; `save` keeps it if JSON can hold it.

    Notes
    -----
    The verbs are those of `IndexIVFPQ`, and so is what concurrent callers may do: each verb is one call of the index
    inside. Distances are those between transformed vectors.
    """

    __slots__ = ("_metric", "index", "metadata", "seed", "transforms")

    def __init__(
        self, transforms: Sequence[Transform], index: Any, *, metric: Metric | None = None, seed: int = 0
    ) -> None:
        if INNER.get(type(index).__name__) is not type(index):
            raise TypeError(f"index must be one of {', '.join(INNER)}, got {type(index).__name__}")
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
        self.transforms, self.index = tuple(transforms), index
        self._metric: Metric = metric
        self.seed = int(seed)
        self.metadata: dict[str, Any] = {}

    def __repr__(self) -> str:
        inside = ", ".join(map(repr, self.transforms))
        return f"IndexPreTransform([{inside}], {self.index!r}, metric={self.metric!r})"

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
    def ntotal(self) -> int:
        """Vectors stored."""
        return int(self.index.ntotal)

    @property
    def code_size(self) -> int:
        """Bytes of a stored vector, its id not counted."""
        return int(self.index.code_size)

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory, with its id."""
        return int(self.index.bytes_per_vector)

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be added."""
        return bool(self.index.is_trained) and all(transform.is_trained for transform in self.transforms)

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return max(self.index.train_size_min, *(transform.train_size_min for transform in self.transforms))

    def train(self, x: Any) -> None:
        """Train each transform on vectors (n, d), and then the index on what they make of them.

        Raises
        ------
        ValueError
            If there are fewer than `train_size_min`.
        RuntimeError
            If vectors are stored already.
        """
        x = self._vectors(x, "x")
        if len(x) < self.train_size_min:
            raise ValueError(f"training needs at least {self.train_size_min} vectors ({self!r}), got n={len(x)}")
        if self.ntotal:
            raise RuntimeError(f"the index holds {self.ntotal} vectors: reset it before training again")
        for number, transform in enumerate(self.transforms):
            if type(transform) is not LinearTransform:  # which is always made elsewhere
                transform.train(x, np.random.default_rng([self.seed, number]), centred=self.metric != "ip")
            x = transform.apply(x)
        self.index.train(x)

    def apply_chain(self, x: Any) -> Floats:
        """Vectors (n, d) as the index inside sees them: float32 (n, index.d)."""
        return self._transformed(x, "x")

    def add(self, x: Any) -> None:
        """Store vectors (n, d) under the next free ids: 0, 1, ..., or on from the largest id there is."""
        self.index.add(self._transformed(x, "x"))

    def add_with_ids(self, x: Any, ids: Any) -> None:
        """Store vectors (n, d) under ids (n,). See `IndexIVFPQ.add_with_ids`."""
        self.index.add_with_ids(self._transformed(x, "x"), ids)

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,) by `x` (n, d). See `IndexIVFPQ.update`."""
        self.index.update(ids, self._transformed(x, "x"))

    def search(self, xq: Any, k: int, *, nprobe: int | None = None, ids: Any = None) -> SearchResult:
        """The k nearest of each query (nq, d), among `ids` if given. See `IndexIVFPQ.search`."""
        found: SearchResult = self.index.search(self._transformed(xq, "xq"), k, nprobe=nprobe, ids=ids)
        return found if self._metric != "cosine" else SearchResult(_similarity(found.distances), found.ids)

    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str) -> Ids:
        """The ids that `search` gives, in no order, for float32 (nq, d) that is known to be finite."""
        x = normalised(x) if self._metric == "cosine" else x
        for transform in self.transforms:
            x = transform.apply(x, kernel)
        found: Ids = self.index.candidates(x, k, nprobe, ids, kernel)
        return found

    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors nearer than `radius` (more similar, for ip and cosine). See `IndexIVFPQ.range_search`."""
        x = self._transformed(xq, "xq")
        radius = float(np.float32(radius))
        if self.metric != "cosine":
            found: RangeResult = self.index.range_search(x, radius, nprobe=nprobe, ids=ids)
            return found
        # A little further than the radius, and then what the similarity as it is rounded says.
        lims, distances, kept = self.index.range_search(x, 2 - 2 * radius + 1e-5, nprobe=nprobe, ids=ids)
        similarity = _similarity(distances)
        inside = similarity > radius
        ends = np.concatenate([[0], np.cumsum(inside)])
        return RangeResult(ends[lims].astype(np.int64), similarity[inside], kept[inside])

    def reconstruct(self, id: int) -> Floats:
        """What the index holds under `id`, taken back through the transforms. float32 (d,); KeyError if nothing."""
        x = self.index.reconstruct(id)[None]
        for transform in reversed(self.transforms):
            x = transform.reverse(x)
        return x[0]

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held."""
        return int(self.index.remove_ids(ids))

    def merge_from(self, other: IndexPreTransform) -> None:
        """Add what `other` stores, under the same ids. `other` stays as it is.

        Raises
        ------
        TypeError
            If `other` is of another kind.
        ValueError
            If the two were trained differently, or an id is in both; then nothing changes.
        """
        if not isinstance(other, IndexPreTransform):
            raise TypeError(f"an IndexPreTransform can only take in another one, got {type(other).__name__}")
        if self.metric != other.metric:
            raise ValueError(f"the two indexes differ in metric: {self.metric} and {other.metric}")
        if len(self.transforms) != len(other.transforms) or not all(
            mine.same_as(theirs) for mine, theirs in zip(self.transforms, other.transforms, strict=True)
        ):
            raise ValueError("the two indexes have different transforms: only indexes trained as one can be merged")
        self.index.merge_from(other.index)

    def reset(self) -> None:
        """Forget the stored vectors, not the training."""
        self.index.reset()

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""
        described, arrays = nested(self.index)
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
        index = unnested(parameters["index"], arrays, INNER)
        made = cls(transforms, index, metric=parameters["metric"], seed=parameters["seed"])
        if made.ntotal and not made.is_trained:
            raise ValueError(f"{made.ntotal} vectors are stored in an index that was never trained")
        return made

    def _transformed(self, x: Any, name: str) -> Floats:
        x = self._vectors(x, name)
        for transform in self.transforms:
            x = transform.apply(x)
        return x

    def _vectors(self, x: Any, name: str) -> Floats:
        x = as_vectors(x, self.d, name)
        return normalised(x) if self._metric == "cosine" else x


def _similarity(distances: Floats) -> Floats:
    """Cosines, of squared distances between vectors of length 1."""
    return np.float32(1) - distances / np.float32(2)


def nested(index: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """An index inside another: its description for the parameters, and its arrays under names with "index." before."""
    parameters, arrays = index.state()
    described = {"kind": type(index).__name__, "parameters": parameters}
    return described, {f"index.{name}": array for name, array in arrays.items()}


def unnested(described: dict[str, Any], arrays: dict[str, Any], kinds: dict[str, Any]) -> Any:
    """The index that `nested` described, of one of `kinds`. Raises ValueError if it is of another."""
    if described["kind"] not in kinds:
        raise ValueError(f"there is an index of the kind {described['kind']!r} inside, known are {', '.join(kinds)}")
    mine = {name.removeprefix("index."): array for name, array in arrays.items() if name.startswith("index.")}
    return kinds[described["kind"]].from_state(described["parameters"], mine)
