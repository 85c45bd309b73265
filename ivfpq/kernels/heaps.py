"""Max-heaps of the smallest values seen, for compiled code."""

from __future__ import annotations

from ivfpq.kernels.vectors import inner


@inner
def push(heaps, q, size, value):
    """Keep the smallest values in heap q, a row of (nq, k), that holds `size` now; returns how many it holds."""
    if size < heaps.shape[1]:
        i = size
        while i > 0 and heaps[q, (i - 1) >> 1] < value:
            heaps[q, i] = heaps[q, (i - 1) >> 1]
            i = (i - 1) >> 1
        heaps[q, i] = value
        return size + 1
    if value < heaps[q, 0]:
        i = 0
        while True:
            child = 2 * i + 1
            if child >= size:
                break
            if child + 1 < size and heaps[q, child + 1] > heaps[q, child]:
                child += 1
            if heaps[q, child] <= value:
                break
            heaps[q, i] = heaps[q, child]
            i = child
        heaps[q, i] = value
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
