"""Memory for decoding is shared, in turn, and never given out twice."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from features.images.limits import MemoryBudget


def test_never_more_than_there_is():
    budget, lock = MemoryBudget(100), threading.Lock()
    held, most = 0, 0

    def use(amount):
        nonlocal held, most
        with budget.reserve(amount, 600):
            with lock:
                held += amount
                most = max(most, held)
            time.sleep(0.001)
            with lock:
                held -= amount

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, [30, 60, 90, 10, 100, 1] * 20))
    assert (held, most <= 100) == (0, True)
    with budget.reserve(100, 0):
        pass


def test_who_does_not_get_it_in_time_takes_nothing():
    budget = MemoryBudget(100)
    with budget.reserve(60, 0):
        with pytest.raises(TimeoutError, match="did not become free"), budget.reserve(50, 0.01):
            pytest.fail("given out twice")
        with budget.reserve(40, 0):
            pass
    with budget.reserve(100, 0):
        pass


def test_more_than_there_is_waits_until_it_is_alone():
    budget = MemoryBudget(100)
    with budget.reserve(1, 0), pytest.raises(TimeoutError), budget.reserve(1000, 0.01):
        pass
    with budget.reserve(1000, 0), pytest.raises(TimeoutError), budget.reserve(1, 0.01):
        pass


def test_a_large_one_is_not_passed_by_small_ones():
    budget, order = MemoryBudget(100), []

    def use(name, amount):
        with budget.reserve(amount, 600):
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with budget.reserve(50, 0):
            large = pool.submit(use, "large", 100)
            while not budget._waiting:
                time.sleep(0.001)
            small = pool.submit(use, "small", 10)
            while len(budget._waiting) < 2:
                time.sleep(0.001)
            assert order == []
        large.result()
        small.result()
    assert order == ["large", "small"]


def test_an_error_gives_it_back():
    budget = MemoryBudget(100)
    with pytest.raises(RuntimeError, match="in between"), budget.reserve(100, 0):
        raise RuntimeError("in between")
    with budget.reserve(100, 0):
        pass
