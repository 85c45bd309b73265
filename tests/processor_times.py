"""Measures which tests take long and writes them into tests/slow.txt. `make quick` leaves those out.

    python -m pytest -p tests.processor_times -m "not browser and not realdata" -n 2 --dist loadfile

What is measured is the time of a processor, that of the processes which a test starts included, so that it matters
little what else the machine does meanwhile. Tests that were not run keep their lines.
"""

from __future__ import annotations

import json
import resource
from collections import Counter
from pathlib import Path

import pytest

SLOW = Path(__file__).with_name("slow.txt")
LIMIT_S = 0.75
ALWAYS_QUICK = "tests/test_architecture.py"  # the first of its tests reads all sources for the others

_before = frozenset(SLOW.read_text(encoding="utf-8").splitlines())
_seconds: Counter[str] = Counter()


def _processor_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    start = _processor_s()
    try:
        return (yield)
    finally:
        name = item.nodeid.partition("[")[0]  # all cases of a test count together
        if name in _before or not item.get_closest_marker("slow"):  # what is marked where it stands needs no line
            _seconds[name] += _processor_s() - start


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A process of pytest-xdist has ended: take what it measured."""
    _seconds.update(json.loads(node.workeroutput["processor_times"]))


def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["processor_times"] = json.dumps(_seconds)
        return
    kept = _before - _seconds.keys()
    slow = kept | {name for name, seconds in _seconds.items() if seconds > LIMIT_S and ALWAYS_QUICK not in name}
    SLOW.write_text("".join(f"{name}\n" for name in sorted(slow)), encoding="utf-8")
