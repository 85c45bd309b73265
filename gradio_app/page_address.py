"""The address of the page: all that a search was, as the query of a URL, so that whoever opens it finds the same.

The server writes it with each answer, `static/words.js` puts it into the browser's history, and what is opened comes
back to be read here. It may have been typed by anyone: what makes no sense in it counts as not said.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from features.collection.errors import StoreError
from gradio_app.crop import Box
from gradio_app.gradio_seam import MAX_TEXT, sorry
from gradio_app.library import Library
from gradio_app.markup import printable
from gradio_app.session import MAX_WEIGHT, RESULTS, QueryPicture, Result
from gradio_app.tabs.controls import is_image
from search.options import NEIGHBOURHOOD

NAMES = (
    "in", "q", "picture", "upload", "box", "foreground", "weight",
    "kind", "n", "shown", "index", "nprobe", "rerank", "label", "least", "sort", "fold", "view",
)  # fmt: skip
"""Of all parts of an address; others in it are none of ours."""

MAX_LABELS = 100
SORT = "score"
_FOLDER = re.compile(r"[0-9a-f]{32,128}")  # of an upload, in Gradio's cache


@dataclass(frozen=True)
class PageAddress:
    """What an address says; "" and None where it says nothing.

    Attributes
    ----------
    collection, words : str
    picture : str
        Of one of a collection: see `QueryPicture.source`.
    upload : str
        ``FOLDER/NAME`` of a picture that was brought along, in the cache of uploads. Its folder is a hash that only
        those know who have the picture, or were given the link.
    box : tuple of int, optional
        The part of the picture to search.
    foreground : bool
        Whether its object counts more than what is behind it.
    weight : float
        How much the picture counts beside the words.
    kind : float, optional
        How much neighbours count.
    n, shown : int, optional
        Results of one page, and of all pages that are shown.
    engine : str
    nprobe : int, optional
    rerank : bool, optional
    labels : tuple of str
    cutoff : str
        As it is typed.
    sort : str
    fold : bool
        Whether what is nearly the same waits behind the best of it.
    view : int, optional
        Id of the picture that is enlarged.
    """

    collection: str = ""
    words: str = ""
    picture: str = ""
    upload: str = ""
    box: Box | None = None
    foreground: bool = False
    weight: float = 1.0
    kind: float | None = None
    n: int | None = None
    shown: int | None = None
    engine: str = ""
    nprobe: int | None = None
    rerank: bool | None = None
    labels: tuple[str, ...] = ()
    cutoff: str = ""
    sort: str = ""
    fold: bool = False
    view: int | None = None

    @property
    def asks(self) -> bool:
        """Whether there is anything to search."""
        return bool(self.words or self.picture or self.upload)

    @classmethod
    def of(cls, result: Result, sort: str, *, fold: bool = False) -> PageAddress:
        """Of a search that was made; what is as usual is left out."""
        asked, request, engine = result.asked, result.request, result.engine
        own = asked.picture
        return cls(
            collection=engine.name,
            words=asked.words,
            picture="" if own is None else own.source,
            upload="" if own is None else own.upload,
            box=None if own is None else own.box,
            foreground=own is not None and own.foreground,
            weight=1.0 if own is None else asked.weight,
            kind=None if request.neighbourhood == NEIGHBOURHOOD else request.neighbourhood,
            n=None if request.page == RESULTS else request.page,
            shown=None if request.k == request.page else request.k,
            engine="" if request.engine == engine.engines[0] else request.engine,
            nprobe=None if request.nprobe in (None, min(engine.nprobe, engine.nlist or 1)) else request.nprobe,
            rerank=None if request.rerank or request.engine == "exact" else False,
            labels=tuple(printable(label) for label in request.labels),
            cutoff="" if request.cutoff is None else f"{request.cutoff:g}",
            sort="" if sort == SORT else sort,
            fold=fold,
        )

    def written(self) -> str:
        """The query of the URL, without its question mark."""
        said = {
            "in": self.collection,
            "q": self.words,
            "picture": self.picture,
            "upload": self.upload,
            "box": "" if self.box is None else ",".join(map(str, self.box)),
            "foreground": int(self.foreground) or "",
            "weight": "" if self.weight == 1 else f"{self.weight:g}",
            "kind": "" if self.kind is None else f"{self.kind:g}",
            "n": self.n,
            "shown": self.shown,
            "index": self.engine,
            "nprobe": self.nprobe,
            "rerank": "" if self.rerank is None else int(self.rerank),
            "label": list(self.labels),
            "least": self.cutoff,
            "sort": self.sort,
            "fold": int(self.fold) or "",
            "view": self.view,
        }
        return urlencode({name: value for name, value in said.items() if value not in ("", None)}, doseq=True)

    @classmethod
    def read(cls, query: object) -> PageAddress:
        """What the query of a URL says."""
        text = query.removeprefix("?") if isinstance(query, str) else ""
        try:
            values = parse_qs(text[: 16 * MAX_TEXT], max_num_fields=1000)
        except ValueError:  # too many fields
            values = {}
        said = {name: values[name][-1] for name in NAMES if name in values}
        rerank = {"0": False, "1": True}.get(said.get("rerank", ""))
        return cls(
            collection=said.get("in", ""),
            words=said.get("q", "")[:MAX_TEXT].strip(),
            picture=said.get("picture", ""),
            upload=said.get("upload", ""),
            box=_box(said.get("box", "")),
            foreground=said.get("foreground") == "1",
            weight=1.0 if (weight := _number(said.get("weight"), -MAX_WEIGHT, MAX_WEIGHT)) is None else weight,
            kind=_number(said.get("kind"), 0, 1),
            n=_whole(said.get("n")),
            shown=_whole(said.get("shown")),
            engine=said.get("index", ""),
            nprobe=_whole(said.get("nprobe")),
            rerank=rerank,
            labels=tuple(values.get("label", ()))[:MAX_LABELS],
            cutoff="" if _number(said.get("least"), -math.inf, math.inf) is None else said["least"].strip(),
            sort=said.get("sort", ""),
            fold=said.get("fold") == "1",
            view=_whole(said.get("view")),
        )

    def open_picture(self, library: Library, uploads: Path) -> QueryPicture | None:
        """The picture that it names, with its box; None where it names none.

        Raises
        ------
        gradio.Error
            It is no longer there; the message says so.
        """
        if self.upload:
            picture = brought_along(self.upload, uploads)
        elif self.picture:
            picture = _of_collection(self.picture, library)
        else:
            return None
        return replace(picture.with_box(self.box), foreground=self.foreground)


def _of_collection(source: str, library: Library) -> QueryPicture:
    name, number, sha256 = (*source.split("/"), "", "")[:3]
    engine = library.get(name)
    image_id = int(number) if re.fullmatch("[0-9]{1,18}", number) else -1
    if engine is not None:
        try:
            # A collection that was made anew counts its pictures anew: then it is known by its content.
            is_same = is_image(engine, image_id) and sha256 in ("", engine.store.hash_of(image_id))
            ids = [image_id] if is_same else engine.store.find_copies(sha256)
        except StoreError as error:
            raise sorry(str(error)) from error
        if ids:
            return QueryPicture.of(engine, ids[0])
    raise sorry("The picture of this address is no longer in its collection. Choose another.")


def brought_along(upload: str, uploads: Path) -> QueryPicture:
    """A picture that a visitor brought along, named as `PageAddress.upload` is.

    Raises
    ------
    gradio.Error
        It is no longer there; the message says so.
    """
    folder, _, name = upload.partition("/")
    is_name = _FOLDER.fullmatch(folder) and name and "\0" not in name and Path(name).name == name
    path = uploads.resolve() / folder / name if is_name else None
    if path is None or not path.is_file() or path.resolve() != path:
        raise sorry(
            "The picture of this address is no longer on the server, where pictures that visitors bring along are kept "
            "for a day. Choose it again."
        )
    return QueryPicture.open(path, name)


def _box(text: str) -> Box | None:
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9}){3}", text):
        return None
    x0, y0, x1, y1 = map(int, text.split(","))
    return x0, y0, x1, y1


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,18}", text) else None


def _number(text: str | None, low: float, high: float) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if low <= number <= high else None
