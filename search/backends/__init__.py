"""Ways to keep and search the vectors of a space: one file each, and one line in the table below."""

from __future__ import annotations

from search.backends.base import Backend
from search.backends.local import Exact, Faiss, Ivfpq
from search.errors import EngineError

_BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Ivfpq(), Faiss(), Exact())}


def register_backend(backend: Backend) -> None:
    """Let collections have indexes of this backend. One of the same name is replaced."""
    _BACKENDS[backend.name] = backend


def backend_names(*, built: bool | None = None) -> tuple[str, ...]:
    """The backends there are: all, those that build an index, or (False) those that need none."""
    return tuple(name for name, backend in _BACKENDS.items() if built is None or backend.is_built == built)


def get_backend(name: str) -> Backend:
    """A backend by its name. Raises EngineError if there is none."""
    if name not in _BACKENDS:
        raise EngineError(f"unknown engine {name!r}; there are {', '.join(_BACKENDS)}")
    return _BACKENDS[name]
