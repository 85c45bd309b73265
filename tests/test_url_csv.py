"""A list of addresses as a dataset, with hosts of this machine."""

import csv
import json

import pytest
from test_extract import FakeEncoder

from benchmarks.web import Web, colour_of
from features.collection.store import FeatureStore, StoreError
from features.datasets import DatasetError, open_dataset, reopen_dataset, source_of
from features.datasets.url_csv import UrlCsv
from features.download.options import DownloadOptions
from features.encoders import register_encoder, registry
from features.images import decode_image
from gradio_app.create_index import main
from search.engine import SearchEngine
from search.meanwhile import UsedMeanwhile

OWN = DownloadOptions(rate=1000, allow_private=True, processes=1)


@pytest.fixture(scope="module")
def web():
    with Web(3).running() as web:
        yield web


def a_list(web, path, numbers, kind="good"):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["url", "label", "caption", "height_m"])
        for number in numbers:
            label = "even" if number % 2 == 0 else "odd"
            table.writerow([web.url(number % 3, kind, number), label, f"number {number}", number / 10])
    return path


def test_a_list_is_downloaded_once_and_keeps_its_order(web, tmp_path):
    path = a_list(web, tmp_path / "cars.csv", [40, 11, 25])
    before = dict(web.asked)  # other tests ask the same server
    for _ in range(2):
        dataset = UrlCsv(path, datasets_dir=tmp_path / "sets", options=OWN)
        assert dataset.root == tmp_path / "sets" / "cars" and dataset.name == "cars"
        assert [item.labels for item in dataset.items] == [("even",), ("odd",), ("odd",)]
        colours = [tuple(decode_image(item.path)[0, 0]) for item in dataset.items]
        assert colours == [colour_of(number) for number in (40, 11, 25)]
        assert [item.id for item in dataset.items] == [0, 1, 2]
    urls = [web.url(number % 3, "good", number) for number in (40, 11, 25)]
    assert [web.asked[url] - before.get(url, 0) for url in urls] == [1, 1, 1]
    rows = list(map(json.loads, dataset.table.read_text().splitlines()))
    assert [row["caption"] for row in rows] == ["number 40", "number 11", "number 25"]


def test_the_folder_of_a_download_is_opened_as_what_it_is(web, tmp_path):
    UrlCsv(a_list(web, tmp_path / "cars.csv", [40, 11]), datasets_dir=tmp_path, options=OWN)
    dataset = open_dataset(str(tmp_path / "cars"))
    assert isinstance(dataset, UrlCsv) and len(dataset.items) == 2
    again = reopen_dataset("cars", tmp_path / "cars", source_of(dataset))
    assert isinstance(again, UrlCsv) and again.items == dataset.items


def test_pictures_of_a_list_do_not_go_between_those_of_another_dataset(tmp_path):
    (tmp_path / "cars").mkdir()
    (tmp_path / "cars" / "mine.jpg").write_bytes(b"mine")
    (tmp_path / "cars.csv").write_text("url\nhttp://127.0.0.1/a.jpg\n")
    with pytest.raises(DatasetError, match="cars holds something else"):
        UrlCsv(tmp_path / "cars.csv", datasets_dir=tmp_path, options=OWN)
    assert [path.name for path in (tmp_path / "cars").iterdir()] == ["mine.jpg"]


def test_a_folder_without_pictures_or_of_another_list_is_refused(web, tmp_path):
    with pytest.raises(DatasetError, match=r"no picture of the list is in .*cars"):
        UrlCsv(a_list(web, tmp_path / "cars.csv", [1], "missing"), datasets_dir=tmp_path, options=OWN).items  # noqa: B018
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DatasetError, match=r"has the pictures of another list, .*cars\.csv"):
        UrlCsv(a_list(web, other / "cars.csv", [2]), datasets_dir=tmp_path, options=OWN)


def test_lists_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,size\nx,1\n")
    with pytest.raises(DatasetError, match=r"no column of addresses .* it has name, size"):
        open_dataset(str(tmp_path / "a.csv"), datasets_dir=tmp_path)
    with pytest.raises(DatasetError, match="for folders of images, not for"):
        open_dataset(str(tmp_path / "a.csv"), datasets_dir=tmp_path, follow_links=True)
    assert not (tmp_path / "a").exists()


def test_private_addresses_of_a_list_are_not_asked(web, tmp_path):
    before = web.asked.total()
    with pytest.raises(DatasetError, match="no picture of the list"):
        open_dataset(str(a_list(web, tmp_path / "a.csv", [3])), datasets_dir=tmp_path)
    assert web.asked.total() == before


@pytest.mark.slow
def test_what_the_list_says_becomes_words_of_the_collection(web, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    numbers = range(20_000, 4_000_000, 200_000)
    UrlCsv(a_list(web, tmp_path / "cars.csv", numbers), datasets_dir=tmp_path / "datasets", options=OWN)
    assert main(["--data", "cars.csv", "--encoder", "efficientnet-lite0"]) == 0
    told = capsys.readouterr()
    assert "20 images of cars" in told.out
    store = FeatureStore.open(tmp_path / "collections" / "cars")
    said = store.annotations.of([0, 3])
    assert "number 20000" in [caption.text for caption in said[0].captions]
    engine = SearchEngine.open(tmp_path / "collections" / "cars")
    assert {hit.id for hit in engine.search('caption:"number 620000"', k=3)} == {3}
    assert main(["--data", "cars.csv", "--sync"]) == 0
    assert FeatureStore.open(tmp_path / "collections" / "cars").annotations.of([0]) == {0: said[0]}


class Gate:
    """Lets held pictures go when so many others have been used, and knows what was done with them, turn by turn."""

    def __init__(self, web, count):
        self.web, self.count, self.turns = web, count, []

    def __call__(self, dataset, progress):
        progress(0, len(dataset.items))
        self.turns.append([item.path for item in dataset.items])
        if len(self.turns[-1]) == self.count:
            self.web.held.set()


def test_pictures_are_used_while_others_are_being_fetched(web, tmp_path):
    path = a_list(web, tmp_path / "cars.csv", [40, 11, 25])
    with path.open("a") as file:
        file.write(f"{web.url(0, 'held', 7)},odd,held,1\n")
    gate = Gate(web, 3)
    web.held.clear()
    dataset = UrlCsv(
        path,
        datasets_dir=tmp_path / "sets",
        options=OWN,
        meanwhile=UsedMeanwhile(lambda folder: gate, first=1),
    )
    assert len(dataset.items) == 4
    assert gate.turns and all(set(turn) <= {item.path for item in dataset.items} for turn in gate.turns)
    assert 3 in map(len, gate.turns)


def test_what_goes_wrong_meanwhile_is_told_at_the_end(web, tmp_path):
    def fail(dataset, progress):
        raise StoreError("the disk of the collection is full")

    def begin(folder):
        raise StoreError("no such encoder")

    path = a_list(web, tmp_path / "cars.csv", [40, 11, 25])
    with pytest.raises(DatasetError, match="no such encoder"):
        UrlCsv(path, datasets_dir=tmp_path / "none", options=OWN, meanwhile=UsedMeanwhile(begin))
    path.write_text(path.read_text() + f"{web.url(0, 'flaky', 9)},odd,late,1\n")
    with pytest.raises(StoreError, match="the disk of the collection is full"):
        UrlCsv(path, datasets_dir=tmp_path / "sets", options=OWN, meanwhile=UsedMeanwhile(lambda folder: fail, first=1))
    assert len(UrlCsv(tmp_path / "sets/cars").items) == 4, "what was fetched is there"


@pytest.mark.parametrize("appends", [False, True])
def test_a_collection_of_a_list_is_encoded_while_it_is_fetched(web, tmp_path, monkeypatch, capsys, caplog, appends):
    """By the command itself, which may ask this machine here and takes turns of two pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    encoder = FakeEncoder()
    register_encoder("fake", lambda name, **options: encoder)
    monkeypatch.setattr("features.datasets.url_csv.DownloadOptions", lambda: OWN)
    path = a_list(web, tmp_path / "cars.csv", [40, 11, 25, 60])
    with path.open("a") as file:
        file.write(f"{web.url(0, 'held', 7)},odd,held,1\n")
    web.held.clear()
    folder, seen = tmp_path / "collections" / "cars", []

    class LettingGo(UsedMeanwhile):
        def __init__(self, begins):
            super().__init__(lambda folder: letting_go(begins(folder)), first=1)

    def letting_go(use):
        def used(dataset, progress):
            use(dataset, progress)
            if appends:
                seen.append(len(SearchEngine.open(folder).store.ids))
            if encoder.encoded == 4:
                web.held.set()

        return used

    monkeypatch.setattr("gradio_app.create_index.UsedMeanwhile", LettingGo)
    command = ["--data", "cars.csv", "--encoder", "fake", "--factory", "Flat", *(["--append"] if appends else [])]
    assert main([*command, "--spaces", "visual"]) == 0
    assert encoder.encoded == 5, "nothing is encoded twice"
    store = FeatureStore.open(folder)
    store.verify()
    assert len(store.ids) == 5
    if appends:
        assert seen == sorted(seen) and 4 in seen, "it could be searched before the last picture was there"
        assert store.generation > 0
    else:
        assert [item.path for item in store.items] == [item.path for item in UrlCsv(tmp_path / "datasets/cars").items]
        assert store.generation == 0
    assert main([*command, "--spaces", "visual"]) == 0
    assert encoder.encoded == 5
