"""What an index is at one moment, as one value that writers replace."""

from __future__ import annotations

import threading
from typing import Any

Change = tuple[int, Any]
"""The number of a part, and what it becomes."""


class Published:
    """The parts of an index that must fit together: its lists, its quantizers, its transforms.

    A part is a value that nobody changes. A writer holds the lock, makes the new parts and replaces them all by a
    single assignment. So whoever reads `parts` once has the index as it was at one moment, and a writer that an
    exception stops, wherever, has changed nothing.

    Attributes
    ----------
    parts : tuple
        What readers see.
    lock : threading.RLock
        For one writer at a time; readers need none.
    """

    __slots__ = ("lock", "parts")

    def __init__(self) -> None:
        self.parts: tuple[Any, ...] = ()
        self.lock = threading.RLock()

    def append(self, part: Any) -> int:
        """Take in one part more; returns its number."""
        with self.lock:
            self.parts = (*self.parts, part)
            return len(self.parts) - 1

    def replace(self, *changes: Change) -> None:
        """Make all these changes at once."""
        with self.lock:
            parts = list(self.parts)
            for number, part in changes:
                parts[number] = part
            self.parts = tuple(parts)
