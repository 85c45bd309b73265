"""Captions by tiny random models of several kinds, loaded for real, and tags by a tiny CLIP and SigLIP."""

import shutil

import numpy as np
import pytest
import tiny_models
from PIL import Image
from test_extract import FakeEncoder, make_images

from features.collection.said import Maker, Words
from features.datasets import ImageFolder
from features.encoders import create_encoder, share_encoder
from features.encoding import extract
from features.images import decode_image
from features.makers import MakerError, MakerOptions, create_maker
from features.makers import captioner as captioner_module
from features.makers.captioner import BLIP, MAX_TOKENS
from features.makers.vocabulary import CERTAIN_ENOUGH, PROMPT
from features.store import FeatureStore
from search.annotate import annotate, main

KINDS = {"blip": tiny_models.save_blip, "florence2": tiny_models.save_florence2, "llava": tiny_models.save_llava}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {name: save(tmp_path_factory.mktemp("models") / name) for name, save in KINDS.items()}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    saved = {"clip": tiny_models.save_clip(folder / "c"), "siglip": tiny_models.save_siglip(folder / "s")}
    return {name: create_encoder("clip", weights=path) for name, path in saved.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captioned")
    make_images(folder / "images", 6)
    Image.new("RGB", (40, 60), (200, 30, 30)).save(folder / "images" / "label 0" / "000.png")
    return extract(ImageFolder(folder / "images"), FakeEncoder(), folder / "collections" / "c", progress=False)


@pytest.fixture
def store(made, tmp_path):
    """The same pictures, of which nothing is said."""
    leave = shutil.ignore_patterns("annotations.sqlite*")
    return FeatureStore.open(shutil.copytree(made.folder, tmp_path / "collections" / "c", ignore=leave))


def captions(store):
    return {id: [caption.text for caption in said.captions] for id, said in store.annotations.of(range(6)).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_each_picture_gets_the_caption_that_its_model_gives_it_alone(kind, models, store):
    maker = create_maker("caption", store, MakerOptions(model=str(models[kind])))
    assert maker.maker == Maker("model", kind)
    records = store.records()
    said = maker.words_of(records)
    assert [maker.words_of([record])[0] for record in records] == said
    texts = [next(iter(words.captions)) for words in said]
    assert all(set(text.replace(",", " ").replace(".", " ").split()) <= set(tiny_models.WORDS) for text in texts)
    assert all(0 < len(text.split()) <= MAX_TOKENS for text in texts)


def test_the_caption_is_that_of_transformers(models, store):
    transformers = tiny_models.transformers
    model = transformers.BlipForConditionalGeneration.from_pretrained(models["blip"]).eval()
    processor = transformers.BlipProcessor.from_pretrained(models["blip"], backend="pil")
    maker = create_maker("blip", store, MakerOptions(model=str(models["blip"])))
    for record, words in zip(store.records(), maker.words_of(store.records()), strict=True):
        pixels = decode_image(store.items[record.id].path)
        given = processor(images=Image.fromarray(pixels), return_tensors="pt")
        (tokens,) = model.generate(**given, max_new_tokens=MAX_TOKENS, do_sample=False)
        assert list(words.captions) == [" ".join(processor.decode(tokens, skip_special_tokens=True).split())]


def test_the_command_writes_them_once(models, store, capsys, monkeypatch):
    monkeypatch.setattr("search.annotate.create_space", lambda *_, **__: None)
    command = [str(store.folder), "--maker", "caption", "--model", str(models["blip"]), "--quiet"]
    assert main(command) == 0
    assert capsys.readouterr().out == "blip: words of 6 of 6 pictures: 6 captions, 0 tags, 0 fields\n"
    assert main(command) == 0
    assert capsys.readouterr().out == "blip: nothing new\n"
    assert len(captions(store)) == 6


def test_a_run_that_is_stopped_goes_on_after_its_last_batch(models, store):
    maker = create_maker("caption", store, MakerOptions(model=str(models["blip"])))
    maker.batch_size, write, calls = 2, maker._captions, []

    def stopped(pictures):
        calls.append(len(pictures))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return write(pictures)

    maker._captions = stopped
    with pytest.raises(KeyboardInterrupt):
        annotate(store, maker, progress=False)
    assert captions(store).keys() == {0, 1, 2, 3}
    assert annotate(store, maker, progress=False).looked_at == 2


def test_one_picture_that_the_model_refuses_is_a_sentence_and_the_others_are_captioned(models, store):
    maker = create_maker("caption", store, MakerOptions(model=str(models["blip"])))
    write = maker._captions

    def refusing(pictures):
        if any(pixels.shape[:2] == (60, 40) for pixels in pictures):
            raise ValueError("mean must have 1 elements\nmore of this")
        return write(pictures)

    maker._captions = refusing
    report = annotate(store, maker, progress=False)
    assert (report.looked_at, report.with_words) == (6, 5)
    assert report.notes == ("label 0/000.png got no caption: mean must have 1 elements",)


def test_a_model_that_refuses_every_picture_is_an_error_and_nothing_counts_as_done(models, store):
    maker = create_maker("caption", store, MakerOptions(model=str(models["blip"])))
    maker._captions = lambda pictures: (_ for _ in ()).throw(RuntimeError("out of memory"))
    with pytest.raises(MakerError, match="blip gives no picture a caption: out of memory"):
        annotate(store, maker, progress=False)
    assert len(store.annotations.todo(maker.maker, maker.version, store.records())) == 6


def test_a_picture_that_is_away_is_captioned_the_next_time(models, store, tmp_path):
    path = store.items[0].path
    shutil.move(path, tmp_path / "away.png")
    maker = create_maker("caption", store, MakerOptions(model=str(models["blip"])))
    try:
        assert annotate(store, maker, progress=False).looked_at == 5
    finally:
        shutil.move(tmp_path / "away.png", path)
    assert annotate(store, maker, progress=False).looked_at == 1


def test_what_would_run_its_own_code_is_told_of_the_table(store, tmp_path):
    maker = create_maker("caption", store, MakerOptions(model=str(tiny_models.require_code(tmp_path / "moondream"))))
    with pytest.raises(MakerError, match=r"would run code of its own, and none is ever run here.*--file TABLE"):
        maker.words_of(store.records())


@pytest.mark.parametrize("told", [["moondream"], ["caption", "--model", "vikhyatk/moondream2@2025-06-21"]])
def test_moondream_is_refused_before_anything_is_downloaded(store, monkeypatch, capsys, told):
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert not any("moondream" in kind for kind in CONFIG_MAPPING), "transformers has it now: let it caption"
    monkeypatch.setattr(captioner_module, "find_model", lambda *asked: pytest.fail("looked for"))
    assert main([str(store.folder), "--quiet", "--maker", *told]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "code of its own" in said and "--file TABLE" in said and "Florence-2" in said
    assert captions(store) == {}


def test_a_folder_of_moondream_is_read_as_any_other(models, store):
    maker = create_maker("moondream", store, MakerOptions(model=str(models["blip"])))
    (words,) = maker.words_of(store.records([0]))
    assert words.captions


def test_a_model_that_does_not_caption_is_refused(store, clips):
    maker = create_maker("caption", store, MakerOptions(model=clips["clip"].spec["weights"]["argument"]))
    with pytest.raises(MakerError, match="cannot be read by transformers as AutoModelForImageTextToText"):
        maker.words_of(store.records())


def test_blip_has_a_model_by_default_and_caption_asks_for_one(store, monkeypatch):
    asked = []
    monkeypatch.setattr(captioner_module, "find_model", lambda model, way_out: asked.append(model) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        _ = create_maker("blip", store).version
    assert asked == [BLIP]
    with pytest.raises(MakerError, match="which model is to write captions"):
        create_maker("caption", store)


# Tags


def vocabulary(tmp_path, content="boat\n\nred sea\nBoat\nboat\n dog \n"):
    path = tmp_path / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_tags_are_what_is_probable_enough(kind, clips, store, tmp_path, monkeypatch):
    encoder = clips[kind]
    monkeypatch.setattr("features.makers.vocabulary.create_encoder", lambda name, weights: encoder)
    bound = 0.2 if kind == "clip" else 1e-5  # a random model is sure of nothing
    monkeypatch.setattr("features.makers.vocabulary.CERTAIN_ENOUGH", bound)
    maker = create_maker("clip", store, MakerOptions(model="any", vocabulary=vocabulary(tmp_path)))
    assert maker.maker == Maker("model", "clip: words.txt")
    tags = ["boat", "red sea", "Boat", "dog"]
    pictures = encoder.encode([decode_image(store.items[record.id].path) for record in store.records()])
    wanted = encoder.probabilities(pictures, encoder.encode_text([PROMPT.format(tag) for tag in tags]))
    found = maker.words_of(store.records())
    assert found == [
        Words(tags={tag: round(float(each), 3) for tag, each in zip(tags, row, strict=True) if each >= bound})
        for row in wanted
    ]
    assert any(words.tags for words in found)
    assert CERTAIN_ENOUGH == 0.5


def test_pictures_that_the_space_knows_are_not_opened(clips, store, tmp_path, monkeypatch):
    encoder, generator = clips["siglip"], np.random.default_rng(0)
    share_encoder(encoder)
    vectors = generator.normal(size=(6, encoder.dim)).astype(np.float16)
    vectors[4] = 0
    np.save(store.folder / "clip.npy", vectors)
    entry = {"file": "clip.npy", "sha256": "0" * 64, "dim": encoder.dim, "dtype": "float16", "metric": "cosine"}
    store.update_manifest(spaces={"clip": {**entry, "maker": encoder.spec, "generation": store.generation}})
    maker = create_maker("clip", store, MakerOptions(vocabulary=vocabulary(tmp_path)))
    opened, read = [], maker.pixels
    monkeypatch.setattr(maker, "pixels", lambda record: opened.append(record.id) or read(record))
    found = maker.words_of(store.records())
    assert opened == [4]
    texts = encoder.encode_text([PROMPT.format(tag) for tag in ("boat", "red sea", "Boat", "dog")])
    wanted = encoder.probabilities(vectors.astype(np.float32), texts) >= CERTAIN_ENOUGH
    assert [len(words.tags) for place, words in enumerate(found) if place != 4] == np.delete(
        wanted.sum(axis=1), 4
    ).tolist()


def test_another_vocabulary_is_another_version(clips, store, tmp_path, monkeypatch):
    monkeypatch.setattr("features.makers.vocabulary.create_encoder", lambda name, weights: clips["clip"])
    versions = []
    for content in ("a\nb\n", "a\nc\n", "a\nb\n"):
        versions.append(create_maker("clip", store, MakerOptions(vocabulary=vocabulary(tmp_path, content))).version)
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "--vocabulary FILE, with one tag a line"),
        ("\n \n", "has no tag: write one a line"),
        (b"caf\xe9\n", r"is not in UTF-8 \(byte 3\)"),
        ("x\n" + "\n".join(map(str, range(100_001))), "has 100,002 tags; at most 100,000"),
    ],
)
def test_a_vocabulary_that_cannot_be_is_a_sentence(store, tmp_path, content, said):
    path = None if content is None else vocabulary(tmp_path, content)
    with pytest.raises(MakerError, match=said):
        create_maker("clip", store, MakerOptions(vocabulary=path))
    with pytest.raises(MakerError, match=r"nowhere\.txt cannot be read"):
        create_maker("clip", store, MakerOptions(vocabulary=tmp_path / "nowhere.txt"))


@pytest.mark.parametrize("makers", ["ocr", "blip,clip"])
def test_a_model_is_named_for_one_maker(store, capsys, makers):
    with pytest.raises(SystemExit):
        main([str(store.folder), "--maker", makers, "--model", "x/y"])
    assert "--model is for one of blip, caption, clip, moondream, and --maker names" in capsys.readouterr().err


def test_a_vocabulary_is_for_the_maker_that_chooses_from_it(store, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(store.folder), "--maker", "model", "--vocabulary", str(vocabulary(tmp_path))])
    assert "--vocabulary is what clip chooses from: add --maker clip" in capsys.readouterr().err


def test_what_was_said_is_taken_back_without_the_model(store, tmp_path, monkeypatch):
    told = [str(store.folder), "--quiet", "--forget", "--maker"]
    for module in ("captioner.find_model", "vocabulary.create_encoder"):
        monkeypatch.setattr(f"features.makers.{module}", lambda *_, **__: 1 / 0)
    monkeypatch.setattr("search.annotate.create_space", lambda *_, **__: None)
    first, second = store.records([0, 1])
    store.annotations.put(Maker("model", BLIP), "1", [(first, Words({"a boat": None}))])
    store.annotations.put(Maker("model", "clip: words.txt"), "1", [(second, Words(tags={"boat": 0.9}))])
    assert [len(said.captions) + len(said.tags) for said in store.annotations.of([0, 1]).values()] == [1, 1]
    assert main([*told, "blip"]) == 0
    assert main([*told, "clip", "--vocabulary", str(vocabulary(tmp_path))]) == 0
    assert not any(said.captions or said.tags for said in store.annotations.of(range(6)).values())
