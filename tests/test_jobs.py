"""Making and deleting collections: the real process, on real pictures; cancelled, killed and refused."""

import csv
import os
import shutil
import threading
import zipfile
from collections import Counter

import pytest
from waiting import until

from features.collection.lock import writing
from gradio_app.jobs import CollectionJobs, JobError
from gradio_app.library import Library
from gradio_app.recipe import Recipe


@pytest.fixture
def jobs(tmp_path):
    made = CollectionJobs(tmp_path / "collections", Library())
    yield made
    made.cancel()
    made.wait()


def left(jobs) -> list[str]:
    return sorted(path.name for path in jobs.folder.iterdir())


def send(jobs, files):
    """Send a folder of files, whole; returns it and its token."""
    token = jobs.uploads.new_folder()
    sent = jobs.uploads.folder(token)
    for number, path in zip(
        sent.announce([(n, p.stat().st_size) for n, p in files.items()]), files.values(), strict=True
    ):
        if number is not None:
            part = sent.part_of(number)
            shutil.copy(path, part)
            sent.receive(number, part)
    return sent, token


@pytest.mark.slow
def test_a_folder_becomes_a_collection_and_is_deleted(jobs, picture_folder, tmp_path):
    version = jobs.library.version
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    (folder / "notes.txt").write_text("hello")
    job = jobs.create(" My pictures! ", folder, Recipe(target_recall=0.99))
    assert job.state == "running"
    with pytest.raises(JobError, match="Making My-pictures is under way"):
        jobs.create("another", folder)
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    assert job.report["summary"] == "12 pictures; duplicates: 10 likely"
    unreadable = ["warm/broken.jpg", "not an image in any format that can be read"]
    counts = {"added": 12, "duplicate": 10, "unreadable": 1, "left out": 1}
    assert {kind["kind"]: kind["count"] for kind in job.report["kinds"]} == counts
    assert job.report["kinds"][2]["files"] == [unreadable]
    assert job.report["kinds"][3]["reasons"] == [["other files (.txt)", 1]]
    with job.table.open(encoding="utf-8", newline="") as table:
        header, *rows = csv.reader(table)
    assert header == ["what", "path", "why"]
    assert Counter(what for what, *_ in rows) == counts
    assert ["unreadable", *unreadable] in rows
    assert jobs.library["My-pictures"].store.catalog.counts() == (13, 1)  # 12 added and 1 unreadable
    assert jobs.library.version > version
    engine = jobs.library["My-pictures"]
    assert [hit.labels for hit in engine.search(folder / "cold" / "0.png", k=3)] == [("cold",)] * 3
    assert left(jobs) == [job.table.name, "My-pictures"]

    with pytest.raises(JobError, match="is a collection My-pictures already"):
        jobs.create("My pictures", folder)
    with pytest.raises(JobError, match="no collection other"):
        jobs.delete("other")
    jobs.delete("My-pictures")
    assert left(jobs) == [job.table.name]
    assert "My-pictures" not in jobs.library
    assert (folder / "cold" / "0.png").is_file()  # its pictures stay


@pytest.mark.slow
def test_a_zip_file_becomes_a_collection_with_its_pictures(jobs, picture_folder):
    token, path = jobs.uploads.new_zip()
    with zipfile.ZipFile(path, "w") as archive:
        for picture in sorted(picture_folder.rglob("*.png")):
            archive.write(picture, f"top/{picture.relative_to(picture_folder)}")
        archive.writestr("top/notes.txt", "hello")
    job = jobs.create_of_sent("zipped", token)
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    engine = jobs.library["zipped"]
    assert all(item.path.is_file() for item in engine.store.items)
    assert engine.store.items[0].path == engine.folder / "images" / "cold" / "0.png"
    assert engine.labels == {"cold": 6, "warm": 6}
    assert left(jobs) == [job.table.name, "zipped"]  # the zip file is gone
    assert job.report["kinds"][-1]["files"] == [["top/notes.txt", "other files (.txt)"]]
    with pytest.raises(JobError, match="no longer on the server"):
        jobs.create_of_sent("again", token)
    jobs.delete("zipped")
    assert left(jobs) == [job.table.name]


@pytest.mark.slow
def test_a_collection_is_brought_up_to_date(jobs, picture_folder, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    jobs.create("mine", folder)
    jobs.wait()
    before = jobs.library["mine"]
    version = jobs.library.version
    (folder / "warm" / "0.png").unlink()
    shutil.copy(folder / "cold" / "0.png", folder / "new.png")
    shutil.copy(folder / "warm" / "2.png", folder / "warm" / "1.png")
    (folder / "bad.jpg").write_bytes(b"x")
    job = jobs.sync("mine")
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    assert job.report["summary"].startswith("1 added, 1 updated, 0 renamed, 1 removed; 11 as they were")
    assert {kind["kind"]: kind["files"] for kind in job.report["kinds"]} == {
        "added": [["new.png", ""]],
        "updated": [["warm/1.png", ""]],
        "removed": [["warm/0.png", ""]],
        "duplicate": [
            ["new.png", "the same file as cold/0.png"],
            ["warm/1.png", "the same file as warm/2.png"],
        ],
        "unreadable": [["bad.jpg", "not an image in any format that can be read"]],
    }
    assert jobs.library["mine"].store.catalog.counts() == (14, 2)
    assert jobs.library.version > version
    assert jobs.library["mine"].store.ids.size == 12
    assert before.store.ids.size == 12  # who has it open still finds what was there
    assert before.search(folder / "cold" / "1.png", k=12)
    with pytest.raises(JobError, match="no collection other"):
        jobs.sync("other")


@pytest.mark.slow
def test_a_folder_that_was_sent_outlives_what_is_cancelled_and_goes_with_what_is_made(jobs, picture_folder):
    token = jobs.uploads.new_folder()
    sent = jobs.uploads.folder(token)
    files = sorted(picture_folder.rglob("*.png"))
    names = [(f"holidays/{path.relative_to(picture_folder)}", path.stat().st_size) for path in files]
    numbers = sent.announce([*names, ("holidays/phone/1.svg", 5), ("holidays/film.mov", 10**9)])
    assert numbers == [*range(12), None, None]
    for number, path in enumerate(files):
        part = sent.part_of(number)
        shutil.copy(path, part)
        sent.receive(number, part)
    job = jobs.create_of_sent("sent", token)
    until(lambda: job.stage != "Starting", "the first stage")
    jobs.forget(token)  # not while something is made of it
    jobs.cancel()
    jobs.wait()
    assert left(jobs) == [sent.folder.name]
    job = jobs.create_of_sent("sent", token, Recipe(engines=("ivfpq",), spaces=("neighbourhood", "concepts")))
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    engine = jobs.library["sent"]
    assert engine.labels == {"cold": 6, "warm": 6}  # the folder around everything is no label
    assert engine.engines == ("ivfpq", "exact")
    assert engine.store.items[0].path == engine.folder / "images" / "cold" / "0.png"
    assert left(jobs) == [job.table.name, "sent"]
    kinds = {kind["kind"]: kind for kind in job.report["kinds"]}
    assert kinds["added"]["count"] == engine.store.ids.size == 12
    assert dict(map(tuple, kinds["left out"]["reasons"])) == {
        ".svg files are passed over: they hold drawings or pages, not pixels": 1,
        "other files (.mov)": 1,
    }


@pytest.mark.slow
def test_more_is_added_to_what_was_sent_and_a_cancelled_try_leaves_it_as_it_was(jobs, picture_folder):
    names = ("cold/0.png", *(f"warm/{i}.png" for i in range(4)))
    _, first = send(jobs, {name: picture_folder / name for name in names})
    jobs.create_of_sent("sent", first, Recipe(engines=("ivfpq",), spaces=()))
    jobs.wait()
    assert jobs.with_own_pictures() == ["sent"]
    more = {
        "warm/0.png": picture_folder / "warm" / "0.png",
        "warm/1.png": picture_folder / "cold" / "1.png",
        "cold/2.png": picture_folder / "cold" / "2.png",
        "cold/broken.jpg": picture_folder / "warm" / "broken.jpg",
    }
    sent, token = send(jobs, more)
    images = jobs.folder / "sent" / "images"
    before = {path: path.read_bytes() for path in images.rglob("*.*")}
    job = jobs.add("sent", token)
    until(lambda: (images / "cold" / "2.png").exists(), "the first new picture in its place")
    jobs.cancel()
    jobs.wait()
    assert job.state == "cancelled"
    assert {path: path.read_bytes() for path in images.rglob("*.*")} == before
    assert jobs.uploads.place(token) == sent.folder
    job = jobs.add("sent", token)
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    kinds = {kind["kind"]: kind["files"] for kind in job.report["kinds"]}
    assert (kinds["added"], kinds["updated"]) == ([["cold/2.png", ""]], [["warm/1.png", ""]])
    assert kinds["unreadable"] == [["cold/broken.jpg", "not an image in any format that can be read"]]
    assert ["warm/0.png", "it is there already, under this name"] in kinds["duplicate"]
    store = jobs.library["sent"].store
    assert store.catalog.counts() == (7, 1) and store.labels() == {"cold": 2, "warm": 4}
    assert left(jobs) == [job.table.name, "sent"]
    with pytest.raises(JobError, match="other is no collection that pictures can be put into"):
        jobs.add("other", token)


@pytest.mark.slow
def test_cancelling_stops_the_process_and_leaves_nothing(jobs, picture_folder):
    job = jobs.create("never", picture_folder)
    process = jobs._process
    until(lambda: job.stage != "Starting", "the first stage")
    jobs.cancel()
    jobs.wait()
    assert job.state == "cancelled"
    assert process.poll() is not None
    assert left(jobs) == []
    assert not jobs.library
    jobs.create("never", picture_folder)  # and the next may begin


def test_a_process_that_dies_is_a_failure_in_words(jobs, picture_folder):
    job = jobs.create("never", picture_folder)
    jobs._process.kill()
    jobs.wait()
    assert job.state == "failed"
    assert "broke off" in job.error
    assert left(jobs) == []


@pytest.mark.parametrize(
    ("name", "folder", "says"),
    [
        ("", ".", "Give the collection a name"),
        ("  ", ".", "Give the collection a name"),
        ("../..", ".", "no letter or digit"),
        ("x" * 81, ".", "longer than 80"),
        ("new", "/no/such/folder", "There is no folder"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(jobs, name, folder, says):
    with pytest.raises(JobError, match=says):
        jobs.create(name, folder)
    assert jobs.job is None


def test_a_folder_without_pictures_fails_in_words(jobs, tmp_path):
    (tmp_path / "empty").mkdir()
    job = jobs.create("never", tmp_path / "empty")
    jobs.wait()
    assert job.state == "failed"
    assert "no images in" in job.error
    assert left(jobs) == []


@pytest.mark.parametrize("token", ["", "../a", "x" * 32, "0" * 32, "0" * 31 + "\n"])
def test_a_made_up_token_names_no_file(jobs, token):
    with pytest.raises(JobError, match="no longer on the server"):
        jobs.create_of_sent("new", token)


def test_leftovers_of_killed_servers_go(tmp_path):
    folder = tmp_path / "collections"
    gone = 2**22 + 1  # beyond the largest process id
    for name in (f".making-{gone}-ab", f".making-{os.getppid()}-ab", "demo"):
        (folder / name).mkdir(parents=True)
    (folder / f".report-{gone}-ab.csv").touch()
    CollectionJobs(folder, Library())
    assert sorted(path.name for path in folder.iterdir()) == [f".making-{os.getppid()}-ab", "demo"]


@pytest.mark.slow
def test_a_collection_that_another_process_changes_is_not_deleted(jobs, picture_folder):
    jobs.create("mine", picture_folder)
    jobs.wait()
    with writing(jobs.folder / "mine", purpose="brought up to date"):
        failed = []

        def delete():
            try:
                jobs.delete("mine")
            except JobError as error:
                failed.append(str(error))

        thread = threading.Thread(target=delete)
        thread.start()
        thread.join()
    assert "mine cannot be deleted: " in failed[0]
    assert "mine" in jobs.library
    jobs.delete("mine")
    assert "mine" not in jobs.library
