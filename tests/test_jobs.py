"""Making and deleting collections: the real process, on real pictures; cancelled, killed and refused."""

import os
import shutil
import threading
import time
import zipfile

import pytest
from waiting import until

from features.collection.lock import writing
from gradio_app.jobs import CollectionJobs, JobError
from gradio_app.library import Library


@pytest.fixture
def jobs(tmp_path):
    made = CollectionJobs(tmp_path / "collections", Library())
    yield made
    made.cancel()
    made.wait()


def left(jobs) -> list[str]:
    return sorted(path.name for path in jobs.folder.iterdir())


@pytest.mark.slow
def test_a_folder_becomes_a_collection_and_is_deleted(jobs, picture_folder):
    version = jobs.library.version
    job = jobs.create(" My pictures! ", picture_folder)
    assert job.state == "running"
    with pytest.raises(JobError, match="Making My-pictures is under way"):
        jobs.create("another", picture_folder)
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    assert job.report["summary"] == "12 pictures; duplicates: 10 likely"
    assert job.report["skipped"] == 1
    assert job.report["files"] == [["warm/broken.jpg", "not an image in any format that can be read"]]
    assert jobs.library.version > version
    engine = jobs.library["My-pictures"]
    assert [hit.labels for hit in engine.search(picture_folder / "cold" / "0.png", k=3)] == [("cold",)] * 3
    assert left(jobs) == ["My-pictures"]

    with pytest.raises(JobError, match="is a collection My-pictures already"):
        jobs.create("My pictures", picture_folder)
    with pytest.raises(JobError, match="no collection other"):
        jobs.delete("other")
    jobs.delete("My-pictures")
    assert left(jobs) == []
    assert "My-pictures" not in jobs.library
    assert (picture_folder / "cold" / "0.png").is_file()  # its pictures stay


@pytest.mark.slow
def test_a_zip_file_becomes_a_collection_with_its_pictures(jobs, picture_folder):
    token, path = jobs.new_upload()
    with zipfile.ZipFile(path, "w") as archive:
        for picture in sorted(picture_folder.rglob("*.png")):
            archive.write(picture, f"top/{picture.relative_to(picture_folder)}")
        archive.writestr("top/notes.txt", "hello")
    job = jobs.create("zipped", jobs.uploaded(token), packed=True)
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    engine = jobs.library["zipped"]
    assert all(item.path.is_file() for item in engine.store.items)
    assert engine.store.items[0].path == engine.folder / "images" / "cold" / "0.png"
    assert engine.labels == {"cold": 6, "warm": 6}
    assert left(jobs) == ["zipped"]  # the zip file is gone
    with pytest.raises(JobError, match="no longer on the server"):
        jobs.uploaded(token)
    jobs.delete("zipped")
    assert left(jobs) == []


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
    (folder / "bad.jpg").write_bytes(b"x")
    job = jobs.sync("mine")
    jobs.wait()
    assert (job.state, job.error) == ("done", "")
    assert job.report["summary"].startswith("2 added, 0 edited, 0 renamed, 1 removed")
    assert job.report["files"] == [["bad.jpg", "not an image in any format that can be read"]]
    assert jobs.library.version > version
    assert jobs.library["mine"].store.ids.size == 12
    assert before.store.ids.size == 12  # who has it open still finds what was there
    assert before.search(folder / "cold" / "1.png", k=12)
    with pytest.raises(JobError, match="no collection other"):
        jobs.sync("other")


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
        jobs.uploaded(token)


def test_leftovers_of_killed_servers_go(tmp_path):
    folder = tmp_path / "collections"
    gone = 2**22 + 1  # beyond the largest process id
    for name in (f".making-{gone}-ab", f".making-{os.getppid()}-ab", "demo"):
        (folder / name).mkdir(parents=True)
    CollectionJobs(folder, Library())
    assert sorted(path.name for path in folder.iterdir()) == [f".making-{os.getppid()}-ab", "demo"]


def test_yesterdays_upload_goes_when_the_next_is_sent(jobs):
    _, old = jobs.new_upload()
    old.write_bytes(b"x")
    os.utime(old, (time.time() - 10**5,) * 2)
    _, fresh = jobs.new_upload()
    fresh.write_bytes(b"x")
    jobs.new_upload()
    assert left(jobs) == [fresh.name]


def test_zip_files_of_servers_that_were_killed_are_removed(tmp_path):
    gone, other = 2**22 + 1, os.getppid()
    names = [
        f".upload-{gone}-{'a' * 32}.zip",
        f".upload-{os.getpid()}-{'b' * 32}.zip",
        f".upload-{other}-{'c' * 32}.zip",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    jobs = CollectionJobs(tmp_path, Library())  # the second is of an earlier process that had our number
    assert left(jobs) == [names[2]]
    token, path = jobs.new_upload()
    path.write_bytes(b"x")
    assert jobs.uploaded(token) == path
    jobs.new_upload()
    assert path.exists()  # it may still be being sent


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
