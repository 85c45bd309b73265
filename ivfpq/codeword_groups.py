"""Which number a codeword gets: those near each other get numbers that share their low four bits.

A kernel that looks at a code by the smallest table entry of each of 16 groups of codewords (`kernels.avx2`) leaves out
the more, the nearer each other the codewords of a group are. And the more alike the groups are inside, the more it
leaves out by two numbers, one for the group and one for the place in it. Numbers mean nothing else, so they are given
once, at training.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ivfpq.checks import Doubles, Floats, Ids

GROUPS = 16
LARGEST = 256  # codewords: where a code takes two bytes no kernel looks at groups
STEPS = 8  # towards an axis: what is nearly the longest will do


def in_groups(codewords: Floats) -> Floats:
    """The same codewords, float32 (ksub, dsub), ksub a power of 2, in the order of their new numbers.

    Codeword j is in group j % 16, at the place j // 16. The set is halved along its longest axis, and the halves along
    theirs, until there are 16 groups; inside, the places follow the four axes that groups have in common.
    """
    if not GROUPS < len(codewords) <= LARGEST:
        return codewords
    x = codewords.astype(np.float64)
    groups = [np.arange(len(x))]
    while len(groups) < GROUPS:
        groups = [half for group in groups for half in _halves(group, x[group] @ _longest_axis(x[group]))]
    inside = x.copy()
    for group in groups:
        inside[group] -= x[group].mean(axis=0)
    left, places = inside.copy(), groups
    while len(places[0]) > 1:
        axis = _longest_axis(left)
        places = [half for place in places for half in _halves(place, inside[place] @ axis)]
        left -= np.outer(left @ axis, axis)
    return codewords[np.concatenate(places).reshape(GROUPS, -1).T.ravel()]


def _halves(numbers: Ids, along: Doubles) -> list[npt.NDArray[np.int64]]:
    """The numbers of the smaller half of the values `along`, and of the larger."""
    return np.split(numbers[np.argsort(along, kind="stable")], 2)


def _longest_axis(x: Doubles) -> Doubles:
    """A direction, of length 1 or 0, along which the rows of x lie nearly the farthest apart: by the power method."""
    with np.errstate(over="ignore", invalid="ignore"):
        x = x - x.mean(axis=0)
        axis: Doubles = x[np.vecdot(x, x).argmax()]
        for _ in range(STEPS):
            length = np.sqrt(np.vecdot(axis, axis))
            axis = (x @ (axis / length if length > 0 else axis)) @ x
        length = np.sqrt(np.vecdot(axis, axis))
    return axis / length if length > 0 else axis
