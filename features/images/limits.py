"""How much decoding may cost: one image, and all that are decoded at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_PIXELS = 100_000_000
"""Default pixel cap of an image, as it is decoded."""

TOO_LARGE = "too large:"
"""What the reason begins with where an image is refused for its pixels."""

MAX_REDUCTION = 10
"""So many times its cap a JPEG may have before it is reduced: what is left out takes no memory, but time."""


@dataclass(frozen=True)
class DecodeLimits:
    """What may be decoded.

    Attributes
    ----------
    max_pixels : int
        Of an image as it is decoded: of a JPEG that is decoded at a reduced scale, those of that scale.
    formats : frozenset of str, optional
        Pillow's names of the formats that are read; all that can be read by default.
    max_wait : float
        Seconds to wait for memory that other images take now.
    """

    max_pixels: int = MAX_PIXELS
    formats: frozenset[str] | None = None
    max_wait: float = 600.0


OWN_PICTURES = DecodeLimits()
"""For the files of whoever runs this."""

STRANGERS_PICTURES = DecodeLimits(
    max_pixels=50_000_000,
    formats=frozenset({"JPEG", "MPO", "PNG", "GIF", "WEBP", "AVIF", "HEIF", "BMP"}),
    max_wait=20.0,
)
"""For what comes over the wire: only formats that browsers and telephones write, whose readers are not slow."""


class MemoryBudget:
    """Bytes that several threads share; who needs more than is free waits in turn. Safe to use from many threads.

    Parameters
    ----------
    total : int
        What is given out at a time. Whoever needs more than that has to wait until nobody else has anything.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._taken = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, amount: int, max_wait: float) -> Iterator[None]:
        """Hold so many bytes for the length of a ``with`` block.

        Raises
        ------
        TimeoutError
            They did not become free within `max_wait` seconds.
        """
        ticket = object()
        amount = min(amount, self.total)
        with self._changed:
            self._waiting.append(ticket)
            try:
                # In turn, or a large image would wait for ever where small ones keep coming.
                free = self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and self._taken + amount <= self.total, max_wait
                )
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
            if not free:
                raise TimeoutError(f"{amount >> 20} MiB of memory for decoding did not become free in {max_wait:g} s")
            self._taken += amount
        try:
            yield
        finally:
            with self._changed:
                self._taken -= amount
                self._changed.notify_all()


decoding_memory = MemoryBudget(2 << 30)
"""What all images that are decoded at the same time in this process may take together."""
