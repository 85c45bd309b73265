"""One training from the images to the judged weights file."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from features.datasets import Dataset, Item, reading_options
from features.encoders import create_encoder
from features.encoders.weights import Training, read_training, read_weights, write_training
from features.encoding import encode_items
from features.evaluate import indicators, leave_one_out
from features.paths import expanded
from features.split import split
from features.training.progress import best_epoch, score
from features.training.recipe import Recipe, TrainingError
from features.training.run import BEST, INITIAL, TrainingRun

if TYPE_CHECKING:
    from features.encoders import Encoder

logger = logging.getLogger(__name__)

_JUDGED = 64
"""Images encoded at a time when the features are judged."""


def train(
    dataset: Dataset,
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    device: str | None = None,
    checkpoint_seconds: float = 120.0,
    progress: bool = True,
) -> Training:
    """Train, judge, and write the best epoch's weights; go on where an interrupted training stopped.

    Beside `out` appear the log of the epochs (``.csv``) and its plot (``.png``). Until all is done there is only a
    hidden folder with the checkpoint.

    Parameters
    ----------
    out : path
        The ``.safetensors`` file to write.
    checkpoint_seconds : float
        A killed training loses at most so much work.
    progress : bool
        Show progress bars with the remaining time on stderr.

    Returns
    -------
    Training
        What the file's header says, the metrics among it.

    Raises
    ------
    TrainingError, DatasetError
        The data cannot be trained on, or `out` exists, or another training was begun there or is at work on it.
    EncoderError
        The weights to begin with, or the device, cannot be used.
    """
    out = expanded(out).resolve()
    if out.suffix != ".safetensors":
        raise TrainingError(f"out must be named <something>.safetensors, got {out.name}")
    with _locked(out):
        if out.exists():
            raise TrainingError(f"{out} exists: remove it or choose another name")
        return _train(dataset, recipe, out, device, checkpoint_seconds, progress)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """No other process trains to this file meanwhile; the lock goes with the process, however it ends."""
    out.parent.mkdir(parents=True, exist_ok=True)
    path = out.with_name(f".{out.name}.lock")
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise TrainingError(f"another process is training to {out} ({error})") from error
        try:
            yield
        finally:
            with suppress(PermissionError):  # where open files cannot be deleted it stays
                path.unlink()


def _train(
    dataset: Dataset, recipe: Recipe, out: Path, device: str | None, checkpoint_seconds: float, progress: bool
) -> Training:
    folder = out.with_name(f".{out.name}.partial")
    items = dataset.items
    unlabelled = sum(not item.labels for item in items)
    if 0 < unlabelled < len(items):
        logger.info("%d of %d images have no label and are left out", unlabelled, len(items))
    parts = split(
        [item.labels for item in items],
        held_out=recipe.held_out,
        hold_out_classes=recipe.hold_out_classes,
        seed=recipe.seed,
    )
    run = TrainingRun(dataset, parts, recipe, folder, device=device, progress=progress)
    if run.step:
        logger.info("going on after step %d of %d", run.step, run.steps)
    run.fit(checkpoint_seconds)
    best = best_epoch(run.log)
    state, _ = read_weights(folder / BEST)
    write_training(folder / BEST, state, run.describe({}))
    training = run.describe(
        {"best_epoch": best["epoch"], "validation_score": best["validation_score"], **judge(run, progress=progress)}
    )
    write_training(folder / BEST, state, training)
    write_log(run.log, out.with_suffix(".csv"))
    plot_curves(run.log, "mean average precision" if run.multi_label else "accuracy", out.with_suffix(".png"))
    (folder / BEST).replace(out)
    shutil.rmtree(folder)
    return training


def judge(run: TrainingRun, *, progress: bool = True) -> dict[str, Any]:
    """Search with the features before and after, among images that training never saw.

    Both encoders are made as a search would make them: from the weights that training began with and from the best
    ones, at their own image size, and from the image files. Retrieval is leave-one-out among the held-out images, and
    among those of the held-out classes.

    Returns
    -------
    dict
        ``held_out_images`` and ``held_out_classes``, each with a `Retrieval` ``before`` and ``after``, and the
        ``held_out_score`` of the classifier: accuracy, or mean average precision if images have several labels.
    """
    metrics: dict[str, Any] = {}
    initial = run.folder / INITIAL if run.recipe.init == "scratch" else run.recipe.weights
    for when, weights in (("before", initial), ("after", run.folder / BEST)):
        trained = None if weights is None else read_training(weights)
        name = trained.kind if trained is not None and trained.network == "resnet50" else run.recipe.encoder
        encoder = create_encoder(name, weights=weights, device=str(run.device))
        for title, ids in (("held_out_images", run.parts.held_out), ("held_out_classes", run.parts.unseen)):
            items = [run.dataset.items[id] for id in ids]
            features, labels = _encode(encoder, items, run.dataset, f"{title.replace('_', ' ')}, {when}", progress)
            found = leave_one_out(features, labels)
            if found.queries:
                metrics.setdefault(title, {})[when] = asdict(found)
            if (title, when) == ("held_out_images", "after") and labels:
                metrics["held_out_score"] = score(
                    encoder.classify(features), indicators(labels, encoder.classes), run.multi_label
                )
    return metrics


def _encode(
    encoder: Encoder, items: Sequence[Item], dataset: Dataset, title: str, progress: bool
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Features and labels of those items that can be decoded."""
    features = [np.empty((0, encoder.dim), np.float32)]
    labels: list[tuple[str, ...]] = []
    with (
        closing(encode_items(items, encoder, _JUDGED, **reading_options(dataset))) as batches,
        tqdm(total=len(items), unit="image", desc=title, disable=not (progress and items)) as bar,
    ):
        for start, (rows, facts) in zip(range(0, len(items), _JUDGED), batches, strict=True):
            good = [fact.error is None for fact in facts]
            features.append(rows[good])
            for item, fact in zip(items[start : start + _JUDGED], facts, strict=True):
                if fact.error is None:
                    labels.append(item.labels)
                else:
                    logger.warning("left out: %s: %s", item.path, fact.error)
            bar.update(len(facts))
    return np.concatenate(features), labels


def write_log(log: Sequence[dict[str, float]], path: Path) -> None:
    """Write the epochs' numbers as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(log[0]))
        writer.writeheader()
        writer.writerows(log)


def plot_curves(log: Sequence[dict[str, float]], score: str, path: Path) -> None:
    """Plot losses and validation score over the epochs as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in log]
    left.plot(epochs, [row["train_loss"] for row in log], "o-", label="training (augmented images)")
    left.plot(epochs, [row["validation_loss"] for row in log], "s-", label="validation")
    left.legend()
    right.plot(epochs, [row["validation_score"] for row in log], "s-", color="C1")
    for axes, title in ((left, "loss"), (right, f"validation {score}")):
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120, format="png")
