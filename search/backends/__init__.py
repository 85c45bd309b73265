"""Ways to keep and search the vectors of a space: one file each, and one line in the table below."""

from __future__ import annotations

from search.backends.base import Backend
from search.backends.lance import Lance
from search.backends.local import Exact, Faiss, Ivfpq
from search.backends.milvus import Milvus
from search.errors import EngineError

_BACKENDS: dict[str, Backend] = {backend.name: backend for backend in (Ivfpq(), Faiss(), Exact(), Lance(), Milvus())}


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


def backend_at(address: str) -> Backend:
    """The backend whose vectors lie in a database of this address. Raises EngineError if there is none."""
    for backend in _BACKENDS.values():
        if address.startswith(backend.schemes):
            return backend
    known = ", ".join(f"{scheme}..." for backend in _BACKENDS.values() for scheme in backend.schemes)
    raise EngineError(f"no engine keeps vectors at {address!r}; addresses are {known}")
