"""Everything that trained weights depend on, but for the data."""

from __future__ import annotations

from dataclasses import dataclass

HEADS = {"resnet50": "fc", "efficientnet-lite0": "classifier"}  # the last layer
ENCODERS = tuple(HEADS)
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
