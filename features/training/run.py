"""The training loop: a network, its optimiser, and checkpoints from which it goes on as if it had never stopped."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional
from torch.utils.data import DataLoader
from tqdm import tqdm

from features.datasets import Dataset, reading_options
from features.encoders import EncoderError
from features.encoders.weights import Training, write_tensors, write_training
from features.evaluate import indicators
from features.pixels import Pixels
from features.split import Split
from features.training.network import WEIGHT_DECAY, autocast_type, head_of, initial_network, make_optimizer
from features.training.progress import best_epoch, schedule, score
from features.training.recipe import Recipe, TrainingError
from features.training.views import RandomViews

CHECKPOINT = "checkpoint.safetensors"
INITIAL = "initial.safetensors"
BEST = "best.safetensors"

LABEL_SMOOTHING = 0.1


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
        self._autocast = autocast_type(recipe.encoder, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self._net, self._origin, own = initial_network(recipe, len(parts.classes))
        scale = own.resize / own.crop
        self._preprocessing = replace(own, resize=round(recipe.size * scale), crop=recipe.size)
        self._net.to(self.device, memory_format=torch.channels_last)
        self._optimizer = make_optimizer(self._net)
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self._autocast == torch.float16)

        folder.mkdir(
            parents=True, exist_ok=True
        )  # only now: what is wrong with weights or device leaves nothing behind
        used = np.sort(np.concatenate([parts.train, parts.validation]))
        items = [dataset.items[id] for id in used]
        self.multi_label = any(len(item.labels) > 1 for item in items)
        self._shown = torch.from_numpy(indicators([item.labels for item in items], parts.classes))
        short = round(recipe.size * scale)
        self._pixels = Pixels(folder, items, short, progress=progress, **reading_options(dataset))
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
            RandomViews(self._pixels, self.recipe.size, (self.recipe.seed, epoch)),
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
        head_of(self._net, self.recipe.encoder).requires_grad_(True)
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


def _no_sums() -> dict[str, float]:
    return {"loss": 0.0, "images": 0.0, "seconds": 0.0}
