"""Collections are made, brought up to date and deleted here, while others search.

Long work runs in a process of its own (`build`): it takes no time of the searches' threads, and stopping it is certain.
What it makes lies in a hidden folder until it is complete; then one rename puts it in its place.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.collection.lock import writing
from features.collection.names import collection_name
from features.collection.store import StoreError
from features.paths import expanded
from gradio_app.library import Library
from search.databases import drop_tables
from search.engine import SearchEngine

logger = logging.getLogger(__name__)

MAX_NAME = 80  # characters; what is left of 255 bytes for suffixes, whatever the alphabet
DAY = 24 * 60 * 60


class JobError(ValueError):
    """What was asked for cannot be done; the message is a sentence for the person who asked."""


@dataclass
class Job:
    """Work under way, or what became of it.

    Attributes
    ----------
    title : str
        What is being done, as a heading.
    stage : str
        What is being done just now.
    done, total : int
        How far the stage is; 0 of 0 where that is not known.
    state : str
        "running", "done", "failed" or "cancelled".
    error : str
        Why it failed.
    report : dict
        ``summary`` in words, ``skipped`` (a count), ``files`` (pairs of a skipped file and the reason).
    seconds : float
    """

    title: str
    collection: str
    stage: str = "Starting"
    done: int = 0
    total: int = 0
    state: str = "running"
    error: str = ""
    report: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class CollectionJobs:
    """Makes and deletes the collections of one folder, one at a time. Safe to use from many threads.

    Parameters
    ----------
    folder : Path
        Where the collections are.
    library : Library
        Told of every change.

    Attributes
    ----------
    job : Job or None
        The one under way, or else the last one.
    """

    def __init__(self, folder: Path, library: Library) -> None:
        self.folder = folder.resolve()
        self.library = library
        self.job: Job | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._remove_leftovers()

    def create(self, name: str, pictures: str | Path, *, packed: bool = False) -> Job:
        """Begin to make a collection of a folder of images, or of a zip file of them, which is deleted in the end.

        Raises
        ------
        JobError
            The name is taken or none, the folder is not there, or something else is being made.
        """
        name = self._new_name(name)
        source = expanded(pictures)
        if not packed and not source.is_dir():
            raise JobError(f"There is no folder {pictures} on the server.")
        source = source.resolve()
        place = self.folder / f".making-{os.getpid()}-{secrets.token_hex(4)}"
        order = {
            "folder": str(place / name),
            "final": str(self.folder / name),
            "pictures": str(source),
            "packed": packed,
        }
        with self._lock:
            self._check_idle()
            place.mkdir(parents=True)
            return self._start(Job(f"Making {name}", name), order, [place, source] if packed else [place])

    def sync(self, name: str, *, only_new: bool = False) -> Job:
        """Begin to take into a collection what has changed in the folder of its images.

        Parameters
        ----------
        only_new : bool
            Take only images that have come, without looking at the others.

        Raises
        ------
        JobError
            There is no such collection here, or something else is under way.
        """
        with self._lock:
            self._check_idle()
            folder = self._place_of(name)
            job = Job(f"Adding to {name}" if only_new else f"Bringing {name} up to date", name)
            return self._start(job, {"folder": str(folder), "only_new": only_new}, [])

    def check_free(self, name: str) -> None:
        """Raise JobError unless work on a collection could begin now."""
        with self._lock:
            self._check_idle()
            self._place_of(name)

    def look_for_duplicates(self, name: str) -> Job:
        """Begin to look for duplicates in a collection, and closer at those that only hash and vector speak for.

        Raises
        ------
        JobError
            There is no such collection here, or something else is under way.
        """
        with self._lock:
            self._check_idle()
            order = {"folder": str(self._place_of(name)), "duplicates": True}
            return self._start(Job(f"Looking for duplicates in {name}", name), order, [])

    def cancel(self) -> None:
        """Stop what is under way; nothing of it stays."""
        with self._lock:
            if self.job is not None and self.job.state == "running" and self._process is not None:
                self.job.state = "cancelled"
                self._process.kill()

    def wait(self) -> None:
        """Until nothing is under way."""
        if self._thread is not None:
            self._thread.join()

    def delete(self, name: str) -> None:
        """Delete a collection: its vectors, indexes and, where it was made of a zip file, its pictures.

        The images of a folder that it was made of stay where they are.

        Raises
        ------
        JobError
            There is no such collection here, or it is being worked on.
        """
        with self._lock:
            place = self._place_of(name)
            if self.job is not None and self.job.state == "running" and self.job.collection == name:
                raise JobError(f"{name} is being worked on. Cancel that first.")
            trash = self.folder / f".making-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                with writing(place, purpose="deleted"):
                    if place.is_symlink():
                        place.unlink()
                    else:  # gone from one moment to the next; deleting what is in it takes longer
                        drop_tables(place)
                        place.rename(trash)
                    self.library.drop(name)
            except (StoreError, OSError) as error:
                raise JobError(f"{name} cannot be deleted: {error}") from error
        shutil.rmtree(trash, ignore_errors=True)

    def new_upload(self) -> tuple[str, Path]:
        """A place for a zip file that is being sent, and the token it goes by. Yesterday's that came to nothing go."""
        self._remove_uploads()
        token = secrets.token_hex(16)
        self.folder.mkdir(parents=True, exist_ok=True)
        return token, self._upload_of(token)

    def uploaded(self, token: str) -> Path:
        """The zip file that was sent. Raises JobError if there is none."""
        path = self._upload_of(token)
        if not (re.fullmatch("[0-9a-f]{32}", token) and path.is_file()):
            raise JobError("The zip file is no longer on the server. Choose it again.")
        return path

    def _upload_of(self, token: str) -> Path:
        return self.folder / f".upload-{os.getpid()}-{token}.zip"

    def manages(self, name: str) -> bool:
        """Whether a collection of the library is one of the jobs' folder."""
        engine = self.library.get(name)
        return engine is not None and (self.folder / name).resolve() == Path(engine.folder).resolve()

    def _place_of(self, name: str) -> Path:
        if not self.manages(name):
            raise JobError(f"There is no collection {name} that could be changed here.")
        return self.folder / name

    def _new_name(self, name: str) -> str:
        if not name.strip():
            raise JobError("Give the collection a name first.")
        try:
            safe = collection_name(name)
        except ValueError as error:
            raise JobError(f"{name} has no letter or digit in it: choose another name.") from error
        if len(safe) > MAX_NAME:
            raise JobError(f"The name is longer than {MAX_NAME} characters.")
        if safe in self.library or (self.folder / safe).exists():
            raise JobError(f"There is a collection {safe} already: choose another name, or delete it first.")
        return safe

    def _check_idle(self) -> None:
        if self.job is not None and self.job.state == "running":
            raise JobError(f"{self.job.title} is under way. Wait for its end, or cancel it.")

    def _start(self, job: Job, order: dict[str, Any], waste: list[Path]) -> Job:
        command = [sys.executable, "-m", "gradio_app.build"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        self.job = job
        self._thread = threading.Thread(target=self._follow, args=(job, self._process, order, waste), daemon=True)
        self._thread.start()
        return job

    def _follow(self, job: Job, process: subprocess.Popen[str], order: dict[str, Any], waste: list[Path]) -> None:
        """Hand the process its order, note what it says, and put what it made in its place; then the waste goes."""
        said: dict[str, Any] = {}
        try:
            if process.stdin is None or process.stdout is None:
                raise RuntimeError("the process was started without pipes")
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()  # and kept open: when it closes, the process ends
            for line in process.stdout:
                said = json.loads(line)
                if "stage" in said:
                    job.stage, job.done, job.total = said["stage"], said["done"], said["total"]
            process.wait()
            with self._lock:
                if job.state == "running":
                    self._finish(job, said, order)
        except (OSError, ValueError) as error:
            logger.exception("%s", job.title)
            job.state, job.error = "failed", f"It broke off: {error}"
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
            for path in waste:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            job.seconds = time.monotonic() - job.started

    def _finish(self, job: Job, said: dict[str, Any], order: dict[str, Any]) -> None:
        if "report" not in said:
            job.state, job.error = "failed", said.get("error", "It broke off; the server's log says more.")
            return
        folder = Path(order.get("final", order["folder"]))
        if "final" in order:
            try:
                with writing(folder, purpose="made"):
                    if folder.exists():
                        raise StoreError(f"There is a collection {folder.name} by now.")
                    os.rename(order["folder"], folder)  # noqa: PTH104
            except (StoreError, OSError) as error:
                job.state, job.error = "failed", str(error)
                return
        try:
            self.library.put(SearchEngine.open(folder))
        except Exception as error:  # whatever is wrong with what was made, the job is over and the page goes on
            logger.exception("%s", folder)
            job.state, job.error = "failed", str(error) or type(error).__name__
            return
        job.report = said["report"]
        job.state = "done"

    def _remove_leftovers(self) -> None:
        """Of servers that were killed while they made, took in or deleted something."""
        for place in self.folder.glob(".making-*-*"):
            owner = place.name.split("-")[1]
            if owner.isdecimal() and (int(owner) == os.getpid() or not runs(int(owner))):
                shutil.rmtree(place, ignore_errors=True)
        self._remove_uploads(own=True)

    def _remove_uploads(self, *, own: bool = False) -> None:
        """Zip files that came to nothing: of yesterday, and of servers that are no more; at the start also our own."""
        for path in self.folder.glob(".upload-*.zip"):
            owner = path.name.split("-")[1]
            ended = owner.isdecimal() and (own if int(owner) == os.getpid() else not runs(int(owner)))
            with suppress(OSError):
                if ended or time.time() - path.stat().st_mtime > DAY:
                    path.unlink()


def runs(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
