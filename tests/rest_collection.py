"""A small collection behind the API, for the tests of it: pictures told apart by their colour."""

from __future__ import annotations

from meanings import ColourEncoder, WordSentences, paint_colours

from features.datasets import ImageFolder
from features.encoders import share_encoder
from features.encoding import extract
from search.build import create_index, create_spaces
from search.engine import SearchEngine


def colours(folder, monkeypatch, name="c", count=4):
    """An engine over `count` pictures of each of three colours; labels "a" (red), "b" (green) and "c" (blue)."""
    monkeypatch.setattr("search.spaces.sentence_encoder", WordSentences)
    paint_colours(folder / "images", count=count)
    encoder = ColourEncoder()
    share_encoder(encoder)
    store = extract(ImageFolder(folder / "images"), encoder, folder / "collections" / name, progress=False)
    create_index(store, factory="Flat")
    create_spaces(store)
    return SearchEngine.open(store.folder)
