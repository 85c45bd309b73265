"""`search.engine` under the name that it had first."""

from search.engine import SearchEngine
from search.errors import EngineError
from search.hits import Hit

__all__ = ["EngineError", "Hit", "SearchEngine"]
