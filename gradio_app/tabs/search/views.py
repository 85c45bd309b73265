"""What the Search tab shows, as HTML, and which controls fit a collection."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from features.collection.learned_tags import LearnedTag
from features.collection.said import MAX_TAG
from features.encoders import EncoderError
from gradio_app import browse_address
from gradio_app.browse_address import BrowseAddress
from gradio_app.crop import render as render_crop
from gradio_app.gradio_seam import MAX_TEXT
from gradio_app.grid import HUES, Tile, render_tiles, result_tiles
from gradio_app.markup import printable, render
from gradio_app.page_address import NAMES, SORT, PageAddress
from gradio_app.routes.pictures import folder_of, picture_url
from gradio_app.session import Asked, QueryPicture, Result, Session
from gradio_app.tabs.controls import engine_name
from gradio_app.typed import Term, asked_in, judgements_of, learned_tag_term, notes_of, parse, parts_of, terms_of
from search.engine import SearchEngine
from search.filters import Filter
from search.folding import behind
from search.hits import Hit, PartAnswer
from search.query import FeedbackPart, ImagePart, Query

MAX_RESULTS = 50  # a page
MAX_SHOWN = 500  # all pages together
EXAMPLES = 12
MAX_COPIES = 10  # of the query itself, that are named
MAX_WEIGHT = 2  # that a slider gives by itself
SORTS = [  # the first is the usual one
    ("Best first", "score"),
    ("By file name", "name"),
    ("By date, newest first", "date"),
    ("By size, largest first", "size"),
    ("By label", "label"),
    ("Grouped by label", "group"),
]


def picture(query: QueryPicture | None, *, then: str = "", weight: float = 1.0) -> str:
    """The picture to search, with its box."""
    if query is None:
        return ""
    size = (query.width, query.height)
    try:
        veil = query.veil() if query.foreground else ""
    except EncoderError:  # who searches is told why
        veil = ""
    return render_crop(
        query.token,
        query.preview(),
        query.name,
        *size,
        query.box,
        then=then,
        weight=weight,
        foreground=query.foreground,
        veil=veil,
    )


def words_field() -> str:
    return render("search/words.html", longest=MAX_TEXT, names=" ".join(NAMES), others=" ".join(browse_address.NAMES))


def last_searched(asked: Asked | None, *, was_searched: bool = True) -> str:
    """What was searched last, or what was put in its place and was not searched."""
    title = "Last searched" if was_searched else "Set aside, not searched"
    return render("search/last.html", asked=asked, part=part_of(asked), title=title)


def part_of(asked: Asked | None) -> str:
    """Which part of a picture is searched, in words; "" where there is no picture."""
    picture = None if asked is None else asked.picture
    if picture is None:
        return ""
    if picture.box is None:
        return "its object" if picture.foreground else "whole picture"
    x0, y0, x1, y1 = picture.box
    return f"{'the object in ' if picture.foreground else ''}{x1 - x0} × {y1 - y0} px of it"


def recent(session: Session) -> str:
    """A strip of what was searched before, newest first; nothing as long as there is only one."""
    if len(session.recent) < 2:
        return ""
    queries = [(asked, ", ".join(filter(None, (asked.words, part_of(asked))))) for asked in session.recent]
    return render("search/recent.html", queries=queries)


def about_words(why_not: str = "") -> str:
    """What stands under the field for words: what they may be, or why there are none here."""
    return render("search/about_words.html", why_not=why_not)


class KeptTag(NamedTuple):
    """A learned tag that was just kept: its name, how it is asked for, and what is told of it."""

    tag: str
    written: str
    note: str


def reading(
    asked: Asked,
    engine: SearchEngine,
    answers: Sequence[PartAnswer] = (),
    *,
    fill: bool = False,
    may_keep: bool = False,
    kept: KeptTag | None = None,
) -> str:
    """How a query was understood: its parts, with weights where there are several, and what is left out.

    Parameters
    ----------
    answers : sequence of PartAnswer
        What the collection said of the parts, the picture last.
    fill : bool
        Have the words put into the field.
    may_keep : bool
        Whether this visitor may keep what was learnt from checks and crosses.
    kept : KeptTag, optional
        What of it was just kept.
    """
    query = parse(asked.words)
    terms = terms_of(query, engine)
    if asked.picture is not None:
        own = Term(asked.picture.name, "", "", asked.weight, place=len(query.parts))
        terms.insert(sum(term.place is not None for term in terms), own)
    several = len({term.place for term in terms if term.place is not None and not term.verdict}) > 1
    chips = [
        {
            "term": term,
            "is_part": term.place is not None,
            "is_picture": asked.picture is not None and term.place == len(query.parts),
            "is_weighed": several and term.place is not None and not term.verdict,
            "unanswered": answers[term.place].unanswered
            if term.place is not None and term.place < len(answers)
            else "",
            "asked_in": asked_in(answers[term.place]) if term.place is not None and term.place < len(answers) else "",
            "hue": (term.place or 0) % HUES,
        }
        for term in terms
    ]
    return render(
        "search/reading.html",
        token=asked.token if fill else "",
        words=asked.words,
        weight=asked.weight,
        chips=chips,
        limit=max(MAX_WEIGHT, *(math.ceil(abs(term.weight)) for term in terms), 0),
        terms=json.dumps([term.written for term in terms]),
        faults=query.faults,
        may_keep=may_keep and bool(answers) and query.feedback is not None and bool(query.feedback.more),
        longest_tag=MAX_TAG,
        kept=kept,
    )


def kept_tag(learned: LearnedTag, *, replaced: bool) -> KeptTag:
    """What is told of a learned tag that was just kept."""
    examples = len(learned.more) + len(learned.less)
    how = f"learnt from {examples} {'picture' if examples == 1 else 'pictures'}"
    note = f"Kept as the learned tag “{learned.tag}”, {how}{', in place of what it meant before' if replaced else ''}:"
    return KeptTag(learned.tag, learned_tag_term(learned.tag), note)


def hint() -> str:
    return render("search/hint.html")


def not_found(sentence: str) -> str:
    """Why what an address asks for cannot be shown, where the results would be counted."""
    return render("search/not_found.html", sentence=sentence)


def enlarged(engine: SearchEngine, image_id: int) -> str:
    """The picture that an address has enlarged, for the viewer to begin with."""
    return render_tiles(engine, [Tile(image_id)], kind="gallery")


def results(result: Result, order: str, *, fold: bool = False) -> str:
    """What was found, in an order or in groups.

    Parameters
    ----------
    fold : bool
        Let what is nearly the same as a better hit wait behind it.
    """
    judged = parse(result.asked.words).feedback if result.asked.words else None
    checked = judged.more if judged is not None else ()
    found = result.hits.hits
    places = behind(result.engine.space().space.rows(np.array([hit.id for hit in found]))) if fold and found else None
    tile_of = {tile.id: tile for tile in result_tiles(found, parts_of(result), checked)}
    groups = []
    for title, hits in in_order(result, found, order):
        tiles = [tile_of[hit.id] for hit in hits]
        groups.append((title, tiles if places is None else _folded(tiles, found, places)))
    more = min(result.request.page, MAX_SHOWN - result.request.k) if result.more else 0
    return render(
        "search/results.html",
        groups=[(title, Markup(render_tiles(result.engine, tiles, kind="results"))) for title, tiles in groups],
        more=more,
        is_endless=order == SORT,  # in any other order what comes next would stand anywhere
        address=PageAddress.of(result, order, fold=fold).written(),
        said=title_of(result),
    )


def in_order(result: Result, found: Sequence[Hit], order: str) -> list[tuple[str, list[Hit]]]:
    """Hits in one of `SORTS`: groups with their titles, or one without a title."""
    if order == "group":
        groups: dict[str, list[Hit]] = {}
        for hit in found:
            groups.setdefault(", ".join(map(printable, hit.labels)) or "without a label", []).append(hit)
        return [(f"{label} · {len(hits)}", hits) for label, hits in groups.items()]
    if order == "name":
        return [("", sorted(found, key=lambda hit: (hit.path.name, hit.rank)))]
    if order == "label":
        return [
            ("", sorted(found, key=lambda hit: (not hit.labels, [each.casefold() for each in hit.labels], hit.rank)))
        ]
    if order in ("date", "size"):
        records = result.engine.store.records([hit.id for hit in found])
        of = {record.id: record.mtime if order == "date" else record.size for record in records}
        return [("", sorted(found, key=lambda hit: (-of[hit.id], hit.rank)))]
    return [("", list(found))]


def _folded(tiles: list[Tile], found: Sequence[Hit], places: NDArray[np.int64]) -> list[Tile]:
    """The same tiles, with what is nearly the same as another behind it."""
    leader_of = {hit.id: found[place].id for hit, place in zip(found, places.tolist(), strict=True)}
    here = {tile.id for tile in tiles}
    waiting: dict[int, list[Tile]] = {}
    for tile in tiles:
        if leader_of[tile.id] != tile.id and leader_of[tile.id] in here:
            waiting.setdefault(leader_of[tile.id], []).append(replace(tile, is_folded=True))
    hidden = {tile.id for each in waiting.values() for tile in each}
    shown = [tile for tile in tiles if tile.id not in hidden]
    return [
        each
        for tile in shown
        for each in (replace(tile, folds=len(waiting.get(tile.id, []))), *waiting.get(tile.id, []))
    ]


class OwnPicture(NamedTuple):
    """A picture of the collection that is the query itself: where it lies, in words and as an address to browse it."""

    name: str
    folder: str
    thumb: str
    original: str
    browse: str


def own_pictures(result: Result) -> list[OwnPicture]:
    """The query itself and its copies to the byte, where the collection holds them."""
    engine, own = result.engine, result.hits.own_id
    if own is None:
        return []
    copies = engine.store.find_copies(engine.store.hash_of(own) or "")
    root = folder_of(engine).root
    told = []
    for id in [own, *(each for each in copies if each != own)][:MAX_COPIES]:
        path = engine.store.items[id].path
        folder = path.parent.relative_to(root).as_posix() if path.is_relative_to(root) else path.parent.name
        browse = BrowseAddress(filter=Filter.of({"folder": folder})).written()
        told.append(
            OwnPicture(
                printable(path.name),
                "" if folder == "." else printable(folder),
                picture_url(engine, id, "thumb"),
                picture_url(engine, id, "original"),
                f"?{urlencode({'in': engine.name})}&{browse}",
            )
        )
    return told


def title_of(result: Result) -> str:
    """What was searched, in a line."""
    asked, labels = result.asked, result.request.labels
    picture = ""
    if asked.picture is not None:
        piece = "a part" if asked.picture.box else ""
        meant = " of ".join(filter(None, ("the object" if asked.picture.foreground else "", piece)))
        picture = f"{asked.picture.name} ({meant})" if meant else asked.picture.name
    only = f"only {', '.join(labels)}" if labels else ""
    return f"{' · '.join(filter(None, (asked.words, picture, only)))} in {result.engine.name}"


def status(result: Result) -> str:
    engine, hits, request = result.engine, result.hits, result.request
    query = parse(result.asked.words) if result.asked.words else Query()
    pictures = sum(isinstance(part, ImagePart) for part in query.parts) + (result.asked.picture is not None)
    is_worded = any(not isinstance(part, ImagePart | FeedbackPart) for part in query.parts)
    by = ["words"] if is_worded or query.filter.where is not None else []
    by += ["picture" if pictures == 1 else f"{pictures} pictures"] if pictures else []
    by += [judgements] if (judgements := judgements_of(query)) else []
    how = engine_name(engine, request.engine)
    if request.nprobe is not None:
        how += f", {request.nprobe} of {engine.nlist} lists visited"
    if result.asked.words:
        how = f"by {' and '.join(by)}"
    if hits.expansion is not None:
        how += ", ordered with neighbours"
    times = [f"encode {_milliseconds(hits.encode_ms)}", f"search {_milliseconds(hits.search_ms)}"]
    if request.rerank and not result.asked.words:
        times.append(f"re-rank {_milliseconds(hits.rerank_ms)}")
    filter = query.filter
    return render(
        "search/status.html",
        count=len(hits),
        measure="best" if result.asked.words else "nearest",
        of=filter.count(engine.store) if filter.where is not None else len(engine.store.ids),
        only=str(filter).removeprefix("pictures") if filter.where is not None else "",
        notes=notes_of(result),
        name=engine.name,
        hint=not hits and (request.labels or request.cutoff is not None),
        own=own_pictures(result),
        weak=hits.is_weak,
        how=how,
        times=times,
    )


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def examples(engine: SearchEngine | None) -> str:
    """A few pictures from all over the collection."""
    if engine is None:
        return ""
    ids = engine.store.ids
    picks = ids[np.unique(np.linspace(0, len(ids), EXAMPLES, endpoint=False).astype(int))] if len(ids) else ids
    return render_tiles(engine, [Tile(int(i)) for i in picks], kind="examples")


def nprobe_options(engine: SearchEngine | None) -> dict[str, Any]:
    nlist = engine.nlist if engine else None
    return {
        "minimum": 1,
        "maximum": max(nlist or 0, 2),  # Gradio wants more than the minimum, even of a slider nobody sees
        "value": min(engine.nprobe, nlist or 1) if engine else 1,
        "label": f"Lists to visit, of {nlist} (nprobe)",
        "info": "More find more, and take longer",
        "visible": engine is not None and (nlist or 1) > 1 and engine.engines[0] != "exact",
    }


def rerank_options(engine: SearchEngine | None) -> dict[str, Any]:
    return {"visible": engine is not None and engine.engines[0] != "exact"}


def neighbourhood_options(engine: SearchEngine | None) -> dict[str, Any]:
    return {"visible": engine is not None and engine.neighbour_order is not None}


def cutoff_options(engine: SearchEngine | None) -> dict[str, Any]:
    measure = "Distance of at most" if engine and engine.metric == "l2" else "Similarity of at least"
    return {"value": "", "label": measure, "placeholder": "any"}


def label_options(engine: SearchEngine | None) -> dict[str, Any]:
    known = engine.labels if engine else {}
    return {
        "choices": [(f"{printable(label)} ({count})", printable(label)) for label, count in known.items()],
        "value": [],
        "visible": len(known) > 1,
    }


def labels_chosen(engine: SearchEngine, chosen: list[str] | None) -> tuple[str, ...]:
    """The collection's own labels for the printable ones that the page sent."""
    own: Mapping[str, str] = {printable(label): label for label in engine.labels}
    return tuple(own.get(label, label) for label in chosen or ())
