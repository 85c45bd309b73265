"""What is wrong with an image."""

from __future__ import annotations


class ImageError(ValueError):
    """An image cannot be opened or decoded.

    Attributes
    ----------
    name : str
        Which one.
    reason : str
        Why.
    errno : int, optional
        Of the operating system, where it was what refused; such a file may be readable another time.
    """

    def __init__(self, name: str, reason: str, errno: int | None = None) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.errno = errno
