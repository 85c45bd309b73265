"""The pictures of a list of web addresses, downloaded where they are not here yet."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from features.datasets.base import DatasetError, Item, Meanwhile, label_text
from features.download.errors import DownloadError
from features.download.lists import TABLES, url_column
from features.download.options import DownloadOptions
from features.download.report import ProgressBar, summary, write_pictures
from features.download.run import add_list, download, opened_state
from features.download.state import STATE, DownloadState, list_name
from features.makers.tables import split_tags, table_kind

logger = logging.getLogger(__name__)

LABEL_COLUMNS = ("label", "labels", "class", "category")
"""The columns of a list that say what is on its pictures; the first that is there counts."""


class UrlCsv:
    """The pictures of a list of addresses, in the order of the list; other columns of it are kept in a table.

    Parameters
    ----------
    path : path
        A list as `features.download` takes it (CSV, TSV, JSONL, Parquet), or the folder of a download. A list is
        downloaded to the folder of its name in `datasets_dir` first, and goes on there where that was stopped; of a
        folder nothing is fetched.
    datasets_dir : path
    options : DownloadOptions, optional
    meanwhile : Meanwhile, optional
        Told of the pictures as they come.

    Attributes
    ----------
    table : Path
        What the list says of each picture.

    Raises
    ------
    DatasetError
        The list cannot be read or has no column of addresses, or the folder is that of another list or of something
        else, or cannot be written. KeyboardInterrupt where the download was stopped.
    """

    kind = "urls"

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        datasets_dir: str | os.PathLike[str] = "datasets",
        options: DownloadOptions | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> None:
        path = Path(path).resolve()
        try:
            if not path.is_dir():
                folder = Path(datasets_dir).resolve() / path.stem
                try:
                    path = _downloaded(path, folder, options or DownloadOptions(), meanwhile)
                finally:
                    if meanwhile is not None:
                        meanwhile.end()
            self.root = path
            if not (self.root / STATE).is_file():
                raise DatasetError(f"{self.root} is not the folder of a download: it has no {STATE}")
        except DownloadError as error:
            raise DatasetError(str(error)) from error
        self.name = label_text(self.root.name) or "root"
        self.options: dict[str, Any] = {}

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether a path is a list of addresses with columns, or the folder of a download."""
        return (path / STATE).is_file() or (path.is_file() and table_kind(path) in TABLES)

    @cached_property
    def items(self) -> list[Item]:
        state = DownloadState(self.root / STATE, read_only=True)
        try:
            found = [(file, json.loads(fields)) for file, _, fields in state.pictures()]
        except (sqlite3.Error, ValueError) as error:
            raise DatasetError(f"{self.root / STATE} cannot be read: {error}") from error
        finally:
            state.close()
        if not found:
            raise DatasetError(f"no picture of the list is in {self.root}: python -m features.download says why")
        return [Item(id, self.root / file, _labels(fields)) for id, (file, fields) in enumerate(found)]

    @cached_property
    def table(self) -> Path:
        state = DownloadState(self.root / STATE, read_only=True)
        try:
            return write_pictures(state, self.root)
        finally:
            state.close()


def _downloaded(path: Path, folder: Path, options: DownloadOptions, meanwhile: Meanwhile | None) -> Path:
    """The folder of a list, with all of its pictures that can be had."""
    column = url_column(path, None)
    if not (folder / STATE).is_file() and folder.is_dir() and any(folder.iterdir()):
        raise DatasetError(f"{folder} holds something else, and no pictures go between that: rename the list")
    with opened_state(folder) as state:
        others = [name for name in state.lists() if name != list_name(path)]
        if others:
            raise DatasetError(f"{folder} has the pictures of another list, {others[0]}: move it away, or rename yours")
        for note in add_list(state, path, column):
            logger.warning("%s", note)
        state.begin()
        todo = state.counts().get("todo", 0)
        if not todo:
            return folder
        logger.info("downloading %s to %s", f"{todo:,} pictures", folder)
        if meanwhile is not None:
            meanwhile.begin(folder)
        bar = ProgressBar(todo)

        def told(ended: Counter[str]) -> None:
            bar(ended)
            if meanwhile is not None and ended["done"]:
                meanwhile.came(ended["done"])

        try:
            is_finished = download(state, folder, options, progress=told)
        finally:
            bar.close()
        write_pictures(state, folder)
        logger.info("%s", summary(state))
    if not is_finished:
        raise KeyboardInterrupt
    return folder


def _labels(fields: dict[str, Any]) -> tuple[str, ...]:
    named = {name.casefold(): cell for name, cell in reversed(fields.items())}
    cell = next((named[name] for name in LABEL_COLUMNS if named.get(name) not in (None, "")), None)
    if isinstance(cell, list):
        return tuple(dict.fromkeys(split_tags(cell)))
    return () if cell is None else (str(cell).strip(),)
