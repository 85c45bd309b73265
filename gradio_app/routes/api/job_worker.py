"""Does the jobs, one at a time: pictures come into a collection or leave it, and it is brought up to date.

Pictures that were sent lie in a hidden folder beside the collections, ``.job-ID``, until they are in their place, under
a name that holds a piece of their hash: put there twice, they are there once.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from features.checksum import sha256_of
from features.collection.store import StoreError
from gradio_app.incoming import DAY
from gradio_app.jobs import CollectionJobs, JobError
from gradio_app.library import Library
from gradio_app.routes.api.job_store import OVER, JobStore, StoredJob
from gradio_app.routes.pictures import folder_of

logger = logging.getLogger(__name__)

POLL = 5.0  # seconds until jobs are looked for that nobody told of, such as those of a server that was killed
_WATCH = 0.2

Progress = Callable[[str, int, int], bool]
"""Told what is being done and how far it is; whether to go on."""


class CancelledError(Exception):
    """The job was cancelled, or is no longer ours."""


class Sync(Protocol):
    """Brings a collection up to date, or adds only the pictures that have come, and puts it into the library."""

    def __call__(self, name: str, progress: Progress, only_new: bool = False) -> None: ...


def sync_by(jobs: CollectionJobs) -> Sync:
    """Brings a collection up to date as the page does, in its turn: what the page shows of it is this job."""

    def sync(name: str, progress: Progress, only_new: bool = False) -> None:
        """Raises JobError where it fails, CancelledError where `progress` says so."""
        while True:
            try:
                job = jobs.sync(name, only_new=only_new)
            except JobError:
                if not jobs.manages(name):
                    raise
                if not progress("Waiting for another job", 0, 0):
                    raise CancelledError from None
                time.sleep(_WATCH)
                continue
            while job.state == "running":
                if not progress(job.stage, job.done, job.total):
                    jobs.cancel()
                    jobs.wait()
                    raise CancelledError
                time.sleep(_WATCH)
            jobs.wait()
            if job.state == "failed" and "by another process" in job.error:  # a killed server's, which is just ending
                time.sleep(_WATCH)
                continue
            if job.state == "cancelled":
                raise CancelledError
            if job.state == "failed":
                raise JobError(job.error)
            return

    return sync


class JobWorker:
    """Does the jobs of a store, in a thread from `start` on.

    Parameters
    ----------
    sync : Sync
    """

    def __init__(self, store: JobStore, library: Library, sync: Sync) -> None:
        self.store, self.library, self._sync = store, library, sync
        self._folder = store.path.parent
        self._told = threading.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Do what there is to do, and what will be; asked again, it looks at once."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobs of the API", daemon=True)
                self._thread.start()
        self._told.set()

    def stop(self) -> None:
        """End after the job under way."""
        self._is_over = True
        self._told.set()
        if self._thread is not None:
            self._thread.join()

    def place_of(self, id: str) -> Path:
        """Where the pictures of a job lie that are not in their place yet."""
        return self._folder / f".job-{id}"

    def _work(self) -> None:
        self._remove_leftovers()
        while not self._is_over:
            try:
                is_done = not self.work_once()
            except Exception:  # of the store: it may be written again in a moment
                logger.exception("jobs cannot be looked for")
                is_done = True
            if is_done:
                self._told.wait(POLL)
                self._told.clear()

    def _remove_leftovers(self) -> None:
        """Pictures that were sent to servers that were killed before they knew of the job, or just after it."""
        for place in self._folder.glob(".job-*"):
            with suppress(OSError):
                try:
                    is_waste = self.store.get(place.name.removeprefix(".job-")).state in OVER
                except KeyError:
                    is_waste = time.time() - place.stat().st_mtime > DAY
                if is_waste:
                    shutil.rmtree(place, ignore_errors=True)

    def work_once(self) -> bool:
        """Do one job, if there is one; whether there was."""
        job = self.store.claim(list(self.library))
        if job is None:
            return False
        try:
            if job.is_cancelling:
                raise CancelledError
            result = _KINDS[job.kind](self, job)
        except CancelledError:
            self._undo(job)
            self.store.finish(job.id, "cancelled")
        except (JobError, StoreError, OSError) as error:
            logger.warning("job %s: %s", job.id, error)
            self._undo(job)
            self.store.finish(job.id, "failed", error=str(error))
        except Exception as error:  # whatever it was, the job is over and the next one begins
            logger.exception("job %s", job.id)
            self._undo(job)
            self.store.finish(job.id, "failed", error=f"It broke off ({type(error).__name__}); the log says more.")
        else:
            self.store.finish(job.id, "done", result=result)
        shutil.rmtree(self.place_of(job.id), ignore_errors=True)
        return True

    def _upload(self, job: StoredJob) -> dict[str, Any]:
        root = folder_of(self.library[job.collection]).root
        files = job.task["files"]
        for done, file in enumerate(files):
            self._beat(job, "Putting pictures in their place", done, len(files))
            _put(self.place_of(job.id) / file["staged"], _below(root, file["path"]), file["sha256"], job.id)
        self._bring_up_to_date(job, only_new=True)
        store = self.library[job.collection].store
        return {
            "images": [
                {"name": file["name"], "path": file["path"], "ids": store.find_copies(file["sha256"])} for file in files
            ]
        }

    def _remove(self, job: StoredJob) -> dict[str, Any]:
        root = folder_of(self.library[job.collection]).root
        self._beat(job, "Removing pictures", 0, 1)
        for file in job.task["files"]:
            path = _below(root, file["path"])
            with suppress(FileNotFoundError):  # it may have been removed before the server was killed
                if sha256_of(path) != file["sha256"]:
                    raise JobError(f"{file['path']} is no longer the picture that was to be removed")
                path.unlink()
        self._bring_up_to_date(job)
        return {"removed": [file["path"] for file in job.task["files"]]}

    def _take_in(self, job: StoredJob) -> dict[str, Any]:
        self._bring_up_to_date(job)
        return {"pictures": int(self.library[job.collection].store.ids.size)}

    def _bring_up_to_date(self, job: StoredJob, *, only_new: bool = False) -> None:
        self._beat(job, "Looking for changes", 0, 0)
        self._sync(job.collection, lambda stage, done, total: self.store.beat(job.id, stage, done, total), only_new)

    def _beat(self, job: StoredJob, stage: str, done: int, total: int) -> None:
        if not self.store.beat(job.id, stage, done, total):
            raise CancelledError

    def _undo(self, job: StoredJob) -> None:
        """Of an upload that came to nothing no picture stays that is not in the collection."""
        engine = self.library.get(job.collection)
        if job.kind != "upload" or engine is None:
            return
        for file in job.task["files"]:
            path = folder_of(engine).root / file["path"]
            with suppress(OSError, StoreError):
                if not file["was_there"] and not any(
                    engine.store.items[id].path == path for id in engine.store.find_copies(file["sha256"])
                ):
                    path.unlink()


_KINDS: Mapping[str, Callable[[JobWorker, StoredJob], dict[str, Any]]] = {
    "upload": JobWorker._upload,
    "remove": JobWorker._remove,
    "sync": JobWorker._take_in,
}


def _below(root: Path, path: str) -> Path:
    """The place of a picture. Raises JobError where it is not below the folder of the collection, links and all."""
    if not root.is_dir():  # a drive that is away: what were made there now would hide behind it
        raise JobError("the folder of the collection's pictures is not there")
    place = root / path
    if not Path(os.path.realpath(place.parent)).is_relative_to(os.path.realpath(root)):
        raise JobError(f"{path} leads out of the folder of the collection's pictures")
    return place


def _put(staged: Path, path: Path, sha256: str, job: str) -> None:
    """Put a picture in its place, whole or not at all. Done twice, it is done once."""
    if path.is_file() and sha256_of(path) == sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{job}")  # hidden: a sync does not see it
    with staged.open("rb") as source, temporary.open("wb") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
