"""One contract for all ways to keep vectors: what is built is found, filters hide nothing, no sudden end loses any."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from made_spaces import DIM, MadeStore
from test_extract import FakeEncoder, make_images
from test_sync import change_everything

from benchmarks import stores
from features.collection.manifest import read_manifest
from features.collection.store import FeatureStore
from features.encoders import register_encoder, registry
from gradio_app import create_index
from ivfpq import IndexFlat
from search.backends import backend_at, get_backend, milvus
from search.backends.base import IndexRecipe, UnreachableError, UpdateError
from search.databases import drop_tables
from search.doctor import examine
from search.engine import SearchEngine
from search.errors import EngineError

pytest.importorskip("lancedb")
pytest.importorskip("milvus_lite")

FACTORIES = {"ivfpq": "IVF8,PQ8", "faiss": "IVF8,PQ8", "lance": "IVF2,PQ8", "milvus": "IVF8,SQ8"}
HERE = Path(__file__).parent


def address_of(engine, folder):
    return {"lance": f"lance://{folder}/lance", "milvus": f"milvus://{folder}/milvus"}.get(engine)


def built(engine, store, address, metric="cosine", factory=None):
    """A backend, the entry of an index that it made, and the report."""
    space = store.space(metric)
    backend = get_backend(engine)
    entry, report = backend.build(space, IndexRecipe(factory or FACTORIES[engine], metric, 0, address))
    return backend, entry, report


def exactly(store, queries, k, metric="cosine", ids=None):
    flat = IndexFlat(DIM, metric=metric)
    flat.add_with_ids(store.features[store.ids], store.ids)
    return flat.search(queries, k, ids=ids)


def agreement(found, truth):
    return np.mean([np.isin(row, true).mean() for row, true in zip(found, truth, strict=True)])


@pytest.fixture(scope="module")
def databases(tmp_path_factory):
    """A folder for the databases of this module: opening one takes a while."""
    folder = tmp_path_factory.mktemp("databases")
    yield folder
    milvus.close(f"milvus://{folder}/milvus.db")


@pytest.mark.parametrize("engine", FACTORIES)
def test_contract(engine, databases, tmp_path):
    """Build, search, filter, update, delete."""
    store = MadeStore(tmp_path / "c")
    backend, entry, report = built(engine, store, address_of(engine, databases))
    assert report.recall_at_10 > 0.6
    assert report.file_bytes > 0
    assert json.loads(json.dumps(entry)) == entry

    index = backend.open(store.space(), entry)
    queries = store.features[[3, 100, 500]]
    found = index.search(queries, 10)
    assert (found.ids[:, 0] == [3, 100, 500]).mean() > 0.6
    assert agreement(found.ids, exactly(store, queries, 10).ids) > 0.5
    assert index.ntotal == 640
    assert (np.diff(found.distances, axis=1) <= 0).all()
    np.testing.assert_allclose(found.distances, exactly(store, queries, 10).distances, atol=0.2)

    # A filter hides nothing that it lets through, however far it is and however few lists are looked into.
    far = np.flatnonzero(np.arange(640) % 8 == 5)  # of one heap
    for allowed in (far, np.setdiff1d(store.ids, far), far[:1], far[:0], store.ids):
        found = index.search(queries, 60, nprobe=1, ids=allowed)
        assert (np.count_nonzero(found.ids >= 0, axis=1) == min(60, allowed.size)).all()
        assert np.isin(found.ids[found.ids >= 0], allowed).all()

    # Some become their opposite, some go, one comes: an open index goes on, the next knows it all.
    store.features = np.concatenate([store.features, -store.features[:1]])
    store.change([3, 4, 640], [10, 11])
    new, taken_out = backend.update(store.space(indexes={engine: entry}), entry, *store.changes_since(0))
    backend.settle(store.space(), new)
    assert taken_out == 4
    assert new["images"] == 639
    assert new["generation"] == 1
    index = backend.open(store.space(), new)
    assert index.ntotal == 639
    assert not np.isin([10, 11], index.search(store.features[[10, 11]], 639, nprobe=8).ids).any()
    assert 3 in index.search(store.features[[3]], 5).ids
    assert np.isin([0, 640], index.search(store.features[[0]], 5).ids).all()  # they are alike
    backend.verify(store.space(), new)
    assert np.array_equal(np.sort(index.search(queries[:1], 639, nprobe=8).ids[0]), store.ids)

    backend.delete(store.space(), entry)
    backend.delete(store.space(), new)
    with pytest.raises(EngineError, match=r"gone|missing"):
        backend.open(store.space(), new).search(queries, 1)


@pytest.mark.parametrize(
    ("engine", "factory"), [("lance", "IVF8,PQ8"), ("lance", "IVF8,RaBitQ"), ("milvus", "IVF8,SQ8")]
)
def test_an_index_has_an_effect(engine, factory, databases, tmp_path):
    """What a database says of its index proves nothing: one that compares with all vectors says the same."""
    store, backend = MadeStore(tmp_path / "c", 2560), get_backend(engine)
    address = backend.checked_address(address_of(engine, databases))
    table = backend.create(address, f"effect_{factory.replace(',', '_')}", DIM, "l2")
    table.put(store.ids, store.features)
    table.build(backend.layout(DIM, factory, address))
    query = store.features[0]
    one_list, all_lists = (table.nearest(query, 2560, number, None) for number in (1, 8))
    assert 0 < len(one_list[0]) < 2560
    assert len(all_lists[0]) == 2560
    exact = np.square(store.features - query).sum(axis=1)[all_lists[0]]
    assert not np.allclose(all_lists[1], exact, rtol=1e-5, atol=1e-5)  # they are of codes
    assert np.corrcoef(all_lists[1], exact)[0, 1] > 0.9
    backend.drop(address, f"effect_{factory.replace(',', '_')}")


@pytest.mark.parametrize("engine", ["lance", "milvus"])
@pytest.mark.parametrize("metric", ["l2", "ip"])
def test_other_metrics(engine, metric, databases, tmp_path):
    store = MadeStore(tmp_path / "m", 120)
    backend, entry, _ = built(engine, store, address_of(engine, databases), metric, "Flat")
    found = backend.open(store.space(metric), entry).search(store.features[:4], 5)
    truth = exactly(store, store.features[:4], 5, metric)
    assert np.array_equal(found.ids, truth.ids)
    np.testing.assert_allclose(found.distances, truth.distances, rtol=1e-4, atol=1e-4)
    backend.delete(store.space(), entry)


KILLED = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from made_spaces import MadeStore
from search.backends import get_backend
from search.backends.base import IndexRecipe

folder, entries = Path(sys.argv[1]), {{}}
stores = {{}}
for engine, factory in {factories!r}.items():
    address = {{"lance": f"lance://{{folder}}/lance", "milvus": f"milvus://{{folder}}/milvus"}}.get(engine)
    store = stores[engine] = MadeStore(folder / engine)
    entries[engine], _ = get_backend(engine).build(store.space(), IndexRecipe(factory, "cosine", 0, address))
(folder / "entries.json").write_text(json.dumps(entries))
for engine, store in stores.items():
    store.change([3, 4, 5], [10, 11])
    get_backend(engine).update(store.space(), entries[engine], *store.changes_since(0))
os.kill(os.getpid(), signal.SIGKILL)  # before a manifest lists any of it
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder in which a process had built indexes by all engines, and had changed them, when it was killed."""
    folder = tmp_path_factory.mktemp("killed")
    code = KILLED.format(here=str(HERE), factories=FACTORIES)
    done = subprocess.run([sys.executable, "-c", code, str(folder)], cwd=HERE.parent, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()[-3000:]
    yield folder
    milvus.close(f"milvus://{folder}/milvus.db")


@pytest.mark.parametrize("engine", FACTORIES)
def test_reopened_after_a_sudden_end(engine, killed, tmp_path):
    entry = json.loads((killed / "entries.json").read_text())[engine]
    shutil.copytree(killed / engine, tmp_path / "c")
    store, backend = MadeStore(killed / engine), get_backend(engine)
    if engine != "milvus":  # what was listed is as it was, whatever came after it
        index = backend.open(store.space(), entry)
        assert index.ntotal == 640
        assert {10, 11} <= {*index.search(store.features[[10]], 640, nprobe=8, ids=np.arange(640)).ids[0].tolist()}
    store.change([5], [12])  # the next sync finds something else than the one that was killed
    space = store.space(indexes={engine: entry})
    if engine == "milvus":  # it keeps no earlier state, and knows that it was left in the middle
        with pytest.raises(UpdateError, match="in the middle"):
            backend.update(space, entry, *store.changes_since(0))
        new, _ = backend.build(space, IndexRecipe(FACTORIES[engine], "cosine", 0, entry["store"]))
    else:
        new, taken_out = backend.update(space, entry, *store.changes_since(0))
        assert taken_out == 2
    backend.settle(space, new)
    found = backend.open(space, new).search(store.features[[5]], 639, nprobe=8)
    assert np.array_equal(np.sort(found.ids[0]), store.ids)


def test_tables_that_a_stopped_build_left_are_dropped(databases, tmp_path):
    store, address = MadeStore(tmp_path / "left", 100), f"lance://{databases}/lance"
    backend, first, _ = built("lance", store, address, factory="Flat")
    _, second, _ = built("lance", store, address, factory="Flat")  # the first was never listed
    assert second["table"] in backend.names(address)
    assert first["table"] not in backend.names(address)
    backend.delete(store.space(), second)


def test_states_of_a_table_are_bounded(databases, tmp_path, monkeypatch):
    from datetime import timedelta

    import lancedb

    monkeypatch.setattr("search.backends.lance.KEPT_FOR", timedelta(microseconds=1))
    store = MadeStore(tmp_path / "c", 300)
    backend, entry, _ = built("lance", store, f"lance://{databases}/lance", factory="IVF1,PQ8")
    for number in range(6):
        store.change([number], [])
        entry, _ = backend.update(store.space(), entry, *store.changes_since(number))
        backend.settle(store.space(), entry)
    table = lancedb.connect(databases / "lance").open_table(entry["table"])
    assert len(table.list_versions()) <= 8
    assert np.array_equal(backend.open(store.space(), entry).search(store.features[[5]], 1).ids, [[5]])


def test_the_benchmark_measures_each_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "QUERIES", 5)
    row = stores.measured("lance", 600, tmp_path)
    assert (row["engine"], row["factory"], row["count"]) == ("lance", "IVF2,PQ16", 600)
    assert row["recall"] > 0.5
    assert min(row[name] for name in ("p50_ms", "filtered_ms", "build_per_s", "update_s", "disk_mb")) > 0


# A collection with an index in a database, as people make one


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    register_encoder("fake", lambda name, **options: FakeEncoder())
    make_images(tmp_path / "images")
    return tmp_path / "images"


def test_on_the_command_line(pictures, tmp_path, capsys):
    command = ["--data", str(pictures), "--name", "c", "--encoder", "fake", "--factory", "Flat", "--json"]
    assert create_index.main([*command, "--store", "lance://db"]) == 0
    engines = [report["engine"] for report in json.loads(capsys.readouterr().out)["engines"]]
    assert engines == ["ivfpq", "faiss", "lance"]
    folder, picture = tmp_path / "collections" / "c", pictures / "label 0" / "000.png"

    def ids(engine, **options):
        return [hit.id for hit in SearchEngine.open(folder).search(picture, 8, engine=engine, **options).hits]

    assert SearchEngine.open(folder).engines == ("ivfpq", "faiss", "lance", "exact")
    assert ids("lance") == ids("exact")
    assert ids("lance", filter={"label": "label 1"}) == ids("exact", filter={"label": "label 1"})

    change_everything(pictures)
    assert create_index.main([*command[:4], "--sync", "--json"]) == 0
    updates = json.loads(capsys.readouterr().out)["engines"]
    assert [(each["engine"], each["taken_out"], each["put_in"]) for each in updates] == [
        (engine, 3, 2) for engine in ("ivfpq", "faiss", "lance")
    ]
    assert ids("lance") == ids("exact")
    assert examine(folder) == []

    entry = read_manifest(folder)["indexes"]["lance"]
    shutil.rmtree(tmp_path / "db")
    assert ids("ivfpq") == ids("exact")  # what lies elsewhere answers all the same
    with pytest.raises(EngineError, match="is gone"):
        ids("lance")
    (finding,) = examine(folder, repair=True)
    assert (finding.part, finding.mended) == ("index lance", True)
    assert ids("lance") == ids("exact")
    assert read_manifest(folder)["indexes"]["lance"]["table"] != entry["table"]

    drop_tables(folder)
    assert list((tmp_path / "db").glob("*.lance")) == []


def test_a_sync_goes_on_while_a_server_is_down(pictures, tmp_path, capsys, monkeypatch, caplog):
    monkeypatch.setattr(milvus, "_FIRST_WAIT", 0.0)
    command = ["--data", str(pictures), "--name", "c", "--encoder", "fake", "--factory", "Flat"]
    assert create_index.main([*command, "--store", "http://127.0.0.1:9"]) == 2
    assert "Milvus at http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    assert create_index.main([*command, "--engine", "ivfpq"]) == 0
    folder = tmp_path / "collections" / "c"
    store = FeatureStore.open(folder)
    entry = {**store.manifest["indexes"]["ivfpq"], "store": "http://127.0.0.1:9", "table": "t", "file": None}
    store.update_manifest(indexes={**store.manifest["indexes"], "milvus": entry})
    (pictures / "label 0" / "000.png").unlink()
    assert create_index.main([*command[:4], "--sync"]) == 0
    assert "the milvus index of c stays as it was, and is out of date: Milvus at http://127.0.0.1:9" in caplog.text
    engine = SearchEngine.open(folder)
    assert engine.search(pictures / "label 1" / "001.png", 3).hits
    with pytest.raises(EngineError, match="older than the collection"):
        engine.search(pictures / "label 1" / "001.png", 3, engine="milvus")


# What a server may do


class Proxy:
    """Hands connections on to a port. The first `dropped` are closed at once, the next `delayed` never answered."""

    def __init__(self, port):
        self._port, self.dropped, self.delayed, self.seen = port, 0, 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.seen += 1
                self._open.append(client)
                if self.dropped:
                    self.dropped -= 1
                    client.close()
                elif self.delayed:
                    self.delayed -= 1
                else:
                    server = socket.create_connection(("127.0.0.1", self._port))
                    self._open.append(server)
                    for one, other in ((client, server), (server, client)):
                        threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    @staticmethod
    def _pump(one, other):
        with suppress(OSError):
            while piece := one.recv(65536):
                other.sendall(piece)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def cut(self):
        """Close all connections that there are."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()


@pytest.fixture
def proxy(databases, monkeypatch):
    from milvus_lite.server_manager import server_manager_instance

    monkeypatch.setattr(milvus, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(milvus, "_ANSWER_WITHIN", 3.0)
    path = f"{databases}/milvus.db"
    milvus.Milvus().names(f"milvus://{path}")  # which starts it
    _, _, port = server_manager_instance._servers[path]
    proxy = Proxy(port)
    yield proxy
    milvus.close(proxy.address)
    proxy._listener.close()
    proxy.cut()


def test_a_server_that_drops_or_delays_is_asked_again(proxy, tmp_path):
    store = MadeStore(tmp_path / "c", 100)
    proxy.dropped = 1
    backend, entry, _ = built("milvus", store, proxy.address, factory="Flat")
    assert entry["store"] == proxy.address
    index, truth = backend.open(store.space(), entry), exactly(store, store.features[:2], 4).ids
    assert np.array_equal(index.search(store.features[:2], 4).ids, truth)
    proxy.cut()
    proxy.dropped = 1
    assert np.array_equal(index.search(store.features[:2], 4).ids, truth)
    proxy.cut()
    proxy.delayed = 1
    assert np.array_equal(index.search(store.features[:2], 4).ids, truth)
    seen = proxy.seen
    proxy.cut()
    proxy.dropped = 1000
    with pytest.raises(UnreachableError, match=r"Milvus at http://127.0.0.1:\d+ does not answer: .*Is it running"):
        index.search(store.features[:2], 4)
    assert proxy.seen - seen >= 3
    with pytest.raises(UnreachableError):
        backend.open(store.space(), entry).search(store.features[:2], 4)
    proxy.dropped = 0
    proxy.cut()
    assert np.array_equal(index.search(store.features[:2], 4).ids, truth)
    backend.delete(store.space(), entry)


def test_the_token_comes_from_the_environment(monkeypatch):
    asked = {}
    monkeypatch.setenv("MILVUS_TOKEN", "root:secret")
    monkeypatch.setattr("pymilvus.MilvusClient", lambda address, **options: asked.update(options, address=address))
    milvus._Server("http://somewhere:19530")._connected()
    assert (asked["address"], asked["token"]) == ("http://somewhere:19530", "root:secret")


def test_what_a_server_is_sent(monkeypatch, tmp_path):
    """The index of a cluster, which Milvus Lite does not have: what is asked for is what the factory string says."""

    class Client:
        def __getattr__(self, name):
            return lambda *arguments, **options: sent.append((name, arguments, options)) or self

        def add_index(self, field, **options):
            sent.append(("add_index", field, options))

    sent = []
    monkeypatch.setattr(milvus._Server, "_client", lambda self: Client())
    for factory, wanted in (
        ("IVF64,PQ8x4", {"index_type": "IVF_PQ", "metric_type": "COSINE", "params": {"nlist": 64, "m": 8, "nbits": 4}}),
        ("IVF64,RaBitQ", {"index_type": "IVF_RABITQ", "metric_type": "COSINE", "params": {"nlist": 64}}),
    ):
        backend = milvus.Milvus()
        table = milvus.MilvusTable(milvus._Server("http://x"), "t", "cosine")
        table.build(backend.layout(DIM, factory, "http://x"))
        assert next(options for name, _, options in sent if name == "add_index") == wanted
        sent.clear()


@pytest.mark.parametrize(
    ("address", "factory", "said"),
    [
        ("milvus:///x", "IVF8,PQ8", "Milvus Lite has no index IVF8,PQ8"),
        ("milvus:///x", "IVF8,RaBitQ", "Milvus Lite has no index"),
        ("http://u:p@x", "Flat", "says no password"),
        ("http://x", "PCA4,IVF8,PQ2", "Milvus has no index"),
        ("http://x", "IVF8,PQ3", "multiple of M"),
        ("lance:///x", "IVF8,PQ8x6", "4 or 8 bits"),
        ("lance://", "Flat", "LanceDB is a folder"),
        ("ftp://x", "Flat", "no engine keeps vectors at 'ftp://x'"),
        (None, "Flat", "say in which, --store"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(address, factory, said):
    with pytest.raises((EngineError, ValueError), match=said):
        backend = get_backend("lance") if address is None else backend_at(address)
        backend.check(DIM, IndexRecipe(factory, "cosine", 0, address))


def test_milvus_lite_is_for_one_at_a_time(databases, tmp_path):
    milvus.Milvus().names(f"milvus://{databases}/milvus.db")
    (tmp_path / "same.db").symlink_to(databases / "milvus.db")  # its lock tells no process from another opening
    with pytest.raises(UnreachableError, match="for one at a time"):
        milvus.Milvus().names(f"milvus://{tmp_path}/same.db")
