"""The Manage tab in a real Chromium: a folder is dropped, becomes a collection and is opened; fields come and go."""

from __future__ import annotations

import csv
import shutil

import pytest
from test_browser import browser, open_page, served, toast, usual_context  # noqa: F401
from waiting import until

from features.collection import edits
from search.engine import SearchEngine

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def server(demo_collection, tmp_path_factory):
    folder = tmp_path_factory.mktemp("managed") / "demo"
    shutil.copytree(demo_collection, folder)
    engine = SearchEngine.open(folder)
    with served(engine, manage=folder.parent) as page:
        yield page.start_link, engine, page.local_url


def drop(page, selector, *paths):
    """Let go of files and folders of the disk over an element, as a hand does."""
    box = page.locator(selector).bounding_box()
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


def test_a_dropped_folder_becomes_a_collection_and_is_opened(open_page, server, picture_folder, tmp_path):  # noqa: F811
    folder = tmp_path / "Holidays <b>"
    shutil.copytree(picture_folder, folder)
    (folder / "notes.txt").write_text("hello")
    page = open_page()
    page.get_by_role("tab", name="Manage").click()
    typed, options = page.locator("#ris-new-folder input"), page.locator("#ris-folders option")

    def suggested():  # the tab's script comes a moment after its fields
        typed.fill(f"{tmp_path}/ho")
        typed.fill(f"{tmp_path}/hol")
        page.wait_for_timeout(300)
        return options.evaluate_all("all => all.map(one => one.value)")

    assert until(suggested, "a suggestion") == [f"{folder}/"]

    drop(page, "#ris-new", folder)
    page.wait_for_function("document.querySelector('.ris-send [role=status]').textContent.includes('ready')")
    said = page.locator(".ris-send [role=status]")
    assert said.inner_text().startswith("13 files (")
    assert "1 other cannot be read here" in said.inner_text()
    assert page.locator("#ris-new-source input[value=sent]").is_checked()
    name = page.get_by_role("textbox", name="Name", exact=True)
    name.fill("demo")
    page.click("#ris-create")
    assert "There is a collection demo already" in toast(page)
    assert "13 files" in said.inner_text()

    name.fill("holidays")
    page.locator("#ris-new-how > button").click()
    page.get_by_label("Exact: compares with every picture").check()
    page.locator("#ris-new-index").wait_for(state="hidden")
    page.get_by_label("Also the index of faiss").uncheck()
    page.click("#ris-create")
    page.wait_for_selector(".ris-job[data-state=done]")
    kinds = page.locator("#ris-job .ris-kind > summary").all_inner_texts()
    assert kinds == ["12 added", "10 duplicates", "1 unreadable", "1 left out"]
    engine = SearchEngine.open(server[1].folder.with_name("holidays"))
    assert (engine.engines, engine.labels) == (("ivfpq", "exact"), {"cold": 6, "warm": 6})
    assert engine.store.manifest["indexes"]["ivfpq"]["asked"] == "Flat"
    with page.expect_download() as download:
        page.get_by_role("link", name="All files of this report").click()
    with download.value.path().open(encoding="utf-8", newline="") as table:
        assert len(list(csv.reader(table))) == 1 + 12 + 10 + 1 + 1

    # It is the collection that is open, and the form is ready for the next.
    page.wait_for_function("document.querySelector('#ris-collection input').value.startsWith('holidays')")
    page.wait_for_function("document.querySelector('#ris-new-name input').value === ''")
    assert said.inner_text().startswith("Names of folders become labels.")
    page.get_by_role("button", name="Browse holidays").click()
    page.wait_for_selector("#ris-gallery .ris-tile[data-collection=holidays]")
    assert page.locator("#ris-gallery .ris-tile").count() == 12


def test_fields_are_made_and_dropped_and_what_is_said_is_reset_by_name(open_page, server):  # noqa: F811
    said = server[1].store.annotations
    first = int(server[1].store.ids[0])
    page = open_page()
    page.get_by_role("tab", name="Manage").click()
    item = page.locator(".ris-shelf-item[data-name=demo]")
    stored, name = item.locator(".ris-stored"), item.get_by_label("Name of a new field")

    def is_open():  # a tab that is shown for the first time may be drawn anew a moment later
        if not stored.evaluate("one => one.open"):
            stored.locator("summary").click()
        return name.is_visible()

    until(is_open, "the fields")
    name.fill("Rating")
    page.locator(".ris-shelf").evaluate("shelf => { shelf.outerHTML = shelf.outerHTML; }")  # as after any job
    assert until(name.is_visible, "the fields again")
    assert name.input_value() == "Rating"
    item.get_by_label("What it holds").select_option("number")
    item.get_by_role("button", name="Make the field").press("Enter")
    item.get_by_text("number · no values yet").wait_for()
    edits.set_field(said, [first], "rating", 4)
    item.locator(".ris-stored summary").click()
    item.locator(".ris-stored summary").click()
    item.get_by_text("number · 1 picture").wait_for()

    dialog = page.locator("dialog.ris-confirm")
    item.get_by_role("button", name="Reset what is said…").click()
    assert dialog.locator(".ris-danger").is_disabled()
    dialog.locator("input").fill("demo")
    dialog.locator(".ris-danger").click()
    item.get_by_text("number · no values yet").wait_for()
    assert said.of([first]) == {}
    item.get_by_role("button", name="Undo: all that was said reset").click()
    item.get_by_text("number · 1 picture").wait_for()

    item.get_by_role("button", name="Drop the field rating").click()
    assert "Its values go with it, of 1 picture." in dialog.inner_text()
    dialog.get_by_text("Keep it").click()
    assert said.fields() == {"rating": "number"}
    item.get_by_role("button", name="Drop the field rating").click()
    dialog.locator(".ris-danger").click()
    item.get_by_role("button", name="Undo: field rating dropped").wait_for()
    assert said.fields() == {}
