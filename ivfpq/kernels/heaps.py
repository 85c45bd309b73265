"""Max-heaps of the smallest values seen, for compiled code. Heaps are given by the addresses of their numbers."""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.jit import jit_inner
from ivfpq.kernels.memory import float64_at, int64_at, put_float64, put_int64


# heap = np.sort(np.append(heap, value))[:capacity]
@jit_inner
def push(heap, capacity, size, value):
    """Keep the `capacity` smallest values in a heap that holds `size` now; returns how many it holds.

    `heap` is the address of its float64.
    """
    if size < capacity:
        i = size
        while i > 0 and float64_at(heap, (i - 1) >> 1) < value:
            put_float64(heap, i, float64_at(heap, (i - 1) >> 1))
            i = (i - 1) >> 1
        put_float64(heap, i, value)
        return size + 1
    if value < float64_at(heap, 0):
        i = np.int64(0)
        while True:
            child = 2 * i + 1
            if child >= size:
                break
            if child + 1 < size and float64_at(heap, child + 1) > float64_at(heap, child):
                child += 1
            if float64_at(heap, child) <= value:
                break
            put_float64(heap, i, float64_at(heap, child))
            i = child
        put_float64(heap, i, value)
    return size


# np.lexsort(([number, other_number], [value, other_value]))[0] == 0
@jit_inner
def before(value, number, other_value, other_number):
    """The order of neighbours: by value, ties by number."""
    return value < other_value or (value == other_value and number < other_number)


# values, numbers = np.append(values, value), np.append(numbers, number)
# first = np.lexsort((numbers, values))[:capacity]
# values, numbers = values[first], numbers[first]
@jit_inner
def push_pair(values, numbers, capacity, size, value, number):
    """Keep the first `capacity` pairs of the order in a heap that holds `size` now; returns how many it holds.

    `values` and `numbers` are the addresses of its float64 and int64.
    """
    if size == capacity:
        if size > 0 and before(value, number, float64_at(values, 0), int64_at(numbers, 0)):
            _sift(values, numbers, size, value, number)
        return size
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if not before(float64_at(values, parent), int64_at(numbers, parent), value, number):
            break
        _put(values, numbers, i, float64_at(values, parent), int64_at(numbers, parent))
        i = parent
    _put(values, numbers, i, value, number)
    return size + 1


# order = np.lexsort((numbers, values))
# values, numbers = values[order], numbers[order]
@jit_inner
def sort_pairs(values, numbers, size):
    """Put a heap of pairs in order."""
    for last in range(size - 1, 0, -1):
        value, number = float64_at(values, last), int64_at(numbers, last)
        _put(values, numbers, last, float64_at(values, 0), int64_at(numbers, 0))
        _sift(values, numbers, last, value, number)


# values[0], numbers[0] = value, number; heapify
@jit_inner
def _sift(values, numbers, size, value, number):
    """Put a pair into a heap whose root is free."""
    i = np.int64(0)
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        other, its_number = float64_at(values, child), int64_at(numbers, child)
        if child + 1 < size:
            right, right_number = float64_at(values, child + 1), int64_at(numbers, child + 1)
            if before(other, its_number, right, right_number):
                child, other, its_number = child + 1, right, right_number
        if not before(value, number, other, its_number):
            break
        _put(values, numbers, i, other, its_number)
        i = child
    _put(values, numbers, i, value, number)


# values[i], numbers[i] = value, number
@jit_inner
def _put(values, numbers, i, value, number):
    put_float64(values, i, value)
    put_int64(numbers, i, number)
