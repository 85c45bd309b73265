"""What the search raises."""

from __future__ import annotations


class EngineError(ValueError):
    """A collection that cannot be searched, or a query that makes no sense; the message says which and why."""
