"""A grid of pictures of a collection: search results, a page of the gallery, the examples."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from gradio_app.markup import render, script
from gradio_app.routes.pictures import content_of, picture_url
from search.engine import SearchEngine
from search.hits import Hit

HUES = 6  # colours by which the parts of a query are told apart; the style sheet has them


@dataclass(frozen=True)
class Tile:
    """A picture in a grid: which, and for a result its rank, its score in words and the score's share of the best.

    Of a query of several parts `shares` has the name, the place and the share of each that speaks for the picture.
    `checked` is a hit that is judged to be meant. `measure` is what the score is, of a picture that is no result.
    `folds` is how many that are nearly the same follow, which are `is_folded`.
    """

    id: int
    rank: int | None = None
    score: str = ""
    share: float | None = None
    shares: tuple[tuple[str, int, float], ...] = ()
    checked: bool = False
    measure: str = ""
    folds: int = 0
    is_folded: bool = False


def picture_grid(*scripts: str, **kwargs: object) -> gr.HTML:
    """The component, with further scripts of its own.

    It triggers `pick` and `inside` (``{collection, id}``), and where there are recent queries `recall`
    (``{token}``).
    """
    # "${value}": see crop.crop_overlay. All that comes from outside is escaped in `render_tiles`.
    code = script("ask.js", "said.js", "grid.js", *scripts)
    return gr.HTML(html_template="${value}", js_on_load=code, apply_default_css=False, **kwargs)  # type: ignore[arg-type]


def result_tiles(hits: Iterable[Hit], parts: Sequence[str] = (), checked: Collection[int] = ()) -> list[Tile]:
    """Tiles of search results.

    Parameters
    ----------
    parts : sequence of str
        What the parts of the query are called, where it has several or is made of words.
    checked : collection of int
        Ids of those that are judged to be meant.
    """
    found = list(hits)
    most = max((sum(max(share, 0.0) for share in hit.shares) for hit in found), default=0.0)
    tiles = [_result_tile(hit, parts, most) for hit in found]
    return [replace(tile, checked=tile.id in checked) for tile in tiles]


def _result_tile(hit: Hit, parts: Sequence[str], most: float) -> Tile:
    similarity = hit.similarity
    if hit.shares:
        speaking = tuple(
            (name, place, share / most)
            for place, (name, share) in enumerate(zip(parts, hit.shares, strict=True))
            if share > 0
        )
        return Tile(hit.id, hit.rank, "" if similarity is None else f"{similarity:.3f}", None, speaking)
    if parts or (similarity is None and hit.distance is None):
        return Tile(hit.id, hit.rank)
    if similarity is None:
        return Tile(hit.id, hit.rank, f"{hit.score:.4g}")
    return Tile(hit.id, hit.rank, f"{similarity:.3f}", min(max(similarity, 0.0), 1.0))


def render_tiles(engine: SearchEngine, tiles: Iterable[Tile], *, kind: str) -> str:
    """HTML of a grid.

    Parameters
    ----------
    kind : str
        "results", "gallery", "leaf" (selectable), "suggested" or "examples"; the style sheet shows examples as a strip
        of small pictures.
    """
    template = "examples.html" if kind == "examples" else "grid.html"
    return render(template, kind=kind, collection=engine.name, tiles=[tile_values(engine, tile) for tile in tiles])


def tile_values(engine: SearchEngine, tile: Tile) -> dict[str, Any]:
    """What a template needs of a tile."""
    item = engine.store.items[tile.id]
    name, label = item.path.name, ", ".join(item.labels)
    measure = "similarity" if tile.share is not None else "distance"
    measure = tile.measure or ("similarity to the picture" if tile.shares else measure)
    total = sum(share for _, _, share in tile.shares)
    portions = [f"{part} {share / total:.0%}" for part, _, share in tile.shares]
    told = (f"#{tile.rank}" if tile.rank else "", label, name, f"{measure} {tile.score}" if tile.score else "")
    return {
        "id": tile.id,
        "content": content_of(engine, tile.id),
        "rank": tile.rank,
        "score": tile.score,
        "checked": tile.checked,
        "folds": tile.folds,
        "is_folded": tile.is_folded,
        "share": tile.share,
        "shares": [(place % HUES, share) for _, place, share in tile.shares],
        "portions": ", ".join(portions),
        "name": name,
        "label": label,
        "measure": measure,
        "title": " · ".join(filter(None, (*told, *portions))),
        **{size: picture_url(engine, tile.id, size) for size in ("thumb", "view", "original")},
    }
