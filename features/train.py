"""Train an encoder's network on a labelled dataset: ``python -m features.train --data caltech --out FILE.safetensors``.

The images are split by a seed: most train, some (validation) choose the best epoch, and some (held out) are not touched
before the end, when they judge the features. With ``--init imagenet`` a new last layer learns first on a frozen trunk,
then all layers learn. What is needed to go on is written at intervals beside the result, so a killed run loses one
interval at most, and the same command goes on to the very same weights.
"""

from __future__ import annotations

import argparse
import csv
import logging
import math
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from features.checksum import sha256_of
from features.datasets import Dataset, Item, open_dataset
from features.encoders import EncoderError, create_encoder
from features.encoders.weights import Training, read_training, read_weights, write_training
from features.evaluate import indicators, leave_one_out
from features.extract import encode_items
from features.split import split
from features.training import BEST, ENCODERS, INITIAL, Recipe, TrainingError, TrainingRun, best_epoch, score

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
    out = Path(out).expanduser().resolve()
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
            features, labels = _encode(encoder, items, f"{title.replace('_', ' ')}, {when}", progress)
            found = leave_one_out(features, labels)
            if found.queries:
                metrics.setdefault(title, {})[when] = asdict(found)
            if (title, when) == ("held_out_images", "after") and labels:
                metrics["held_out_score"] = score(
                    encoder.classify(features), indicators(labels, encoder.classes), run.multi_label
                )
    return metrics


def _encode(
    encoder: Encoder, items: Sequence[Item], title: str, progress: bool
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Features and labels of those items that can be decoded."""
    features = [np.empty((0, encoder.dim), np.float32)]
    labels: list[tuple[str, ...]] = []
    with (
        closing(encode_items(items, encoder, _JUDGED)) as batches,
        tqdm(total=len(items), unit="image", desc=title, disable=not (progress and items)) as bar,
    ):
        for start, (rows, facts) in zip(range(0, len(items), _JUDGED), batches, strict=True):
            good = [error is None for *_, error in facts]
            features.append(rows[good])
            for item, (*_, error) in zip(items[start : start + _JUDGED], facts, strict=True):
                if error is None:
                    labels.append(item.labels)
                else:
                    logger.warning("left out: %s: %s", item.path, error)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    usual = Recipe()
    parser = argparse.ArgumentParser(prog="python -m features.train", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="caltech, voc, demo, or a folder with a subfolder for each class")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--encoder", choices=ENCODERS, default=usual.encoder)
    parser.add_argument(
        "--init", choices=("imagenet", "scratch"), default=usual.init, help="begin with weights, or with random ones"
    )
    parser.add_argument("--weights", metavar="PATH", help="weights to begin with (default: the encoder's own)")
    parser.add_argument("--epochs", type=int, default=usual.epochs, metavar="N")
    parser.add_argument(
        "--frozen-epochs", type=int, metavar="N", help="so many of them for the last layer alone (default 1; scratch 0)"
    )
    parser.add_argument(
        "--size", type=int, default=usual.size, metavar="PIXELS", help="image side that the network sees"
    )
    parser.add_argument("--batch-size", type=int, default=usual.batch_size, metavar="N")
    parser.add_argument(
        "--learning-rate", type=float, default=usual.learning_rate, metavar="RATE", help="at its highest"
    )
    parser.add_argument(
        "--held-out",
        type=float,
        default=usual.held_out,
        metavar="SHARE",
        help="of each class, to judge the features by",
    )
    parser.add_argument(
        "--hold-out-classes", type=int, default=0, metavar="N", help="keep so many whole classes from training as well"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=120.0, metavar="S", help="a kill loses no more work"
    )
    parser.add_argument("--device", help="a torch device (default: the GPU if there is one)")
    options = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    data, out, device = options.pop("data"), options.pop("out"), options.pop("device")
    checkpoint_seconds = options.pop("checkpoint_seconds")
    if options["frozen_epochs"] is None:
        options["frozen_epochs"] = usual.frozen_epochs if options["init"] == "imagenet" else 0
    try:
        training = train(
            open_dataset(data), Recipe(**options), out, device=device, checkpoint_seconds=checkpoint_seconds
        )
    except (ValueError, EncoderError, OSError) as error:  # DatasetError and TrainingError are ValueErrors
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from the last checkpoint\n")
        return 130
    sys.stdout.write(f"{_report(training)}\n{out}: SHA-256 {sha256_of(out)}\n")
    return 0


def _report(training: Training) -> str:
    """The metrics as a table for people."""
    metrics = training.metrics
    name = "mAP of the classes" if training.multi_label else "accuracy"
    lines = [
        f"best epoch {metrics['best_epoch']}: {name} {metrics['validation_score']:.3f} on validation images, "
        f"{metrics.get('held_out_score', math.nan):.3f} on held-out images",
        "",
        f"{'retrieval, leave-one-out':30s}{'queries':>8s}{'mAP':>8s}{'P@5':>8s}{'1-NN':>8s}",
    ]
    for title in ("held_out_images", "held_out_classes"):
        for when, found in metrics.get(title, {}).items():
            numbers = [found[name] for name in ("mean_average_precision", "precision_at_5", "nearest_neighbor")]
            name = f"{title.replace('_', ' ')}, {when}"
            lines.append(f"{name:30s}{found['queries']:8d}" + "".join(f"{number:8.3f}" for number in numbers))
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
