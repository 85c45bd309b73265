"""Waiting for what must happen. The bound is in minutes: on a busy machine everything takes long, and is no failure."""

import time

MINUTES = 5


def until(happened, what="it"):
    """Call `happened` again and again until it gives something true; returns that.

    Raises
    ------
    AssertionError
        After MINUTES.
    """
    end = time.monotonic() + 60 * MINUTES
    while not (given := happened()):
        assert time.monotonic() < end, f"{what} did not happen within {MINUTES} minutes"
        time.sleep(0.01)
    return given
