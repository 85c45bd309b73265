"""What the search raises."""

from __future__ import annotations


class EngineError(ValueError):
    """A collection that cannot be searched, or a query that makes no sense; the message says which and why."""


class QueryError(EngineError):
    """A query that cannot be searched; the message is a sentence for the person who asked."""
