"""Every part of a manifest is checked in one place, and whatever stands there is a StoreError that names it."""

import json
import os
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import write

from features.collection.errors import StoreError
from features.collection.manifest import read_manifest, spaces_of, write_json
from features.collection.schema import MAX_DEPTH, fault_of
from features.datasets import ImageFolder
from features.store import FeatureStore


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> FeatureStore:
    root = tmp_path_factory.mktemp("manifests") / "images"
    for name in ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/broken.jpg", "b/copy of 1.jpg"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return write(ImageFolder(root), root.parent / "c")


def put(manifest: dict, where: str, value) -> dict:
    """A copy of a manifest with another value at a place like "features.file"."""
    changed = json.loads(json.dumps(manifest))
    *outer, last = where.split(".")
    part = changed
    for key in outer:
        part = part.setdefault(key, {})
    part[last] = value
    return changed


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels - 1):
        value = [value]
    return value


SUM = "ab" * 32
WRONG = [
    ("generation", None, "generation"),
    ("generation", "1", "generation"),
    ("generation", -1, "generation"),
    ("generation", True, "generation"),
    ("count", 5.0, "count"),
    ("count", 10**400, "count"),
    ("damaged", 6, "more than all 5 images"),
    ("dim", 0, "dim"),
    ("dtype", "int8", "dtype"),
    ("metric", "manhattan", "metric"),
    ("root", 3, "root"),
    ("root", "", "root"),
    ("root", "a\0b", "root"),
    ("dataset", ["x"], "dataset"),
    ("encoder", "fake", "encoder"),
    ("encoder", {"name": "fake"}, "encoder.dim"),
    ("encoder.weights", None, "encoder.weights"),
    ("encoder.weights.sha256", 1, "encoder.weights.sha256"),
    ("features", "features.npy", "features"),
    ("features.file", None, "features.file"),
    ("features.sha256", None, "features.sha256"),
    ("features.file", "..", "not a file of its folder"),
    ("features.file", "a/b", "not a file of its folder"),
    ("features.file", "a\\b", "not a file of its folder"),
    ("features.file", "", "not a file of its folder"),
    ("features.file", ".sync.sqlite", "not a file of its folder"),
    ("features.file", "annotations.sqlite", "no part"),
    ("catalog.file", "manifest.json", "no part"),
    ("catalog", 7, "catalog"),
    ("catalog.bytes", "many", "catalog.bytes"),
    ("indexes", None, "indexes"),
    ("indexes", {"ivfpq": "ivfpq.index"}, "indexes.ivfpq"),
    ("indexes", {"ivfpq": {"file": 3}}, "indexes.ivfpq.file"),
    ("indexes", {"ivfpq": {"file": "x.index", "sha256": "short"}}, "indexes.ivfpq.sha256"),
    ("indexes", {"ivfpq": {"file": "x.index", "sha256": SUM, "generation": "0"}}, "indexes.ivfpq.generation"),
    ("spaces", {"words": {"file": "words.npy"}}, "spaces.words"),
    (
        "spaces",
        {"words": {"file": "/etc/passwd", "dim": 3, "dtype": "float16", "metric": "ip"}},
        "'/etc/passwd', which",
    ),
    ("annotations", "../other", "annotations"),
    ("versions", nested(MAX_DEPTH + 1), "levels deep"),
]


@pytest.mark.parametrize(("where", "value", "message"), WRONG)
def test_what_is_wrong_is_named(good, where, value, message):
    wrong = put(good.manifest, where, value)
    fault = fault_of(wrong)
    assert fault is not None
    assert message in fault
    assert "\n" not in fault
    assert fault_of(good.manifest) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"format": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}", "levels deep"),
        (b'{"format": NaN}', "NaN is no number"),
        (b'{"format": ' + b"9" * 5000 + b"}", "cannot be read"),
        (b'"text"', "has format 'str'"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "cannot be read"),
    ],
)
def test_whatever_the_file_holds_is_a_sentence(good, tmp_path, content, message):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(StoreError, match=message) as caught:
        read_manifest(tmp_path)
    assert len(str(caught.value)) < 1000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_value_anywhere_raises_anything_else(good, data):
    places = [key for key in good.manifest if key != "versions"]
    places += ["features.file", "features.sha256", "catalog.file", "catalog.bytes", "encoder.weights", "encoder.dim"]
    wrong = put(good.manifest, data.draw(st.sampled_from(places)), data.draw(JSON))
    fault = fault_of(wrong)
    assert fault is None or isinstance(fault, str)


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to a device"])
def test_a_manifest_that_is_no_file_is_refused_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "manifest.json"
    {"fifo": os.mkfifo, "folder": os.mkdir, "link to a device": lambda p: p.symlink_to("/dev/zero")}[kind](path)
    with pytest.raises(StoreError, match="not a collection"):
        read_manifest(tmp_path)


def test_what_other_programs_wrote_into_it_is_kept(good, tmp_path):
    folder = shutil.copytree(good.folder, tmp_path / "c")
    write_json(folder / "manifest.json", {**good.manifest, "later": {"version": [1, 2]}})
    store = FeatureStore.open(folder)
    store.update_manifest(metric="l2")
    assert FeatureStore.open(folder).manifest == {**good.manifest, "metric": "l2", "later": {"version": [1, 2]}}


def test_root_that_is_not_utf8_comes_back(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9")
    root.mkdir()
    (root / "1.jpg").write_bytes(b"x")
    dataset = ImageFolder(root)
    from features.collection.writer import StoreWriter

    spec = {"name": "fake", "dim": 4, "weights": {"argument": None, "sha256": SUM}}
    writer = StoreWriter(tmp_path / "c", dataset, dataset.items, spec, "float32")
    writer.append(np.ones((1, 4)), [(SUM, 1, 1, None)])
    store = writer.finish()
    assert store.items[0].path.read_bytes() == b"x"
    assert FeatureStore.open(tmp_path / "c").items == store.items
    (tmp_path / "c/manifest.json").read_bytes().decode("utf-8")


def test_spaces_of_a_collection_that_knows_one(good):
    spaces = spaces_of(good.manifest)
    assert list(spaces) == ["visual"]
    assert spaces["visual"]["file"] == "features.npy"
    assert (spaces["visual"]["dim"], spaces["visual"]["metric"], spaces["visual"]["indexes"]) == (4, "cosine", {})
    assert spaces["visual"]["maker"] == good.manifest["encoder"]
    words = {"file": "words.npy", "sha256": SUM, "dim": 2, "dtype": "float16", "metric": "ip", "accepts": ["TextPart"]}
    more = {**good.manifest, "spaces": {"words": words}}
    assert fault_of(more) is None
    assert list(spaces_of(more)) == ["visual", "words"]
    assert spaces_of(more)["words"] == words
