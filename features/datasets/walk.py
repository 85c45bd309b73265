"""Which files of a folder are pictures, and what else was there."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import NamedTuple

from features.images.formats import BEGINNING, OPTIONAL_READERS, extensions, looks_like_image
from features.picture_files import file_kind

logger = logging.getLogger(__name__)

SYSTEM_FOLDERS = frozenset(
    {
        "@eadir",  # Synology: a thumbnail of every picture
        "@tmp",
        "#recycle",
        "#snapshot",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "$recycle.bin",  # Windows
        "recycler",
        "system volume information",
        "__macosx",  # archives made on macOS
        "network trash folder",
        "lost+found",
        "thumbs.db",
    }
)
"""Names, in lower case, of folders that storage devices and systems keep for themselves."""

_DRAWINGS_AND_PAGES = frozenset({".svg", ".svgz", ".eps", ".ps", ".ai", ".pdf", ".wmf", ".emf", ".xcf", ".kra"})
_SHOWN = 3  # examples that a message names
MAX_NAMED = 100_000  # files that are passed over and kept by name


class LeftOut(NamedTuple):
    """A file or folder that is not taken: its path relative to the root, and why."""

    path: str
    reason: str


def why_not_taken(path: PurePath) -> str | None:
    """Why a file is no picture that is read here, as far as its name tells; None where it may be one.

    Parameters
    ----------
    path : PurePath
        Relative to the root.
    """
    if any(part.startswith(".") for part in path.parts):
        return "hidden files and folders"
    if any(part.lower() in SYSTEM_FOLDERS for part in path.parts[:-1]):
        return _SYSTEM
    return _why_not_read(extension_of(path.name))


def _why_not_read(extension: str) -> str | None:
    """Why a file of an extension is no picture that is read here; None where it may be one."""
    if not extension or extension in extensions():
        return None
    reader = next((reader for reader in OPTIONAL_READERS if extension in reader.extensions), None)
    if reader is not None:
        return f"{reader.kind} images are passed over: {reader.install} to read them"
    if extension in _DRAWINGS_AND_PAGES:
        return f"{extension} files are passed over: they hold drawings or pages, not pixels"
    return f"other files ({extension})"


def is_excluded(path: PurePath, exclude: Sequence[str]) -> bool:
    """Whether patterns, as `PictureWalk` takes them, leave out a file, or a folder that it is in.

    Parameters
    ----------
    path : PurePath
        Relative to the root.
    """
    patterns = _patterns(exclude)
    return any(_fits(part.as_posix(), patterns) for part in (path, *path.parents[:-1]))


def _patterns(exclude: Sequence[str]) -> list[str]:
    return [pattern.rstrip("/") for pattern in exclude]


def _fits(path: str, patterns: Sequence[str]) -> bool:
    name = path.rpartition("/")[2]
    return any(fnmatchcase(name, pattern) or fnmatchcase(path, pattern) for pattern in patterns)


class PictureWalk:
    """The picture files below a folder, each once.

    Parameters
    ----------
    root : Path
        Absolute, resolved.
    exclude : sequence of str
        Patterns, as a shell has them, of names or of paths relative to the root: what fits one is passed over.
    follow_links : bool
        Whether links may lead out of the root. A folder that is found twice is looked into once.

    Attributes
    ----------
    passed_over : Counter
        What is not a picture that can be read here, each kind with the reason, and how many.
    left_out : list of LeftOut
        The same by name, the first `MAX_NAMED`.
    """

    def __init__(self, root: Path, exclude: Sequence[str] = (), *, follow_links: bool = False) -> None:
        self._root = root
        self._exclude = _patterns(exclude)
        self._follow_links = follow_links
        self._wanted = extensions()
        self._visited: set[tuple[int, int]] = set()
        self.passed_over: Counter[str] = Counter()
        self.left_out: list[LeftOut] = []
        self._examples: dict[str, list[str]] = {}

    def __iter__(self) -> Iterator[Path]:
        self._visited.clear()
        self.passed_over.clear()
        self.left_out.clear()
        self._examples.clear()
        yield from self._below(self._root, "")

    def report(self) -> None:
        """Log what was passed over and may be missed."""
        for reason, count in sorted(self.passed_over.items()):
            if not reason.startswith("other files"):
                logger.warning("%s", self._sentence(reason, count))

    def summary(self) -> str:
        """What was there in place of pictures, for an error."""
        found = [self._sentence(reason, count) for reason, count in self.passed_over.most_common()]
        return "; ".join(found) if found else "the folder is empty"

    def _sentence(self, reason: str, count: int) -> str:
        examples = self._examples.get(reason, [])
        named = f" ({', '.join(examples)}{', ...' if count > len(examples) else ''})" if examples else ""
        return f"{count} {reason}{named}"

    def _pass_over(self, reason: str, path: str, *, is_example: bool = False) -> None:
        self.passed_over[reason] += 1
        if len(self.left_out) < MAX_NAMED:
            self.left_out.append(LeftOut(path, reason))
        if is_example and self.passed_over[reason] <= _SHOWN:
            self._examples.setdefault(reason, []).append(os.fsencode(path).decode("utf-8", "replace"))

    def _below(self, folder: Path, relative: str) -> Iterator[Path]:
        try:
            state = folder.stat()
            with os.scandir(folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            logger.warning("%s is passed over: %s", error.filename or folder, error.strerror)
            self._pass_over("folders that cannot be listed", relative or ".")
            return
        if (state.st_dev, state.st_ino) in self._visited:
            return
        self._visited.add((state.st_dev, state.st_ino))
        for entry in found:
            path = f"{relative}{entry.name}"
            if entry.name.startswith("."):
                continue
            if _fits(path, self._exclude):
                self._pass_over("files and folders are left out, as --exclude says", path)
            elif self._is_folder(entry):
                if self._may_enter(entry, path):
                    yield from self._below(folder / entry.name, f"{path}/")
            elif self._is_picture(entry, path):
                yield folder / entry.name

    @staticmethod
    def _is_folder(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except OSError:  # a circle of links
            return False

    def _may_enter(self, entry: os.DirEntry[str], path: str) -> bool:
        if entry.name.lower() in SYSTEM_FOLDERS:
            self._pass_over(_SYSTEM, path, is_example=True)
            return False
        if not entry.is_symlink():
            return True
        if not self._leads_out(entry):
            return False  # what it leads to is looked into where it is
        if not self._follow_links:
            self._pass_over(_LINKS, path, is_example=True)
        return self._follow_links

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        return not Path(os.path.realpath(entry.path)).is_relative_to(self._root)

    def _is_picture(self, entry: os.DirEntry[str], path: str) -> bool:
        """Whether to take a file. A link whose target is not there now is taken: its drive may be away."""
        if entry.is_symlink() and self._leads_out(entry) and not self._follow_links:
            self._pass_over(_LINKS, path, is_example=True)
            return False
        try:
            kind = None if entry.is_file() else file_kind(entry.stat().st_mode)
        except OSError:
            kind = None
        if kind is not None:
            self._pass_over(f"{kind}s are passed over: pictures are files", path, is_example=True)
            return False
        extension = extension_of(entry.name)
        if extension in self._wanted or (not extension and _begins_like_image(entry.path)):
            return True
        self._pass_over(_why_not_read(extension) or "other files (no extension)", path)
        return False


_SYSTEM = "system folders are passed over"
_LINKS = "links that lead out of the folder are passed over: --follow-links takes them"


def extension_of(name: str) -> str:
    """The extension of a file name in lower case, with the dot; "" if what follows the last dot is none."""
    extension = os.path.splitext(name)[1].lower()  # noqa: PTH122
    # "Screenshot 12.30.45" and "scan.of yesterday" have none.
    return extension if re.fullmatch(r"\.(?=.*[a-z])[a-z0-9_~-]{1,10}", extension) else ""


def _begins_like_image(path: str) -> bool:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            return looks_like_image(file.read(BEGINNING))
    except OSError:
        return False


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # nobody may write to a pipe that took its place
