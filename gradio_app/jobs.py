"""Collections are made, brought up to date and deleted here, while others search.

Long work runs in a process of its own (`build`): it takes no time of the searches' threads, and stopping it is certain.
What it makes lies in a hidden folder until it is complete; then one rename puts it in its place.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from features.collection.exchange import said_rows, write_said
from features.collection.lock import writing
from features.collection.names import collection_name
from features.collection.store import StoreError
from features.paths import expanded
from gradio_app.adding import take_back
from gradio_app.incoming import UploadError, Uploads, runs
from gradio_app.library import Library
from gradio_app.recipe import Recipe
from search.databases import drop_tables
from search.engine import SearchEngine

logger = logging.getLogger(__name__)

MAX_NAME = 80  # characters; what is left of 255 bytes for suffixes, whatever the alphabet


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
        ``summary`` in words, ``kinds``: see `ingest_report.shown`.
    table : Path or None
        The whole report as CSV, once it is done.
    sent : str
        Token of what was sent, of which the collection is made; "" for a folder of the server.
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
    table: Path | None = None
    sent: str = ""
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
    uploads : Uploads
        What has been sent, to become collections.
    """

    def __init__(self, folder: Path, library: Library) -> None:
        self.folder = folder.resolve()
        self.library = library
        self.job: Job | None = None
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._remove_leftovers()
        self.uploads = Uploads(self.folder)

    def create(self, name: str, pictures: str | Path, recipe: Recipe | None = None) -> Job:
        """Begin to make a collection of a folder of images.

        Raises
        ------
        JobError
            The name is taken or none, the folder is not there, or something else is being made.
        """
        name = self._new_name(name)
        source = expanded(pictures)
        if not source.is_dir():
            raise JobError(f"There is no folder {pictures} on the server.")
        return self._make(name, source.resolve(), recipe or Recipe())

    def create_of_sent(self, name: str, token: str, recipe: Recipe | None = None) -> Job:
        """Begin to make a collection of pictures that were sent; they stay where they are until it is there.

        Raises
        ------
        JobError
            As `create`; or nothing was sent under this token.
        """
        name = self._new_name(name)
        return self._make(name, self._sent(token), recipe or Recipe(), token)

    def _settle(self) -> None:
        """Wait until a job that is over has cleared up after itself."""
        if self.job is not None and self.job.state != "running" and self._thread is not None:
            self._thread.join()

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """Nothing is under way, what is over has cleared up, and nothing begins meanwhile; else JobError."""
        self._settle()
        with self._lock:
            self._check_idle()
            yield

    def _make(self, name: str, source: Path, recipe: Recipe, token: str = "") -> Job:
        place = self.folder / f".making-{os.getpid()}-{secrets.token_hex(4)}"
        order = {
            "folder": str(place / name),
            "final": str(self.folder / name),
            "pictures": str(source),
            "sent": bool(token),
            "left_out": self.uploads.left_out(token),
            "recipe": recipe.written(),
        }
        with self._idle():
            place.mkdir(parents=True)
            return self._start(Job(f"Making {name}", name, sent=token), order, place)

    def add(self, name: str, token: str) -> Job:
        """Begin to put pictures that were sent into a collection whose pictures lie in its own folder.

        Raises
        ------
        JobError
            There is no such collection here, or nothing was sent under this token, or something else is under way.
        """
        with self._idle():
            if name not in self.with_own_pictures():
                raise JobError(f"{name} is no collection that pictures can be put into here.")
            place = self.folder / f".making-{os.getpid()}-{secrets.token_hex(4)}"
            order = {
                "folder": str(self._place_of(name)),
                "add": str(self._sent(token)),
                "place": str(place),
                "left_out": self.uploads.left_out(token),
            }
            return self._start(Job(f"Adding pictures to {name}", name, sent=token), order, place)

    def with_own_pictures(self) -> list[str]:
        """The collections here whose pictures were sent, so that more can be put beside them."""
        return [
            name
            for name, engine in self.library.items()
            if self.manages(name)
            and Path(engine.store.manifest["root"]).resolve().is_relative_to(Path(engine.folder).resolve())
            and engine.store.manifest.get("source", {}).get("kind", "folder") == "folder"
        ]

    def _sent(self, token: str) -> Path:
        try:
            return self.uploads.place(token)
        except UploadError as error:
            raise JobError(str(error)) from error

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
        with self._idle():
            folder = self._place_of(name)
            job = Job(f"Adding to {name}" if only_new else f"Bringing {name} up to date", name)
            return self._start(job, {"folder": str(folder), "only_new": only_new})

    def check_free(self, name: str) -> None:
        """Raise JobError unless work on a collection could begin now."""
        with self._idle():
            self._place_of(name)

    def look_for_duplicates(self, name: str) -> Job:
        """Begin to look for duplicates in a collection, and closer at those that only hash and vector speak for.

        Raises
        ------
        JobError
            There is no such collection here, or something else is under way.
        """
        with self._idle():
            order = {"folder": str(self._place_of(name)), "duplicates": True}
            return self._start(Job(f"Looking for duplicates in {name}", name), order)

    def cancel(self) -> None:
        """Stop what is under way; nothing of it stays."""
        with self._lock:
            if self.job is not None and self.job.state == "running" and self._process is not None:
                self.job.state = "cancelled"
                self._process.kill()

    def _keep_words(self, name: str) -> None:
        """Write what is said of a collection's pictures into a file beside it, if anything is."""
        store = self.library[name].store
        if store.has_annotations and next(said_rows(store.annotations), None) is not None:
            write_said(store.annotations, self.folder / f"{name} words {datetime.now():%Y-%m-%d %H.%M.%S}.jsonl")

    def forget(self, token: str) -> None:
        """Delete what was sent, unless something is being made of it."""
        with self._lock:
            if self.job is None or self.job.state != "running" or self.job.sent != token:
                self.uploads.remove(token)

    def wait(self) -> None:
        """Until nothing is under way."""
        if self._thread is not None:
            self._thread.join()

    def delete(self, name: str) -> None:
        """Delete a collection: its vectors, indexes and, where it was made of a zip file, its pictures.

        The images of a folder that it was made of stay where they are. What is said of them cannot be made again: it is
        written first into a file beside the collections.

        Raises
        ------
        JobError
            There is no such collection here, or it is being worked on.
        """
        self._settle()
        with self._lock:
            place = self._place_of(name)
            if self.job is not None and self.job.state == "running" and self.job.collection == name:
                raise JobError(f"{name} is being worked on. Cancel that first.")
            trash = self.folder / f".making-{os.getpid()}-{secrets.token_hex(4)}"
            try:
                with writing(place, purpose="deleted"):
                    if place.is_symlink():
                        place.unlink()
                    else:
                        self._keep_words(name)
                        # Gone from one moment to the next; deleting what is in it takes longer
                        drop_tables(place)
                        place.rename(trash)
                    self.library.drop(name)
            except (StoreError, OSError) as error:
                raise JobError(f"{name} cannot be deleted: {error}") from error
        shutil.rmtree(trash, ignore_errors=True)

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

    def _start(self, job: Job, order: dict[str, Any], waste: Path | None = None) -> Job:
        command = [sys.executable, "-m", "gradio_app.build"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
        if self.job is not None and self.job.table is not None:  # that of the last job
            self.job.table.unlink(missing_ok=True)
        self.job = job
        order["table"] = str(self.folder / f".report-{os.getpid()}-{secrets.token_hex(4)}.csv")
        self._thread = threading.Thread(target=self._follow, args=(job, self._process, order, waste), daemon=True)
        self._thread.start()
        return job

    def _follow(self, job: Job, process: subprocess.Popen[str], order: dict[str, Any], waste: Path | None) -> None:
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
            if waste is not None:
                _clear(waste)
            if job.state == "done" and job.sent:
                self.uploads.remove(job.sent)
            if job.table is None:  # nobody is told of the report that it may have written
                for left in self.folder.glob(f"{Path(order['table']).name}*"):
                    left.unlink(missing_ok=True)
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
        table = Path(order["table"])
        job.table = table if table.is_file() else None
        job.state = "done"

    def _remove_leftovers(self) -> None:
        """Of servers that were killed while they made or deleted something."""
        for place in [*self.folder.glob(".making-*-*"), *self.folder.glob(".report-*-*")]:
            owner = place.name.split("-")[1]
            if owner.isdecimal() and (int(owner) == os.getpid() or not runs(int(owner))):
                if place.is_dir():
                    _clear(place)
                else:
                    place.unlink(missing_ok=True)


def _clear(place: Path) -> None:
    """Delete the hidden folder of a job, and first undo what it says is to be undone."""
    try:
        take_back(place)
    except (OSError, ValueError):
        logger.exception("%s is left for the next start", place)
        return
    shutil.rmtree(place, ignore_errors=True)
