"""The encoders side by side, judged on images that none of them was trained on.

A trained network is looked for at ``weights/<dataset>/<kind>.safetensors``, where the command that `how_to_train` gives
puts it. Nothing is downloaded or trained here: an encoder that cannot be had is an `EncoderError` that says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from features.checksum import sha256_of
from features.collection.manifest import encoder_identity
from features.collection.store import FeatureStore, StoreError
from features.datasets import DatasetError, Item, spec_of
from features.encoders import Encoder, EncoderError, create_encoder
from features.encoding import extract
from features.pixels import Pixels
from features.split import split

if TYPE_CHECKING:
    from features.encoders.weights import Training

KINDS = (
    "resnet50",
    "resnet50-finetuned",
    "resnet50-scratch",
    "efficientnet-lite0",
    "efficientnet-lite0-finetuned",
)
HELD_OUT = 0.25
"""Share of each class that judges and is never trained on, unless a training was told another."""


def trained_file(kind: str, store: FeatureStore, folder: Path) -> Path:
    """Where weights of this kind, trained on the images of a collection, are looked for."""
    return folder / store.manifest["dataset"] / f"{kind}.safetensors"


def how_to_train(kind: str, store: FeatureStore) -> str:
    """The command that writes `trained_file`, to be given in the project's root."""
    network, _, how = kind.rpartition("-")
    return (
        f"python -m features.train --data {spec_of(store.manifest['dataset'], store.manifest['root'])} "
        f"--encoder {network} --init {'scratch' if how == 'scratch' else 'imagenet'} --held-out {HELD_OUT} "
        f"--out {trained_file(kind, store, Path('weights')).as_posix()}"
    )


def open_encoder(kind: str, store: FeatureStore, folder: Path) -> Encoder:
    """Make an encoder of one of `KINDS` from what is on this machine.

    Parameters
    ----------
    store : FeatureStore
        The collection that it is to encode.
    folder : Path
        That of the trained weights.

    Raises
    ------
    EncoderError
        Its weights are not here, or were trained on something else; the message says how to get them.
    """
    if kind in ("resnet50", "efficientnet-lite0"):
        if kind == "resnet50":
            _need_imagenet("its weights are ")
        return create_encoder(kind)
    path = trained_file(kind, store, folder)
    if not path.is_file():
        if kind == "resnet50-finetuned":
            _need_imagenet("training would begin with ImageNet's weights, which are ")
        raise EncoderError(f"not trained yet: {how_to_train(kind, store)}")
    _training(kind, store, path)
    return create_encoder(kind if kind.startswith("resnet50") else "efficientnet-lite0", weights=path)


def held_out(store: FeatureStore, folder: Path) -> np.ndarray:
    """Ids of usable images that no trained network of the folder has seen, int64 ascending.

    Each network's split is drawn again from the seed in its file. Where nothing was trained, the split is the one that
    `how_to_train` would make, so that the same images judge before and after.

    Raises
    ------
    features.datasets.DatasetError
        The images have too few labels to be split, or there is no image that all networks left out.
    EncoderError
        A file was not trained on these images.
    """
    labels = [item.labels for item in store.items]
    trained = {kind: trained_file(kind, store, folder) for kind in KINDS if trained_file(kind, store, folder).is_file()}
    if not trained:
        return np.intersect1d(store.ids, split(labels, held_out=HELD_OUT).held_out)
    kept = store.ids
    for kind, path in trained.items():
        recipe = _training(kind, store, path).recipe
        parts = split(
            labels, held_out=recipe["held_out"], hold_out_classes=recipe["hold_out_classes"], seed=recipe["seed"]
        )
        seen = np.isin(np.concatenate([parts.train, parts.validation]), store.ids).sum()
        if seen != sum(recipe["images"].values()):
            raise EncoderError(
                f"{path.name} was trained on {sum(recipe['images'].values())} images, not on these {seen}"
            )
        kept = np.intersect1d(kept, parts.held_out)
    if not len(kept):
        raise DatasetError(f"no image was held out from all of {', '.join(trained)}: train them with the same --seed")
    return kept


def features_of(encoder: Encoder, store: FeatureStore, ids: np.ndarray, folder: Path) -> np.ndarray:
    """Vectors of some images of a collection by any encoder.

    They come from the collection if the encoder is its own. Otherwise they are extracted once, into a store of their
    own below `folder`, so that a second call only reads them.

    Parameters
    ----------
    ids : int64 (n,), ascending
    folder : Path

    Returns
    -------
    float32 (n, encoder.dim)

    Raises
    ------
    features.collection.store.StoreError
        An image cannot be read any more.
    """
    try:
        store.check_encoder(encoder)
    except StoreError:
        return np.asarray(_extracted(encoder, store, ids, folder).features, dtype=np.float32)
    return np.asarray(store.features[ids], dtype=np.float32)


@dataclass
class _Some:
    """Some images of a collection, as a dataset whose ids are 0..n-1."""

    name: str
    root: Path
    items: list[Item]


def _extracted(encoder: Encoder, store: FeatureStore, ids: np.ndarray, folder: Path) -> FeatureStore:
    items = [replace(store.items[id], id=place) for place, id in enumerate(ids)]
    some = _Some(store.manifest["dataset"], Path(store.manifest["root"]), items)
    key = sha256_of(json.dumps([encoder_identity(encoder.spec), ids.tolist()], sort_keys=True).encode())[:12]
    made = extract(some, encoder, folder / f"{some.name}-{encoder.name}-{key}", progress=False)
    for path, error in made.damaged():
        raise StoreError(f"{path} cannot be read any more: {error}")
    return made


def _need_imagenet(what: str) -> None:
    from features.encoders.resnet50 import cached_weights

    if cached_weights() is None:
        raise EncoderError(f"{what}not on this machine; --encoder resnet50 on a command line downloads them")


def _training(kind: str, store: FeatureStore, path: Path) -> Training:
    """What a file says of its training, after making sure that it is of this kind and of these images."""
    from features.encoders.weights import read_training

    training = read_training(path)
    if training is None or training.kind != kind:
        raise EncoderError(f"{path} holds {'plain weights' if training is None else training.kind}, not {kind}")
    if training.recipe["data"] != store.manifest["dataset"]:
        raise EncoderError(f"{path} was trained on {training.recipe['data']}, not on {store.manifest['dataset']}")
    return training


def raw_vectors(pixels: Pixels, side: int) -> np.ndarray:
    """Images as vectors of their own pixels, what any encoder must be better than.

    Parameters
    ----------
    pixels : Pixels
        With none damaged.
    side : int
        The short side that they were made with.

    Returns
    -------
    float32 (n, 3 * side**2)
        The middle square of each, from -1 to 1.
    """
    squares = []
    for place in range(len(pixels)):
        image = pixels[place]
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        squares.append(image[top : top + side, left : left + side].reshape(-1))
    return np.stack(squares).astype(np.float32) / 127.5 - 1
