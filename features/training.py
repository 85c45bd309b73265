"""The training loop: a network, its optimiser, and checkpoints from which it goes on as if it had never stopped."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

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

from features.datasets import Dataset  # noqa: E402
from features.encoders import EncoderError  # noqa: E402
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
from features.evaluate import class_mean_average_precision, indicators  # noqa: E402
from features.pixels import Pixels  # noqa: E402
from features.split import Split  # noqa: E402

CHECKPOINT = "checkpoint.safetensors"
INITIAL = "initial.safetensors"
BEST = "best.safetensors"

WEIGHT_DECAY = 0.02
LABEL_SMOOTHING = 0.1
HEAD_FACTOR = 10.0
"""On a frozen trunk the new last layer learns at so many times the learning rate of all layers."""
WARM_UP = 0.1
"""Share of the steps of all layers during which their learning rate rises to its full value."""


_HEADS = {"resnet50": "fc", "efficientnet-lite0": "classifier"}  # the last layer
ENCODERS = tuple(_HEADS)
"""What can be trained."""


class TrainingError(ValueError):
    """The training cannot be done, or what was begun is another one; the message says what to do."""


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
        Side in pixels of what the network sees in training, and afterwards when features are taken with it.
        EfficientNet-Lite0 fine-tuned at 128 pixels retrieves clearly better at 128 or 160 pixels than at the 224 that
        its first weights were made for (validation images of Caltech101: 0.859, 0.853 and 0.789).
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
        choices = {"encoder": ENCODERS, "init": ("imagenet", "scratch")}
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


class TrainingRun:
    """One training: the network, the optimiser, and how far it got. Takes up the folder's checkpoint if there is one.

    Attributes
    ----------
    step, steps : int
        How many batches were learnt, and how many there are in all.
    log : list of dict
        The numbers of every epoch so far.
    multi_label : bool
        Whether some images have several labels.

    Raises
    ------
    TrainingError
        The checkpoint is damaged or of another training, or too few images can be decoded.
    EncoderError
        The weights to begin with, or the device, cannot be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        parts: Split,
        recipe: Recipe,
        folder: Path,
        *,
        device: str | None = None,
        progress: bool = True,
    ) -> None:
        self.dataset, self.parts, self.recipe, self.folder, self._progress = dataset, parts, recipe, folder, progress
        try:
            self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        except RuntimeError as error:
            raise EncoderError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
        self._autocast = _autocast_type(recipe.encoder, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._net, self._origin, own = _initial_network(recipe, len(parts.classes))
        scale = own.resize / own.crop
        self._preprocessing = replace(own, resize=round(recipe.size * scale), crop=recipe.size)
        self._net.to(self.device, memory_format=torch.channels_last)
        self._optimizer = _optimizer(self._net)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._autocast == torch.float16)

        folder.mkdir(
            parents=True, exist_ok=True
        )  # only now: what is wrong with weights or device leaves nothing behind
        used = np.sort(np.concatenate([parts.train, parts.validation]))
        items = [dataset.items[id] for id in used]
        self.multi_label = any(len(item.labels) > 1 for item in items)
        self._shown = torch.from_numpy(indicators([item.labels for item in items], parts.classes))
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
        if (folder / CHECKPOINT).exists():
            self._resume()
        elif recipe.init == "scratch":
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
                    self._learn(pixels, self._shown[places])
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
        on_gpu = self.device.type == "cuda"
        return DataLoader(
            _Augmented(self._pixels, self.recipe.size, (self.recipe.seed, epoch)),
            batch_sampler=[order[i * size : (i + 1) * size] for i in range(first, self._batches)],
            num_workers=min(8, os.cpu_count() or 1) if on_gpu else 0,  # on a CPU the network keeps all cores busy
            pin_memory=on_gpu,
        )

    def _set_mode(self, epoch: int) -> None:
        """Let the last layer learn, or all layers.

        Where training begins with weights, batch normalisation keeps their statistics: a small batch's are noisy.
        """
        frozen = epoch < self.recipe.frozen_epochs
        self._net.requires_grad_(not frozen)
        _head(self._net, self.recipe.encoder).requires_grad_(True)
        self._net.train()
        if self.recipe.init != "scratch":
            for module in self._net.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

    def _learn(self, pixels: torch.Tensor, shown: torch.Tensor) -> None:
        """One step on uint8 (n, 3, size, size) and float32 (n, classes)."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * schedule(
                self.step, self.recipe.frozen_epochs * self._batches, self.steps
            )
        logits = self._logits(pixels)
        loss = self._loss(logits, shown.to(self.device))
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.step += 1
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss is {loss.item()} after {self.step} steps: lower the learning rate")
        self._sums["loss"] += loss.item() * len(pixels)
        self._sums["images"] += len(pixels)

    def _logits(self, pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self._preprocessing.mean, self._preprocessing.std)
        )
        batch = pixels.to(self.device, non_blocking=True).float().div_(255).sub_(mean).div_(std)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self._autocast, enabled=self._autocast is not None):
            logits: torch.Tensor = self._net(batch)
        return logits.float()

    def _loss(self, logits: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        if self.multi_label:
            return functional.binary_cross_entropy_with_logits(logits, shown)
        return functional.cross_entropy(logits, shown, label_smoothing=LABEL_SMOOTHING)

    def _end_epoch(self) -> None:
        """Validate, log, and keep the weights if they are the best so far."""
        loss, reached = self._validate()
        images = self._sums["images"]
        self.log.append(
            {
                "epoch": len(self.log) + 1,
                "learning_rate": self._optimizer.param_groups[0]["lr"],
                "train_loss": self._sums["loss"] / images,
                "validation_loss": loss,
                "validation_score": reached,
                "images_per_second": images / self._sums["seconds"],
            }
        )
        self._sums = _no_sums()
        if best_epoch(self.log) is self.log[-1]:
            write_tensors(self.folder / BEST, self._net.state_dict(), {})

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
        scores, shown = torch.cat(logits), self._shown[self._validation]
        return self._loss(scores, shown).item(), score(scores.numpy(), shown.numpy(), self.multi_label)

    def _save(self) -> None:
        tensors = {f"net.{name}": tensor for name, tensor in self._net.state_dict().items()}
        for number, state in self._optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{number}.{name}": tensor for name, tensor in state.items()})
        progress = {"step": self.step, "log": self.log, "sums": self._sums, "scaler": self._scaler.state_dict()}
        write_tensors(
            self.folder / CHECKPOINT,
            tensors,
            {"identity": json.dumps(self._identity()), "progress": json.dumps(progress)},
        )

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a training to go on."""
        return {**asdict(self.recipe), "weights": self._origin["sha256"], "images": self._pixels.fingerprint}

    def _resume(self) -> None:
        """Take up the checkpoint.

        Raises
        ------
        TrainingError
            It is damaged, or of another training.
        """
        path = self.folder / CHECKPOINT
        hint = f"remove {self.folder} to start over"
        try:
            with safe_open(path, "pt") as file:
                header = file.metadata()
                begun, progress = json.loads(header["identity"]), json.loads(header["progress"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{path} is damaged ({error}): {hint}") from error
        differing = [
            f"{key} {begun.get(key)}, now {now}" for key, now in self._identity().items() if begun.get(key) != now
        ]
        if differing:
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

    def describe(self, metrics: dict[str, Any]) -> Training:
        """What the header of the weights says."""
        recipe = {
            **asdict(self.recipe),
            "weights": self._origin,
            "data": self.dataset.name,
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


def schedule(step: int, frozen: int, steps: int) -> float:
    """What the learning rate is multiplied with at a step.

    Constant while the last layer learns alone, in the first `frozen` steps; then for all layers a linear warm-up and
    half a cosine down to zero (Loshchilov, Hutter 2017, section 3, without restarts).
    """
    if step < frozen:
        return HEAD_FACTOR
    done = (step - frozen + 1) / (steps - frozen)
    return min(1.0, done / WARM_UP) * 0.5 * (1 + math.cos(math.pi * done))


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


def score(scores: np.ndarray, shown: np.ndarray, multi_label: bool) -> float:
    """Accuracy, or if images have several labels the mean average precision of the classes.

    Parameters
    ----------
    scores, shown : arrays, shape (n, classes)
        Any increasing function of the probabilities; 1 where the image has the label.
    """
    if multi_label:
        return class_mean_average_precision(scores, shown)
    return float((scores.argmax(axis=1) == shown.argmax(axis=1)).mean())


def best_epoch(log: Sequence[dict[str, float]]) -> dict[str, float]:
    """The epoch with the highest validation score; of several, the one with the lowest validation loss."""
    return max(log, key=lambda row: (row["validation_score"], -row["validation_loss"]))


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "images": 0.0, "seconds": 0.0}
