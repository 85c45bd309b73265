"""One writer at a time, whoever it is; a reader that meets a change reads the new state."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from features.collection.errors import StoreError
from features.collection.lock import writing
from features.collection.manifest import unchanged_while
from features.store import FeatureStore
from features.store import StoreError as PublicStoreError

HOLDER = """
import sys
from features.collection.lock import writing
with writing(sys.argv[1], purpose="brought up to date"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of tmp_path/c until its stdin ends."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "c")],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"locked\n"
        yield process
        process.kill()


def test_another_process_is_refused_and_told_by_whom(holder, tmp_path):
    wanted = rf"c is being brought up to date by another process \(-c, process {holder.pid}, since \d{{4}}-.*\): wait"
    with pytest.raises(StoreError, match=wanted), writing(tmp_path / "c"):
        pass
    with writing(tmp_path / "other"):
        pass


def test_a_link_has_the_lock_of_what_it_leads_to(holder, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "link").symlink_to("c")
    with pytest.raises(StoreError, match=r"c is being brought up to date"), writing(tmp_path / "link"):
        pass


def test_it_can_be_waited_for(holder, tmp_path):
    threading.Timer(0.3, holder.stdin.close).start()
    with writing(tmp_path / "c", wait_seconds=300):
        assert holder.wait(300) == 0


def test_a_killed_holder_lets_go(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait(300)
    with writing(tmp_path / "c"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_threads_exclude_each_other_and_one_may_enter_again(tmp_path):
    said = []

    def other():
        try:
            with writing(tmp_path / "c"):
                said.append("entered")
        except StoreError as error:
            said.append(str(error))

    with writing(tmp_path / "c", purpose="indexed"), writing(tmp_path / "c"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(said) == 1
    assert "c is being indexed by another thread of this process" in said[0]
    other()
    assert said[1:] == ["entered"]


def test_many_threads_take_turns(tmp_path):
    inside, most = 0, []

    def work():
        nonlocal inside
        for _ in range(20):
            with writing(tmp_path / "c", wait_seconds=300):
                inside += 1
                most.append(inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_the_reason(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(StoreError, match=r"cannot be written: (File exists|Not a directory)"),
        writing(tmp_path / "file/c"),
    ):
        pass


def test_a_reader_reads_again_as_long_as_the_manifest_changes(tmp_path):
    manifest, read = tmp_path / "manifest.json", []
    states = [b"old", b"newer", b"newer", b"newest"]  # builds in turn can come back to the bytes of an earlier state

    def look():
        read.append(manifest.read_bytes())
        if len(read) < len(states):
            (tmp_path / "next").write_bytes(states[len(read)])
            (tmp_path / "next").replace(manifest)
            raise StoreError("a file is gone")
        return read[-1]

    manifest.write_bytes(states[0])
    assert unchanged_while(tmp_path, look) == b"newest"
    assert read == states

    def fail():
        read.append(b"tried")
        raise StoreError("damaged")

    with pytest.raises(StoreError, match="damaged"):
        unchanged_while(tmp_path, fail)
    assert read.count(b"tried") == 1


def test_a_reader_gives_up_where_the_manifest_never_stays(tmp_path):
    tried = []

    def look():
        tried.append(1)
        (tmp_path / "manifest.json").write_bytes(b"%d" % len(tried))
        raise StoreError("a file is gone")

    with pytest.raises(StoreError, match="gone"):
        unchanged_while(tmp_path, look)
    assert 10 < len(tried) < 1000


def test_public_names():
    assert PublicStoreError is StoreError
    assert FeatureStore.__module__ == "features.collection.store"
