"""Milvus: a server or a cluster, or Milvus Lite, which is one folder for one process."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.paths import expanded
from ivfpq.checks import Metric
from search.backends.base import UnreachableError
from search.backends.tables import Among, Layout, Table, TableBackend
from search.errors import EngineError

logger = logging.getLogger(__name__)

TOKEN = "MILVUS_TOKEN"
"""The environment variable that holds ``user:password`` or an API key: it stands in no file and on no command line."""

CONSISTENCY = "Bounded"
"""What a search sees is at most some seconds behind what was written; numbers of rows are asked for with "Strong"."""

MAX_K = 16_384  # the server gives no more

_LITE = "milvus://"
_SERVERS = ("http://", "https://")
_ATTEMPTS = 4
_FIRST_WAIT = 0.5  # seconds, doubled each time
_ANSWER_WITHIN = 20.0  # seconds, of what answers at once
_BUILT_WITHIN = 3600.0  # seconds, of what is done for all vectors
# A connection that was lost is tried again as soon as a question is, not when gRPC thinks it time.
_CONNECTION = {"grpc.use_local_subchannel_pool": 1, "grpc.initial_reconnect_backoff_ms": 100}
_PASSING = (
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "Fail connecting",
    "Retry",
    "not ready",
    "timeout",
)

T = TypeVar("T")


class Milvus(TableBackend):
    """Milvus (``--store http://host:19530``), or Milvus Lite (``--store milvus:///folder``)."""

    name = "milvus"
    schemes = (_LITE, *_SERVERS)

    def checked_address(self, address: str) -> str:
        if address.startswith(_SERVERS):
            if "@" in address:
                raise EngineError(f"an address says no password: put user:password into the variable {TOKEN}")
            return address.rstrip("/")
        path = address.removeprefix(_LITE)
        if not address.startswith(_LITE) or not path:
            raise EngineError(f"Milvus is a server, http://host:19530, or a folder, {_LITE}/path/to/it; got {address}")
        file = expanded(path).absolute()
        return f"{_LITE}{file if file.suffix == '.db' else f'{file}.db'}"

    def layout(self, d: int, factory: str, address: str) -> Layout:
        layout = Layout.of(d, factory, "Milvus")
        if address.startswith(_LITE) and layout.codec not in ("Flat", "SQ"):
            raise EngineError(
                f"Milvus Lite has no index {factory}: take --factory Flat or IVF100,SQ8. Milvus has IVFn,PQm and "
                "IVFn,RaBitQ, and so has --store lance:///folder"
            )
        if layout.codec == "RaBitQ" and layout.nbits != 1:
            raise EngineError(f"Milvus has RaBitQ of 1 bit a component, got {factory}")
        return layout

    def create(self, address: str, name: str, d: int, metric: Metric) -> Table:
        server = _Server(address)
        server.create(name, d)
        return MilvusTable(server, name, metric)

    def open_table(self, address: str, name: str, metric: Metric, version: int | None, *, write: bool) -> Table:
        table = MilvusTable(_Server(address), name, metric)
        table.load()
        return table

    def names(self, address: str) -> list[str]:
        return [
            str(name) for name in _Server(address).ask(lambda client: client.list_collections(timeout=_ANSWER_WITHIN))
        ]

    def drop(self, address: str, name: str) -> None:
        # The client tells no error of one that is not there.
        _Server(address).ask(lambda client: client.drop_collection(name, timeout=_ANSWER_WITHIN))


class MilvusTable:
    """See `tables.Table`. Whatever it asks can be asked twice, so that a lost answer is no loss."""

    version = None

    def __init__(self, server: _Server, name: str, metric: Metric) -> None:
        self._server = server
        self._name = name
        self._metric = metric

    def put(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        rows = [{"id": id, "vector": vector} for id, vector in zip(ids.tolist(), vectors, strict=True)]
        self._server.ask(lambda client: client.upsert(self._name, rows, timeout=_ANSWER_WITHIN))

    def remove(self, ids: NDArray[np.int64]) -> None:
        if ids.size:
            self._server.ask(lambda client: client.delete(self._name, ids=ids.tolist(), timeout=_ANSWER_WITHIN))

    def build(self, layout: Layout) -> None:
        kinds: dict[str, tuple[str, dict[str, int]]] = {
            "Flat": ("FLAT", {}),
            "PQ": ("IVF_PQ", {"nlist": layout.nlist, "m": layout.m, "nbits": layout.nbits}),
            "RaBitQ": ("IVF_RABITQ", {"nlist": layout.nlist}),
            "SQ": ("IVF_SQ8", {"nlist": layout.nlist}),
        }
        kind, numbers = kinds[layout.codec]
        metric = {"cosine": "COSINE", "ip": "IP", "l2": "L2"}[self._metric]

        def build(client: Any) -> None:
            client.flush(self._name, timeout=_BUILT_WITHIN)
            wanted = client.prepare_index_params()
            # Milvus Lite reads them from "params" alone, into which this client does not put them any more.
            given = {"params": numbers} if self._server.is_lite and numbers else numbers
            wanted.add_index("vector", index_type=kind, metric_type=metric, params=given)
            client.create_index(self._name, wanted, timeout=_BUILT_WITHIN)

        self._server.ask(build)
        self.load()

    def load(self) -> None:
        """Let the server have it in memory: it answers from there alone."""
        self._server.ask(lambda client: client.load_collection(self._name, timeout=_BUILT_WITHIN))

    def follow(self) -> None:
        self._server.ask(lambda client: client.flush(self._name, timeout=_BUILT_WITHIN))

    def count(self) -> int:
        def count(client: Any) -> int:
            (row,) = client.query(
                self._name, output_fields=["count(*)"], consistency_level="Strong", timeout=_ANSWER_WITHIN
            )
            return int(row["count(*)"])

        return self._server.ask(count)

    def size(self) -> int:
        return self._server.size()

    def nearest(
        self, vector: NDArray[np.float32], k: int, nprobe: int, among: Among | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        condition = "" if among is None else f"id {'not ' if among.is_not else ''}in [{among.listed}]"

        def search(client: Any) -> list[Any]:
            (hits,) = client.search(
                self._name,
                [vector],
                limit=min(k, MAX_K),
                anns_field="vector",
                filter=condition,
                output_fields=["id"],
                search_params={"params": {"nprobe": nprobe}},
                consistency_level=CONSISTENCY,
                timeout=_ANSWER_WITHIN,
            )
            return list(hits)

        found = self._server.ask(search)
        ids = np.array([hit["id"] for hit in found], np.int64)
        return ids, np.array([hit["distance"] for hit in found], np.float32)


class _Server:
    """What is behind an address. A process has one connection to each."""

    _clients: ClassVar[dict[str, Any]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, question: Callable[[Any], T]) -> T:
        """What a question, which can be asked twice, is answered. A server that does not answer is asked again.

        Raises
        ------
        UnreachableError
            It does not answer, or refuses.
        """
        for wait in (*(_FIRST_WAIT * 2**attempt for attempt in range(_ATTEMPTS - 1)), None):
            try:
                return question(self._client())
            except _failures() as error:
                said = _sentence(error)
                if not any(sign in said for sign in _PASSING):
                    raise UnreachableError(f"Milvus at {self._address} refuses: {said}") from error
                self._forget()
                if wait is None:
                    hint = "" if self.is_lite else " Is it running there, and is it Milvus?"
                    raise UnreachableError(f"Milvus at {self._address} does not answer: {said}.{hint}") from error
                logger.info("Milvus at %s does not answer (%s): asked again in %.1f s", self._address, said, wait)
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    @property
    def is_lite(self) -> bool:
        return self._address.startswith(_LITE)

    def create(self, name: str, d: int) -> None:
        """Make a collection, as Milvus calls its tables."""

        def create(client: Any) -> None:
            from pymilvus import DataType

            if client.has_collection(name, timeout=_ANSWER_WITHIN):  # by an attempt whose answer was lost
                return
            row = client.create_schema(auto_id=False, enable_dynamic_field=False)
            row.add_field("id", DataType.INT64, is_primary=True)
            row.add_field("vector", DataType.FLOAT_VECTOR, dim=d)
            client.create_collection(name, schema=row, consistency_level=CONSISTENCY, timeout=_ANSWER_WITHIN)

        self.ask(create)

    def size(self) -> int:
        """Bytes on disk of all that Milvus Lite holds; a server does not tell."""
        files = Path(self._address.removeprefix(_LITE)).rglob("*") if self.is_lite else ()
        return sum(path.stat().st_size for path in files if path.is_file())

    def _client(self) -> Any:
        with self._lock:
            if self._address not in self._clients:
                self._clients[self._address] = self._connected()
            return self._clients[self._address]

    def _connected(self) -> Any:
        try:
            from pymilvus import MilvusClient
        except ImportError as error:
            package = "pymilvus milvus-lite" if self.is_lite else "pymilvus"
            raise UnreachableError(
                f"Milvus needs a client: pip install {package} (requirements-optional.txt)"
            ) from error
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs, with tracebacks, what it raises
        if not self.is_lite:
            token = os.environ.get(TOKEN, "")
            # A connection of its own: a shared one that does not answer would be had again.
            return MilvusClient(
                self._address, token=token, timeout=_ANSWER_WITHIN, dedicated=True, grpc_options=_CONNECTION
            )
        path = Path(self._address.removeprefix(_LITE))
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return MilvusClient(os.fspath(path))
        except _failures() as error:
            raise UnreachableError(
                f"{path} cannot be opened: is milvus-lite installed, and has no other process the folder open? Milvus "
                f"Lite is for one at a time ({_sentence(error)})"
            ) from error

    def _forget(self) -> None:
        with self._lock:
            client = self._clients.pop(self._address, None)
        if client is not None:
            with suppress(Exception):  # it is broken, or would not be forgotten
                client.close()


def close(address: str) -> None:
    """Let go of Milvus Lite's folder, so that another process can open it: closing a client does not."""
    server = _Server(address)
    server._forget()
    if server.is_lite:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(address.removeprefix(_LITE))


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    return MilvusException, RpcError


def _sentence(error: Exception) -> str:
    """The first line of what an error says."""
    code: Any = getattr(error, "code", None)
    code = code() if callable(code) else None  # of gRPC's own errors
    said = str(getattr(error, "message", "") or getattr(error, "details", str)() or error)
    return " ".join(filter(None, [getattr(code, "name", ""), said.splitlines()[0] if said else ""]))
