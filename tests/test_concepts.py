"""Pictures and texts in one space."""

import numpy as np
import pytest
from meanings import ColourEncoder, WordSentences
from test_extract import FakeEncoder

from features.concepts import Concepts, standardized, unit
from features.encoders import EncoderError
from features.kept import cache_folder, kept
from features.wordnet.definitions import definitions


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Table:
    """Sentences with given vectors, and an encoder whose features are the logits of its classes."""

    name, sha256, dim = "table", "0" * 64, 2

    def __init__(self, vectors):
        self.vectors, self.classes, self.asked = vectors, tuple(vectors), []

    def encode(self, texts):
        self.asked += texts
        return np.array([self.vectors.get(text, (0, -1)) for text in texts], np.float32).reshape(-1, 2)

    def classify(self, features):
        odds = np.exp(np.asarray(features, np.float32))
        return odds / odds.sum(1, keepdims=True)


def test_two_classes_by_hand():
    table = Table({"qwertz": (1, 0), "asdfgh": (0, 1)})
    concepts = Concepts(table, table)
    np.testing.assert_allclose(concepts.mean, [0.5, 0.5])
    # Whatever the odds: less the mean only the direction from one class to the other is left.
    found = concepts.encode_features(np.array([[9.0, 1], [2, 3]]))
    np.testing.assert_allclose(found, np.array([[1, -1], [-1, 1]]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_allclose(concepts.encode_text("qwertz"), np.array([1, -1]) / np.sqrt(2), atol=1e-6)


def test_three_classes_by_a_loop():
    table = Table({"qwertz": (1, 0), "asdfgh": (0, 1), "yxcvbn": (-0.6, 0.8)})
    logits = np.array([[3.0, 1, 0], [-2, 0, 4], [0, 1, 0]])
    concepts = Concepts(table, table)
    rows = np.array(list(table.vectors.values()))
    for found, row in zip(concepts.encode_features(logits), logits, strict=True):
        odds = [np.exp(logit / 2) for logit in row]
        place = sum(odd / sum(odds) * vector for odd, vector in zip(odds, rows, strict=True)) - rows.mean(0)
        np.testing.assert_allclose(found, place / np.linalg.norm(place), atol=3e-3)  # class vectors are kept as float16


def test_definitions_of_what_a_text_names_count_as_much_as_the_text():
    (dog, *more) = definitions().of("gerenuk")
    assert not more
    table = Table({"qwertz": (1, 0), "asdfgh": (-1, 0), "gerenuk": (1, 0), dog: (0, 1)})
    table.classes = ("qwertz", "asdfgh")
    np.testing.assert_allclose(Concepts(table, table).encode_text("gerenuk"), np.sqrt([0.5, 0.5]), atol=1e-6)


def test_classes_of_ones_own_have_their_place_in_the_tree():
    encoder = ColourEncoder()
    encoder.classes = ("dalmatians", "golden retriever", "liner", "crimson thing")
    concepts = Concepts(encoder, WordSentences())
    assert concepts.classes_below("dogs").tolist() == [0, 1]
    assert concepts.classes_below("ship").tolist() == [2]
    assert concepts.classes_below("something that flies").tolist() == []


def test_imagenets_classes_are_known_by_their_synsets():
    from features.encoders.weights import imagenet_classes

    encoder = ColourEncoder()
    encoder.classes = imagenet_classes()
    concepts = Concepts(encoder, WordSentences())
    assert concepts.classes_below("bird").size == 59
    assert (encoder.classes[134], encoder.classes[517]) == ("crane bird", "crane")  # of which each is a "crane"
    assert np.isin([134, 517], concepts.classes_below("bird")).tolist() == [True, False]
    assert np.isin([134, 517], concepts.classes_below("crane")).tolist() == [True, True]
    np.testing.assert_allclose(concepts.class_vectors, WordSentences().encode(definitions().imagenet), atol=1e-3)


def test_an_encoder_without_classes_has_no_words():
    with pytest.raises(EncoderError, match=r"encoder fake has no classes.*efficientnet-lite0"):
        Concepts(FakeEncoder(), WordSentences())


def test_probabilities_that_are_each_for_themselves_sum_to_one():
    encoder = ColourEncoder()
    encoder.classify = lambda features: np.array([[0.2, 0.2, 0], [0, 0, 0]], np.float32)
    concepts = Concepts(encoder, WordSentences())
    np.testing.assert_allclose(concepts.probabilities(np.zeros((2, 12))), [[0.5, 0.5, 0], [0, 0, 0]])
    assert np.isfinite(concepts.encode_features(np.zeros((2, 12)))).all()


def test_class_vectors_are_made_once_for_a_model():
    table = Table({"qwertz": (1, 0), "asdfgh": (0, 1)})
    first = Concepts(table, table).class_vectors
    table.asked.clear()
    np.testing.assert_array_equal(Concepts(table, table).class_vectors, first)
    assert not table.asked
    table.sha256 = "1" * 64
    assert Concepts(table, table).class_vectors.shape == first.shape and table.asked


def test_what_is_kept_is_made_again_where_its_file_is_damaged_or_cannot_be_written(monkeypatch, tmp_path):
    made = []

    def make():
        made.append(1)
        return np.full((2, 3), 1 / 3, np.float32)

    first = kept("thirds", (2, 3), make)
    np.testing.assert_array_equal(kept("thirds", (2, 3), make), first)
    assert (len(made), first.dtype) == (1, np.float32)
    for damage in (b"", b"\x93NUMPY", np.full((2, 3), np.nan, np.float16).tobytes()):
        (cache_folder() / "thirds.npy").write_bytes(damage)
        np.testing.assert_array_equal(kept("thirds", (2, 3), make), first)
    assert len(made) == 4
    assert [path.name for path in cache_folder().iterdir()] == ["thirds.npy"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(kept("thirds", (2, 3), make), first)


def test_scores_are_standardised():
    np.testing.assert_allclose(standardized(np.array([1.0, 3])), [-1, 1])
    np.testing.assert_allclose(standardized(np.array([5.0]), np.array([1.0, 3])), [3])
    np.testing.assert_array_equal(standardized(np.array([2.0, 2])), [0, 0])
    np.testing.assert_array_equal(unit(np.array([[3.0, 4], [0, 0]])), [[0.6, 0.8], [0, 0]])
