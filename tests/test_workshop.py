"""Making and deleting collections: the real process, on real pictures; cancelled, killed and refused."""

import os
import shutil
import time
import zipfile

import pytest

from gradio_app.library import Library
from gradio_app.workshop import Workshop, WorkshopError


@pytest.fixture
def workshop(tmp_path):
    made = Workshop(tmp_path / "collections", Library())
    yield made
    made.cancel()
    made.wait()


def left(workshop) -> list[str]:
    return sorted(path.name for path in workshop.folder.iterdir())


def test_a_folder_becomes_a_collection_and_is_deleted(workshop, picture_folder):
    version = workshop.library.version
    job = workshop.create(" My pictures! ", picture_folder)
    assert job.state == "running"
    with pytest.raises(WorkshopError, match="Making My-pictures is under way"):
        workshop.create("another", picture_folder)
    workshop.wait()
    assert (job.state, job.error) == ("done", "")
    assert job.report["summary"] == "12 pictures"
    assert job.report["skipped"] == 1
    assert job.report["files"] == [["warm/broken.jpg", "not an image in any format that can be read"]]
    assert workshop.library.version > version
    engine = workshop.library["My-pictures"]
    assert [hit.labels for hit in engine.search(picture_folder / "cold" / "0.png", k=3)] == [("cold",)] * 3
    assert left(workshop) == ["My-pictures"]

    with pytest.raises(WorkshopError, match="is a collection My-pictures already"):
        workshop.create("My pictures", picture_folder)
    with pytest.raises(WorkshopError, match="no collection other"):
        workshop.delete("other")
    workshop.delete("My-pictures")
    assert left(workshop) == []
    assert "My-pictures" not in workshop.library
    assert (picture_folder / "cold" / "0.png").is_file()  # its pictures stay


def test_a_zip_file_becomes_a_collection_with_its_pictures(workshop, picture_folder):
    token, path = workshop.new_upload()
    with zipfile.ZipFile(path, "w") as archive:
        for picture in sorted(picture_folder.rglob("*.png")):
            archive.write(picture, f"top/{picture.relative_to(picture_folder)}")
        archive.writestr("top/notes.txt", "hello")
    job = workshop.create("zipped", workshop.uploaded(token), packed=True)
    workshop.wait()
    assert (job.state, job.error) == ("done", "")
    engine = workshop.library["zipped"]
    assert all(item.path.is_file() for item in engine.store.items)
    assert engine.store.items[0].path == engine.folder / "images" / "cold" / "0.png"
    assert engine.labels == {"cold": 6, "warm": 6}
    assert left(workshop) == ["zipped"]  # the zip file is gone
    with pytest.raises(WorkshopError, match="no longer on the server"):
        workshop.uploaded(token)
    workshop.delete("zipped")
    assert left(workshop) == []


def test_a_collection_is_brought_up_to_date(workshop, picture_folder, tmp_path):
    folder = tmp_path / "pictures"
    shutil.copytree(picture_folder, folder)
    workshop.create("mine", folder)
    workshop.wait()
    before = workshop.library["mine"]
    version = workshop.library.version
    (folder / "warm" / "0.png").unlink()
    shutil.copy(folder / "cold" / "0.png", folder / "new.png")
    (folder / "bad.jpg").write_bytes(b"x")
    job = workshop.sync("mine")
    workshop.wait()
    assert (job.state, job.error) == ("done", "")
    assert job.report["summary"].startswith("2 added, 0 edited, 0 renamed, 1 removed")
    assert job.report["files"] == [["bad.jpg", "not an image in any format that can be read"]]
    assert workshop.library.version > version
    assert workshop.library["mine"].store.ids.size == 12
    assert before.store.ids.size == 12  # who has it open still finds what was there
    assert before.search(folder / "cold" / "1.png", k=12)
    with pytest.raises(WorkshopError, match="no collection other"):
        workshop.sync("other")


def test_cancelling_stops_the_process_and_leaves_nothing(workshop, picture_folder):
    job = workshop.create("never", picture_folder)
    process = workshop._process
    while job.stage == "Starting":
        time.sleep(0.05)
    workshop.cancel()
    workshop.wait()
    assert job.state == "cancelled"
    assert process.poll() is not None
    assert left(workshop) == []
    assert not workshop.library
    workshop.create("never", picture_folder)  # and the next may begin


def test_a_process_that_dies_is_a_failure_in_words(workshop, picture_folder):
    job = workshop.create("never", picture_folder)
    workshop._process.kill()
    workshop.wait()
    assert job.state == "failed"
    assert "broke off" in job.error
    assert left(workshop) == []


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
def test_what_makes_no_sense_is_refused_at_once(workshop, name, folder, says):
    with pytest.raises(WorkshopError, match=says):
        workshop.create(name, folder)
    assert workshop.job is None


def test_a_folder_without_pictures_fails_in_words(workshop, tmp_path):
    (tmp_path / "empty").mkdir()
    job = workshop.create("never", tmp_path / "empty")
    workshop.wait()
    assert job.state == "failed"
    assert "no images in" in job.error
    assert left(workshop) == []


@pytest.mark.parametrize("token", ["", "../a", "x" * 32, "0" * 32, "0" * 31 + "\n"])
def test_a_made_up_token_names_no_file(workshop, token):
    with pytest.raises(WorkshopError, match="no longer on the server"):
        workshop.uploaded(token)


def test_leftovers_of_killed_servers_go(tmp_path):
    folder = tmp_path / "collections"
    gone = 2**22 + 1  # beyond the largest process id
    for name in (f".making-{gone}-ab", f".making-{os.getppid()}-ab", "demo"):
        (folder / name).mkdir(parents=True)
    Workshop(folder, Library())
    assert sorted(path.name for path in folder.iterdir()) == [f".making-{os.getppid()}-ab", "demo"]


def test_yesterdays_upload_goes_when_the_next_is_sent(workshop):
    _, old = workshop.new_upload()
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 10**5,) * 2)
    _, fresh = workshop.new_upload()
    fresh.write_bytes(b"x")
    workshop.new_upload()
    assert left(workshop) == [fresh.name]
