"""Train an encoder's network on a labelled dataset: ``python -m features.train --data caltech --out FILE.safetensors``.

The images are split by a seed: most train, some (validation) choose the best epoch, and some (held out) are not touched
before the end, when they judge the features. With ``--init imagenet`` a new last layer learns first on a frozen trunk,
then all layers learn. What is needed to go on is written at intervals beside the result, so a killed run loses one
interval at most, and the same command goes on to the very same weights.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from features.torchvision_ops import declare_operators

declare_operators()  # before torchvision and timm

import timm  # noqa: E402
from torchvision.models import ResNet50_Weights, resnet50  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

from features.checksum import sha256_of  # noqa: E402
from features.datasets import Dataset, Item, open_dataset  # noqa: E402
from features.encoders import EncoderError, create_encoder  # noqa: E402
from features.encoders.efficientnet_lite import PREPROCESSING, packaged_weights  # noqa: E402
from features.encoders.preprocessing import Preprocessing  # noqa: E402
from features.encoders.resnet50 import find_weights, preprocessing_for, preprocessing_of  # noqa: E402
from features.encoders.weights import (  # noqa: E402
    Training,
    load_into,
    read_training,
    read_weights,
    write_tensors,
    write_training,
)
from features.evaluate import class_mean_average_precision, indicators, leave_one_out  # noqa: E402
from features.images import ImageError, decode_image  # noqa: E402
from features.pixels import Pixels  # noqa: E402

if TYPE_CHECKING:
    from features.encoders import Encoder

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.safetensors"
INITIAL = "initial.safetensors"
BEST = "best.safetensors"

VALIDATION = 0.1
"""Share of each class, of the images that are not held out, that chooses the best epoch."""
WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.1
HEAD_FACTOR = 10.0
"""On a frozen trunk the new last layer learns at so many times the learning rate of all layers."""
WARM_UP = 0.1
"""Share of the steps of all layers during which their learning rate rises to its full value."""


class TrainingError(ValueError):
    """The data cannot be trained on, or what was begun is another training; the message says what to do."""


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on, but for the data.

    Attributes
    ----------
    encoder : {"resnet50", "efficientnet-lite0"}
    init : {"imagenet", "scratch"}
        Begin with weights (those of ``weights``, or the encoder's own) or with random ones.
    weights : str, optional
        A file to begin with, or the name of torchvision's weights.
    epochs : int
        All of them, the frozen ones included.
    frozen_epochs : int
        Epochs in which the last layer alone learns; 0 for training from scratch.
    size : int
        Side in pixels of what the network sees in training. Features of a network trained from scratch are taken at
        this size too, those of a fine-tuned one at the size its initial weights were made for.
    batch_size : int
    learning_rate : float
        Of all layers, at its highest.
    held_out : float
        Share of each class that is not touched before the end.
    hold_out_classes : int
        So many classes, drawn by the seed, are kept from training whole.
    seed : int
    """

    encoder: str = "efficientnet-lite0"
    init: str = "imagenet"
    weights: str | None = None
    epochs: int = 6
    frozen_epochs: int = 1
    size: int = 160
    batch_size: int = 32
    learning_rate: float = 5e-4
    held_out: float = 0.2
    hold_out_classes: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {"encoder": tuple(_HEADS), "init": ("imagenet", "scratch")}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(allowed)}, got {getattr(self, name)!r}")
        for name, least in {
            "epochs": 1,
            "frozen_epochs": 0,
            "size": 32,
            "batch_size": 2,
            "hold_out_classes": 0,
        }.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.frozen_epochs > self.epochs:
            raise ValueError(f"frozen_epochs must be at most epochs ({self.epochs}), got {self.frozen_epochs}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 < self.held_out < 0.9:
            raise ValueError(f"held_out must lie between 0 and 0.9, got {self.held_out}")
        if self.init == "scratch" and (self.weights is not None or self.frozen_epochs):
            raise ValueError("training from scratch takes no weights and freezes nothing (frozen_epochs 0)")


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
    TrainingError
        There are not enough labels or classes.
    """
    rng = np.random.default_rng(seed)
    names, counts = np.unique([label for several in labels for label in several], return_counts=True)
    if not len(names):
        raise TrainingError("no image has a label: put the images of each class into a subfolder of its own")
    if len(names) - hold_out_classes < 2:
        raise TrainingError(f"at least two classes are needed to train on, got {len(names)} less {hold_out_classes}")
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
        raise TrainingError("no class has the four images that are needed to train, to choose and to judge")
    train, validation, judges = (np.sort(np.array(part, dtype=np.int64)) for part in parts)
    learnt = tuple(sorted({label for id in train for label in labels[id]}))
    if len(learnt) < 2:
        raise TrainingError(f"at least two classes are needed to train on, got {len(learnt)}")
    return Split(train, validation, judges, np.array(unseen, dtype=np.int64), learnt, tuple(sorted(unseen_classes)))


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
        The data cannot be trained on, or `out` exists, or another training was begun there.
    EncoderError
        The weights to begin with, or the device, cannot be used.
    """
    out = Path(out).expanduser().resolve()
    if out.suffix != ".safetensors":
        raise TrainingError(f"out must be named <something>.safetensors, got {out.name}")
    if out.exists():
        raise TrainingError(f"{out} exists: remove it or choose another name")
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
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(dataset, parts, recipe, folder, device, progress)
    if (folder / CHECKPOINT).exists():
        run.resume()
        logger.info("going on after step %d of %d", run.step, run.steps)
    run.fit(checkpoint_seconds)
    training = run.finish()
    write_log(run.log, out.with_suffix(".csv"))
    plot_curves(run.log, "mean average precision" if run.multi_label else "accuracy", out.with_suffix(".png"))
    (folder / BEST).replace(out)
    shutil.rmtree(folder)
    return training


class _Run:
    """One training: the network, the optimiser, and how far it got. Images are known by their place in the pixels."""

    def __init__(
        self, dataset: Dataset, parts: Split, recipe: Recipe, folder: Path, device: str | None, progress: bool
    ) -> None:
        self.recipe, self.parts, self._folder, self._progress = recipe, parts, folder, progress
        self._dataset = dataset
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._autocast = _autocast_type(recipe.encoder, self._device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._net, self._origin, own = _initial_network(recipe, len(parts.classes))
        scale = own.resize / own.crop
        self._preprocessing = (
            replace(own, resize=round(recipe.size * scale), crop=recipe.size) if recipe.init == "scratch" else own
        )
        self._net.to(self._device, memory_format=torch.channels_last)
        self._optimizer = _optimizer(self._net)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._autocast == torch.float16)

        used = np.sort(np.concatenate([parts.train, parts.validation]))
        items = [dataset.items[id] for id in used]
        self.multi_label = any(len(item.labels) > 1 for item in items)
        shown = torch.from_numpy(indicators([item.labels for item in items], parts.classes))
        self._targets = shown if self.multi_label else shown.argmax(dim=1)
        self._pixels = Pixels(folder, items, round(recipe.size * scale), progress=progress)
        good = np.setdiff1d(np.arange(len(used)), self._pixels.damaged)
        self._train = good[np.isin(used[good], parts.train)]
        self._validation = good[np.isin(used[good], parts.validation)]
        if not len(self._validation) or len(self._train) < 2:
            raise TrainingError("too many images are damaged: none is left to train with, or to choose the best epoch")

        self._batches = max(1, len(self._train) // recipe.batch_size)  # an epoch; what is left over waits for the next
        self.steps = self._batches * recipe.epochs
        self.step = 0
        self.log: list[dict[str, float]] = []
        self._sums = _no_sums()
        if not (folder / CHECKPOINT).exists():
            write_training(folder / INITIAL, self._net.state_dict(), self.describe({}))

    def fit(self, checkpoint_seconds: float) -> None:
        """Train to the last step."""
        size = self.recipe.batch_size
        saved = time.monotonic()
        with tqdm(
            total=self.steps * size,
            initial=self.step * size,
            unit="image",
            desc="training",
            smoothing=0.05,
            disable=not self._progress,
        ) as bar:
            while self.step < self.steps:
                epoch, first = divmod(self.step, self._batches)
                self._set_mode(epoch)
                began = time.monotonic()
                for pixels, places in self._loader(epoch, first):
                    self._learn(pixels, self._targets[places])
                    bar.update(size)
                    self._sums["seconds"] += time.monotonic() - began
                    began = time.monotonic()
                    if began - saved >= checkpoint_seconds and self.step % self._batches:
                        self._save()
                        saved = time.monotonic()
                self._end_epoch()
                self._save()
                saved = time.monotonic()
                bar.set_postfix({"validation": f"{self.log[-1]['validation_score']:.3f}"})

    def _loader(self, epoch: int, first: int) -> DataLoader[Any]:
        """The batches of one epoch from the `first` on, in an order drawn from the seed and the epoch."""
        size = self.recipe.batch_size
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(self._train).tolist()
        on_gpu = self._device.type == "cuda"
        return DataLoader(
            _Augmented(self._pixels, self.recipe.size, (self.recipe.seed, epoch)),
            batch_sampler=[order[i * size : (i + 1) * size] for i in range(first, self._batches)],
            num_workers=min(8, os.cpu_count() or 1) if on_gpu else 0,  # on a CPU the network keeps all cores busy
            pin_memory=on_gpu,
        )

    def _set_mode(self, epoch: int) -> None:
        """Let the last layer learn, or all layers.

        Where training begins with weights, batch normalisation keeps their statistics: those of a batch of 32 are
        noisy, and those of another image size would not fit the size that the features are taken at.
        """
        frozen = epoch < self.recipe.frozen_epochs
        self._net.requires_grad_(not frozen)
        _head(self._net, self.recipe.encoder).requires_grad_(True)
        self._net.train()
        if self.recipe.init != "scratch":
            for module in self._net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

    def _learn(self, pixels: torch.Tensor, targets: torch.Tensor) -> None:
        """One step on uint8 (n, 3, size, size) and their targets."""
        targets = targets.to(self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate()
        logits = self._logits(pixels)
        loss = self._loss(logits, targets)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss is {loss.item()} after {self.step} steps: lower the learning rate")
        self._sums["loss"] += loss.item() * len(pixels)
        self._sums["images"] += len(pixels)

    def _learning_rate(self) -> float:
        """Constant for the last layer alone; then for all layers a linear warm-up and half a cosine down to zero."""
        start = self.recipe.frozen_epochs * self._batches
        if self.step < start:
            return HEAD_FACTOR * self.recipe.learning_rate
        done = (self.step - start + 1) / (self.steps - start)
        return self.recipe.learning_rate * min(1.0, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (
            torch.tensor(values, device=self._device).view(1, 3, 1, 1)
            for values in (self._preprocessing.mean, self._preprocessing.std)
        )
        batch = pixels.to(self._device, non_blocking=True).float().div_(255).sub_(mean).div_(std)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            logits: torch.Tensor = self._net(batch)
        return logits.float()

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, targets)
        return functional.cross_entropy(logits, targets, label_smoothing=LABEL_SMOOTHING)

    def _end_epoch(self) -> None:
        """Validate, log, and keep the weights if they are the best so far."""
        loss, score = self._validate()
        best = max((row["validation_score"] for row in self.log), default=-math.inf)
        images = self._sums["images"]
        self.log.append(
            {
                "epoch": len(self.log) + 1,
                "learning_rate": self._optimizer.param_groups[0]["lr"],
                "train_loss": self._sums["loss"] / images,
                "validation_loss": loss,
                "validation_score": score,
                "images_per_second": images / self._sums["seconds"],
            }
        )
        self._sums = _no_sums()
        if score > best:
            write_tensors(self._folder / BEST, self._net.state_dict(), {})

    @torch.inference_mode()
    def _validate(self) -> tuple[float, float]:
        """Loss and score on the middle squares of the validation images."""
        self._net.eval()
        size = self.recipe.size
        logits = []
        for start in range(0, len(self._validation), self.recipe.batch_size):
            squares = []
            for place in self._validation[start : start + self.recipe.batch_size]:
                pixels = self._pixels[place]
                top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
                squares.append(pixels[top : top + size, left : left + size])
            logits.append(self._logits(torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)).cpu())
        scores, targets = torch.cat(logits), self._targets[self._validation]
        return self._loss(scores, targets).item(), _score(scores.numpy(), targets.numpy(), self.multi_label)

    # -- checkpoints

    def _save(self) -> None:
        tensors = {f"net.{name}": tensor for name, tensor in self._net.state_dict().items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{number}.{name}": tensor for name, tensor in state.items()})
        progress = {"step": self.step, "log": self.log, "sums": self._sums, "scaler": self._scaler.state_dict()}
        write_tensors(
            self._folder / CHECKPOINT,
            tensors,
            {"identity": json.dumps(self._identity()), "progress": json.dumps(progress)},
        )

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a training to go on."""
        return {"recipe": asdict(self.recipe), "weights": self._origin["sha256"], "images": self._pixels.fingerprint}

    def resume(self) -> None:
        """Take up the checkpoint.

        Raises
        ------
        TrainingError
            It is damaged, or of another training.
        """
        path = self._folder / CHECKPOINT
        hint = f"remove {self._folder} to start over"
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata()
                identity, progress = json.loads(header["identity"]), json.loads(header["progress"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is damaged ({error}): {hint}") from error
        if identity != self._identity():
            begun, now = ({**side["recipe"], **side} for side in (identity, self._identity()))
            differing = [f"{key} {begun.get(key)} and now {now[key]}" for key in now if begun.get(key) != now[key]]
            differing = [text for text in differing if not text.startswith("recipe ")]
            raise TrainingError(f"another training was begun here ({'; '.join(differing)}): {hint}")
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, number, entry = name.split(".")
                state.setdefault(int(number), {})[entry] = tensor
        self._net.load_state_dict(
            {name.removeprefix("net."): tensor for name, tensor in tensors.items() if name.startswith("net.")}
        )
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})
        self.step, self.log, self._sums = progress["step"], progress["log"], progress["sums"]
        self._scaler.load_state_dict(progress["scaler"])

    # -- the end

    def describe(self, metrics: dict[str, Any]) -> Training:
        """What the header of the weights says."""
        recipe = {
            **asdict(self.recipe),
            "weights": self._origin,
            "data": self._dataset.name,
            "images": {"train": len(self._train), "validation": len(self._validation)},
            "unseen_classes": list(self.parts.unseen_classes),
            "label_smoothing": 0.0 if self.multi_label else LABEL_SMOOTHING,
            "weight_decay": WEIGHT_DECAY,
            "precision": "float32" if self._autocast is None else str(self._autocast).removeprefix("torch."),
            "versions": {name: metadata.version(name) for name in ("torch", "torchvision", "timm")},
        }
        return Training(
            self.recipe.encoder,
            self.recipe.init,
            self.parts.classes,
            self.multi_label,
            self._preprocessing,
            recipe,
            metrics,
        )

    def finish(self) -> Training:
        """Judge the features before and after on what training never saw, and complete the header of the best weights.

        Every encoder is made from its file, as a search would make it: at its own image size, from the image files.
        """
        state, _ = read_weights(self._folder / BEST)
        write_training(self._folder / BEST, state, self.describe({}))
        del state
        kept = max(self.log, key=lambda row: row["validation_score"])
        metrics: dict[str, Any] = {"best_epoch": kept["epoch"], "validation_score": kept["validation_score"]}
        for when, file in (("before", INITIAL), ("after", BEST)):
            name = self.describe({}).kind if self.recipe.encoder == "resnet50" else self.recipe.encoder
            encoder = create_encoder(name, weights=self._folder / file, device=str(self._device))
            for title, ids in (("held_out_images", self.parts.held_out), ("held_out_classes", self.parts.unseen)):
                if not len(ids):
                    continue
                features, labels = self._encode(encoder, [self._dataset.items[id] for id in ids], f"{title}, {when}")
                metrics.setdefault(title, {})[when] = asdict(leave_one_out(features, labels))
                if (title, when) == ("held_out_images", "after"):
                    shown = indicators(labels, encoder.classes)
                    targets = shown if self.multi_label else shown.argmax(axis=1)
                    metrics["held_out_score"] = _score(encoder.classify(features), targets, self.multi_label)
        training = self.describe(metrics)
        write_training(self._folder / BEST, read_weights(self._folder / BEST)[0], training)
        return training

    def _encode(self, encoder: Encoder, items: Sequence[Item], title: str) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """Features and labels of those items that can be decoded."""
        features, labels = [np.empty((0, encoder.dim), np.float32)], []
        with (
            ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode") as pool,
            tqdm(total=len(items), unit="image", desc=title.replace("_", " "), disable=not self._progress) as bar,
        ):
            for start in range(0, len(items), _JUDGED):
                some = items[start : start + _JUDGED]
                images = list(pool.map(_decoded, some))
                features.append(encoder.encode([image for image in images if image is not None]))
                labels.extend(item.labels for item, image in zip(some, images, strict=True) if image is not None)
                bar.update(len(some))
        return np.concatenate(features), labels


class _Augmented(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Randomly cropped, flipped and coloured views: uint8 (3, size, size), and the image's place.

    What happens to an image follows from the seed, the epoch and its place alone, so neither the number of workers nor
    an interruption changes it.
    """

    def __init__(self, pixels: Pixels, size: int, seeds: tuple[int, int]) -> None:
        self._pixels = pixels
        self._seeds = seeds
        self._transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(0.35, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(0.2, 0.2, 0.2),
            ]
        )

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        pixels = torch.from_numpy(self._pixels[place].copy()).permute(2, 0, 1)  # what is mapped cannot be written to
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([*self._seeds, place]).generate_state(1)[0]))
            return self._transform(pixels), place


_HEADS = {"resnet50": "fc", "efficientnet-lite0": "classifier"}
"""What may be trained, and what its last layer is called."""

_JUDGED = 64
"""Images decoded at a time when the features are judged."""


def _head(net: Any, encoder: str) -> torch.nn.Linear:
    head: torch.nn.Linear = getattr(net, _HEADS[encoder])
    return head


def _initial_network(recipe: Recipe, classes: int) -> tuple[Any, dict[str, Any], Preprocessing]:
    """The network with a new last layer, where its weights come from, and the preprocessing that they belong to."""
    is_resnet = recipe.encoder == "resnet50"

    def build(outputs: int) -> Any:
        if is_resnet:
            return resnet50(num_classes=outputs)
        return timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=outputs)

    if recipe.init == "scratch":
        own = preprocessing_of(ResNet50_Weights.IMAGENET1K_V1) if is_resnet else PREPROCESSING
        return build(classes), {"source": "random", "sha256": ""}, own
    if is_resnet:
        path, origin = find_weights(recipe.weights)
    else:
        path = packaged_weights() if recipe.weights is None else Path(recipe.weights).expanduser().resolve()
        origin = {"argument": recipe.weights, "source": path.name if recipe.weights is None else str(path)}
    state, digest = read_weights(path)
    logger.info("beginning with %s (SHA-256 %s)", origin["source"], digest)
    training = read_training(path)
    if training is not None and training.network != recipe.encoder:
        raise EncoderError(f"{path} holds {training.kind}, not {recipe.encoder}")
    bias = state.get(f"{_HEADS[recipe.encoder]}.bias")
    net = build(1000 if bias is None else len(bias))
    load_into(net, state, path)
    setattr(net, _HEADS[recipe.encoder], torch.nn.Linear(_head(net, recipe.encoder).in_features, classes))
    own = preprocessing_for(digest) if is_resnet else PREPROCESSING
    if training is not None:
        own = training.preprocessing
    return net, {**origin, "sha256": digest}, own


def _optimizer(net: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW (Loshchilov, Hutter 2019); weight decay on matrices and kernels, not on biases and normalisation."""
    parameters = list(net.parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": WEIGHT_DECAY},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
    )


def _autocast_type(encoder: str, device: torch.device) -> torch.dtype | None:
    """The type that convolutions are computed in; None for float32 throughout.

    On a CPU with bfloat16 instructions ResNet50 trains 1.6 to 1.9 times as fast in it; EfficientNet-Lite's depthwise
    convolutions gain nothing from them.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    able = torch.cpu.get_capabilities()
    if device.type == "cpu" and encoder == "resnet50" and (able.get("avx512_bf16") or able.get("amx_bf16")):
        return torch.bfloat16
    return None


def _score(scores: np.ndarray, targets: np.ndarray, multi_label: bool) -> float:
    """Accuracy, or for several labels an image the mean average precision of the classes."""
    if multi_label:
        return class_mean_average_precision(scores, targets)
    return float((scores.argmax(axis=1) == targets).mean())


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "images": 0.0, "seconds": 0.0}


def _decoded(item: Item) -> np.ndarray | None:
    try:
        return decode_image(item.path)
    except ImageError as error:
        logger.warning("left out: %s", error)
        return None


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
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    usual = Recipe()
    parser = argparse.ArgumentParser(prog="python -m features.train", description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", required=True, help="caltech, voc, demo, or a folder with a subfolder for each class")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--encoder", choices=tuple(_HEADS), default=usual.encoder)
    parser.add_argument(
        "--init", choices=("imagenet", "scratch"), default=usual.init, help="begin with weights, or with random ones"
    )
    parser.add_argument("--weights", metavar="PATH", help="weights to begin with (default: the encoder's own)")
    parser.add_argument("--epochs", type=int, default=usual.epochs, metavar="N")
    parser.add_argument(
        "--frozen-epochs", type=int, metavar="N", help="so many of them for the last layer alone (default 1; scratch 0)"
    )
    parser.add_argument("--size", type=int, default=usual.size, metavar="PIXELS", help="image side in training")
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
    except (ValueError, EncoderError, OSError) as error:  # TrainingError and DatasetError are ValueErrors
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
    score = "mean average precision of the classes" if training.multi_label else "accuracy"
    lines = [
        f"best epoch {metrics['best_epoch']}: {score} {metrics['validation_score']:.3f} on validation images, "
        f"{metrics['held_out_score']:.3f} on held-out images",
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
