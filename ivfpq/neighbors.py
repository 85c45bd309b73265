"""IVFPQTransformer: approximate neighbours for scikit-learn, in place of KNeighborsTransformer."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from ivfpq.base import StoredIndex
from ivfpq.checks import Metric, positive_int
from ivfpq.factory import index_factory
from ivfpq.flat import IndexFlat

logger = logging.getLogger(__name__)

PADDING_MAX = 64  # fewer zero features than this are added to suit a product quantizer


class IVFPQTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A sparse graph of approximate nearest neighbours, for estimators that take a precomputed one.

    As scikit-learn's KNeighborsTransformer, whose parameters and attributes it shares, it goes in front of, say,
    KNeighborsClassifier(metric="precomputed"), DBSCAN, Isomap or TSNE.

    Parameters
    ----------
    mode : {"distance", "connectivity"}
        What the graph holds: distances, with one neighbour more than asked for, since each training sample counts
        itself among its own; or ones.
    n_neighbors : int
        Fewer than there are training samples.
    spec : str
        The index, as `index_factory` takes it. With fewer samples than it needs for training, the search is exact
        instead. Where a product quantizer does not divide the features, zeros are added to them.
    metric : {"euclidean", "cosine"}
        The distance: not squared, or 1 - cosine.
    nprobe : int
        Lists to look into, where the index has lists.
    seed : int
        Of the training.

    Attributes
    ----------
    index_ : the trained index, ids being the row numbers of the training data
    n_samples_fit_ : int
    n_features_in_ : int

    Notes
    -----
    A search that finds fewer neighbours than asked for in the lists it looks into, looks into all.
    """

    def __init__(
        self,
        *,
        mode: Literal["distance", "connectivity"] = "distance",
        n_neighbors: int = 5,
        spec: str = "IVF100,PQ8,Refine",
        metric: Literal["euclidean", "cosine"] = "euclidean",
        nprobe: int = 8,
        seed: int = 0,
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.spec = spec
        self.metric = metric
        self.nprobe = nprobe
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> IVFPQTransformer:
        """Train the index on `X` (n, d) and store it there.

        Raises
        ------
        ValueError
            If a parameter is not one of those it can be, or `X` is not finite.
        """
        if self.mode not in ("distance", "connectivity"):
            raise ValueError(f"mode must be 'distance' or 'connectivity', got {self.mode!r}")
        if self.metric not in ("euclidean", "cosine"):
            raise ValueError(f"metric must be 'euclidean' or 'cosine', got {self.metric!r}")
        positive_int(self.n_neighbors, "n_neighbors")
        X = validate_data(self, X, dtype=np.float32)
        index, self._padding = self._index_for(*X.shape)
        X = self._padded(X)
        index.train(X)
        index.add(X)
        self.index_ = index
        self.n_samples_fit_ = len(X)
        return self

    def kneighbors(self, X: Any, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """The nearest training samples of each query, nearest first.

        Parameters
        ----------
        X : array_like, shape (nq, d)
        n_neighbors : int, optional
            That of the estimator if not given.
        return_distance : bool

        Returns
        -------
        distances : float32 array, shape (nq, n_neighbors); only if `return_distance`
        indices : int64 array, shape (nq, n_neighbors)

        Raises
        ------
        ValueError
            If there are fewer training samples than neighbours wanted.
        """
        check_is_fitted(self)
        X = self._padded(validate_data(self, X, dtype=np.float32, reset=False))
        k = positive_int(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")
        if k > self.n_samples_fit_:
            raise ValueError(f"n_neighbors must be at most n_samples_fit_ = {self.n_samples_fit_}, got {k}")
        distances, indices = self.index_.search(X, k, nprobe=self.nprobe)
        few = (indices < 0).any(axis=1)
        if few.any():
            distances[few], indices[few] = self.index_.search(X[few], k, nprobe=self.n_samples_fit_)
        if not return_distance:
            return indices
        # Rounding may leave a similarity a little above 1.
        return (np.sqrt(distances) if self.metric == "euclidean" else np.maximum(1 - distances, 0)), indices

    def transform(self, X: Any) -> csr_matrix:
        """The graph from queries (nq, d) to training samples: a CSR matrix, float32 (nq, n_samples_fit_)."""
        check_is_fitted(self)
        k = self.n_neighbors + (self.mode == "distance")
        distances, indices = self.kneighbors(X, k)
        nq = len(indices)
        values = distances.ravel() if self.mode == "distance" else np.ones(nq * k, np.float32)
        return csr_matrix((values, indices.ravel(), np.arange(0, nq * k + 1, k)), shape=(nq, self.n_samples_fit_))

    @property
    def _n_features_out(self) -> int:
        return int(self.n_samples_fit_)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _index_for(self, n: int, d: int) -> tuple[StoredIndex, int]:
        """An index for n samples of d features, and the number of zero features that it needs besides.

        Zeros change no distance, and a product quantizer needs a multiple of M.
        """
        metric: Metric = "l2" if self.metric == "euclidean" else "cosine"
        for padding in range(PADDING_MAX):
            try:
                index = index_factory(d + padding, self.spec, metric=metric, seed=self.seed)
                break
            except ValueError:
                if padding == PADDING_MAX - 1:
                    index_factory(d, self.spec, metric=metric)  # says what is wrong
        if n >= index.train_size_min:
            return index, padding
        logger.warning("%s needs %d samples to train, got %d: searching exactly", self.spec, index.train_size_min, n)
        return IndexFlat(d, metric=metric), 0

    def _padded(self, X: Any) -> Any:
        return np.pad(X, ((0, 0), (0, self._padding))) if self._padding else X
