"""A grid of pictures of a collection: search results, a page of the gallery, the examples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

import gradio as gr

from gradio_app.page import STATIC
from gradio_app.routes.pictures import picture_url
from search.engine import SearchEngine
from search.hits import Hit

_SCRIPT = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("ask.js", "grid.js"))

_USE = (
    '<svg viewBox="0 0 20 20" aria-hidden="true"><circle cx="8.5" cy="8.5" r="5"/><path d="m12.5 12.5 4.5 4.5"/></svg>'
)
_INSIDE = '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M6 2v12h12M2 6h12v12"/></svg>'
_WHY = '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M7 7.5a3 3 0 1 1 3 3v2m0 3v.1"/></svg>'
_DOWNLOAD = '<svg viewBox="0 0 20 20" aria-hidden="true"><path d="M10 3v9m-4-3.5 4 4 4-4M4 16.5h12"/></svg>'


@dataclass(frozen=True)
class Tile:
    """A picture in a grid: which, and for a result its rank, its score in words and the score's share of the best."""

    id: int
    rank: int | None = None
    score: str = ""
    share: float | None = None


def picture_grid(**kwargs: object) -> gr.HTML:
    """The component.

    It triggers `pick` and `inside` (``{collection, id}``), where there is a pager `turn` (``{page}``), and where there
    are recent queries `recall` (``{token}``).
    """
    # "${value}": see crop.crop_overlay. All that comes from outside is escaped in `render_tiles`.
    return gr.HTML(html_template="${value}", js_on_load=_SCRIPT, apply_default_css=False, **kwargs)  # type: ignore[arg-type]


def result_tiles(hits: Iterable[Hit]) -> list[Tile]:
    """Tiles of search results."""
    return [
        Tile(hit.id, hit.rank, f"{hit.similarity:.3f}", min(max(hit.similarity, 0.0), 1.0))
        if hit.similarity is not None
        else Tile(hit.id, hit.rank, f"{hit.score:.4g}")
        for hit in hits
    ]


def render_tiles(engine: SearchEngine, tiles: Iterable[Tile], *, kind: str) -> str:
    """HTML of a grid.

    Parameters
    ----------
    kind : str
        "results", "gallery" or "examples"; the style sheet shows examples as a strip of small pictures.
    """
    return f'<div class="ris-grid ris-{kind}">{"".join(_tile(engine, tile, kind) for tile in tiles)}</div>'


def _tile(engine: SearchEngine, tile: Tile, kind: str) -> str:
    item = engine.store.items[tile.id]
    name, label = escape(item.path.name), escape(", ".join(item.labels))
    thumb = escape(picture_url(engine, tile.id, "thumb"))
    place = f'data-collection="{escape(engine.name)}" data-id="{tile.id}"'
    if kind == "examples":
        return (
            f'<span class="ris-tile" {place}><button type="button" class="ris-use" data-act="pick"'
            f' title="{label or name}" aria-label="Use the example {label} {name}">'
            f'<img src="{thumb}" alt=""></button></span>'
        )
    original = escape(picture_url(engine, tile.id, "original"))
    measure = "similarity" if tile.share is not None else "distance"
    title = " · ".join(
        part
        for part in (f"#{tile.rank}" if tile.rank else "", label, name, f"{measure} {tile.score}" if tile.score else "")
        if part
    )
    rank = f'<span class="ris-rank">{tile.rank}</span>' if tile.rank else ""
    score = f'<span class="ris-score" title="{measure}">{tile.score}</span>' if tile.score else ""
    why = (
        f'<button type="button" data-act="explain" title="Why it was found" aria-label="Explain {name}">{_WHY}</button>'
        if kind == "results"
        else ""
    )
    bar = "" if tile.share is None else f'<span class="ris-share"><i style="width:{100 * tile.share:.1f}%"></i></span>'
    return (
        f'<figure class="ris-tile" {place} data-view="{escape(picture_url(engine, tile.id, "view"))}"'
        f' data-original="{original}" data-title="{title}">'
        f'<div class="ris-picture"><button type="button" class="ris-open" aria-label="Enlarge {name}">'
        f'<img src="{thumb}" alt="{label or name}" loading="lazy" decoding="async"></button>'
        f'{rank}<div class="ris-actions"><button type="button" class="ris-use" data-act="pick"'
        f' title="Search with this" aria-label="Search with {name}">{_USE}</button>'
        f'<button type="button" data-act="inside" title="Search inside this: a part of it"'
        f' aria-label="Search inside {name}">{_INSIDE}</button>{why}'
        f'<a href="{original}" download title="Download the original" aria-label="Download {name}">{_DOWNLOAD}</a>'
        f"</div></div>"
        f'{bar}<figcaption><span class="ris-label">{label or name}</span>{score}'
        f'<span class="ris-file" title="{name}">{name if label else ""}</span></figcaption></figure>'
    )


def render_pager(page: int, pages: int) -> str:
    """HTML of the links to the pages before and after, and a field to go to any."""
    if pages < 2:
        return ""

    def link(to: int, text: str, name: str) -> str:
        disabled = "" if 1 <= to <= pages else " disabled"
        return f'<button type="button" data-page="{to}" aria-label="{name}"{disabled}>{text}</button>'

    return (
        f'<nav class="ris-pager" aria-label="Pages">{link(page - 1, "‹ Previous", "Previous page")}'
        f'<label>Page <input class="ris-page" type="number" min="1" max="{pages}" value="{page}"> of {pages}</label>'
        f"{link(page + 1, 'Next ›', 'Next page')}</nav>"
    )
