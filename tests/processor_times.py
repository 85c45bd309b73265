"""Measures which tests take long and writes them into tests/slow.txt. `make quick` leaves those out.

    python -m pytest -p tests.processor_times -m "not browser and not realdata" -n 2 --dist loadfile

What is measured is the time of a processor, that of the processes which a test starts included, so that it matters
little what else the machine does meanwhile. What several tests share is shared out among them: it does not matter which
of them is the first and makes it. Tests that were not run keep their lines.
"""

from __future__ import annotations

import json
import resource
from collections import Counter, defaultdict
from pathlib import Path

import pytest

SLOW = Path(__file__).with_name("slow.txt")
LIMIT_S = 0.6
ALWAYS_QUICK = "tests/test_architecture.py"  # the first of its tests reads all sources for the others

_before = frozenset(SLOW.read_text(encoding="utf-8").splitlines())
_alone: Counter[str] = Counter()  # seconds of a test without what it shares
_making: Counter[str] = Counter()  # seconds that making a shared fixture takes
_shared: defaultdict[str, set[str]] = defaultdict(set)  # which shared fixtures a test has


def _processor_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _name(fixture) -> str:
    return f"{fixture.baseid}::{fixture.argname}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef):
    start = _processor_s()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _making[_name(fixturedef)] += _processor_s() - start


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    start, made = _processor_s(), _making.total()
    try:
        return (yield)
    finally:
        name = item.nodeid.partition("[")[0]  # all cases of a test count together
        if name in _before or not item.get_closest_marker("slow"):  # what is marked where it stands needs no line
            _alone[name] += _processor_s() - start - (_making.total() - made)
            fixtures = getattr(item, "_fixtureinfo", None)  # a notebook has none
            if fixtures is not None:
                _shared[name].update(_name(each[-1]) for each in fixtures.name2fixturedefs.values())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A process of pytest-xdist has ended: take what it measured."""
    alone, making, shared = json.loads(node.workeroutput["processor_times"])
    _alone.update(alone)
    for name, seconds in making.items():
        _making[name] = max(_making[name], seconds)
    for name, fixtures in shared.items():
        _shared[name].update(fixtures)


def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        shared = {name: sorted(fixtures) for name, fixtures in _shared.items()}
        output["processor_times"] = json.dumps([_alone, _making, shared])
        return
    sharing = Counter(each for fixtures in _shared.values() for each in fixtures)
    seconds = {
        name: alone + sum(_making[each] / sharing[each] for each in _shared[name]) for name, alone in _alone.items()
    }
    kept = _before - seconds.keys()
    slow = kept | {name for name, spent in seconds.items() if spent > LIMIT_S and ALWAYS_QUICK not in name}
    SLOW.write_text("".join(f"{name}\n" for name in sorted(slow)), encoding="utf-8")
