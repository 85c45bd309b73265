"""Captions by any model of transformers that makes text of a picture: BLIP, GIT, Florence-2 and others.

It is named by a folder or by its name on the hub (see `features.encoders.hub`), and run by transformers' own class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.records import Record
from features.collection.said import Maker, Words
from features.collection.store import FeatureStore
from features.encoders import EncoderError
from features.encoders.hub import ModelFiles, find_model, load_model, load_part
from features.makers.base import MakerError, MakerOptions, WordMaker
from features.paths import expanded

BLIP = "Salesforce/blip-image-captioning-base"
"""1 GB, BSD-3-Clause."""

MOONDREAM = "vikhyatk/moondream2"

MAX_TOKENS = 50
"""Of a caption: a sentence is shorter."""

QUESTION = "Describe this picture in one short sentence."

_TASKS = {"florence2": "<CAPTION>"}
"""What models of these kinds are asked, which know a few tasks by name."""

_REFUSALS = (ValueError, RuntimeError, IndexError, ZeroDivisionError)
"""What models and what prepares their input raise for a picture of a shape that they cannot take."""

_WAY_OUT = "name it with --model FOLDER; captions that another program wrote are read with --file TABLE"

_NO_MOONDREAM = (
    "transformers has no class for Moondream, so it would run code of its own, and none from the hub is ever run here: "
    "let another program write its captions into a table, and read that with --file TABLE; or take --maker blip, or "
    "--maker caption with a Florence-2 that transformers reads"
)


class _Loaded(NamedTuple):
    model: Any
    processor: Any


class Captioner(WordMaker):
    """Says of each picture the caption that a model gives it.

    Raises
    ------
    MakerError
        The model cannot be had, or needs code that transformers does not have.
    """

    batch_size = 8
    default_model: str | None = None

    def __init__(self, store: FeatureStore, options: MakerOptions) -> None:
        super().__init__(store, options)
        named = options.model or self.default_model
        if named is None:
            raise MakerError(f"which model is to write captions? Name it: --model {BLIP}, or --model FOLDER")
        folder = expanded(named)
        if "moondream" in named.lower() and not folder.is_dir():
            raise MakerError(_NO_MOONDREAM)  # before gigabytes are downloaded in vain
        self._model = named
        self.maker = Maker("model", folder.resolve().name if folder.is_dir() else named.partition("@")[0])

    @cached_property
    def version(self) -> str:  # type: ignore[override]  # asked late: what was said is taken back without the model
        return f"1 {self._files.sha256[:16]} {MAX_TOKENS}"

    @cached_property
    def _files(self) -> ModelFiles:
        try:
            return find_model(self._model, _WAY_OUT)
        except EncoderError as error:
            raise MakerError(str(error)) from error

    def words_of(self, records: Sequence[Record]) -> list[Words | None]:
        pictures, said = self.pictures(records)
        if not pictures:
            return said
        try:
            captions = dict(zip(pictures, self._captions(list(pictures.values())), strict=True))
        except _REFUSALS:  # for one picture of a shape that it cannot take the others are not lost
            captions = self._one_by_one({records[place].path: (place, pixels) for place, pixels in pictures.items()})
        for place, caption in captions.items():
            said[place] = Words({caption: None}) if caption else Words()
        return said

    def _one_by_one(self, pictures: Mapping[Path, tuple[int, NDArray[np.uint8]]]) -> dict[int, str]:
        captions, why = {}, ""
        for path, (place, pixels) in pictures.items():
            try:
                (captions[place],) = self._captions([pixels])
            except _REFUSALS as error:
                why = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
                self.notes.append(f"{path} got no caption: {why}")
        if not captions and len(pictures) > 1:
            raise MakerError(f"{self.maker.name} gives no picture a caption: {why}")
        return captions

    @cached_property
    def _loaded(self) -> _Loaded:
        import torch

        try:
            model = load_model("AutoModelForImageTextToText", self._files)
            processor = load_part("AutoProcessor", self._files, backend="pil")
        except EncoderError as error:
            raise MakerError(str(error)) from error
        return _Loaded(model.to("cuda" if torch.cuda.is_available() else "cpu"), processor)

    def _captions(self, pictures: list[NDArray[np.uint8]]) -> list[str]:
        import torch
        from PIL import Image

        model, processor = self._loaded
        images = [Image.fromarray(pixels) for pixels in pictures]
        given = self._asked(images).to(model.device)
        with torch.inference_mode():
            tokens = model.generate(**given, max_new_tokens=MAX_TOKENS, do_sample=False)
        if "input_ids" in given and not model.config.is_encoder_decoder:  # what was asked stands before the answer
            tokens = tokens[:, given["input_ids"].shape[1] :]
        return [" ".join(text.split()) for text in processor.batch_decode(tokens, skip_special_tokens=True)]

    def _asked(self, images: list[Any]) -> Any:
        """The model's input: pictures alone, with the name of its task, or with a question, as its kind takes them."""
        model, processor = self._loaded
        if task := _TASKS.get(model.config.model_type):
            return processor(images=images, text=[task] * len(images), return_tensors="pt", padding=True)
        if not getattr(processor, "chat_template", None):
            return processor(images=images, return_tensors="pt")
        talks = [
            [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]}]
            for image in images
        ]
        processor.tokenizer.padding_side = "left"  # the answer begins where the question ends
        form = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        return processor.apply_chat_template(
            talks, add_generation_prompt=True, processor_kwargs={"padding": True}, **form
        )


class Blip(Captioner):
    """Captions by BLIP, or by another model if one is named."""

    default_model = BLIP


class Moondream(Captioner):
    """Captions by a folder that calls itself Moondream; by its name it is refused, with what to do instead."""

    default_model = MOONDREAM
