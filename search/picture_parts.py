"""What becomes of a part of a query that is a picture: its vector, of all of it, of a piece, or towards its object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from features.background import on_white
from features.images import decode_image
from features.picture_files import stored_pixels
from ivfpq.distances import normalised
from search.errors import QueryError
from search.parts import EncodedQuery
from search.query import ImagePart, Picture, is_address
from search.searcher import SpaceSearcher
from search.space import VISUAL, OpenCollection


class EncodingCollection(OpenCollection, Protocol):
    """Whose pictures are compared with: a `SearchEngine`."""

    @property
    def name(self) -> str: ...

    def encode(self, picture: Picture, *, space: str = ...) -> EncodedQuery: ...


def encode_part(
    part: ImagePart, searcher: SpaceSearcher, collection: EncodingCollection, fetch: Callable[[str], bytes]
) -> EncodedQuery:
    """The vector of a part that is a picture. A piece of a picture is no picture of the collection.

    Parameters
    ----------
    fetch : callable
        Gives the picture file at an address of the web.

    Raises
    ------
    QueryError
        The collection has no picture of this id, or an address cannot be opened.
    EncoderError
        Its object is to be looked at, and what finds that is not installed.
    """
    if is_address(part.picture):
        part = replace(part, picture=fetch(str(part.picture)))
    plain = _encoded(part, searcher, collection)
    if not part.foreground or _has_no_background(searcher):
        return plain
    cut = on_white(_pixels_of(part, collection))
    if cut is None:
        return plain
    kind = searcher.space.kind
    return plain._replace(vector=between(plain.vector, kind.encode_picture(cut, collection)))


def _encoded(part: ImagePart, searcher: SpaceSearcher, collection: EncodingCollection) -> EncodedQuery:
    picture = part.picture
    if isinstance(picture, int):
        items = collection.store.items
        if not 0 <= picture < len(items) or items[picture].error is not None:
            raise QueryError(f"{collection.name} has no picture {picture}")
        if part.crop is None:
            return EncodedQuery(searcher.space.rows(np.array([picture]))[0], picture)
    seen = picture if part.crop is None else _pixels_of(part, collection)
    return collection.encode(seen, space=searcher.space.name)


def _pixels_of(part: ImagePart, collection: EncodingCollection) -> NDArray[np.uint8]:
    """The decoded picture, or the piece of it that is meant."""
    picture = part.picture
    if isinstance(picture, int):
        pixels = stored_pixels(collection.store.manifest, collection.store.items[picture].path)
    else:
        pixels = picture if isinstance(picture, np.ndarray) else decode_image(picture)
    if part.crop is None:
        return pixels
    left, top, right, bottom = part.crop
    height, width = pixels.shape[:2]
    if right > width or bottom > height:
        raise QueryError(f"the crop {part.crop} does not lie inside a picture of {width} x {height} pixels")
    return np.ascontiguousarray(pixels[top:bottom, left:right])


def between(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vector (dim,) half-way between the directions of two, as long as the first."""
    middle = normalised(normalised(np.stack([one, other])).sum(axis=0, keepdims=True))[0]
    length = np.linalg.norm(np.asarray(one, np.float32))
    return (middle * length).astype(np.float32)


def _has_no_background(searcher: SpaceSearcher) -> bool:
    return searcher.space.name == VISUAL and "background" in searcher.space.store.manifest["encoder"]
