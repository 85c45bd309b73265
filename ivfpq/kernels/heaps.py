"""Max-heaps of the smallest values seen, for compiled code."""

from __future__ import annotations

from ivfpq.kernels.vectors import float64_at, inner, put_float64


@inner
def push(heap, room, size, value):
    """Keep the `room` smallest values in a heap that holds `size` now; returns how many it holds.

    `heap` is the address of its float64: arrays that are passed on are counted, which takes longer than this.
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
def push_pair(values, numbers, size, value, number):
    """Keep the first pairs of the order in a heap that holds `size` now; returns how many it holds."""
    if size == len(values):
        if size > 0 and before(value, number, values[0], numbers[0]):
            _sift(values, numbers, size, value, number)
        return size
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if not before(values[parent], numbers[parent], value, number):
            break
        values[i], numbers[i] = values[parent], numbers[parent]
        i = parent
    values[i], numbers[i] = value, number
    return size + 1


@inner
def sort_pairs(values, numbers, size):
    """Put a heap of pairs in order."""
    for last in range(size - 1, 0, -1):
        value, number = values[last], numbers[last]
        values[last], numbers[last] = values[0], numbers[0]
        _sift(values, numbers, last, value, number)


@inner
def _sift(values, numbers, size, value, number):
    """Put a pair into a heap whose root is free."""
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and before(values[child], numbers[child], values[child + 1], numbers[child + 1]):
            child += 1
        if not before(value, number, values[child], numbers[child]):
            break
        values[i], numbers[i] = values[child], numbers[child]
        i = child
    values[i], numbers[i] = value, number
