"""Orders of the pictures of a collection that is leafed through: by what their files say, or by chance."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from features.collection.facet_columns import date_column, size_column
from features.collection.store import FeatureStore
from search.errors import QueryError

Ids = NDArray[np.int64]

RANDOM = "random"
MAX_SEED = 2**31 - 1


class PictureOrders:
    """Orders of the pictures of one collection, made when they are first asked for. Safe to use from many threads."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._made: dict[tuple[str, int], Ids] = {}

    def ordered(self, ids: Ids, order: str, seed: int = 0) -> Ids:
        """Ids in an order.

        Parameters
        ----------
        ids : int64 (n,)
            Ascending.
        order : str
            One of `ORDERS`.
        seed : int
            Of the random order: the same seed gives the same order.

        Raises
        ------
        QueryError
            There is no such order.
        """
        if order not in ORDERS:
            raise QueryError(f"pictures are in no order {order!r}; known: {', '.join(ORDERS)}")
        if order == "collection":
            return ids
        whole = self._whole(order, seed if order == RANDOM else 0)
        mask = np.zeros(len(self._store.features), bool)
        mask[ids] = True
        return whole[mask[whole]]

    def _whole(self, order: str, seed: int) -> Ids:
        with self._lock:
            if (order, seed) not in self._made:
                if order == RANDOM:  # of chance only the last is kept
                    self._made = {key: ids for key, ids in self._made.items() if key[0] != RANDOM}
                    self._made[order, seed] = np.random.default_rng(seed).permutation(self._store.ids)
                else:
                    self._made[order, seed] = _MAKERS[order](self._store)
            return self._made[order, seed]


def _by_name(store: FeatureStore) -> Ids:
    names = [store.items[id].path.name.casefold() for id in store.ids.tolist()]
    return store.ids[sorted(range(len(names)), key=names.__getitem__)]


def _by_label(store: FeatureStore) -> Ids:
    labels = [store.items[id].labels for id in store.ids.tolist()]
    keys = [(not each, each[0].casefold() if each else "") for each in labels]
    return store.ids[sorted(range(len(keys)), key=keys.__getitem__)]


def _by_date(store: FeatureStore) -> Ids:
    dates = date_column(store.catalog)
    return dates.ids[np.lexsort((dates.ids, -dates.numbers))]


def _by_size(store: FeatureStore) -> Ids:
    sizes = size_column(store.catalog)
    return sizes.ids[np.lexsort((sizes.ids, -sizes.numbers))]


_MAKERS: dict[str, Callable[[FeatureStore], Ids]] = {
    "name": _by_name,
    "date": _by_date,
    "size": _by_size,
    "label": _by_label,
}

ORDERS = {
    "collection": "As in the collection",
    "name": "Name",
    "date": "Date, newest first",
    "size": "Size, largest first",
    "label": "Label",
    RANDOM: "Random",
}
"""Orders by name, with what they are called."""
