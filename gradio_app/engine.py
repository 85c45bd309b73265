"""`search.engine` under the name that it had first."""

from search.engine import EngineError, Hit, SearchEngine

__all__ = ["EngineError", "Hit", "SearchEngine"]
