"""What one visitor's session holds: the picture to search, and what was searched before."""

from __future__ import annotations

import base64
import io
import secrets
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from features.background import object_mask
from features.images import STRANGERS_PICTURES, ImageError, decode_image
from features.picture_files import read_picture
from gradio_app.crop import Box, clipped, parse_box
from gradio_app.gradio_seam import sorry
from gradio_app.jobs import Job
from gradio_app.markup import printable
from gradio_app.routes.pictures import PictureFolder, folder_of, to_jpeg
from search.engine import SearchEngine
from search.hits import Answer
from search.options import NEIGHBOURHOOD
from search.query import ImagePart

PREVIEW_SIDE = 800  # pixels; what the browser shows of the query, while the search reads the picture itself
THUMB_SIDE = 128
RECENT = 8
MAX_WEIGHT = 100.0  # of a picture beside words
RESULTS = 20  # of a page, where nobody says otherwise


@dataclass(frozen=True)
class QueryPicture:
    """A picture to search with.

    Attributes
    ----------
    token : str
        Tells this choice of a picture from any other, so that a crop box cannot land on the wrong one.
    path : Path
    name : str
        As it is shown.
    width, height : int
        In pixels.
    box : tuple of int, optional
        The part to search; the whole by default.
    folder : PictureFolder, optional
        The folder that it is in: of a picture of a collection.
    source : str
        Of a picture of a collection which it is: ``COLLECTION/ID/SHA256``.
    foreground : bool
        Whether its object counts more than what is behind it: see `ImagePart`.
    """

    token: str
    path: Path
    name: str
    width: int
    height: int
    box: Box | None = None
    folder: PictureFolder | None = None
    source: str = ""
    foreground: bool = False

    @classmethod
    def open(cls, path: Path, name: str) -> QueryPicture:
        """A picture that a visitor brought along."""
        return cls._measured(path, name, None)

    @classmethod
    def of(cls, engine: SearchEngine, image_id: int) -> QueryPicture:
        """A picture of a collection."""
        path = engine.store.items[image_id].path
        picture = cls._measured(path, printable(path.name), folder_of(engine))
        return replace(picture, source=f"{engine.name}/{image_id}/{engine.store.hash_of(image_id) or ''}")

    @classmethod
    def _measured(cls, path: Path, name: str, folder: PictureFolder | None) -> QueryPicture:
        pixels = _decode(path, name, folder)
        height, width = pixels.shape[:2]
        return cls(secrets.token_hex(8), path, name, width, height, folder=folder)

    @property
    def upload(self) -> str:
        """``FOLDER/NAME`` in the cache of uploads, of a picture that was brought along."""
        return "" if self.source else f"{self.path.parent.name}/{self.path.name}"

    def pixels(self) -> np.ndarray:
        """The part to search, uint8 (h, w, 3), at full resolution."""
        x0, y0, x1, y1 = self.box or (0, 0, self.width, self.height)
        return _decode(self.path, self.name, self.folder)[y0:y1, x0:x1]

    def part(self, weight: float = 1.0) -> ImagePart:
        """What is asked with it."""
        # An uncropped picture goes as its file: the engine then knows it again if the collection holds it.
        return ImagePart(self.path if self.box is None else self.pixels(), weight=weight, foreground=self.foreground)

    def veil(self) -> str:
        """Data URI of what lies over the part to search, clear where its object is; "" where none stands out."""
        return _veil(replace(self, token=""))

    def preview(self) -> str:
        """Data URI of the whole picture, for the browser."""
        return _preview(replace(self, token="", box=None, foreground=False), PREVIEW_SIDE)

    def thumbnail(self) -> str:
        """Data URI of the part to search, small."""
        return _preview(replace(self, token="", foreground=False), THUMB_SIDE)

    def again(self) -> QueryPicture:
        """The same picture and box, chosen anew."""
        return replace(self, token=secrets.token_hex(8))

    def with_box(self, box: Box | None) -> QueryPicture:
        """With another part to search."""
        return replace(self, box=None if box is None else clipped(box, self.width, self.height))

    def inside(self) -> QueryPicture:
        """With a box in the middle, ready to be moved to the part that matters."""
        x, y = self.width // 5, self.height // 5
        return replace(self, box=(x, y, max(self.width - x, x + 1), max(self.height - y, y + 1)))


@dataclass(frozen=True)
class Asked:
    """What is searched: words, a picture, or both.

    Attributes
    ----------
    picture : QueryPicture or None
    words : str
        As they were typed; "" for none.
    weight : float
        How much the picture counts beside the words.
    token : str
        Tells it from what else was searched.
    """

    picture: QueryPicture | None = None
    words: str = ""
    weight: float = 1.0
    token: str = field(default_factory=lambda: secrets.token_hex(8), compare=False)

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for what would be the same in the strip of recent queries."""
        picture = self.picture
        chosen = None if picture is None else (picture.path, picture.box, picture.foreground)
        return (self.words, self.weight, chosen)


@dataclass(frozen=True)
class Request:
    """How something is searched.

    Attributes
    ----------
    collection, engine : str
    k : int
        Results wanted, all pages together.
    page : int
        Results that one more page brings.
    nprobe : int or None
    rerank : bool
    labels : tuple of str
        Only pictures that bear one of these; all pictures if it is empty.
    cutoff : float or None
        The worst score to show.
    neighbourhood : float
        See `SearchOptions`.
    """

    collection: str
    engine: str
    k: int
    page: int
    nprobe: int | None = None
    rerank: bool = True
    labels: tuple[str, ...] = ()
    cutoff: float | None = None
    neighbourhood: float = NEIGHBOURHOOD


@dataclass(frozen=True)
class Result:
    """A search that was made; `more` says whether there are further results."""

    engine: SearchEngine
    asked: Asked
    request: Request
    hits: Answer
    more: bool


@dataclass
class Making:
    """A collection that is being made, and what the form said of it.

    Attributes
    ----------
    name, folder : str
        As they were typed.
    upload : str
        Token of what was sent; "" for a folder of the server.
    job : Job or None
    """

    name: str
    folder: str
    upload: str
    job: Job | None = None


@dataclass
class Session:
    """One visitor's session.

    Handlers change it in place instead of returning a new one: of two that run at the same time, the one to finish
    last would otherwise write back what it read at its beginning, and undo the other.

    Attributes
    ----------
    query : QueryPicture or None
        The picture to search.
    last : Asked or None
        What "Last searched" shows.
    result : Result or None
        What the results on the page are.
    recent : tuple of Asked
        What was searched, newest first, each once.
    turn : int
        Grows with every question; an answer to an earlier one is no longer wanted.
    fold : bool
        Whether hits that are nearly the same wait behind the best of them.
    making : Making or None
        The collection that this visitor makes.
    may_keep : bool
        Whether what was learnt may be kept by who searched last; whoever keeps something is asked again.
    fetched : dict of str to bytes
        Pictures from the web that words of a query name, by their addresses; the last few.
    """

    query: QueryPicture | None = None
    last: Asked | None = None
    result: Result | None = None
    recent: tuple[Asked, ...] = ()
    turn: int = 0
    fold: bool = False
    making: Making | None = None
    may_keep: bool = False
    fetched: dict[str, bytes] = field(default_factory=dict)

    def crop(self, drawn: str | None) -> QueryPicture | None:
        """Take over the box on the page (see `crop.READ_BOX`); the query with it."""
        query = self.query
        if query is None:
            return None
        cropped = replace(query, box=parse_box(drawn or "", query.token, query.width, query.height))
        if self.query is query:  # no other was chosen in the meantime
            self.query = cropped
        return cropped

    def crop_or_last(self, drawn: str | None) -> QueryPicture | None:
        """The picture on the page with its box, or else the one that was searched last."""
        return self.crop(drawn) or (None if self.last is None else self.last.picture)

    def next_turn(self) -> int:
        """Begin a question, or give up those under way."""
        self.turn += 1
        return self.turn

    def keep(self, result: Result, turn: int) -> bool:
        """Take the answer to question `turn`, unless there is a newer question; whether it was taken."""
        if turn != self.turn:
            return False
        self.result = result
        self.last = asked = result.asked
        self.recent = (asked, *(other for other in self.recent if other.identity != asked.identity))[:RECENT]
        return True

    def picture_of(self, token: str) -> QueryPicture | None:
        """A picture that this visitor has searched with or is about to, by its token."""
        known = [self.query, *(asked.picture for asked in (self.last, *self.recent) if asked is not None)]
        return next((picture for picture in known if picture is not None and picture.token == token), None)


def gone(name: str) -> Exception:
    """What to say when a file is no longer there."""
    return sorry(f"{name} is no longer on the server. Choose the picture again.")


def _decode(path: Path, name: str, folder: PictureFolder | None) -> np.ndarray:
    try:
        if folder is not None:
            content = read_picture(folder.root, path, follow_links=folder.follow_links)
            return decode_image(content, max_pixels=folder.max_pixels)
        return decode_image(path, limits=STRANGERS_PICTURES)
    except ImageError as error:
        if not path.exists():
            raise gone(name) from error
        if error.reason.startswith("too large"):
            raise sorry(f"{name} cannot be searched with: it is {error.reason}.") from error
        raise sorry(f"{name} cannot be read as a picture: {error.reason}.") from error


@lru_cache(maxsize=128)  # of at most some 150 kB each
def _preview(query: QueryPicture, side: int) -> str:
    jpeg = to_jpeg(Image.fromarray(query.pixels()), side)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


@lru_cache(maxsize=32)
def _veil(query: QueryPicture) -> str:
    mask = object_mask(query.pixels())
    if mask is None:
        return ""
    shown = Image.fromarray(mask)
    shown.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    # Grey is seen over white as well as over black.
    veil = Image.merge("LA", (Image.new("L", shown.size, 128), shown.point(lambda object: (255 - object) * 4 // 5)))
    png = io.BytesIO()
    veil.save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()
