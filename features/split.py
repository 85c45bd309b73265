"""Which images train, which choose the best epoch, and which judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.datasets import DatasetError

VALIDATION = 0.1
"""Share of each class, of the images that are not held out, that chooses the best epoch."""


@dataclass(frozen=True)
class Split:
    """Ids of a dataset's images by what they are for, each int64 and ascending.

    Attributes
    ----------
    train, validation, held_out : ndarray
    unseen : ndarray
        Images of the classes that are held out whole.
    classes, unseen_classes : tuple of str
        What is learnt, and what is held out.
    """

    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray
    unseen: np.ndarray
    classes: tuple[str, ...]
    unseen_classes: tuple[str, ...]


def split(labels: Sequence[tuple[str, ...]], *, held_out: float, hold_out_classes: int = 0, seed: int = 0) -> Split:
    """Split labelled images so that every class keeps its share on each side; images without labels go nowhere.

    An image with several labels counts for the rarest of them. A class of fewer than four images is only trained on;
    any other gives at least one image to validation and one to what is held out.

    Raises
    ------
    DatasetError
        There are not enough labels or classes.
    """
    rng = np.random.default_rng(seed)
    names, counts = np.unique([label for several in labels for label in several], return_counts=True)
    if not len(names):
        raise DatasetError("no image has a label: put the images of each class into a subfolder of its own")
    if len(names) - hold_out_classes < 2:
        raise DatasetError(
            f"at least two classes are needed to train on, got {len(names)}"
            + (f" of which {hold_out_classes} held out" if hold_out_classes else "")
        )
    unseen_classes = frozenset(rng.choice(names, hold_out_classes, replace=False).tolist())
    size = dict(zip(names.tolist(), counts.tolist(), strict=True))
    unseen = [id for id, several in enumerate(labels) if unseen_classes.intersection(several)]
    groups: dict[str, list[int]] = {name: [] for name in sorted(size)}
    for id, several in enumerate(labels):
        if several and not unseen_classes.intersection(several):
            groups[min(several, key=lambda name: (size[name], name))].append(id)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for group in groups.values():
        shuffled = rng.permutation(group).tolist()
        judge = max(1, round(held_out * len(group))) if len(group) >= 4 else 0
        choose = max(1, round(VALIDATION * (len(group) - judge))) if judge else 0
        for part, ids in zip(
            parts, (shuffled[judge + choose :], shuffled[judge : judge + choose], shuffled[:judge]), strict=True
        ):
            part.extend(ids)
    if not parts[1]:
        raise DatasetError("no class has the four images that are needed to train, to choose and to judge")
    train, validation, judges = (np.sort(np.array(part, dtype=np.int64)) for part in parts)
    learnt = tuple(sorted({label for id in train for label in labels[id]}))
    if len(learnt) < 2:
        raise DatasetError(f"at least two classes are needed to train on, got {len(learnt)}")
    return Split(train, validation, judges, np.array(unseen, dtype=np.int64), learnt, tuple(sorted(unseen_classes)))
