"""Dataset x encoder -> feature store: ``python -m features.extract --data caltech``.

Images are read, hashed, decoded and prepared by threads while the network is busy with the batch before. Every batch is
on disk before the next one, so an interrupted run loses one batch at most and the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from features.checksum import sha256_of
from features.collection.changes import find_changes
from features.collection.store import MANIFEST, Facts, FeatureStore, StoreError, StoreWriter, read_manifest
from features.datasets import Dataset, DatasetError, Item, open_dataset
from features.images import ImageError, decode_with_size

if TYPE_CHECKING:
    import torch

    from features.encoders import Encoder

logger = logging.getLogger(__name__)

MAX_FILE_BYTES = 1 << 29
"""Larger files are skipped: they are read whole, by several threads at once."""


@dataclass(frozen=True)
class _Prepared:
    """One image on its way to the network, or the reason why there is none."""

    tensor: torch.Tensor | None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None


def extract(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    dtype: str = "float16",
    limit: int | None = None,
    progress: bool | Callable[[int, int], None] = True,
) -> FeatureStore:
    """Encode a dataset into a store; go on where an interrupted run stopped; do nothing if the store is complete.

    Parameters
    ----------
    folder : path
        Where the store will be. It appears there when it is complete.
    batch_size : int
        Images encoded and made durable at a time.
    dtype : {"float16", "float32"}
        How the vectors are stored.
    limit : int, optional
        Take only the first so many images.
    progress : bool or callable
        True: a progress bar with rate and remaining time on stderr. A function is called with the number of images
        that are done and of all.

    Raises
    ------
    StoreError
        A store, or the beginning of one, is there already and is of another encoder, dtype or dataset; or no image of
        the dataset can be read.
    """
    check_counts(batch_size, limit)
    if dtype not in ("float16", "float32"):
        raise ValueError(f"dtype must be float16 or float32, got {dtype!r}")
    folder = Path(folder).expanduser().resolve()
    items = dataset.items[:limit]
    if not items:
        raise DatasetError(f"dataset {dataset.name} has no images")
    if (folder / MANIFEST).exists():
        return _finished(folder, dataset, items, encoder, dtype)

    writer = StoreWriter(folder, dataset, items, encoder.spec, dtype)
    with closing(writer):
        if writer.done:
            logger.info("going on after %d of %d images", writer.done, len(items))
        skipped = 0
        bar = tqdm(total=len(items), initial=writer.done, unit="image", disable=progress is not True, smoothing=0.1)
        with bar, closing(encode_items(items[writer.done :], encoder, batch_size)) as batches:
            for features, facts in batches:
                writer.append(features, facts)
                skipped += sum(error is not None for *_, error in facts)
                bar.set_postfix({"damaged": skipped} if skipped else {}, refresh=False)
                bar.update(len(facts))
                if callable(progress):
                    progress(writer.done, len(items))
        try:
            store = writer.finish()
        except StoreError:
            writer.close()
            shutil.rmtree(writer.folder, ignore_errors=True)  # nothing in it is worth keeping
            raise
    for path, error in store.damaged():
        logger.warning("skipped %s: %s", path, error)
    return store


def check_counts(batch_size: int, limit: int | None) -> None:
    """Raise ValueError unless both are at least 1, or there is no limit."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")


def encode_items(
    items: Sequence[Item], encoder: Encoder, batch_size: int
) -> Generator[tuple[np.ndarray, list[Facts]], None, None]:
    """Encode images a batch at a time, in order.

    Yields
    ------
    features : float32 (b, dim)
        Rows of images that cannot be read are zero.
    facts : list of b tuples (sha256, width, height, error)
    """
    with closing(_batches(items, encoder, batch_size)) as batches:
        for batch in batches:
            good = [image.tensor for image in batch if image.tensor is not None]
            features = np.zeros((len(batch), encoder.dim), dtype=np.float32)
            if good:
                features[[image.tensor is not None for image in batch]] = encoder.encode_prepared(good)
            yield features, [(image.sha256, image.width, image.height, image.error) for image in batch]


def _finished(folder: Path, dataset: Dataset, items: Sequence[Item], encoder: Encoder, dtype: str) -> FeatureStore:
    """Open a complete store after making sure that it is the one that was asked for."""
    store = FeatureStore.open(folder)
    store.check_encoder(encoder)
    if store.manifest["dtype"] != dtype:
        raise StoreError(
            f"{folder} holds {store.manifest['dtype']}, now {dtype} is asked for; remove it or choose another folder"
        )
    find_changes(store, dataset, items).refuse(folder)
    if store.image_count != len(items):
        raise StoreError(
            f"{folder} has {store.image_count} images, {dataset.root} now gives {len(items)}; remove it or choose "
            f"another folder"
        )
    if store.manifest["root"] != str(dataset.root):
        store.update_manifest(root=str(dataset.root))  # the same images have moved
    return store


def _batches(items: Sequence[Item], encoder: Encoder, size: int) -> Generator[list[_Prepared], None, None]:
    """Prepare images in threads, always one batch ahead of the one that is handed out."""
    pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
    try:
        ahead: deque[list[Future[_Prepared]]] = deque()
        for start in range(0, len(items), size):
            ahead.append([pool.submit(_prepare, item, encoder) for item in items[start : start + size]])
            if len(ahead) > 1:
                yield [job.result() for job in ahead.popleft()]
        for jobs in ahead:
            yield [job.result() for job in jobs]
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(item: Item, encoder: Encoder) -> _Prepared:
    sha256 = None
    try:
        size = item.path.stat().st_size
        if size > MAX_FILE_BYTES:
            return _Prepared(None, error=f"the file has {size} bytes; at most {MAX_FILE_BYTES} are read")
        data = item.path.read_bytes()
        sha256 = sha256_of(data)
        image, (width, height) = decode_with_size(data, min_side=encoder.min_side)
    except OSError as error:
        return _Prepared(None, error=error.strerror or str(error))
    except ImageError as error:
        return _Prepared(None, sha256, error=error.reason)
    return _Prepared(encoder.preprocess(image), sha256, width, height)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m features.extract", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="caltech, voc, demo, or a folder of images")
    parser.add_argument("--encoder", default="auto", help="auto (default), resnet50, efficientnet-lite0, ...")
    parser.add_argument("--weights", metavar="PATH", help="weights file for the encoder (.safetensors or .pth)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: collections/<name of the dataset>")
    parser.add_argument("--dtype", choices=("float16", "float32"), help="default: float16; with --sync, as it is")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images")
    parser.add_argument(
        "--sync",
        action="store_true",
        help="bring a collection up to date with added, edited, renamed and removed images",
    )
    parser.add_argument(
        "--benchmark",
        action="store_true",
        help="only measure how fast images are encoded (--limit of them, default 128), each encoder or the one named",
    )
    options = parser.parse_args(arguments)
    if options.data is None and not options.benchmark:
        parser.error("the following arguments are required: --data")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    from features.collection.sync import sync
    from features.encoders import EncoderError, create_encoder, encoder_for

    try:
        dataset = open_dataset(options.data or "demo")
        if options.benchmark:
            from features.benchmark import ENCODERS, benchmark

            names = ENCODERS if options.encoder == "auto" else (options.encoder,)
            sys.stdout.write(f"{benchmark(dataset.items, names, limit=options.limit)}\n")
            return 0
        folder = options.out or Path("collections", dataset.name)
        update = options.sync and (folder / MANIFEST).is_file()
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
