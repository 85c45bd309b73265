"""The registry of tabs: a made-up tab is one call, and nothing else is edited for it."""

import gradio as gr
import httpx
import pytest
from fakes import reds

from gradio_app import tabs
from gradio_app.app import build_app
from gradio_app.grid import Tile, picture_grid, render_tiles
from gradio_app.tabs import Tab, register_tab
from gradio_app.tabs.controls import UNQUEUED, engine_of


@pytest.fixture
def engine(tmp_path):
    return reds(tmp_path)


@pytest.fixture
def made_up(monkeypatch):
    """A tab that counts pictures and shows one, which can be searched with as in any other tab."""
    monkeypatch.setattr(tabs, "_TABS", dict(tabs._TABS))

    def build(parts, tab):
        said = gr.HTML("", elem_id="made-up-said")
        first = parts.library.first()
        grid = picture_grid(value=render_tiles(first, [Tile(2)], kind="gallery"), elem_id="made-up-grid")
        parts.grids.append(grid)

        def count(name):
            return f"{len(engine_of(parts.library, name).store.ids)} pictures"

        tab.select(count, parts.collection, said, **UNQUEUED)

    register_tab(Tab("made-up", "Made up", build))


def events(page):
    return {
        (page.blocks[target].elem_id or target, event): number
        for number, fn in page.fns.items()
        for target, event in fn.targets
        if fn.fn is not None and target is not None
    }


def test_a_made_up_tab_is_in_the_page_and_works(engine, made_up):
    page = build_app([engine])
    shown = [block for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert [tab.label for tab in shown][-1] == "Made up"
    known = events(page)
    page.launch(prevent_thread_lock=True, quiet=True)
    try:
        with httpx.Client(base_url=page.local_url, trust_env=False, timeout=120) as client:

            def send(number, data, **extra):
                body = {"fn_index": number, "data": data, "session_hash": "s", **extra}
                reply = client.post("/gradio_api/run/predict", json=body)
                assert reply.status_code == 200, reply.text
                return reply.json()["data"]

            assert send(known[shown[-1]._id, "select"], ["reds"]) == ["3 pictures"]
            picture, _ = send(known["made-up-grid", "pick"], [None], event_data={"collection": "reds", "id": 2})
            assert "2.png" in picture
    finally:
        page.close()


def test_a_tab_may_be_for_some_pages_only(engine, made_up, tmp_path):
    register_tab(Tab("never", "Never", lambda parts, tab: None, is_offered=lambda parts: False))

    def titles(page):
        return [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]

    own = ["Search", "Browse the collection", "Map", "Duplicates", "Learned tags", "Compare", "Explain", "Evaluate"]
    assert titles(build_app([engine])) == [*own, "Made up"]
    assert titles(build_app([engine], manage=tmp_path)) == [*own, "Manage", "Made up"]
