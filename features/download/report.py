"""What a download says of itself: while it runs, at its end, and in a table of its pictures."""

from __future__ import annotations

import json
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from features.download.state import DownloadState

PICTURES = "pictures.jsonl"
"""The table of pictures in the folder of a download: the file of each, its address, and what the list says of it."""

_SHOWN = 3  # causes beside the bar
_LINE_SECONDS = 30.0

logger = logging.getLogger(__name__)


class ProgressBar:
    """How many have come to an end, how fast, how long it may still take, and what went wrong.

    On a terminal a bar; elsewhere a line each half minute.
    """

    def __init__(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="address", disable=None, smoothing=0.1, dynamic_ncols=True)
        self._total, self._ended = total, 0
        self._causes: Counter[str] = Counter()
        self._begun = self._said = time.monotonic()

    def __call__(self, ended: Counter[str]) -> None:
        self._causes.update(ended)
        self._ended += ended.total()
        self._bar.update(ended.total())
        self._bar.set_postfix_str(self._told(), refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._said >= _LINE_SECONDS:
            self._said = now
            rate = self._ended / (now - self._begun)
            left = (self._total - self._ended) / rate if rate else 0.0
            logger.info(
                "%s of %s addresses, %.1f a second, about %s left; %s",
                f"{self._ended:,}",
                f"{self._total:,}",
                rate,
                tqdm.format_interval(left),
                self._told(),
            )

    def close(self) -> None:
        self._bar.close()

    def _told(self) -> str:
        return ", ".join(f"{cause} {count:,}" for cause, count in self._causes.most_common(_SHOWN + 1))


def summary(state: DownloadState) -> str:
    """How many addresses came to which end, by cause, with an example of each."""
    counts = state.counts()
    total = sum(counts.values())
    lines = [f"{counts.get('done', 0):,} of {total:,} pictures are here"]
    waiting = sum(counts.get(name, 0) for name in ("todo", "aside", "leased"))
    if waiting:
        lines.append(f"{waiting:,} are still to do")
    may_pass = 0
    for kind, is_permanent, cause, number in state.causes():
        url, message = state.examples(kind, cause, 1)[0]
        lasts = "refused" if kind == "refused" else "for good" if is_permanent else "for now"
        may_pass += number if lasts == "for now" else 0
        lines.append(f"{number:>9,}  {cause} ({lasts}): {message} For example {url[:120]}")
    if may_pass:
        lines.append("--retry-failed asks again for what failed for now")
    return "\n".join(lines)


def write_pictures(state: DownloadState, folder: Path) -> Path:
    """Write the table of pictures: a line of JSON each, with `file`, `url` and the other columns of the list.

    Raises
    ------
    OSError
        It cannot be written; the one that was there stays.
    """
    path = folder / PICTURES
    temporary = path.with_name(f".{PICTURES}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as table:
            for file, url, fields in state.pictures():
                table.write(json.dumps(_row(file, url, json.loads(fields)), ensure_ascii=True) + "\n")
            table.flush()
            os.fsync(table.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


def _row(file: str, url: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A column of the list that is called as one of ours keeps its words under another name."""
    others = {f"{name}_given" if name.casefold() in ("file", "url") else name: cell for name, cell in fields.items()}
    return {"file": file, "url": url, **others}
