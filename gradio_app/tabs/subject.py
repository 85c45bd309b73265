"""The picture that a tab is about: as a vector, and small on the page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Protocol

import gradio as gr
import numpy as np
from PIL import Image

from features.encoders import EncoderError
from features.images import ImageError
from gradio_app.crop import READ_BOX, Box
from gradio_app.engine import EngineError, SearchEngine
from gradio_app.thumbs import to_jpeg

NO_PICTURE = "Choose a picture on the Search tab first, then come back."
SIDE = 640  # pixels
# Sent with every event whose last input is the box on the Search tab.
SEND_BOX = f"(...values) => [...values.slice(0, -1), {READ_BOX}]"


class Subject(Protocol):
    """A query of the page, with the part of it that is searched."""

    @property
    def path(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def box(self) -> Box | None: ...

    def pixels(self) -> np.ndarray:
        """The part to search, uint8 (h, w, 3)."""
        ...


def sorry(sentence: str) -> gr.Error:
    """Gradio shows the message as HTML, and it may quote a file name."""
    return gr.Error(escape(sentence), print_exception=False)


Held = list[gr.components.Component]  # the page's state of a visitor's query, the box on it last
Choose = Callable[..., Subject | None]  # from the values of these to the picture that a tab is about


def encode(engine: SearchEngine, subject: Subject) -> tuple[np.ndarray, int | None]:
    """Vector and own id of a subject, as `SearchEngine.encode`; what goes wrong is told in a sentence."""
    try:
        # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
        return engine.encode(subject.path if subject.box is None else subject.pixels())
    except (EngineError, EncoderError, ImageError) as error:
        raise sorry(str(error)) from error


def data_uri(pixels: np.ndarray, side: int = SIDE) -> str:
    """A decoded picture as it may stand in a page, at most `side` pixels wide and high."""
    return "data:image/jpeg;base64," + base64.b64encode(to_jpeg(Image.fromarray(pixels), side)).decode()


def subject_view(subject: Subject | None) -> str:
    """HTML that says which picture a tab is about."""
    if subject is None:
        return f'<div class="ris-about"><span class="ris-none"></span><p>{NO_PICTURE}</p></div>'
    part = "" if subject.box is None else " (the part in the box)"
    return (
        f'<div class="ris-about"><img src="{data_uri(subject.pixels(), 160)}" alt="">'
        f"<p><b>{escape(subject.name)}</b>{part}</p></div>"
    )
