"""What can go wrong with a download as a whole, and with one address of it."""

from __future__ import annotations

from dataclasses import dataclass


class DownloadError(ValueError):
    """The download cannot go on; the message is a sentence that says what to do."""


@dataclass(eq=False)
class FetchError(Exception):
    """A picture could not be had.

    Attributes
    ----------
    cause : str
        What it is counted as: "404", "time-out", "not an image".
    message : str
        A sentence for people.
    is_permanent : bool
        Whether asking again is in vain.
    is_host : bool
        Whether it says something of the whole host, which then is asked less.
    retry_after : float, optional
        Seconds that the server asks to be left alone.
    """

    cause: str
    message: str
    is_permanent: bool = False
    is_host: bool = False
    retry_after: float | None = None


class RefusedError(Exception):
    """An address is not asked at all.

    Parameters
    ----------
    cause : str
        What it is counted as.
    message : str
        A sentence for people.
    """

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message
