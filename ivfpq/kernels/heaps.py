"""Max-heaps of the smallest values seen, for compiled code."""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.vectors import float64_at, inner, int64_at, put_float64, put_int64


@inner
def push(heap, room, size, value):
    """Keep the `room` smallest values in a heap that holds `size` now; returns how many it holds.

    `heap` is the address of its float64: arrays that are passed on are counted, which takes longer than this, and code
    for them takes several times as long to compile.
    """
    if size < room:
        i = size
        while i > 0 and float64_at(heap + 8 * ((i - 1) >> 1)) < value:
            put_float64(heap + 8 * i, float64_at(heap + 8 * ((i - 1) >> 1)))
            i = (i - 1) >> 1
        put_float64(heap + 8 * i, value)
        return size + 1
    if value < float64_at(heap):
        i = 0
        while True:
            child = 2 * i + 1
            if child >= size:
                break
            if child + 1 < size and float64_at(heap + 8 * (child + 1)) > float64_at(heap + 8 * child):
                child += 1
            if float64_at(heap + 8 * child) <= value:
                break
            put_float64(heap + 8 * i, float64_at(heap + 8 * child))
            i = child
        put_float64(heap + 8 * i, value)
    return size


@inner
def before(value, number, other_value, other_number):
    """The order of neighbours: by value, ties by number."""
    return value < other_value or (value == other_value and number < other_number)


@inner
def push_pair(values, numbers, room, size, value, number):
    """Keep the first `room` pairs of the order in a heap that holds `size` now; returns how many it holds.

    `values` and `numbers` are the addresses of its float64 and int64.
    """
    if size == room:
        if size > 0 and before(value, number, float64_at(values), int64_at(numbers)):
            _sift(values, numbers, size, value, number)
        return size
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if not before(float64_at(values + 8 * parent), int64_at(numbers + 8 * parent), value, number):
            break
        _put(values, numbers, i, float64_at(values + 8 * parent), int64_at(numbers + 8 * parent))
        i = parent
    _put(values, numbers, i, value, number)
    return size + 1


@inner
def sort_pairs(values, numbers, size):
    """Put a heap of pairs in order."""
    for last in range(size - 1, 0, -1):
        value, number = float64_at(values + 8 * last), int64_at(numbers + 8 * last)
        _put(values, numbers, last, float64_at(values), int64_at(numbers))
        _sift(values, numbers, last, value, number)


@inner
def _sift(values, numbers, size, value, number):
    """Put a pair into a heap whose root is free."""
    i = np.int64(0)
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        other, its_number = float64_at(values + 8 * child), int64_at(numbers + 8 * child)
        if child + 1 < size:
            right, right_number = float64_at(values + 8 * child + 8), int64_at(numbers + 8 * child + 8)
            if before(other, its_number, right, right_number):
                child, other, its_number = child + 1, right, right_number
        if not before(value, number, other, its_number):
            break
        _put(values, numbers, i, other, its_number)
        i = child
    _put(values, numbers, i, value, number)


@inner
def _put(values, numbers, i, value, number):
    put_float64(values + 8 * i, value)
    put_int64(numbers + 8 * i, number)
