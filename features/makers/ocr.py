"""The text that is written in pictures, read by RapidOCR, whose package brings its networks: nothing is downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from features.collection.records import Record
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.images import ImageError
from features.makers.base import MakerError, MakerOptions, WordMaker
from features.openvino_import import openvino_is_installed, silence_openvino

PACKAGE = "rapidocr"
PINNED = f"{PACKAGE}==3.10.0"

# Where a line of text is, which way up it is, and what it says.
_NETWORKS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}


class TextMaker(WordMaker):
    """Says of each picture, as one caption, the lines of text in it, from top to bottom.

    Lines of which the network is less than half certain are left out; the certainty is the mean of the others.

    Raises
    ------
    MakerError
        The package is not installed.
    """

    maker = Maker("ocr", PACKAGE)
    batch_size = 8

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        if importlib.util.find_spec(PACKAGE) is None:
            raise MakerError(f"reading text in pictures needs a package that is not installed: pip install {PINNED}")
        self.version = f"1 {PACKAGE} {metadata.version(PACKAGE)}"

    def words_of(self, records: Sequence[Record]) -> list[Words | None]:
        read = self._reader  # what is wrong with the networks ends the run: it is no fault of a picture
        return [self._words(record, read) for record in records]

    def _words(self, record: Record, read: Any) -> Words | None:
        try:
            pixels = self.pixels(record)
            found = read(pixels[:, :, ::-1], use_det=True)  # it takes the channels in the order of OpenCV
        except ImageError as error:
            self.notes.append(str(error))
            return Words() if error.errno is None else None
        except Exception as error:  # a picture of 8,000 x 2 pixels, say, raises what the reader stumbles over
            self.notes.append(f"no text was read in {record.path}: {type(error).__name__} {error}".rstrip())
            return Words()
        if not found.txts:
            return Words()
        return Words({" ".join(found.txts): round(float(sum(found.scores) / len(found.scores)), 3)})

    @cached_property
    def _reader(self) -> Any:
        """``reader(pixels)`` gives an object with the lines, `txts`, and their `scores`."""
        silence_openvino()
        from rapidocr import EngineType, RapidOCR

        origin = importlib.util.find_spec(PACKAGE).origin  # type: ignore[union-attr]
        engine = EngineType.OPENVINO if openvino_is_installed() else EngineType.ONNXRUNTIME
        settings: dict[str, Any] = {"Global.log_level": "critical"}
        for task, name in _NETWORKS.items():
            settings[f"{task}.engine_type"] = engine
            # Left to itself it would download a file that is missing or damaged.
            settings[f"{task}.model_path"] = str(Path(str(origin)).parent / "models" / name)
        try:
            reader = RapidOCR(params=settings)
            for where in (False, True):  # loads the networks, first those that read what the other has found
                reader(np.full((48, 96, 3), 255, np.uint8), use_det=where)
        except Exception as error:  # of the engine, for a file that is missing or damaged
            raise MakerError(
                f"the networks of {PACKAGE} cannot be read ({str(error).splitlines()[-1]}). Install it again: "
                f"pip install --force-reinstall --no-deps {PINNED}"
            ) from error
        return reader
