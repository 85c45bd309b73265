"""Train an encoder's network on a labelled dataset: ``python -m features.train --data caltech --out FILE.safetensors``.

The images are split by a seed: most train, some (validation) choose the best epoch, and some (held out) are not touched
before the end, when they judge the features. With ``--init imagenet`` a new last layer learns first on a frozen trunk,
then all layers learn. What is needed to go on is written at intervals beside the result, so a killed run loses one
interval at most, and the same command goes on to the very same weights.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Sequence

from features.checksum import sha256_of
from features.command_line import set_up_streams
from features.datasets import open_dataset
from features.encoders import EncoderError
from features.encoders.weights import Training
from features.paths import expanded
from features.training.recipe import ENCODERS, Recipe
from features.training.train import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    usual = Recipe()
    parser = argparse.ArgumentParser(prog="python -m features.train", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="caltech, voc, demo, or a folder with a subfolder for each class")
    parser.add_argument("--out", required=True, type=expanded, metavar="FILE", help="the .safetensors file to write")
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
    set_up_streams(logging.INFO)

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
