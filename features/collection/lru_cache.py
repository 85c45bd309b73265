"""A cache of what was looked up, up to so many bytes: what was asked for longest ago goes first (LRU)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

MAX_KEPT = 32 << 20
"""Bytes of all that one `LruCache` keeps."""

ENTRY = 512
"""Bytes that anything takes beside its own."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruCache(Generic[K, V]):
    """Values by key. For one thread at a time."""

    def __init__(self) -> None:
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: K) -> V | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def keep(self, key: K, value: V, size: int) -> None:
        """Keep a value, with its key of so many bytes together; one that is larger than all may be is not kept."""
        self.forget(key)
        if size + ENTRY > MAX_KEPT:
            return
        self._values[key] = value, size + ENTRY
        self._bytes += size + ENTRY
        while self._bytes > MAX_KEPT:
            self.forget(next(iter(self._values)))

    def forget(self, key: K) -> None:
        if key in self._values:
            self._bytes -= self._values.pop(key)[1]

    def __len__(self) -> int:
        return len(self._values)
