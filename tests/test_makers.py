"""Makers of words: what each says of a picture, and a sentence for whatever it cannot read."""

import json
import os
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_extract import FakeEncoder, make_images

from features.collection.said import Maker, Words
from features.datasets import ImageFolder
from features.encoders import EncoderError
from features.encoding import extract
from features.makers import MakerError, MakerOptions, base, create_maker, maker_names, register_maker, vocabulary
from features.makers.labels import LabelMaker, composed, readable
from features.makers.model import CERTAIN_ENOUGH, ClassTags
from features.makers.sidecars import embedded_words, xmp_words
from features.makers.tables import split_tags

XMP = """<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4">
<dc:subject><rdf:Bag><rdf:li>sea</rdf:li><rdf:li>סירה</rdf:li></rdf:Bag></dc:subject>
<dc:description><rdf:Alt><rdf:li xml:lang="x-default">a red boat 😀</rdf:li></rdf:Alt></dc:description>
</rdf:Description></rdf:RDF></x:xmpmeta>""".encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six pictures: "label 0/000.png" to "label 2/005.png"."""
    folder = tmp_path_factory.mktemp("makers")
    make_images(folder / "images", 6)
    return extract(ImageFolder(folder / "images"), FakeEncoder(), folder / "c", progress=False)


@pytest.fixture
def store(made):
    """The same pictures, with nothing beside them afterwards."""
    yield made
    for path in Path(made.manifest["root"]).rglob("*"):
        if path.suffix in (".txt", ".json", ".xmp"):
            path.unlink()


def path_of(store, number):
    return next(record.path for record in store.records() if int(record.path.stem) == number)


def said_by(maker, store):
    """What it says of each picture, by the number in its name, where that is anything."""
    records = store.records()
    found = zip(records, maker.words_of(records), strict=True)
    return {int(record.path.stem): words for record, words in found if words.captions or words.tags or words.fields}


def table(store, tmp_path, content, name="captions.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return create_maker("file", store, MakerOptions(path))


# Labels


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"person": 1, "dog": 2}, "two dogs and a person"),
        ({"aeroplane": 1}, "an aeroplane"),
        (
            {"sheep": 13, "person": 3, "bus": 3, "diningtable": 1},
            "13 sheep, three buses, three people and a dining table",
        ),
        ({"tvmonitor": 2, "water_lilly": 2}, "two TV monitors and two water lillies"),
    ],
)
def test_objects_with_counts_are_a_sentence(counts, sentence):
    assert composed(counts) == sentence


def test_labels_are_tags_and_a_sentence(store):
    maker = create_maker("label", store)
    assert isinstance(maker, LabelMaker)
    assert said_by(maker, store)[1] == Words({"label 1": None}, {"label 1": None})
    assert maker.maker == Maker("label", "labels")
    assert readable("water_lilly") == "water lilly"


def test_objects_of_voc_are_counted(store, monkeypatch):
    root = Path(store.manifest["root"])
    (root / "Annotations").mkdir(exist_ok=True)
    name = "001"
    objects = "".join(f"<object><name>{name}</name></object>" for name in ("dog", "person", "dog"))
    (root / f"Annotations/{name}.xml").write_text(f"<annotation>{objects}</annotation>")
    monkeypatch.setitem(store.manifest, "source", {"kind": "voc"})
    said = said_by(create_maker("label", store), store)
    assert said[1].captions == {"two dogs and a person": None}
    assert said[2].captions == {"label 2": None}, "without an annotation the labels alone"
    (root / f"Annotations/{name}.xml").write_text("<annotation>")
    assert said_by(create_maker("label", store), store)[1].captions == {"label 1": None}


# Tables


def test_a_table_gives_captions_tags_and_typed_fields(store, tmp_path):
    maker = table(
        store,
        tmp_path,
        "Image,Caption,Tags,Year,Rating,Taken,Note,width\n"
        "label 0/000.png,A red boat,sea; boat,2010,4.5,2010-05-17,7 up,3\n"
        '001.png,"Two lines,\nא ב 😀",,2011,,2011-01-02T03:04:05Z,x,4\n'
        "https://example.org/some/002.png?size=1,,,,3,,,\n"
        "C:\\pictures\\003.png,plain,,2012,1,,,\n",
    )
    assert said_by(maker, store) == {
        0: Words(
            {"A red boat": None},
            {"sea": None, "boat": None},
            {"year": 2010, "rating": 4.5, "taken": datetime(2010, 5, 17), "note": "7 up", "width_given": 3},
        ),
        1: Words(
            {"Two lines,\nא ב 😀": None},
            {},
            {"year": 2011, "taken": datetime(2011, 1, 2, 3, 4, 5, tzinfo=UTC), "note": "x", "width_given": 4},
        ),
        2: Words({}, {}, {"rating": 3}),
        3: Words({"plain": None}, {}, {"year": 2012, "rating": 1}),
    }
    assert maker.maker == Maker("file", "captions.csv")
    assert maker.notes == ["column width is kept as width_given: every picture has a width of its own"]


def test_two_rows_of_one_picture_are_joined(store, tmp_path):
    maker = table(store, tmp_path, "file;caption;n\n000.png;one;1\n000;two;2\n001.png;three;3\n")
    assert said_by(maker, store)[0] == Words({"one": None, "two": None}, {}, {"n": 1})
    assert maker.notes == [
        "1 picture has more than one row: their words are joined, and of fields the first row counts"
    ]


def test_latin_1_is_read_and_said(store, tmp_path):
    maker = table(store, tmp_path, "file\tcaption\n000.png\tein Käfer\n".encode("latin-1"), "captions.tsv")
    assert said_by(maker, store)[0].captions == {"ein Käfer": None}
    assert maker.notes == ["captions.tsv is not UTF-8 (byte 26): it was read as Latin-1"]
    for encoding in ("utf-16", "utf-8-sig"):
        maker = table(store, tmp_path, "file,caption\n000.png,ein Käfer\n".encode(encoding))
        assert said_by(maker, store)[0].captions == {"ein Käfer": None}
        assert maker.notes == []


def test_a_cell_of_ten_million_characters_and_a_nul_cost_no_other_row(store, tmp_path):
    maker = table(store, tmp_path, f"file,caption\n000.png,{'x ' * 5_000_000}\n001.png,a\0b\n\n002.png,last\n")
    store.annotations.put(
        maker.maker, maker.version, zip(store.records(), maker.words_of(store.records()), strict=True)
    )
    said = {number: store.annotations.of([id])[id].captions[0].text for number, id in ((0, 0), (1, 2), (2, 4))}
    assert len(said.pop(0)) == 99_999, "the space at the end is none"
    assert said == {1: "a b", 2: "last"}
    assert maker.notes == [
        "captions.csv, line 2: caption has 10,000,000 characters, of which the first 100,000 are kept"
    ]
    assert store.annotations.search("last")[0].tolist() == [4]


def test_rows_that_name_nothing_are_counted(store, tmp_path):
    maker = table(store, tmp_path, "file,caption\nnowhere.png,x\n,y\n000.png,z\n001.png,a,b,c\n")
    assert said_by(maker, store) == {0: Words({"z": None}, {}, {})}
    assert maker.notes == [
        "captions.csv, line 5 has 4 cells, the header 2: it is left out",
        "2 rows name no picture of c, or more than one; the first: line 2: 'nowhere.png'",
    ]


def test_json_lines_and_parquet(store, tmp_path):
    lines = [
        json.dumps({"file_name": "000.png", "caption": ["one", "two"], "tags": ["a", "b"], "n": 1, "more": {"x": 1}}),
        "no json",
        "[1]",
        json.dumps({"file_name": "001.png", "n": 2.5}),
    ]
    maker = table(store, tmp_path, "\n".join(lines), "captions.jsonl")
    assert said_by(maker, store) == {
        0: Words({"one": None, "two": None}, {"a": None, "b": None}, {"n": 1, "more": '{"x": 1}'}),
        1: Words({}, {}, {"n": 2.5}),
    }
    assert [note[:40] for note in maker.notes] == [
        "captions.jsonl, line 2 is left out: it i",
        "captions.jsonl, line 3 is left out: it i",
    ]
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"path": ["000.png", "001.png"], "tags": [["a"], None], "day": [date(2010, 1, 2), None], "n": [1, 2]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "captions.parquet")
    maker = create_maker("file", store, MakerOptions(tmp_path / "captions.parquet"))
    assert said_by(maker, store) == {
        0: Words({}, {"a": None}, {"day": date(2010, 1, 2), "n": 1}),
        1: Words({}, {}, {"n": 2}),
    }


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("captions.csv", "a,b\n1,2\n", r"captions.csv has no column that names the picture \(file, .*\); it has a, b"),
        ("captions.csv", "", "it has none at all"),
        ("captions.doc", "", "captions.doc is none of .csv, .tsv, .jsonl and .parquet"),
        ("captions.parquet", "no table", "cannot be read as Parquet"),
    ],
)
def test_what_is_no_table_is_a_sentence(store, tmp_path, name, content, said):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(MakerError, match=said):
        table(store, tmp_path, content, name)
    with pytest.raises(MakerError, match="cannot be read: No such file"):
        create_maker("file", store, MakerOptions(tmp_path / "missing.csv"))


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("sea; red boat ;", ["sea", "red boat"]),
        ("sea, boat", ["sea", "boat"]),
        ("a|b, c", ["a", "b, c"]),
        ('["x", "y, z"]', ["x", "y, z"]),
        ("[broken", ["[broken"]),
        (["a", None, 3], ["a", "3"]),
        (None, []),
        (7, ["7"]),
    ],
)
def test_tags_of_a_cell(cell, tags):
    assert split_tags(cell) == tags


# Beside pictures and in them


def test_what_lies_beside_a_picture_is_read(store):
    root = Path(store.manifest["root"])
    (root / path_of(store, 0)).with_suffix(".txt").write_text("A boat\nat sea\n\nAnother sentence\n")
    Path(f"{root / path_of(store, 1)}.json").write_text(
        json.dumps({"title": "Boat", "keywords": "sea, red", "rating": 3, "size": 7, "empty": ""})
    )
    (root / path_of(store, 2)).with_suffix(".xmp").write_bytes(XMP)
    (root / path_of(store, 3)).with_suffix(".json").write_text("[]")
    (root / path_of(store, 4)).with_suffix(".txt").write_bytes("Käfer".encode("latin-1"))
    (root / path_of(store, 5)).with_suffix(".xmp").write_text("<a>")
    maker = create_maker("file", store)
    assert said_by(maker, store) == {
        0: Words({"A boat\nat sea": None, "Another sentence\n": None}, {}, {}),
        1: Words({"Boat": None}, {"sea": None, "red": None}, {"rating": 3, "size_given": 7}),
        2: Words({"a red boat 😀": None}, {"sea": None, "סירה": None}, {"rating": 4.0}),
        4: Words({"Käfer": None}, {}, {}),
    }
    assert [note.partition(" is left out: ")[2][:5] for note in maker.notes] == ["it is", "no el"]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_what_a_picture_carries_is_read(format):
    options = {}
    if format == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif format == "TIFF":
        options["tiffinfo"] = {700: XMP}
    else:
        options["xmp"] = XMP
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, format, **options)
    assert embedded_words(out.getvalue()) == Words(
        {"a red boat 😀": None}, {"sea": None, "סירה": None}, {"rating": 4.0}
    )


def test_iptc_is_read():
    def record(dataset, value):
        return b"\x1c\x02" + bytes([dataset]) + len(value).to_bytes(2, "big") + value

    iptc = record(25, b"sea") + record(25, "Käfer".encode("latin-1")) + record(120, "a boat 😀".encode())
    resource = b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc + b"\0" * (len(iptc) % 2)
    block = b"Photoshop 3.0\0" + resource
    out = BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    content = out.getvalue()
    app13 = b"\xff\xed" + (len(block) + 2).to_bytes(2, "big") + block
    assert embedded_words(content[:2] + app13 + content[2:]) == Words(
        {"a boat 😀": None}, {"sea": None, "Käfer": None}, {}
    )


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff\xed\0\x04ab"])
def test_what_is_no_picture_carries_nothing(content):
    assert embedded_words(content) == Words()


def test_xml_that_would_grow_without_end_is_refused():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
    with pytest.raises(ValueError, match="EntitiesForbidden"):
        xmp_words(bomb)


# The encoder's classes


class Seer(FakeEncoder):
    """Sees two breeds of dog and a boat, as sure of each as the first numbers of a vector say."""

    classes = ("dalmatian", "beagle", "speedboat", "gizmo")

    def classify(self, features):
        return np.asarray(features[:, :4], np.float32)


def test_what_classes_are_kinds_of_is_surer_than_each():
    tags = ClassTags(Seer())
    certain = tags.certainties(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))[0]
    found = dict(zip(tags.names, certain.tolist(), strict=True))
    assert found["dalmatian"] == pytest.approx(0.4)
    assert found["dog"] == found["carnivore"] == found["animal"] == pytest.approx(0.7)
    assert found["speedboat"] == found["boat"] == found["vehicle"] == pytest.approx(0.2)
    assert found["gizmo"] == pytest.approx(0.1), "the tree need not have it"
    assert not {"entity", "object", "physical entity", "artifact"} & set(found)


def test_a_picture_is_tagged_with_what_is_sure_enough(store, monkeypatch):
    monkeypatch.setattr("features.makers.model.shared_encoder", lambda spec: Seer())
    maker = create_maker("model", store)
    sure = np.zeros((len(store.features), store.features.shape[1]), np.float16)
    sure[0, :4] = CERTAIN_ENOUGH / 2, CERTAIN_ENOUGH / 2 + 0.01, 0, 0
    sure[2, 3] = 0.9
    monkeypatch.setattr(store, "features", sure)
    said = said_by(maker, store)
    assert {"dog", "animal"} < set(said[0].tags)
    assert not {"dalmatian", "beagle", "boat"} & set(said[0].tags), "number and id of the first are the same"
    assert said[0].tags["dog"] == pytest.approx(CERTAIN_ENOUGH + 0.01, abs=2e-3)
    assert said[1].tags == {"gizmo": pytest.approx(0.9, abs=2e-3)}
    assert set(said) == {0, 1}


def test_an_encoder_without_classes_says_what_would_have_some(store, monkeypatch):
    monkeypatch.setattr("features.makers.model.shared_encoder", lambda spec: FakeEncoder())
    with pytest.raises(MakerError, match="has no classes"):
        create_maker("model", store)

    def gone(spec):
        raise EncoderError("its weights are gone")

    monkeypatch.setattr("features.makers.model.shared_encoder", gone)
    with pytest.raises(MakerError, match="its weights are gone"):
        create_maker("model", store)


# The registry


def test_a_new_maker_is_a_line(store, monkeypatch):
    monkeypatch.setattr(base, "_CLASSES", dict(base._CLASSES))
    register_maker("mine", "features.makers.labels:LabelMaker")
    assert "mine" in maker_names()
    assert isinstance(create_maker("mine", store), LabelMaker)
    with pytest.raises(ValueError, match=r"package\.module:Class"):
        register_maker("mine", "nothing")
    with pytest.raises(MakerError, match="unknown maker 'blimp'; there are label, file, model"):
        create_maker("blimp", store)


def test_what_may_have_no_end_is_no_table_and_no_vocabulary(store, tmp_path):
    """CASES, files, 8."""
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "endless.csv").symlink_to("/dev/zero")
    for name in ("pipe.csv", "endless.csv"):
        path = tmp_path / name
        with pytest.raises(MakerError, match=f"{name} is no file"):
            create_maker("file", store, MakerOptions(path))
        with pytest.raises(MakerError, match=f"{name} is no file"):
            vocabulary._read(MakerOptions(vocabulary=path))
