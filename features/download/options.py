"""How a download is run."""

from __future__ import annotations

from dataclasses import dataclass

MEGABYTE = 10**6


@dataclass(frozen=True)
class DownloadOptions:
    """How much is asked of the network, of hosts and of this machine.

    Attributes
    ----------
    concurrency : int
        Addresses that are fetched at a time.
    per_host : int
        Of them, those of one host, each with a connection of its own.
    rate : float
        Requests a second to one host.
    max_bytes : int
        The largest file that is taken.
    resize : int, optional
        The longer side, in pixels, to which larger pictures are reduced.
    allow_private : bool
        Whether addresses of one's own network are asked too.
    robots : bool
        Whether the robots.txt of each host is gone by.
    connect_seconds, silence_seconds, total_seconds : float
        How long a connection may take, a server may send nothing, and all of one address may take.
    tries : int
        How often an address is asked in a run where what goes wrong may pass.
    wait_seconds, max_wait_seconds : float
        What the wait before the second try is drawn from, doubled for each further one, and where that ends.
    max_retry_after : float
        What of a server's own wish to be left alone is granted, in seconds.
    break_after : int
        Failures in a row after which a host is left alone for a while.
    break_seconds : float
        For how long at first; twice as long each time that it fails again.
    breaks : int
        After so many such pauses in a row the rest of the host is given up.
    processes : int, optional
        That decode and reduce; as many as there are cores by default.
    """

    concurrency: int = 64
    per_host: int = 4
    rate: float = 10.0
    max_bytes: int = 20 * MEGABYTE
    resize: int | None = None
    allow_private: bool = False
    robots: bool = False
    connect_seconds: float = 10.0
    silence_seconds: float = 20.0
    total_seconds: float = 60.0
    tries: int = 5
    wait_seconds: float = 2.0
    max_wait_seconds: float = 120.0
    max_retry_after: float = 300.0
    break_after: int = 5
    break_seconds: float = 10.0
    breaks: int = 4
    processes: int | None = None

    def __post_init__(self) -> None:
        for name in ("concurrency", "per_host", "rate", "max_bytes", "resize", "tries"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0, got {value!r}")
