"""An index that is tuned for a recall looks into as many lists as that takes, also after a sync."""

import numpy as np
import pytest
from made_spaces import MadeStore
from test_extract import FakeEncoder, make_images

from features.collection.manifest import read_manifest
from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.encoding import extract
from ivfpq.metrics import knn_recall_at_k
from search.backends import get_backend
from search.backends.base import IndexRecipe
from search.backends.local import DEFAULT_NPROBE
from search.backends.trial import K, split
from search.build import create_index, sync_collection


@pytest.mark.parametrize("engine", ["ivfpq", "faiss"])
def test_as_many_lists_as_the_recall_takes(engine, tmp_path):
    store = MadeStore(tmp_path)
    space, backend = store.space(), get_backend(engine)
    held_out, _ = split(space, 0)
    lists = {}
    for target in (None, 0.5, 1.0):
        entry, _ = backend.build(space, IndexRecipe("IVF16,PQ8", "cosine", 0, None, target))
        assert entry.get("target_recall") == target
        index = backend.open(space, entry)
        lists[target] = index.nprobe
        if target is None:
            continue
        # Asked for what was held out of training, without those themselves: as it was tuned.
        index.remove_ids(held_out)
        queries = space.rows(held_out)
        truth = index.search(queries, K, nprobe=16).ids
        assert knn_recall_at_k(index.search(queries, K).ids, truth) >= target
        fewer = index.search(queries, K, nprobe=max(1, index.nprobe - 1)).ids
        assert index.nprobe == 1 or knn_recall_at_k(fewer, truth) < target
    assert lists[None] == DEFAULT_NPROBE and lists[0.5] < lists[1.0]


def test_our_index_can_be_asked_for_the_recall_itself(tmp_path):
    store = MadeStore(tmp_path)
    space, backend = store.space(), get_backend("ivfpq")
    entry, _ = backend.build(space, IndexRecipe("IVF16,PQ8", "cosine", 0, None, 0.9))
    index = backend.open(space, entry)
    queries = store.features[:5]
    np.testing.assert_array_equal(index.search(queries, K, target_recall=0.9).ids, index.search(queries, K).ids)


def test_the_recall_outlives_a_sync_and_an_index_that_is_made_again(tmp_path):
    make_images(tmp_path / "images")
    store = extract(ImageFolder(tmp_path / "images"), FakeEncoder(), tmp_path / "c", progress=False)
    create_index(store, factory="Flat", engines=("ivfpq",), target_recall=0.9)

    def recall():
        return read_manifest(tmp_path / "c")["indexes"]["ivfpq"]["target_recall"]

    assert recall() == 0.9
    create_index(store)
    assert recall() == 0.9
    next((tmp_path / "images").rglob("*.png")).unlink()
    sync_collection(tmp_path / "c", encoder=FakeEncoder(), progress=False)
    assert (recall(), FeatureStore.open(tmp_path / "c").generation) == (0.9, 1)
    create_index(FeatureStore.open(tmp_path / "c"), target_recall=0.5)
    assert recall() == 0.5
