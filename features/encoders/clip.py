"""CLIP and its kin: pictures and texts in one space, where what belongs together is near.

Any CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023) or SigLIP 2 (Tschannen et al. 2025) that transformers has a
class for, by its name on the hub or by a folder: see `features.encoders.hub`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from features.checksum import sha256_of
from features.encoders.base import EncoderError, FeatureMap
from features.encoders.hub import ModelFiles, find_model, load_model, load_part
from features.encoders.network import BatchedEncoder
from features.encoders.preprocessing import without_far_ends
from features.encoders.runtime import make_runtime

DEFAULT_MODEL = "google/siglip2-base-patch16-224"
"""1.5 GB, Apache-2.0, reads many languages."""

MAX_CHARACTERS = 10_000
"""What is looked at of a text: far more than fits into any model, and soon cut into tokens."""

_BATCH = 64
_WAY_OUT = "name that FOLDER in place of the model. Words find pictures without it, too: space concepts"


class FittedText(NamedTuple):
    """What fits of several texts into what a model reads.

    Attributes
    ----------
    text : str
    cut : tuple of str
        What did not fit, in the order in which it was given.
    """

    text: str
    cut: tuple[str, ...]


class Clip(BatchedEncoder):
    """Encodes pictures and texts as unit vectors of one space. Safe to use from many threads.

    Parameters
    ----------
    weights : str or path, optional
        A folder, or a name on the hub; by default `DEFAULT_MODEL`. What is not on this machine is downloaded.
    device, runtime : str, optional
        See `create_encoder`. Models that take pictures of any shape are run by torch as they are.

    Raises
    ------
    EncoderError
        The model cannot be had or read, or does not encode both pictures and texts.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self,
        name: str = "clip",
        *,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        runtime: str | None = None,
    ) -> None:
        files = find_model(DEFAULT_MODEL if weights is None else weights, _WAY_OUT)
        model = load_model("AutoModel", files)
        self._config = model.config
        if not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            raise EncoderError(f"{files.argument}, a {self._config.model_type}, does not encode pictures and texts")
        self._processor = load_part("AutoImageProcessor", files, backend="pil")
        self._tokenizer = load_part("AutoTokenizer", files)
        if not self._tokenizer.is_fast:
            raise EncoderError(f"{files.argument} has no tokenizer.json, which says where in a text a token stands")
        self._tokenizing = threading.Lock()  # how far it pads and cuts is a state of the tokenizer
        self._longest = int(self._config.text_config.max_position_embeddings)
        self._pads = "max_length" if self._config.model_type.startswith("siglip") else True  # as they were trained
        sample = self.preprocess(np.zeros((48, 64, 3), np.uint8))
        self.min_side: int | None = 2 * max(sample.shape[1:]) if sample.ndim == 3 else None
        if sample.ndim == 3 and sample.shape[1] == sample.shape[2]:
            run = make_runtime(runtime, _Pictures(model), crop=sample.shape[1], device=device, bears_bfloat16=True)
        else:
            run = make_runtime("eager", _Patches(model), crop=0, device=device, bears_bfloat16=False)
        self._model: Any = model  # the runtime has moved it to its device
        self._scale = float(model.logit_scale.detach().exp())
        self._bias = None if getattr(model, "logit_bias", None) is None else float(model.logit_bias.detach())
        super().__init__(name, self.encode_text(["a"]).shape[1], run)
        self.spec: dict[str, Any] = {
            "name": name,
            "dim": self.dim,
            "weights": {"argument": files.argument, "source": files.argument, "sha256": files.sha256},
            "preprocessing": {"model": self._config.model_type, "sha256": _preprocessing_sum(files)},
            "descriptor": "image features of unit length",
            "runtime": run.record,
        }

    def preprocess(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Prepare a decoded image, uint8 (H, W, 3) of any size, as the model's own processor does.

        Returns
        -------
        float32 tensor
            (3, height, width), or for models of any shape (patches, numbers): see `_Patches`.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(f"image must be a decoded RGB image, uint8 (H, W, 3), got {image.dtype} {image.shape}")
        if getattr(self._processor, "do_center_crop", False):
            image = without_far_ends(image)
        made = self._processor(images=Image.fromarray(image), return_tensors="pt", input_data_format="channels_last")
        if "spatial_shapes" in made:
            return _packed(**{name: tensor[0] for name, tensor in made.items()})
        pixels: torch.Tensor = made["pixel_values"][0]
        return pixels

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, float32 (n, dim). What a text has beyond the model's limit is not read: `fitted`."""
        vectors = []
        for start in range(0, len(texts), _BATCH):
            with self._tokenizing:
                batch = self._tokenizer(
                    [_readable(text) for text in texts[start : start + _BATCH]],
                    padding=self._pads,
                    truncation=True,
                    max_length=self._longest,  # without it nothing is cut
                    return_tensors="pt",
                ).to(self._model.device)
            with torch.inference_mode():
                found = self._model.get_text_features(**batch)
            vectors.append(_unit(found).float().cpu().numpy())
        return np.concatenate(vectors) if vectors else np.zeros((0, self.dim), np.float32)

    def fitted(self, words: Iterable[str], tags: Iterable[str] = (), captions: Iterable[str] = ()) -> FittedText:
        """One text of several, as far as the model reads: a person's words first, then tags, then captions.

        Of words what fits is kept; a tag or a caption that does not fit is left out whole, and so is all after it.
        """
        text = ""
        cut: list[str] = []
        for is_whole, pieces in ((False, words), (True, tags), (True, captions)):
            for piece in filter(str.strip, pieces):
                longer = f"{text}, {piece}" if text else piece
                end = len(longer) if cut else self._end(longer)
                if cut or (end < len(longer) and is_whole):
                    cut.append(piece)
                elif end < len(longer):
                    begun = _whole_words(longer, max(end, len(text)), len(text))
                    text, rest = longer[:begun].rstrip(", "), longer[begun:].lstrip(", ")
                    cut.append(rest)
                else:
                    text = longer
        return FittedText(text, tuple(cut))

    def probabilities(self, features: NDArray[Any], texts: NDArray[np.float32]) -> NDArray[np.float32]:
        """How probable it is that each text belongs to each picture, float32 (n, t), from unit vectors of both.

        SigLIP says of each text for itself whether it fits (a sigmoid); CLIP which of them fits best (a softmax).
        """
        logits = np.asarray(features, np.float32) @ texts.T * self._scale
        if self._bias is not None:
            return (1 / (1 + np.exp(-np.clip(logits + self._bias, -80, 80)))).astype(np.float32)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)

    def feature_map(self, image: NDArray[np.uint8]) -> FeatureMap:
        """Not to be had. Raises EncoderError."""
        raise EncoderError(f"{self.name} does not tell where in a picture its vector comes from")

    def classify(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Without classes: float32 (n, 0)."""
        return np.zeros((len(features), 0), np.float32)

    def _end(self, text: str) -> int:
        """How many characters of a text the model reads."""
        readable = _readable(text)
        with self._tokenizing:
            made = self._tokenizer(
                readable, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
            )
        offsets = [
            place
            for place, special in zip(made["offset_mapping"], made["special_tokens_mask"], strict=True)
            if not special
        ]
        room = self._longest - self._tokenizer.num_special_tokens_to_add()
        if len(offsets) > room:
            return int(offsets[room - 1][1])
        return len(text) if len(readable) == len(text) else len(readable)


class _Pictures(torch.nn.Module):
    """From prepared pictures, float32 (n, 3, height, width), to unit vectors (n, dim)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        encode: Any = self._model.get_image_features
        return _unit(encode(pixel_values=pixels))


class _Patches(torch.nn.Module):
    """The same from pictures of any shape, each as `_packed` gives it: float32 (n, patches, numbers + 3)."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, packed: torch.Tensor) -> torch.Tensor:
        encode: Any = self._model.get_image_features
        shapes = packed[:, 0, -2:].long()
        return _unit(encode(packed[..., :-3], pixel_attention_mask=packed[..., -3].long(), spatial_shapes=shapes))


def _packed(
    pixel_values: torch.Tensor, pixel_attention_mask: torch.Tensor, spatial_shapes: torch.Tensor
) -> torch.Tensor:
    """A picture of any shape as one tensor: each patch with whether it is one, and with rows and columns of all."""
    sides = spatial_shapes.expand(len(pixel_values), 2)
    return torch.cat([pixel_values, pixel_attention_mask[:, None], sides], dim=1).float()


def _unit(found: Any) -> torch.Tensor:
    """Unit vectors of what a model's ``get_..._features`` returns, which depends on the version of transformers."""
    return torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)


def _whole_words(text: str, end: int, begin: int) -> int:
    """Where to cut a text at latest at `end`, between two words if there is such a place after `begin`."""
    if end < len(text) and text[end - 1 : end + 1].isalnum():
        space = text.rfind(" ", begin, end)
        return space if space > begin else end
    return end


def _readable(text: str) -> str:
    """The part of a text that is looked at, without what is half a character."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _preprocessing_sum(files: ModelFiles) -> str:
    """The SHA-256 of the file that says how pictures are prepared."""
    paths = [files.folder / name for name in ("preprocessor_config.json", "processor_config.json")]
    return next((sha256_of(path) for path in paths if path.is_file()), "")
