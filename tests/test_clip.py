"""CLIP, SigLIP and SigLIP 2, tiny and random but loaded for real: pictures and texts in one space."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny_models
import torch
from PIL import Image

from features.encoders import EncoderError, create_encoder, encoder_for
from features.encoders.clip import MAX_CHARACTERS
from features.encoders.sentence import packaged_folder

FAMILIES = {"clip": tiny_models.save_clip, "siglip": tiny_models.save_siglip, "siglip2": tiny_models.save_siglip2}
SIZES = ((48, 64), (3, 90), (1, 1), (200, 20), (60, 60), (32, 32), (1, 1000))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in FAMILIES.items()}


@pytest.fixture(scope="module")
def encoders(folders):
    return {name: create_encoder("clip", weights=folder, device="cpu") for name, folder in folders.items()}


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def encoder(encoders, family):
    return encoders[family]


@pytest.fixture(scope="module")
def pictures():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


def plain(folder, kind, **given):
    """Unit vectors as transformers' own classes give them."""
    model = tiny_models.transformers.AutoModel.from_pretrained(folder)
    with torch.inference_mode():
        found = getattr(model, f"get_{kind}_features")(**given).pooler_output
    return torch.nn.functional.normalize(found, dim=-1).numpy()


def test_pictures_become_the_vectors_of_transformers(encoder, folders, family, pictures):
    processor = tiny_models.transformers.AutoImageProcessor.from_pretrained(folders[family], backend="pil")
    found = encoder.encode(pictures)
    assert (found.shape, found.dtype) == ((len(pictures), encoder.dim), np.float32)
    for place in (0, 4, 5):  # no side of three pixels, which transformers may take for the colours
        wanted = plain(
            folders[family], "image", **processor(images=Image.fromarray(pictures[place]), return_tensors="pt")
        )
        assert float(found[place] @ wanted[0]) > 0.999
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(encoder.encode(pictures[:1]), found[:1], atol=1e-3)


def test_texts_become_the_vectors_of_transformers_whatever_their_number_and_length(encoder, folders, family):
    texts = ["a red boat", "dog, cat", "a " * 300, "", "\ud800 sea", *["a picture of the sea"] * 70]
    tokenizer = tiny_models.transformers.AutoTokenizer.from_pretrained(folders[family])
    found = encoder.encode_text(texts)
    assert (found.shape, found.dtype) == ((75, encoder.dim), np.float32)
    padding = True if family == "clip" else "max_length"
    for place in (0, 1):
        given = tokenizer([texts[place]], padding=padding, max_length=tiny_models.LONGEST, return_tensors="pt")
        np.testing.assert_allclose(found[place], plain(folders[family], "text", **given)[0], atol=1e-5)
    np.testing.assert_allclose(found[5], found[74], atol=1e-5)
    assert encoder.encode_text([]).shape == (0, encoder.dim)


def test_many_threads_may_ask_at_once(encoder):
    texts = [f"a {'red ' * count}boat" for count in range(24)]
    alone = [encoder.encode_text([text])[0] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(lambda text=text: (encoder.fitted([text]), encoder.encode_text([text])[0])) for text in texts
        ]
        for job, wanted in zip(jobs, alone, strict=True):
            np.testing.assert_allclose(job.result()[1], wanted, atol=1e-5)


@pytest.mark.parametrize("runtime", ["torch", "eager"])
def test_every_runtime_gives_the_same_vectors(encoder, folders, family, pictures, runtime):
    other = create_encoder("clip", weights=folders[family], device="cpu", runtime=runtime)
    cosines = (encoder.encode(pictures) * other.encode(pictures)).sum(axis=1)
    assert cosines.min() > 0.999
    assert {**encoder.spec, "runtime": None} == {**other.spec, "runtime": None}
    assert other.spec["runtime"]["name"] == ("eager" if family == "siglip2" else runtime)


def test_its_spec_finds_it_again(encoder, folders, family):
    again = encoder_for(encoder.spec, device="cpu")
    assert again.spec == encoder.spec
    assert encoder.spec["weights"]["argument"] == str(folders[family])
    assert encoder.min_side == (None if family == "siglip2" else 2 * tiny_models.SIDE)
    assert encoder.classify(np.zeros((2, encoder.dim))).shape == (2, 0)
    with pytest.raises(EncoderError, match="does not tell where"):
        encoder.feature_map(np.zeros((9, 9, 3), np.uint8))


def test_what_fits_is_a_persons_words_then_tags_then_captions(encoders):
    siglip = encoders["siglip"]  # reads sixteen words and signs, one of which ends the text
    assert siglip.fitted(["a red boat"], ["sea", "dog"], ["the cat"]) == ("a red boat, sea, dog, the cat", ())
    words = "a red boat at sea"
    found = siglip.fitted([words], ["dog", "cat"], ["a picture of the green sea", "two"])
    assert found == (f"{words}, dog, cat", ("a picture of the green sea", "two"))
    found = siglip.fitted(["a " * 20 + "red"], ["dog"], ["two"])
    assert found == (" ".join("a" * 15), (" ".join("a" * 5) + " red", "dog", "two"))
    assert siglip.fitted([], ["dog"], [" "]) == ("dog", ())
    assert siglip.fitted([""]) == ("", ())


def test_what_is_cut_is_never_half_a_word_and_nothing_is_lost(encoder):
    text = "a red boat at sea " * 9
    found = encoder.fitted([text])
    assert f"{found.text} {found.cut[0]}" == text
    tokens = encoder._tokenizer(found.text)["input_ids"]
    assert len(tokens) <= tiny_models.LONGEST
    endless = encoder.fitted(["x" * 1_000_000])
    assert len(endless.text) <= MAX_CHARACTERS
    assert endless.text + endless.cut[0] == "x" * 1_000_000


def test_probabilities_are_those_of_transformers(encoder, folders, family, pictures):
    texts = ["dog", "a red boat", "the sea"]
    found = encoder.probabilities(encoder.encode(pictures[:1]), encoder.encode_text(texts))
    model = tiny_models.transformers.AutoModel.from_pretrained(folders[family])
    processor = tiny_models.transformers.AutoImageProcessor.from_pretrained(folders[family], backend="pil")
    tokenizer = tiny_models.transformers.AutoTokenizer.from_pretrained(folders[family])
    padding = True if family == "clip" else "max_length"
    given = tokenizer(texts, padding=padding, max_length=tiny_models.LONGEST, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**given, **processor(images=Image.fromarray(pictures[0]), return_tensors="pt")).logits_per_image
    wanted = logits.softmax(dim=1) if family == "clip" else logits.sigmoid()
    np.testing.assert_allclose(found, wanted.numpy(), atol=0.01)


def test_bad_pictures_and_other_models_are_sentences(encoder, tmp_path):
    with pytest.raises(ValueError, match="must be a decoded RGB image"):
        encoder.preprocess(np.zeros((4, 4), np.uint8))
    with pytest.raises(EncoderError, match=r"has no config\.json"):
        create_encoder("clip", weights=tmp_path)


def test_a_model_of_texts_alone_is_refused():
    with pytest.raises(EncoderError, match="a bert, does not encode pictures and texts"):
        create_encoder("clip", weights=packaged_folder())


def test_damaged_weights_are_a_sentence(folders, tmp_path):
    folder = shutil.copytree(folders["clip"], tmp_path / "c")
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(EncoderError, match="cannot be read by transformers as AutoModel"):
        create_encoder("clip", weights=folder)


def test_nothing_of_it_is_imported_until_it_is_made():
    code = (
        "import sys, features.encoders, features.makers, search.engine; "
        "print([name for name in ('transformers', 'huggingface_hub', 'features.encoders.clip') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
