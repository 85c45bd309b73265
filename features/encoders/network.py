"""What the encoders have in common: batches, threads, and class probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from features.encoders.base import FeatureMap
from features.encoders.preprocessing import Preprocessing
from features.encoders.runtime import Runtime, make_runtime

_BATCH = 16
"""Images the network sees at once; more is no faster on a CPU and costs memory."""


class BatchedEncoder:
    """The part of an `Encoder` that sends prepared images through a network, a batch at a time.

    Parameters
    ----------
    dim : int
        Length of a vector.
    run : Runtime
        From prepared images to vectors.
    """

    preprocess: Any  # a decoded image to a tensor: a method, or an object that is called

    def __init__(self, name: str, dim: int, run: Runtime) -> None:
        self.name = name
        self.dim = dim
        self._run = run
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="preprocess")

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
        """Encode what `preprocess` returned: n tensors to float32 (n, dim)."""
        features = np.empty((len(prepared), self.dim), dtype=np.float32)
        for start in range(0, len(prepared), _BATCH):
            features[start : start + _BATCH] = self._run(prepared[start : start + _BATCH])
        return features


class NetworkEncoder(BatchedEncoder):
    """An `Encoder` around a torch network.

    Parameters
    ----------
    net : torch.nn.Module
        From prepared images, float32 (n, 3, crop, crop), to vectors (n, dim). It belongs to the encoder from here on.
    classifier : torch.nn.Linear
        The network's last layer. It reads the first ``in_features`` numbers of a vector.
    classes : tuple of str
        Names of its outputs.
    multi_label : bool
        Whether the classes are independent of each other (a sigmoid each) or exclude each other (a softmax).
    weights : dict
        ``argument`` (what `create_encoder` takes to find them again), ``source`` (for people), ``sha256``.
    descriptor : str
        What the vector is made of, for people; it also keeps vectors made in another way apart.
    device, runtime : str, optional
        See `create_encoder`.
    bears_bfloat16 : bool
        Whether the network may run in bfloat16: its vectors keep a cosine of 0.999 to those of float32.
    """

    def __init__(
        self,
        name: str,
        net: torch.nn.Module,
        classifier: torch.nn.Linear,
        *,
        dim: int,
        preprocessing: Preprocessing,
        classes: tuple[str, ...],
        weights: dict[str, Any],
        descriptor: str,
        device: str | None,
        runtime: str | None,
        multi_label: bool = False,
        bears_bfloat16: bool = False,
    ) -> None:
        run = make_runtime(runtime, net, crop=preprocessing.crop, device=device, bears_bfloat16=bears_bfloat16)
        super().__init__(name, dim, run)
        self._multi_label = multi_label
        self.classes = classes
        self.preprocess = preprocessing
        self.min_side: int | None = 2 * preprocessing.resize
        self._net: Any = net  # the runtime has prepared it; `feature_map` asks it for more than the runtime tells
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
            "runtime": run.record,
        }
        self._class_weights = classifier.weight.detach().cpu().numpy().T.copy()  # (in_features, classes)
        self._class_bias = classifier.bias.detach().cpu().numpy().copy()

    def _last_maps(self, batch: torch.Tensor) -> torch.Tensor:
        """Float32 (n, 3, crop, crop) to what is averaged for the classifier's part of a vector: (n, c, h, w)."""
        raise NotImplementedError

    def feature_map(self, image: np.ndarray) -> FeatureMap:
        """The last feature map of a decoded image, uint8 (H, W, 3). See `Encoder.feature_map`."""
        device = next(self._net.parameters()).device
        with torch.inference_mode():
            maps = self._last_maps(self.preprocess(image)[None].to(device))
        return FeatureMap(maps[0].permute(1, 2, 0).float().cpu().numpy(), self.preprocess.window(image))

    def classify(self, features: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (n, classes), from stored features (n, dim) of any float type.

        They sum to 1, unless the network was trained on images with several classes: then each stands for itself.
        """
        features = np.asarray(features)
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise ValueError(f"features must have shape (n, {self.dim}), got {features.shape}")
        logits = features[:, : len(self._class_weights)].astype(np.float32) @ self._class_weights + self._class_bias
        if self._multi_label:
            each: np.ndarray = torch.from_numpy(logits).sigmoid().numpy()
            return each
        logits -= logits.max(axis=1, keepdims=True, initial=-np.inf)
        odds = np.exp(logits)
        probabilities: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
        return probabilities
