"""Which lists to look into, and how many candidates to rank again, for a recall that is wanted.

What a search finds depends on two numbers that mean nothing to whoever wants 95 of 100 neighbours. So `tune` searches
for vectors of which it knows the neighbours, with one pair of numbers after the other, and keeps the cheapest that
finds the share that was asked for. With a k_factor given, more lists find more, and a larger k_factor never needs more
of them; so for each k_factor, the largest first, it doubles steps from the fewest lists that the one before needed, and
halves them again once they are enough.

The cheapest is the one that reads the fewest bytes, which is the same on every machine and however busy it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ivfpq.checks import Ids, NotTunedError, as_array, positive_int
from ivfpq.metrics import knn_recall_at_k

K_FACTORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
FAR_APART = 2  # a byte of a candidate, which lies anywhere, counts as so many of a list, which lie in a row


class Setting(NamedTuple):
    """What a search takes to reach a recall."""

    k: int
    recall: float
    """What was asked for."""
    found: float
    """What the vectors found that it was chosen by."""
    nprobe: int
    k_factor: int | None
    """None where nothing is ranked again."""


class Reading(NamedTuple):
    """What a search reads."""

    lists: int
    list_bytes: float
    """Of a list of codes, in the mean."""
    candidate_bytes: int
    """Of a candidate that is ranked again; 0 where none is."""
    ntotal: int

    def bytes(self, k: int, nprobe: int, k_factor: int | None) -> float:
        """What a query reads."""
        candidates = min(k * (k_factor or 0), self.ntotal)
        return nprobe * self.list_bytes + FAR_APART * candidates * self.candidate_bytes


def cheapest(search: Callable[[int, int | None], Ids], truth: Ids, recall: float, k: int, reading: Reading) -> Setting:
    """The setting that finds `recall` of the true neighbours for the fewest bytes.

    Parameters
    ----------
    search : callable
        (nprobe, k_factor) -> ids found, int64 (nq, k).
    truth : int64 array, shape (nq, k)

    Raises
    ------
    ValueError
        If no setting finds as many.
    """
    best: tuple[float, Setting] | None = None
    most, fewest = 0.0, 1
    factors = [f for f in K_FACTORS if f == 1 or k * (f - 1) < reading.ntotal] if reading.candidate_bytes else [None]
    for factor in reversed(factors):
        known: dict[int, float] = {}

        def enough(nprobe: int, factor: int | None = factor, known: dict[int, float] = known) -> bool:
            known[nprobe] = knn_recall_at_k(search(nprobe, factor), truth)
            return known[nprobe] >= recall

        below, nprobe, step = fewest - 1, fewest, 1
        while not (reached := enough(nprobe)) and nprobe < reading.lists:
            if best is not None and reading.bytes(k, nprobe, factor) >= best[0]:
                break
            below, nprobe, step = nprobe, min(nprobe + step, reading.lists), 2 * step
        most = max(most, *known.values())
        if not reached:
            continue
        while nprobe - below > 1:
            middle = (below + nprobe) // 2
            below, nprobe = (below, middle) if enough(middle) else (middle, nprobe)
        fewest, cost = nprobe, reading.bytes(k, nprobe, factor)
        if best is None or cost < best[0]:
            best = cost, Setting(k, recall, known[nprobe], nprobe, factor)
    if best is None:
        raise ValueError(f"no setting reaches a recall of {recall:g} at k={k}: the most found is {most:.4f}")
    return best[1]


def with_setting(settings: tuple[Setting, ...], new: Setting) -> tuple[Setting, ...]:
    """Those and the new one, in order; it takes the place of one for the same k and recall."""
    others = [known for known in settings if known[:2] != new[:2]]
    return tuple(sorted([*others, new]))


def setting_for(settings: tuple[Setting, ...], k: int, target: Any) -> tuple[int, int | None]:
    """nprobe and k_factor that reach the target at k.

    What was tuned for more neighbours serves for fewer, with as many candidates: near ones are found more easily.

    Raises
    ------
    NotTunedError
        If nothing was tuned for so much.
    """
    target = share(target, "target_recall")
    if not settings:
        raise NotTunedError("the index is not tuned: call tune(x, k, recall) before searching with target_recall")
    enough = [known for known in settings if known.k >= k and known.recall >= target]
    if not enough:
        tuned = ", ".join(f"{known.recall:g} at k={known.k}" for known in settings)
        raise NotTunedError(
            f"the index is tuned for a recall of {tuned}, got target_recall={target:g} at k={k}: call "
            f"tune(x, {k}, {target:g})"
        )
    best = min(enough)
    return best.nprobe, None if best.k_factor is None else math.ceil(best.k * best.k_factor / k)


def share(value: Any, name: str) -> float:
    """`value` as a float above 0 and up to 1.

    Raises
    ------
    TypeError, ValueError
        If it is no number, or out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if not 0 < number <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {number:g}")
    return number


def to_json(settings: tuple[Setting, ...]) -> str:
    """Settings as a file holds them."""
    return json.dumps(settings)


def from_json(text: str) -> tuple[Setting, ...]:
    """The settings that `to_json` wrote. Raises ValueError or TypeError if they are none."""
    return from_written(json.loads(text))


def from_written(written: Any) -> tuple[Setting, ...]:
    """The same from what JSON makes of that."""
    if not isinstance(written, list):
        raise TypeError(f"settings must be a list, got {type(written).__name__}")
    settings: dict[tuple[int, float], Setting] = {}
    for k, recall, found, nprobe, k_factor in written:
        factor = None if k_factor is None else positive_int(k_factor, "k_factor")
        key = positive_int(k, "k"), share(recall, "recall")
        setting = Setting(*key, share(found, "recall found"), positive_int(nprobe, "nprobe"), factor)
        if key in settings or setting.found < setting.recall:
            raise ValueError(f"settings must each find what they are for, once, got {setting}")
        settings[key] = setting
    return tuple(sorted(settings.values()))


def neighbours_in(truth: Any, nq: int, k: int) -> Ids:
    """`truth` as true neighbours of nq queries, best first: int64 (nq, k). Raises ValueError if they are not."""
    ids = as_array(truth, "truth")
    if ids.dtype.kind not in "iu" or ids.ndim != 2 or len(ids) != nq or ids.shape[1] < k:
        raise ValueError(f"truth must be ids ({nq}, {k}), got {ids.dtype} {ids.shape}")
    return ids[:, :k].astype(np.int64)
