"""Duplicates: what is the same is found, however it was changed, and what people decide about it holds for good."""

import json
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from PIL import Image, ImageFilter
from test_extract import FakeEncoder
from test_store import SPEC

from features.checksum import sha256_of
from features.collection import duplicates as decisions
from features.collection import edits
from features.collection.records import Facts
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import sync
from features.collection.writer import StoreWriter
from features.datasets import ImageFolder
from features.encoding import extract
from features.phash import HASH_BYTES, perceptual_hashes
from search import duplicate_pairs, near_hashes, same_picture
from search.duplicate_pairs import Level, Pairs, find_duplicates, look_closer
from search.duplicates import Group, groups_of, main, told_of

TURNS = list(Image.Transpose)


def photograph(seed, size=(240, 180)):
    """Something with edges and areas, unlike any other seed's."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(1))
    return np.asarray(picture)


def hashes_of(pixels):
    return np.frombuffer(perceptual_hashes(np.ascontiguousarray(pixels)), np.uint64)


class TestHashes:
    @pytest.mark.parametrize("turn", TURNS)
    def test_a_turned_picture_has_one_of_the_hashes_of_the_picture(self, turn):
        pixels = photograph(1)
        turned = hashes_of(np.asarray(Image.fromarray(pixels).transpose(turn)))
        assert np.bitwise_count(turned[0] ^ hashes_of(pixels)).min() <= 2

    def test_a_smaller_and_a_brighter_picture_have_nearly_its_hash(self):
        pixels = photograph(2)
        smaller = np.asarray(Image.fromarray(pixels).resize((80, 60)))
        brighter = (pixels * 0.6 + 80).astype(np.uint8)
        for other in (smaller, brighter):
            assert np.bitwise_count(hashes_of(other)[0] ^ hashes_of(pixels)[0]) <= near_hashes.BITS_MAX

    def test_another_picture_has_another_hash(self):
        assert np.bitwise_count(hashes_of(photograph(3))[0] ^ hashes_of(photograph(4))).min() > 2 * near_hashes.BITS_MAX
        assert len(perceptual_hashes(photograph(3))) == HASH_BYTES


def some_hashes(count=150, seed=0):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, (count, 8), dtype=np.uint64)
    for _ in range(60):
        near = hashes[rng.integers(count), 0]
        for bit in rng.choice(64, rng.integers(0, 9), replace=False):
            near ^= np.uint64(1) << np.uint64(bit)
        hashes[rng.integers(count), rng.integers(8)] = near
    return hashes


@pytest.mark.parametrize("compared", [0, 1_000])
@pytest.mark.parametrize("rows", [None, [3, 7, 50, 51, 52, 120]])
def test_near_hashes_are_those_that_comparing_all_with_all_finds(monkeypatch, rows, compared):
    monkeypatch.setattr(near_hashes, "COMPARED_AT_MOST", compared)
    hashes = some_hashes()
    one_way = np.bitwise_count(hashes[:, None, :] ^ hashes[None, :, :1]).min(axis=2)
    differing = np.minimum(one_way, one_way.T)
    wanted = np.argwhere(np.triu(differing <= 6, 1))
    if rows is not None:
        wanted = wanted[np.isin(wanted, rows).any(axis=1)]
    pairs, bits = near_hashes.near_hashes(hashes, None if rows is None else np.array(rows))
    assert len(wanted) > 2
    np.testing.assert_array_equal(pairs, wanted)
    np.testing.assert_array_equal(bits, differing[tuple(wanted.T)])


def test_blank_pictures_are_no_sign_of_anything(monkeypatch):
    monkeypatch.setattr(near_hashes, "CROWD", 10)
    assert near_hashes.near_hashes(np.zeros((40, 8), np.uint64))[0].size == 0


VECTORS = np.eye(16, dtype=np.float32)


def collection(folder, pictures):
    """A collection of pictures, by name: (pixels or the bytes of a file, vector)."""
    root = folder / "pictures"
    for name, (picture, _) in pictures.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(picture, bytes):
            path.write_bytes(picture)
        else:
            Image.fromarray(picture).save(path)
    dataset = ImageFolder(root)
    writer = StoreWriter(folder / "c", dataset, dataset.items, {**SPEC, "dim": 16}, "float32")
    pixels = [np.asarray(Image.open(item.path).convert("RGB")) for item in dataset.items]
    rows = [pictures[item.path.relative_to(root).as_posix()][1] for item in dataset.items]
    facts = [
        Facts(sha256_of(item.path), each.shape[1], each.shape[0], None, perceptual_hashes(each))
        for item, each in zip(dataset.items, pixels, strict=True)
    ]
    writer.append(np.stack(rows), facts)
    return writer.finish()


@pytest.fixture
def store(tmp_path):
    """a, its copy, the same pixels as another format, it mirrored; b and a piece of it by vector; c alone.

    d and e are near by vector and not the same picture.
    """
    a, b, d = photograph(10), photograph(11), photograph(13)
    near_b = VECTORS[1] + 0.3 * VECTORS[9]
    near_d = VECTORS[3] + 0.2 * VECTORS[8]
    made = collection(
        tmp_path,
        {
            "a.png": (a, VECTORS[0]),
            "b.png": (b, VECTORS[1]),
            "c.png": (photograph(12), VECTORS[2]),
            "d.png": (d, VECTORS[3]),
            "e.png": (photograph(14), near_d),
            "a.bmp": (a, VECTORS[0]),
            "mirrored.png": (a[:, ::-1], VECTORS[4]),
            "piece.png": (b[20:160, 30:210], near_b),
        },
    )
    shutil.copy(tmp_path / "pictures" / "a.png", tmp_path / "pictures" / "z copy.png")
    return made


def names(store, groups):
    return [[store.items[id].path.name for id in sorted(group.ids)] for group in groups]


def nearest_of(store):
    """Candidates by exact search."""

    def candidates(ids, k):
        x = store.features / np.maximum(np.linalg.norm(store.features, axis=1, keepdims=True), 1e-12)
        return np.argsort(-(x[ids] @ x.T), axis=1)[:, :k]

    return candidates


def ids_by_name(store):
    return {item.path.name: item.id for item in store.items}


class TestPairs:
    def test_hash_and_vector_find_what_only_one_of_them_can(self, store):
        pairs = duplicate_pairs.found_pairs(store, nearest_of(store))
        found = {tuple(store.items[id].path.name for id in row[:2]): Level(row[2]) for row in pairs.rows.tolist()}
        assert found == {
            ("a.bmp", "a.png"): Level.LIKELY,
            ("a.bmp", "mirrored.png"): Level.LIKELY,
            ("a.png", "mirrored.png"): Level.LIKELY,
            ("b.png", "piece.png"): Level.LIKELY,
            ("d.png", "e.png"): Level.LIKELY,
        }
        assert pairs.unseen == len(pairs.rows)

    def test_of_a_large_collection_the_index_is_asked(self, store, monkeypatch):
        exact = duplicate_pairs.found_pairs(store, nearest_of(store)).rows
        monkeypatch.setattr(duplicate_pairs, "COMPARED_AT_MOST", 3)
        np.testing.assert_array_equal(duplicate_pairs.found_pairs(store, nearest_of(store)).rows, exact)

    def test_a_closer_look_proves_or_does_not(self, store):
        pytest.importorskip("cv2")
        duplicate_pairs.find_duplicates(store)
        pairs = look_closer(store)
        found = {tuple(store.items[id].path.name for id in row[:2]): Level(row[2]) for row in pairs.rows.tolist()}
        assert found == {
            ("a.bmp", "a.png"): Level.SAME_PIXELS,
            ("a.bmp", "mirrored.png"): Level.PROVED,
            ("a.png", "mirrored.png"): Level.PROVED,
            ("b.png", "piece.png"): Level.PROVED,
            ("d.png", "e.png"): Level.LIKELY,
        }
        assert pairs.unseen == 0
        again = FeatureStore.open(store.folder)
        np.testing.assert_array_equal(Pairs.of(again).rows, pairs.rows)
        again.verify()
        assert names(again, groups_of(again, pairs)) == [["a.bmp", "a.png", "mirrored.png"], ["b.png", "piece.png"]]

    def test_what_was_looked_at_is_kept_where_it_is_stopped(self, store, monkeypatch):
        pytest.importorskip("cv2")
        find_duplicates(store)
        monkeypatch.setattr(duplicate_pairs, "_BLOCK", 2)

        def stop(done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            look_closer(store, progress=stop)
        assert Pairs.of(FeatureStore.open(store.folder)).unseen == 3

    def test_without_opencv_it_says_what_to_install(self, store, monkeypatch):
        monkeypatch.setattr(duplicate_pairs, "can_prove", lambda: False)
        with pytest.raises(StoreError, match="pip install opencv-python-headless"):
            look_closer(store)

    def test_a_damaged_file_of_pairs_is_named(self, store):
        find_duplicates(store)
        again = FeatureStore.open(store.folder)
        (store.folder / again.manifest["duplicates"]["file"]).write_bytes(b"no array")
        with pytest.raises(StoreError, match=r"duplicates\.npy cannot be read"):
            Pairs.of(again)


def test_a_picture_without_detail_proves_nothing():
    pytest.importorskip("cv2")
    blank = same_picture.Sight.of(np.full((60, 80, 3), 200, np.uint8))
    assert not same_picture.is_same_picture(blank, blank)


class TestDecisions:
    @pytest.fixture
    def groups(self, store):
        find_duplicates(store)
        self.store = FeatureStore.open(store.folder)
        self.pairs = Pairs.of(self.store)
        self.id = ids_by_name(self.store)
        return self.left()

    def left(self, deepest=None):
        return [names(self.store, [group])[0] for group in groups_of(self.store, self.pairs, deepest)]

    def test_what_is_called_different_holds_nothing_together(self, groups):
        assert groups == [["a.bmp", "a.png", "mirrored.png"], ["b.png", "piece.png"], ["d.png", "e.png"]]
        decisions.call_different(self.store.annotations, [self.id["d.png"], self.id["e.png"]])
        decisions.call_different(self.store.annotations, [self.id["a.bmp"], self.id["a.png"]])
        decisions.call_different(self.store.annotations, [self.id["mirrored.png"], self.id["a.png"]])
        assert self.left() == [["a.bmp", "mirrored.png"], ["b.png", "piece.png"]]
        edits.undo(self.store.annotations)
        assert self.left()[0] == ["a.bmp", "a.png", "mirrored.png"]

    def test_what_is_put_off_is_called_so(self, groups):
        decisions.postpone(self.store.annotations, [self.id["b.png"], self.id["piece.png"]])
        found = groups_of(self.store, self.pairs)
        assert [group.is_later for group in found] == [False, True, False]

    def test_the_kept_one_gets_what_people_said_of_the_others(self, groups):
        kept, other = self.id["b.png"], self.id["piece.png"]
        said = self.store.annotations
        edits.add_tag(said, [other], "harbour")
        edits.set_field(said, [other], "rating", 4)
        edits.set_field(said, [kept], "place", "Kiel")
        edits.set_field(said, [other], "place", "Bremen")
        edits.put_in_album(said, [other], "best")
        edits.set_favourite(said, [other], True)
        decisions.keep(said, kept, [other])
        now = said.of([kept])[kept]
        assert [tag.tag for tag in now.tags] == ["harbour"]
        assert {field.name: field.value for field in now.fields} == {"rating": 4, "place": "Kiel"}
        assert now.albums == ("best",) and now.is_favourite
        assert decisions.set_aside(said) == {other: self.store.hash_of(kept)}
        assert ["b.png", "piece.png"] not in self.left()
        assert said.search("harbour")[0].tolist() == [kept, other]
        edits.undo(said)
        assert [field.name for field in said.of([kept])[kept].fields] == ["place"]
        assert decisions.set_aside(said) == {}

    def test_who_is_set_aside_can_be_taken_back(self, groups):
        decisions.keep(self.store.annotations, self.id["b.png"], [self.id["piece.png"]])
        decisions.take_back(self.store.annotations, [self.id["piece.png"]])
        assert decisions.set_aside(self.store.annotations) == {}

    def test_decisions_hang_on_the_content(self, groups):
        decisions.call_different(self.store.annotations, [self.id["d.png"], self.id["e.png"]])
        decisions.keep(self.store.annotations, self.id["b.png"], [self.id["piece.png"]])
        records = self.store.records()
        edited = [each._replace(sha256="0" * 64) if each.path.name == "piece.png" else each for each in records]
        self.store.annotations.follow(edited)
        assert decisions.set_aside(self.store.annotations) == {}
        contents = sorted(self.store.hash_of(self.id[name]) for name in ("d.png", "e.png"))
        assert decisions.verdicts(self.store.annotations) == {tuple(contents): "different"}

    @pytest.mark.parametrize("ids", [[], [1], range(201)])
    def test_a_decision_is_of_at_least_two_and_not_of_too_many(self, groups, ids):
        with pytest.raises(StoreError, match="2 to 200 pictures"):
            decisions.call_different(self.store.annotations, ids)


def test_the_largest_is_the_one_to_keep(store):
    find_duplicates(store)
    store = FeatureStore.open(store.folder)
    groups = groups_of(store, Pairs.of(store))
    assert store.items[groups[0].ids[0]].path.name == "a.bmp"  # as many pixels as a.png, and more bytes
    assert store.items[groups[1].ids[0]].path.name == "b.png"
    told = told_of(store, groups)
    assert [each["path"] for each in told[1]["pictures"]] == ["b.png", "piece.png"]
    assert told[1]["level"] == "likely"
    assert isinstance(groups[0], Group)


def test_equal_files_are_groups_of_their_own_and_one_stands_for_all(tmp_path):
    pixels = photograph(30)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    file = (tmp_path / "one.png").read_bytes()
    vectors = dict.fromkeys(("a.png", "b.png", "c.png"), VECTORS[0])
    made = collection(
        tmp_path,
        {name: (file, vector) for name, vector in vectors.items()}
        | {"small.png": (np.asarray(Image.fromarray(pixels).resize((120, 90))), VECTORS[1])},
    )
    find_duplicates(made)
    store = FeatureStore.open(made.folder)
    id, left = ids_by_name(store), lambda: names(store, groups_of(store, Pairs.of(store)))
    assert left() == [["a.png", "b.png", "c.png"], ["a.png", "small.png"]]
    decisions.keep(store.annotations, id["b.png"], [id["a.png"]])
    assert left() == [["b.png", "c.png"], ["b.png", "small.png"]]
    decisions.call_different(store.annotations, [id["b.png"], id["c.png"]])
    assert left() == [["b.png", "small.png"]], "whoever wants a file twice has it"
    decisions.postpone(store.annotations, [id["b.png"], id["small.png"]])
    assert [group.is_later for group in groups_of(store, Pairs.of(store))] == [True]


def test_the_command_tells_them_and_exports_what_was_set_aside(store, tmp_path, capsys):
    find_duplicates(store)
    assert main(["c", "--collections", str(tmp_path), "--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    paths = [[picture["path"] for picture in group["pictures"]] for group in told["groups"]]
    assert paths[1] == ["b.png", "piece.png"]
    now = FeatureStore.open(store.folder)
    decisions.keep(now.annotations, ids_by_name(now)["b.png"], [ids_by_name(now)["piece.png"]])
    assert main(["c", "--collections", str(tmp_path), "--export", str(tmp_path / "list.txt")]) == 0
    assert (tmp_path / "list.txt").read_text() == f"{tmp_path / 'pictures' / 'piece.png'}\n"
    assert main(["c", "--collections", str(tmp_path), "--quick"]) == 0
    assert "2 groups; duplicates: 3 likely" in capsys.readouterr().out


class TestSync:
    @pytest.fixture
    def folder(self, tmp_path):
        for seed in range(4):
            path = tmp_path / "pictures" / f"{seed}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(photograph(20 + seed)).save(path)
        extract(ImageFolder(tmp_path / "pictures"), FakeEncoder(), tmp_path / "c", progress=False)
        return tmp_path / "c"

    def sync(self, folder):
        def follow(store):
            return {"duplicates": duplicate_pairs.followed(store, nearest_of(store))}

        pictures = ImageFolder(folder.parent / "pictures")
        sync(pictures, FakeEncoder(), folder, progress=False, with_store=follow)
        return FeatureStore.open(folder)

    def by_hash(self, store):
        """Pairs by name; the vectors of the fake encoder tell nothing."""
        ids, hashes = store.catalog.phashes()
        near, _ = near_hashes.near_hashes(hashes)
        return {tuple(sorted(store.items[ids[place]].path.name for place in pair)) for pair in near.tolist()}

    def pairs(self, store):
        rows = Pairs.of(store).rows
        return {tuple(sorted(store.items[id].path.name for id in row[:2])) for row in rows.tolist()}

    def test_it_keeps_what_was_looked_at_and_looks_for_what_is_new(self, folder, monkeypatch):
        monkeypatch.setattr(duplicate_pairs, "COSINE_ALIKE", 2)
        pictures = folder.parent / "pictures"
        Image.fromarray(photograph(20)[:, ::-1]).save(pictures / "mirrored.png")
        store = self.sync(folder)
        assert self.pairs(store) == {("0.png", "mirrored.png")}
        seen = Pairs(Pairs.of(store).rows | np.array([0, 0, 0, 1]))
        store.update_manifest(duplicates=seen.written(store))
        Image.fromarray(photograph(21)).resize((120, 90)).save(pictures / "small.png")
        store = self.sync(folder)
        assert self.pairs(store) == {("0.png", "mirrored.png"), ("1.png", "small.png")}
        assert Pairs.of(store).unseen == 1
        before = store.manifest
        assert self.sync(folder).manifest == before

    def test_a_copy_stands_in_for_what_has_gone(self, folder, monkeypatch):
        monkeypatch.setattr(duplicate_pairs, "COSINE_ALIKE", 2)
        pictures = folder.parent / "pictures"
        Image.fromarray(photograph(20)[:, ::-1]).save(pictures / "mirrored.png")
        shutil.copy(pictures / "0.png", pictures / "copy.png")
        assert self.pairs(self.sync(folder)) == {("0.png", "mirrored.png")}
        (pictures / "0.png").unlink()
        assert self.pairs(self.sync(folder)) == {("copy.png", "mirrored.png")}

    def test_pictures_of_an_earlier_version_get_their_hashes(self, folder, monkeypatch):
        monkeypatch.setattr(duplicate_pairs, "COSINE_ALIKE", 2)
        pictures = folder.parent / "pictures"
        Image.fromarray(photograph(20)[:, ::-1]).save(pictures / "mirrored.png")
        store = self.sync(folder)
        store.catalog.close()
        with closing(sqlite3.connect(folder / store.manifest["catalog"]["file"])) as catalog:
            catalog.execute("UPDATE images SET phash = NULL")
            catalog.commit()
        earlier = FeatureStore.open(folder)
        assert len(earlier.catalog.without_phash()) == 5 and earlier.catalog.phashes()[0].size == 0
        now = self.sync(folder)
        assert now.catalog.without_phash() == set()
        assert self.pairs(now) == {("0.png", "mirrored.png")} == self.by_hash(now)
