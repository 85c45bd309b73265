"""What goes wrong with a collection."""

from __future__ import annotations


class StoreError(ValueError):
    """A store is missing, damaged, incomplete, or its parts (or an encoder) do not belong together."""
