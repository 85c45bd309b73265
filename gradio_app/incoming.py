"""Pictures on their way to becoming collections: zip files, and folders that are sent file by file.

They lie hidden beside the collections until a collection has been made of them, whatever became of the tries before.
What came to nothing goes after a day, or with the server.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from features.datasets.walk import LeftOut, why_not_taken
from gradio_app.zips import KEEP_FREE, MAX_BYTES, MAX_FILE_BYTES, MAX_FILES, place_below

DAY = 24 * 60 * 60
MAX_PATH = 4_000  # characters of a path below the folder


class UploadError(ValueError):
    """What is sent is not taken, or no longer there; the message is a sentence for the person who sends it."""


class SentFolder:
    """A folder whose files come one by one: first their names, then the content of each that is wanted.

    Attributes
    ----------
    folder : Path
    left_out : list of LeftOut
        Files that were named and are not wanted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.left_out: list[LeftOut] = []
        self._wanted: list[tuple[PurePosixPath, int]] = []
        self._taken: set[PurePosixPath] = set()
        self._received: set[int] = set()
        self._bytes = 0
        self._lock = threading.Lock()

    def announce(self, files: Sequence[tuple[str, int]]) -> list[int | None]:
        """Note files that are to come, by their paths and sizes in bytes.

        Returns
        -------
        list of int or None
            Of each the number to send it under; None where it is not wanted.

        Raises
        ------
        UploadError
            A path leads out of the folder, or it is more than is taken or than there is room for.
        """
        with self._lock:
            room = shutil.disk_usage(self.folder).free - KEEP_FREE
            pending = sum(size for number, (_, size) in enumerate(self._wanted) if number not in self._received)
            numbers: list[int | None] = []
            for name, size in files:
                place = place_below(name) if len(name) <= MAX_PATH else None
                if place is None or size < 0:
                    raise UploadError(f"{name[:80]!r} is no path of a file in a folder.")
                reason = why_not_taken(place)
                if reason is None and size > MAX_FILE_BYTES:
                    reason = f"larger than the {MAX_FILE_BYTES:,} bytes that are read of a picture"
                if reason is not None:
                    self.left_out.append(LeftOut(place.as_posix(), reason))
                    numbers.append(None)
                    continue
                self._bytes += size
                pending += size
                numbers.append(len(self._wanted))
                self._wanted.append((self._unique(place), size))
            if len(self._wanted) + len(self.left_out) > MAX_FILES:
                raise UploadError(f"At most {MAX_FILES:,} files are taken at a time.")
            if self._bytes > MAX_BYTES:
                raise UploadError(f"At most {MAX_BYTES / 2**30:g} GB are taken at a time.")
            if pending > room:
                raise UploadError(
                    f"These are {pending:,} bytes, and there is room for {max(room, 0):,}: free some on the disk first."
                )
            return numbers

    def _unique(self, place: PurePosixPath) -> PurePosixPath:
        """The path, or one beside it where another file has it: several folders may be sent together."""
        found, count = place, 1
        while found in self._taken:
            count += 1
            found = place.with_name(f"{place.stem}-{count}{place.suffix}")
        self._taken.add(found)
        return found

    def size_of(self, number: int) -> int:
        """Bytes of a file that is to come. Raises UploadError where none of this number is."""
        if not 0 <= number < len(self._wanted):
            raise UploadError("This file was not announced.")
        return self._wanted[number][1]

    def part_of(self, number: int) -> Path:
        """Where the content of a file is written while it comes."""
        return self.folder / f".{number}-{secrets.token_hex(4)}.part"

    def receive(self, number: int, part: Path) -> None:
        """Put the content of a file, complete, in its place.

        Raises
        ------
        UploadError
            It has another size than was said.
        """
        if part.stat().st_size != self.size_of(number):
            raise UploadError("The file has changed while it was being sent.")
        target = self.folder.joinpath(*self._wanted[number][0].parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        with self._lock:
            self._received.add(number)

    @property
    def missing(self) -> int:
        """How many files are still to come."""
        return len(self._wanted) - len(self._received)


class Uploads:
    """What has been sent to a folder of collections and is none yet, by tokens. Safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sent: dict[str, SentFolder] = {}
        self._remove_old(own=True)

    def new_zip(self) -> tuple[str, Path]:
        """A place for a zip file that is being sent, and the token it goes by. Yesterday's that came to nothing go."""
        self._remove_old()
        token = secrets.token_hex(16)
        self._folder.mkdir(parents=True, exist_ok=True)
        return token, self._zip(token)

    def new_folder(self) -> str:
        """Begin a folder that is sent file by file; returns the token it goes by."""
        self._remove_old()
        token = secrets.token_hex(16)
        place = self._zip(token).with_suffix("")
        place.mkdir(parents=True)
        self._sent[token] = SentFolder(place)
        return token

    def folder(self, token: str) -> SentFolder:
        """A folder that is being sent. Raises UploadError if there is none."""
        found = self._sent.get(token)
        if found is None or not found.folder.is_dir():
            raise UploadError("What was sent is no longer on the server. Choose it again.")
        return found

    def place(self, token: str) -> Path:
        """The zip file or the folder that was sent. Raises UploadError if there is none, or not all of it."""
        if token in self._sent:
            sent = self.folder(token)
            if sent.missing:
                raise UploadError(f"{sent.missing:,} files are still being sent. Wait until that has finished.")
            return sent.folder
        path = self._zip(token)
        if not (re.fullmatch("[0-9a-f]{32}", token) and path.is_file()):
            raise UploadError("The zip file is no longer on the server. Choose it again.")
        return path

    def left_out(self, token: str) -> list[LeftOut]:
        """What of a folder was not wanted."""
        return self._sent[token].left_out if token in self._sent else []

    def remove(self, token: str) -> None:
        """Delete what was sent."""
        if sent := self._sent.pop(token, None):
            shutil.rmtree(sent.folder, ignore_errors=True)
        elif re.fullmatch("[0-9a-f]{32}", token):
            self._zip(token).unlink(missing_ok=True)

    def _zip(self, token: str) -> Path:
        return self._folder / f".upload-{os.getpid()}-{token}.zip"

    def _remove_old(self, *, own: bool = False) -> None:
        """What came to nothing: of yesterday, and of servers that are no more; at the start also our own."""
        for path in self._folder.glob(".upload-*-*"):
            owner = path.name.split("-")[1]
            ended = owner.isdecimal() and (own if int(owner) == os.getpid() else not runs(int(owner)))
            with suppress(OSError):
                if not ended and time.time() - path.stat().st_mtime <= DAY:
                    continue
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
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
