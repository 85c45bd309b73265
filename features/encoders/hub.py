"""Models of transformers, by a folder or by their name on the Hugging Face hub: read from safetensors alone.

No code ever comes from there: only classes that transformers itself has are made. What is named is looked for on this
machine first; only what is not here is downloaded, by huggingface_hub, which shows its progress, goes on after a
connection was cut and keeps what has come whole in its cache (``HF_HOME``). The commit is recorded, so that the same
files are found again.
"""

from __future__ import annotations

import json
import logging
import os
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from features.checksum import sha256_of
from features.encoders.base import EncoderError
from features.paths import expanded
from features.torchvision_ops import declare_operators

logger = logging.getLogger(__name__)

_WEIGHTS = "model.safetensors"
_SHARDS = "model.safetensors.index.json"
_FILES = ["*.json", "*.txt", "*.model", _WEIGHTS, "model-*.safetensors"]
_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine.

    Attributes
    ----------
    folder : Path
    argument : str
        What finds it again: the folder, or ``owner/name@commit``.
    sha256 : str
        Of the weights; of several files, of their names and sums.
    """

    folder: Path
    argument: str
    sha256: str


def find_model(model: str | os.PathLike[str], way_out: str) -> ModelFiles:
    """The files of a model, downloaded if it is named by a hub name and not on this machine yet.

    Parameters
    ----------
    model : str or path
        A folder, or ``owner/name`` on the hub, with ``@revision`` for another than its main one.
    way_out : str
        The end of a sentence for who cannot download it: where else to name a folder, what does without.

    Raises
    ------
    EncoderError
        It cannot be had, is damaged, or has no safetensors.
    """
    if _is_folder(model):
        folder = expanded(model).resolve()
        return _checked(folder, str(folder))
    name, revision = _hub_name(model)
    found = _here(name, revision)
    if found is None:
        logger.info("downloading the model %s", os.fspath(model))
        found = _downloaded(name, revision, way_out)
    return _checked(found, f"{name}@{found.name}")


def is_here(model: str | os.PathLike[str]) -> bool:
    """Whether `find_model` would find all files on this machine. Raises EncoderError if it cannot be a model."""
    return _is_folder(model) or _here(*_hub_name(model)) is not None


def load_model(auto_class: str, files: ModelFiles) -> Any:
    """What a class of transformers for any model, as ``AutoModel``, makes of a folder, in float32, ready to be asked.

    Raises
    ------
    EncoderError
        It is damaged, of a kind that transformers does not have, or would need code from the hub.
    """
    return _made(auto_class, files, use_safetensors=True, dtype="float32").eval()


def load_part(auto_class: str, files: ModelFiles, **options: Any) -> Any:
    """What prepares a model's input, as ``AutoTokenizer``. Raises EncoderError as `load_model`."""
    return _made(auto_class, files, **options)


def _made(auto_class: str, files: ModelFiles, **options: Any) -> Any:
    declare_operators()  # before transformers, which imports torchvision
    try:
        import transformers
        from transformers.utils import logging as bars
    except ImportError as error:
        raise EncoderError("this needs a package that is not installed: pip install transformers") from error
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        make = getattr(transformers, auto_class).from_pretrained
        return make(files.folder, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # a damaged folder raises what its readers stumble over
        if "trust_remote_code" in str(error):
            raise EncoderError(
                f"{files.argument} would run code of its own, and none is ever run here: let another program write "
                f"its words into a table, and read that with python -m search.annotate NAME --file TABLE"
            ) from error
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise EncoderError(f"{files.argument} cannot be read by transformers as {auto_class}: {said}") from error
    finally:
        if shown:
            bars.enable_progress_bar()


def _is_folder(model: str | os.PathLike[str]) -> bool:
    return bool(os.fspath(model)) and expanded(model).is_dir()


def _hub_name(model: str | os.PathLike[str]) -> tuple[str, str | None]:
    match = _NAME.fullmatch(os.fspath(model))
    if match is None:
        raise EncoderError(f"{os.fspath(model)} is no folder, nor a name on the hub, which are like google/siglip-base")
    return match[1], match[2]


def _here(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES, local_files_only=True))
    except (LocalEntryNotFoundError, IncompleteSnapshotError):
        return None
    except HFValidationError as error:
        raise EncoderError(f"{name} is no name on the hub: {error}") from error


def _downloaded(name: str, revision: str | None, way_out: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # the client's own, those of what it speaks HTTP with, and the disk's
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        wanted = f"{name} --revision {revision}" if revision else name
        raise EncoderError(
            f"{name} cannot be downloaded ({said}). Files that have come whole are kept. Without a network, run "
            f"hf download {wanted} --local-dir FOLDER on another machine, and {way_out}"
        ) from error


def _checked(folder: Path, argument: str) -> ModelFiles:
    if not (folder / "config.json").is_file():
        raise EncoderError(f"{folder} has no config.json: it is no folder of a model of transformers")
    weights = [folder / _WEIGHTS]
    if not weights[0].is_file():
        weights = [folder / name for name in _shards(folder)]
    digests = []
    for path in weights:
        if not path.is_file():
            raise EncoderError(f"{folder} lacks {path.name}: copy or download it again")
        digests.append(sha256_of(path))
        published = path.resolve().name  # huggingface_hub calls a large file in its cache by its published SHA-256
        if re.fullmatch("[0-9a-f]{64}", published) and published != digests[-1]:
            raise EncoderError(
                f"{path.resolve()} is damaged: its SHA-256 is {digests[-1]}, its name says {published}. Remove it and "
                f"run the same command again"
            )
    logger.info("weights %s, SHA-256 %s", argument, ", ".join(digests))
    if len(digests) == 1:
        return ModelFiles(folder, argument, digests[0])
    sums = "".join(f"{digest}  {path.name}\n" for path, digest in zip(weights, digests, strict=True))
    return ModelFiles(folder, argument, sha256(sums.encode()).hexdigest())


def _shards(folder: Path) -> list[str]:
    """The files that weights are spread over."""
    path = folder / _SHARDS
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
        if all(isinstance(name, str) and Path(name).name == name for name in names):
            return names
        raise ValueError("it names files elsewhere")
    except FileNotFoundError as error:
        raise EncoderError(f"{folder} has no {_WEIGHTS}: models are read from safetensors alone") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise EncoderError(f"{path} cannot be read: {error}") from error
