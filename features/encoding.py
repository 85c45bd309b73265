"""Dataset x encoder -> feature store.

Images are read, hashed, decoded and prepared by threads while the network is busy with the batch before. Every batch is
on disk before the next one, so an interrupted run loses one batch at most and the same command goes on.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from tqdm import tqdm

from features.checksum import sha256_of
from features.collection.changes import check_same_collection, find_changes
from features.collection.errors import StoreError
from features.collection.lock import writing
from features.collection.manifest import MANIFEST, absolute
from features.collection.records import Facts
from features.collection.store import FeatureStore
from features.collection.writer import StoreWriter
from features.datasets import Dataset, DatasetError, Item, origin_of, reading_options
from features.images import TOO_LARGE, ImageError, decode_image, decode_with_size
from features.images.exif import camera_of
from features.phash import SIDE, perceptual_hashes
from features.picture_files import MAX_FILE_BYTES, open_picture, read_picture

if TYPE_CHECKING:
    import torch

    from features.encoders import Encoder

T = TypeVar("T")

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the number of images that are done and of all."""


@dataclass(frozen=True)
class _Prepared:
    """One image on its way to the network, or the reason why there is none."""

    tensor: torch.Tensor | None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    error: str | None = None
    phash: bytes | None = None
    camera: str | None = None


def extract(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    dtype: str = "float16",
    limit: int | None = None,
    progress: bool | Progress = True,
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
    folder = absolute(folder)
    items = dataset.items[:limit]
    if not items:
        raise DatasetError(f"dataset {dataset.name} has no images")
    with writing(folder, purpose="extracted"):
        if (folder / MANIFEST).exists():
            return _finished(folder, dataset, items, encoder, dtype)
        store = _extract(folder, dataset, items, encoder, batch_size, dtype, progress)
    for path, error in store.damaged():
        logger.warning("skipped %s: %s", path, error)
    return store


def _extract(
    folder: Path,
    dataset: Dataset,
    items: Sequence[Item],
    encoder: Encoder,
    batch_size: int,
    dtype: str,
    progress: bool | Progress,
) -> FeatureStore:
    writer = StoreWriter(folder, dataset, items, encoder.spec, dtype)
    with closing(writer):
        if writer.done:
            logger.info("going on after %d of %d images", writer.done, len(items))
        _encode(writer, dataset, encoder, batch_size, progress, len(items))
        return writer.finish()


def encode_ahead(
    dataset: Dataset,
    encoder: Encoder,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 32,
    dtype: str = "float16",
    progress: Progress,
) -> None:
    """Encode images for a store before all of them are there: `extract` goes on from here with the whole dataset.

    Parameters
    ----------
    dataset : Dataset
        What has come so far.
    folder, batch_size, dtype, progress
        See `extract`. What `progress` raises stops it; what was encoded is kept.

    Raises
    ------
    StoreError
        What was begun there is of another encoder or dtype, or another process is at it.
    """
    check_counts(batch_size, None)
    folder = absolute(folder)
    with (
        writing(folder, purpose="extracted"),
        closing(StoreWriter(folder, dataset, dataset.items, encoder.spec, dtype)) as writer,
    ):
        _encode(writer, dataset, encoder, batch_size, progress, len(dataset.items))


def _encode(
    writer: StoreWriter,
    dataset: Dataset,
    encoder: Encoder,
    batch_size: int,
    progress: bool | Progress,
    total: int,
) -> None:
    """Encode what a writer has to do, of so many images in all."""
    skipped = 0
    bar = tqdm(total=total, initial=writer.done, unit="image", disable=progress is not True, smoothing=0.1)
    encoded = encode_items(writer.todo, encoder, batch_size, **reading_options(dataset))
    with bar, closing(encoded) as batches:
        for features, facts in batches:
            writer.append(features, facts)
            skipped += sum(fact.error is not None for fact in facts)
            bar.set_postfix({"damaged": skipped} if skipped else {}, refresh=False)
            bar.update(len(facts))
            if callable(progress):
                progress(writer.done, total)


def check_counts(batch_size: int, limit: int | None) -> None:
    """Raise ValueError unless both are at least 1, or there is no limit."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")


def encode_items(
    items: Sequence[Item],
    encoder: Encoder,
    batch_size: int,
    *,
    root: Path,
    follow_links: bool = False,
    max_pixels: int | None = None,
) -> Generator[tuple[np.ndarray, list[Facts]], None, None]:
    """Encode images a batch at a time, in order.

    Parameters
    ----------
    root : Path
        Where all of them are.
    follow_links : bool
        Whether links may lead out of the root: see `picture_files.open_picture`.
    max_pixels : int, optional
        See `decode_image`.

    Yields
    ------
    features : float32 (b, dim)
        Rows of images that cannot be read are zero.
    facts : list of b Facts
    """
    prepare = partial(_prepare, encoder=encoder, root=root, follow_links=follow_links, max_pixels=max_pixels)
    with closing(_batches(items, batch_size, prepare)) as batches:
        for batch in batches:
            good = [image.tensor for image in batch if image.tensor is not None]
            features = np.zeros((len(batch), encoder.dim), dtype=np.float32)
            if good:
                features[[image.tensor is not None for image in batch]] = encoder.encode_prepared(good)
            yield (
                features,
                [
                    Facts(image.sha256, image.width, image.height, image.error, image.phash, image.camera)
                    for image in batch
                ],
            )


def hash_items(
    items: Sequence[Item], *, root: Path, follow_links: bool = False, max_pixels: int | None = None
) -> list[bytes | None]:
    """The perceptual hashes of images; None of those that cannot be read now. Reading options as of `encode_items`."""

    def hashes_of(item: Item) -> bytes:
        data = read_picture(root, item.path, max_bytes=MAX_FILE_BYTES, follow_links=follow_links)
        return perceptual_hashes(decode_image(data, min_side=2 * SIDE, max_pixels=max_pixels))

    return _of_each(items, hashes_of)


def cameras_of(
    items: Sequence[Item], *, root: Path, follow_links: bool = False, max_pixels: int | None = None
) -> list[str | None]:
    """The cameras that images name, as `camera_of`; None of those that cannot be read now. Options as of
    `encode_items`.
    """

    def camera_in(item: Item) -> str:
        with open_picture(root, item.path, follow_links=follow_links) as file:
            return camera_of(file)

    return _of_each(items, camera_in)


def _of_each(items: Sequence[Item], look: Callable[[Item], T]) -> list[T | None]:
    """What a look at the file of each image tells; None of those that cannot be read now."""

    def looked(item: Item) -> T | None:
        try:
            return look(item)
        except (ImageError, OSError):
            return None

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool:
        return list(pool.map(looked, items))


def _finished(folder: Path, dataset: Dataset, items: Sequence[Item], encoder: Encoder, dtype: str) -> FeatureStore:
    """Open a complete store after making sure that it is the one that was asked for."""
    store = FeatureStore.open(folder)
    store.check_encoder(encoder)
    if store.manifest["dtype"] != dtype:
        raise StoreError(
            f"{folder} holds {store.manifest['dtype']}, now {dtype} is asked for; remove it or choose another folder"
        )
    changes = find_changes(store, dataset, items)
    check_same_collection(store, dataset, changes)
    changes.refuse(folder)
    if store.image_count != len(items):
        raise StoreError(
            f"{folder} has {store.image_count} images, {dataset.root} now gives {len(items)}; remove it or choose "
            f"another folder"
        )
    origin = origin_of(dataset)
    if origin != {key: store.manifest.get(key) for key in origin}:
        store.update_manifest(**origin)  # the same images have moved, or were chosen in another way
    return store


def _batches(
    items: Sequence[Item], size: int, prepare: Callable[[Item], _Prepared]
) -> Generator[list[_Prepared], None, None]:
    """Prepare images in threads, always one batch ahead of the one that is handed out."""
    pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")
    try:
        ahead: deque[list[Future[_Prepared]]] = deque()
        for start in range(0, len(items), size):
            ahead.append([pool.submit(prepare, item) for item in items[start : start + size]])
            if len(ahead) > 1:
                yield [job.result() for job in ahead.popleft()]
        for jobs in ahead:
            yield [job.result() for job in jobs]
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(item: Item, *, encoder: Encoder, root: Path, follow_links: bool, max_pixels: int | None) -> _Prepared:
    sha256 = None
    try:
        data = read_picture(root, item.path, max_bytes=MAX_FILE_BYTES, follow_links=follow_links)
        sha256 = sha256_of(data)
        image, (width, height) = decode_with_size(data, min_side=encoder.min_side, max_pixels=max_pixels)
    except ImageError as error:
        raised = sha256 is not None and error.reason.startswith(TOO_LARGE)
        return _Prepared(
            None, sha256, error=f"{error.reason}; --max-megapixels raises that" if raised else error.reason
        )
    phash, camera = perceptual_hashes(image), camera_of(data)
    return _Prepared(encoder.preprocess(image), sha256, width, height, phash=phash, camera=camera)
