"""A small collection behind the API, for the tests of it: pictures told apart by their colour."""

from __future__ import annotations

from meanings import ColourEncoder, WordSentences, paint_colours

from features.datasets import ImageFolder
from features.encoders import share_encoder
from features.encoding import extract
from gradio_app.routes.api.job_worker import CancelledError
from search.build import append_collection, create_index, create_spaces, sync_collection
from search.engine import SearchEngine


def colours(folder, monkeypatch, name="c", count=4, is_own=False):
    """An engine over `count` pictures of each of three colours; labels "a" (red), "b" (green) and "c" (blue).

    The pictures lie beside the collection or, as those of a zip file, in it.
    """
    monkeypatch.setattr("search.spaces.sentence_encoder", WordSentences)
    paint_colours(folder / "images", count=count)
    encoder = ColourEncoder()
    share_encoder(encoder)
    store = extract(ImageFolder(folder / "images"), encoder, folder / "collections" / name, progress=False)
    create_index(store, factory="Flat")
    create_spaces(store)
    if is_own:
        (folder / "images").rename(store.folder / "images")
        store.update_manifest(root=str(store.folder / "images"))
    return SearchEngine.open(store.folder)


def sync_here(library):
    """Brings a collection up to date in this process, in place of the process that the server has for it."""

    def sync(name, progress, only_new=False):
        if not progress("Encoding new pictures", 0, 1):
            raise CancelledError
        bring = append_collection if only_new else sync_collection
        bring(library[name].folder, encoder=ColourEncoder(), progress=False)
        library.put(SearchEngine.open(library[name].folder))

    return sync
