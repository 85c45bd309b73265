"""What the encoders have in common: batches, devices, threads, and class probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from features.encoders import EncoderError, FeatureMap
from features.encoders.preprocessing import Preprocessing

_BATCH = 16
"""Images the network sees at once; more is no faster on a CPU and costs memory."""


class NetworkEncoder:
    """An `Encoder` around a torch network; a subclass says what the vector of a batch is.

    Parameters
    ----------
    net : torch.nn.Module
        In evaluation mode from here on.
    classifier : torch.nn.Linear
        The network's last layer. It reads the first ``in_features`` numbers of a vector.
    classes : tuple of str
        Names of its outputs.
    weights : dict
        ``argument`` (what `create_encoder` takes to find them again), ``source`` (for people), ``sha256``.
    descriptor : str
        What the vector is made of, for people; it also keeps vectors made in another way apart.
    """

    def __init__(
        self,
        name: str,
        net: Any,
        classifier: torch.nn.Linear,
        *,
        dim: int,
        preprocessing: Preprocessing,
        classes: tuple[str, ...],
        weights: dict[str, Any],
        descriptor: str,
        device: str | None,
    ) -> None:
        self.name = name
        self.dim = dim
        self.classes = classes
        self.preprocess = preprocessing
        self.spec: dict[str, Any] = {
            "name": name,
            "dim": dim,
            "weights": weights,
            "preprocessing": {
                **asdict(preprocessing),
                "mean": list(preprocessing.mean),
                "std": list(preprocessing.std),
            },
            "descriptor": descriptor,
        }
        try:
            self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
            fold_batch_norm(net.eval())
            self._net = net.requires_grad_(False).to(self._device, memory_format=torch.channels_last)
        except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
            raise EncoderError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
        self._class_weights = classifier.weight.detach().cpu().numpy().T.copy()  # (in_features, classes)
        self._class_bias = classifier.bias.detach().cpu().numpy().copy()
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="preprocess")

    def _describe(self, batch: torch.Tensor) -> torch.Tensor:
        """Float32 (n, 3, crop, crop) to (n, dim)."""
        raise NotImplementedError

    def _last_maps(self, batch: torch.Tensor) -> torch.Tensor:
        """Float32 (n, 3, crop, crop) to what `_describe` averages for the classifier's part: (n, c, h, w)."""
        raise NotImplementedError

    def encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encode decoded images, each uint8 (H, W, 3) of any size, to float32 (n, dim)."""
        if len(images) == 1:
            return self.encode_prepared([self.preprocess(images[0])])
        features = np.empty((len(images), self.dim), dtype=np.float32)
        starts = range(0, len(images), _BATCH)
        # One batch is prepared while the network works on the one before.
        jobs = [self._pool.submit(self.preprocess, image) for image in images[:_BATCH]]
        for start in starts:
            prepared = [job.result() for job in jobs]
            following = images[start + _BATCH : start + 2 * _BATCH]
            jobs = [self._pool.submit(self.preprocess, image) for image in following]
            features[start : start + len(prepared)] = self._run(prepared)
        return features

    def encode_prepared(self, prepared: Sequence[torch.Tensor]) -> np.ndarray:
        """Encode what `preprocess` returned: n tensors float32 (3, crop, crop) to float32 (n, dim)."""
        features = np.empty((len(prepared), self.dim), dtype=np.float32)
        for start in range(0, len(prepared), _BATCH):
            features[start : start + _BATCH] = self._run(prepared[start : start + _BATCH])
        return features

    def feature_map(self, image: np.ndarray) -> FeatureMap:
        """The last feature map of a decoded image, uint8 (H, W, 3). See `Encoder.feature_map`."""
        with torch.inference_mode():
            maps = self._last_maps(self._batch([self.preprocess(image)]))
            return FeatureMap(maps[0].permute(1, 2, 0).float().cpu().numpy(), self.preprocess.window(image))

    def _run(self, prepared: Sequence[torch.Tensor]) -> np.ndarray:
        with torch.inference_mode():
            return self._describe(self._batch(prepared)).float().cpu().numpy()

    def _batch(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared)).to(self._device).contiguous(memory_format=torch.channels_last)

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), from stored features (n, dim) of any float type."""
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must have shape (n, {self.dim}), got {features.shape}")
        logits = features[:, : len(self._class_weights)].astype(np.float32) @ self._class_weights + self._class_bias
        logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
        odds = np.exp(logits)
        probabilities: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
        return probabilities


def fold_batch_norm(net: torch.nn.Module) -> None:
    """Fold each batch normalisation into the convolution registered just before it, in place.

    In evaluation mode both are linear, so this only saves passes over memory. An activation that timm keeps inside the
    normalisation stays.
    """
    for parent in list(net.modules()):
        for (_, first), (name, second) in pairwise(list(parent.named_children())):
            if isinstance(first, torch.nn.Conv2d) and isinstance(second, torch.nn.BatchNorm2d):
                fused = torch.nn.utils.fusion.fuse_conv_bn_eval(first, second)
                first.weight, first.bias = fused.weight, fused.bias
                setattr(parent, name, getattr(second, "act", torch.nn.Identity()))
