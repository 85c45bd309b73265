"""A made-up encoder, space and backend, registered here and nowhere else, are used like those that are built in."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_extract import FakeEncoder, make_images
from test_sync import paint

from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.encoders import create_encoder, register_encoder, registry
from features.extract import extract
from features.images import decode_image
from gradio_app.create_index import main
from ivfpq import IndexFlat
from search import backends, spaces
from search.backends import register_backend
from search.backends.base import Backend, EngineReport
from search.build import create_index, create_space, sync_collection
from search.engine import SearchEngine
from search.errors import EngineError
from search.options import SearchOptions
from search.query import ImagePart, Query, TextPart
from search.space import SpaceKind
from search.spaces import register_space


class Tint(SpaceKind):
    """Pictures by their mean colour."""

    name = "tint"
    accepts = (ImagePart,)
    metric = "l2"

    def make(self, store):
        vectors = np.zeros((len(store.items), 3), np.float32)
        for id in store.ids.tolist():
            vectors[id] = self.encode_picture(decode_image(store.items[id].path), None)
        return vectors

    def encode_picture(self, pixels, collection):
        return pixels.mean((0, 1), dtype=np.float32)


class Notebook(Backend):
    """Writes the vectors into a JSON file and compares with all of them."""

    name = "notebook"
    deleted = 0

    def build(self, space, recipe):
        path = space.folder / f"{space.name}.notebook.{space.store.generation}.json"
        path.write_text(json.dumps({str(id): space.rows(np.array([id]))[0].tolist() for id in space.ids.tolist()}))
        entry = {
            "file": path.name,
            "factory": recipe.factory,
            "seed": recipe.seed,
            "generation": space.store.generation,
            "images": len(space.ids),
        }
        return entry, EngineReport(self.name, recipe.factory, 0, 0, path.stat().st_size, 12, None, None)

    def update(self, space, entry, changed, gone):
        known = json.loads((space.folder / entry["file"]).read_text())
        taken_out = sum(known.pop(str(id), None) is not None for id in (*changed, *gone))
        known.update({str(id): space.rows(np.array([id]))[0].tolist() for id in changed.tolist()})
        path = space.folder / f"{space.name}.notebook.{space.store.generation}.json"
        path.write_text(json.dumps(known))
        return {**entry, "file": path.name, "generation": space.store.generation}, taken_out

    def open(self, space, entry):
        known = json.loads((space.folder / entry["file"]).read_text())
        index = IndexFlat(space.dim, metric=space.metric)
        index.add_with_ids(np.array(list(known.values()), np.float32), np.array(list(map(int, known))))
        return index

    def delete(self, space, entry):
        (space.folder / entry["file"]).unlink(missing_ok=True)
        Notebook.deleted += 1


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(spaces, "_KINDS", dict(spaces._KINDS))
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    monkeypatch.setattr(Notebook, "deleted", 0)
    register_space(Tint())
    register_backend(Notebook())
    register_encoder("fake", lambda name, **options: FakeEncoder())


@pytest.fixture
def root(tmp_path) -> Path:
    make_images(tmp_path / "images", 30)
    return tmp_path / "images"


@pytest.fixture
def folder(root, tmp_path) -> Path:
    return extract(ImageFolder(root), FakeEncoder(), tmp_path / "c", progress=False).folder


def nearest_by_colour(root, query, n):
    """What a loop over the files says."""
    mean = {path: decode_image(path).mean((0, 1)) for path in root.rglob("*.png")}
    asked = mean.pop(query)
    return sorted(mean, key=lambda path: ((mean[path] - asked) ** 2).sum())[:n]


def test_a_made_up_encoder_makes_a_collection_by_its_name(root, tmp_path, capsys):
    command = ["--data", str(root), "--collections", str(tmp_path / "all"), "--encoder", "fake", "--factory", "Flat"]
    assert main(command) == 0
    assert "30 images of images, fake, cosine" in capsys.readouterr().out
    engine = SearchEngine.open(tmp_path / "all" / "images")
    pixels = decode_image(root / "label 1/004.png")
    (vector,) = create_encoder("fake").encode([pixels])
    np.testing.assert_array_equal(engine.encode(pixels).vector, vector)
    assert engine.search(pixels, 1)[0].path == root / "label 1/004.png"


def test_a_made_up_backend_is_built_searched_updated_and_deleted(root, folder):
    (report,) = create_index(FeatureStore.open(folder), engines=["notebook"], factory="Flat")
    assert report.engine == "notebook"
    engine = SearchEngine.open(folder)
    assert engine.engines == ("notebook", "exact")
    for path in sorted(root.rglob("*.png"))[:5]:
        assert engine.search(path, 10, engine="notebook") == engine.search(path, 10, engine="exact")
    paint(root / "new.png", 7)
    (root / "label 0/000.png").unlink()
    _, (update,) = sync_collection(folder, dataset=ImageFolder(root), encoder=FakeEncoder(), progress=False)
    assert (update.engine, update.taken_out, update.put_in, update.rebuilt) == ("notebook", 1, 1, None)
    engine = SearchEngine.open(folder)
    found = engine.search(root / "new.png", 100, engine="notebook")
    assert found == engine.search(root / "new.png", 100, engine="exact")
    assert set(found.ids) == set(engine.store.ids.tolist()) - {30}
    create_index(FeatureStore.open(folder), engines=["notebook"], factory="Flat", metric="ip")
    assert Notebook.deleted == 1


def test_a_made_up_space_is_made_listed_asked_and_kept_current(root, folder):
    create_index(FeatureStore.open(folder), engines=["ivfpq"], factory="Flat")
    assert SearchEngine.open(folder).spaces == ("visual",)
    create_space(FeatureStore.open(folder), "tint", engines=["ivfpq", "notebook"], factory="Flat")
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["spaces"]["tint"]
    assert {key: entry[key] for key in ("dim", "dtype", "metric", "accepts")} == {
        "dim": 3,
        "dtype": "float32",
        "metric": "l2",
        "accepts": ["ImagePart"],
    }
    assert set(entry["indexes"]) == {"ivfpq", "notebook"}
    engine = SearchEngine.open(folder)
    assert engine.spaces == ("visual", "tint")
    query = root / "label 1/004.png"
    for name in ("ivfpq", "notebook", "exact"):
        answer = engine.search(Query((ImagePart(picture=query, space="tint"),)), 5, engine=name)
        assert [hit.path for hit in answer] == nearest_by_colour(root, query, 5)
        assert answer[0].distance == answer[0].score
    outside = decode_image(query)
    first = engine.search(Query((ImagePart(picture=outside, space="tint"),)), 1)[0]
    assert (first.path, first.distance) == (query, 0)
    vector, own_id = engine.encode(query, space="tint")
    assert engine.search_vector(vector, SearchOptions("exact", 5), own_id=own_id, space="tint") == answer

    paint(root / "new.png", 7)
    query.unlink()
    _, updates = sync_collection(folder, dataset=ImageFolder(root), encoder=FakeEncoder(), progress=False)
    assert [(update.space, update.engine) for update in updates] == [
        ("visual", "ivfpq"),
        ("tint", "ivfpq"),
        ("tint", "notebook"),
    ]
    engine = SearchEngine.open(folder)
    for name in ("ivfpq", "notebook", "exact"):
        answer = engine.search(Query((ImagePart(picture=root / "new.png", space="tint"),)), 5, engine=name)
        assert [hit.path for hit in answer] == nearest_by_colour(root, root / "new.png", 5)


def test_a_collection_opens_where_its_space_and_backend_are_not_known(root, folder, monkeypatch):
    create_index(FeatureStore.open(folder), engines=["ivfpq", "notebook"], factory="Flat")
    create_space(FeatureStore.open(folder), "tint")
    monkeypatch.delitem(spaces._KINDS, "tint")
    monkeypatch.delitem(backends._BACKENDS, "notebook")
    engine = SearchEngine.open(folder)
    assert (engine.spaces, engine.engines) == (("visual",), ("ivfpq", "exact"))


def test_what_cannot_be_asked_is_said(root, folder):
    create_index(FeatureStore.open(folder), factory="Flat", engines=["ivfpq"])
    engine, path = SearchEngine.open(folder), next(root.rglob("*.png"))
    with pytest.raises(EngineError, match="c has no space 'tint'; it has visual"):
        engine.search(Query((ImagePart(picture=path, space="tint"),)))
    with pytest.raises(EngineError, match="c cannot be asked by words: its spaces are visual"):
        engine.search(Query((TextPart("warm"),)))
    with pytest.raises(
        EngineError, match="unknown space 'taste'; there are visual, neighbourhood, clip, concepts, captions, tint"
    ):
        create_space(engine.store, "taste")
    with pytest.raises(EngineError, match="every collection has the space visual"):
        create_space(engine.store, "visual")
    there_are = "ivfpq, faiss, exact, lance, milvus, notebook"
    with pytest.raises(EngineError, match=f"unknown engine 'scann'; there are {there_are}"):
        create_index(engine.store, engines=["scann"])
    with pytest.raises(ValueError, match="lower-case"):
        register_space(type("Bad", (Tint,), {"name": "../x"})())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (np.zeros((30, 3), np.float64), "must give float16 or float32"),
        (np.zeros((29, 3), np.float32), r"\(30, dim\), got float32 \(29, 3\)"),
        (np.full((30, 3), np.nan, np.float32), "NaN or infinity"),
    ],
)
def test_a_space_that_gives_nonsense_leaves_the_collection_as_it_was(folder, made, said):
    before = (folder / "manifest.json").read_bytes()
    register_space(type("Nonsense", (Tint,), {"name": "nonsense", "make": lambda self, store: made})())
    with pytest.raises(EngineError, match=said):
        create_space(FeatureStore.open(folder), "nonsense")
    assert (folder / "manifest.json").read_bytes() == before
