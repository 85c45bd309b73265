"""Dataset x encoder -> feature store: ``python -m features.extract --data caltech``.

The door of the command line; the work is done by `features.encoding`.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from features.collection.manifest import MANIFEST, absolute, read_manifest
from features.collection.names import collection_name
from features.collection.store import FeatureStore, StoreError
from features.collection.sync import sync
from features.command_line import set_up_streams
from features.datasets import DatasetError, add_folder_options, as_recorded, folder_options, open_dataset
from features.encoding import extract
from features.paths import expanded

__all__ = ["extract", "main", "positive"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m features.extract", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="caltech, voc, demo, or a folder of images")
    parser.add_argument("--encoder", default="auto", help="auto (default), resnet50, efficientnet-lite0, ...")
    parser.add_argument("--weights", metavar="PATH", help="weights file for the encoder (.safetensors or .pth)")
    parser.add_argument(
        "--collections", type=absolute, default=Path("collections"), metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--out", type=expanded, metavar="FOLDER", help="default: <collections>/<name of the dataset>")
    parser.add_argument("--dtype", choices=("float16", "float32"), help="default: float16; with --sync, as it is")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    parser.add_argument(
        "--sync",
        action="store_true",
        help="bring a collection up to date with added, edited, renamed and removed images",
    )
    add_folder_options(parser)
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="only measure how fast images are encoded (--limit of them, default 128), each encoder or the one named",
    )
    options = parser.parse_args(arguments)
    if options.data is None and not options.benchmark:
        parser.error("the following arguments are required: --data")
    set_up_streams(logging.INFO)

    from features.encoders import EncoderError, create_encoder, encoder_for

    try:
        dataset = open_dataset(options.data or "demo", **folder_options(options))
        if options.benchmark:
            from features.benchmark import ENCODERS, benchmark

            names = ENCODERS if options.encoder == "auto" else (options.encoder,)
            links, root = bool(options.follow_links), dataset.root
            told = benchmark(dataset.items, names, limit=options.limit, root=root, follow_links=links)
            sys.stdout.write(f"{told}\n")
            return 0
        folder = options.out or options.collections / collection_name(dataset.name)
        update = options.sync and (folder / MANIFEST).is_file()
        if (folder / MANIFEST).is_file():
            dataset = as_recorded(dataset, read_manifest(folder).get("source"), folder_options(options))
        if update and options.encoder == "auto" and options.weights is None:
            encoder = encoder_for(read_manifest(folder)["encoder"])
        else:
            encoder = create_encoder(options.encoder, weights=options.weights)
        if update:
            if options.dtype not in (None, (made := read_manifest(folder)["dtype"])):
                raise StoreError(f"{folder} holds {made}, now {options.dtype} is asked for")
            report = sync(dataset, encoder, folder, batch_size=options.batch_size, limit=options.limit)
            sys.stdout.write(f"{report}\n")
            store = FeatureStore.open(folder)
        else:
            dtype = options.dtype or "float16"
            store = extract(dataset, encoder, folder, batch_size=options.batch_size, dtype=dtype, limit=options.limit)
    except (DatasetError, EncoderError, StoreError, OSError, sqlite3.Error) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on from here\n")
        return 130
    manifest = store.manifest
    sys.stdout.write(
        f"{folder}: {store.image_count} images ({manifest['damaged']} damaged), {manifest['dim']}-d "
        f"{manifest['dtype']}, {encoder.name}\n"
    )
    return 0


def positive(text: str) -> int:
    """A command line's number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
