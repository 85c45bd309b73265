"""The address of the page: what is written into it is read from it, and opened by a stranger it shows the same."""

import html
import re
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from meanings import paint_colours
from PIL import Image
from test_extract import FakeEncoder

from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.extract import extract
from gradio_app.browse_address import BrowseAddress
from gradio_app.library import Library
from gradio_app.page_address import NAMES, PageAddress
from gradio_app.session import RESULTS, Session
from gradio_app.tabs.search.handlers import SearchHandlers
from gradio_app.tabs.search.opening import OpeningHandlers
from search.build import create_index
from search.engine import SearchEngine
from search.folding import ALIKE
from search.options import NEIGHBOURHOOD

SHOWN = ("picture", "reading", "results", "status", "last", "recent", "enlarged")
CONTROLS = ("count", "engine", "nprobe", "rerank", "labels", "cutoff", "sort", "kind", "fold")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Sixty pictures of three labels."""
    folder, patch = tmp_path_factory.mktemp("addresses"), pytest.MonkeyPatch()
    patch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    patch.setattr(registry, "_shared", {})
    register_encoder("fake", lambda name, **options: FakeEncoder())
    paint_colours(folder / "images", count=20, names=("red", "green", "blue"))
    store = extract(ImageFolder(folder / "images"), FakeEncoder(), folder / "shades", progress=False)
    create_index(store, factory="IVF4,SQ8", engines=["ivfpq", "faiss"])
    yield SearchEngine.open(folder / "shades")
    patch.undo()


@pytest.fixture
def uploads(tmp_path):
    return tmp_path / "uploads"


@pytest.fixture
def page(engine, uploads):
    return SearchHandlers(Library([engine]), SimpleNamespace(GRADIO_CACHE=str(uploads)))


def event(**data):
    return gr.EventData(None, data)


def upload(uploads, name="photo.png", folder="ab" * 32):
    path = uploads / folder / name
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((40, 60, 3), (200, 0, 0), np.uint8)).save(path)
    return path


def search(page, session, *, drawn="", sort="score", kind=NEIGHBOURHOOD, **changed):
    usual = {"k": RESULTS, "key": "ivfpq", "nprobe": None, "again": True, "labels": [], "worst": ""}
    return page.search(
        session, drawn, "shades", *{**usual, **changed}.values(), sort, kind, event(words="", weight=1.0)
    )


def address_of(results):
    return html.unescape(re.search(r'<data value="([^"]*)"', results)[1])


def opened(page, address, session=None):
    values = OpeningHandlers(page).restore(session or Session(), "shades", event(address=address))
    return dict(zip((*SHOWN, *CONTROLS), values, strict=True))


def ids(results):
    return [int(id) for id in re.findall(r'data-id="(\d+)"', results)]


labels = st.lists(st.text(min_size=1, max_size=20), max_size=4).map(tuple)
whole = st.none() | st.integers(0, 10**9)
ADDRESSES = st.builds(
    PageAddress,
    collection=st.text(max_size=20),
    words=st.text(max_size=60).map(str.strip),
    picture=st.sampled_from(["", "a collection/7/" + "0f" * 32]),
    upload=st.sampled_from(["", "ab" * 32 + "/Ein Bild & mehr.png"]),
    box=st.none() | st.tuples(*[st.integers(0, 10**6)] * 4),
    foreground=st.booleans(),
    weight=st.floats(-100, 100).map(lambda x: float(f"{x:g}")),
    kind=st.none() | st.integers(0, 20).map(lambda x: x / 20),
    n=whole,
    shown=whole,
    engine=st.sampled_from(["", "faiss", "exact"]),
    nprobe=whole,
    rerank=st.sampled_from([None, False, True]),
    labels=labels,
    cutoff=st.sampled_from(["", "0.5", "-3"]),
    sort=st.sampled_from(["", "name"]),
    fold=st.booleans(),
    view=whole,
)


@given(ADDRESSES)
def test_what_is_written_is_read(address):
    assert PageAddress.read(address.written()) == address
    assert PageAddress.read(f"?{address.written()}&__theme=dark") == address


@pytest.mark.parametrize(
    "query",
    [
        None, 7, [], {}, "", "?", "&&&=", "q", "box=1,2,3", "box=a,b,c,d", "box=-1,0,3,4", "n=-1",
        "n=1e3", "n=" + "9" * 40,
                "kind=nan", "kind=2", "weight=inf", "weight=1e999", "weight=nan", "rerank=perhaps",
        "least=nan", "least=x",
        "view=0x7", "view=٧", "&".join(f"label={n}" for n in range(5000)), "%ff%00=%zz",
    ],
)  # fmt: skip
def test_what_makes_no_sense_counts_as_not_said(query):
    assert PageAddress.read(query) == PageAddress()


def test_a_long_text_is_read_as_far_as_the_field_goes():
    from gradio_app.gradio_seam import MAX_TEXT

    assert len(PageAddress.read("q=" + "a" * 10**7).words) == MAX_TEXT
    assert len(PageAddress.read("label=x" + "&label=x" * 500).labels) == 100


def test_every_part_has_a_name():
    everything = PageAddress(
        "c", "w", "c/1/", "f/n", (1, 2, 3, 4), True, 2, 0.25, 5, 10, "faiss", 3, False, ("x",), "0.5", "name", True, 7
    )
    assert {pair.split("=")[0] for pair in everything.written().split("&")} == set(NAMES)


# A search comes back


def test_a_search_as_usual_has_a_short_address(page, engine):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    results = search(page, session)[0]
    sha256 = engine.store.hash_of(7)
    assert address_of(results) == f"in=shades&picture=shades%2F7%2F{sha256}"


def test_all_of_a_search_comes_back_to_someone_else(page, engine):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    how = {"key": "faiss", "k": 5, "nprobe": 4, "again": False, "labels": ["green", "blue"], "worst": "0.2"}
    drawn = f"{session.query.token}:2,0,6,8"
    search(page, session, drawn=drawn, sort="name", kind=0.25, **how)
    results = page.show_more(session, "name")[0]
    back = Session()
    shown = opened(page, address_of(results), back)
    assert shown["results"] == results and len(ids(results)) == 10
    assert back.result.request == session.result.request
    assert back.result.asked.picture.box == session.result.asked.picture.box
    assert back.query is back.result.asked.picture and back.query.token in shown["picture"]
    assert 'data-then="found"' in shown["picture"]
    values = {name: shown[name]["value"] for name in CONTROLS}
    assert values == {
        "count": 5, "engine": "faiss", "nprobe": 4, "rerank": False, "labels": ["green", "blue"], "cutoff": "0.2",
        "sort": "name", "kind": 0.25, "fold": False,
    }  # fmt: skip


def test_controls_go_back_to_what_is_usual(page, engine):
    shown = opened(page, "in=shades&picture=shades/7/")
    values = {name: shown[name]["value"] for name in CONTROLS}
    assert values == {
        "count": RESULTS, "engine": "ivfpq", "nprobe": engine.nprobe, "rerank": True, "labels": [], "cutoff": "",
        "sort": "score", "kind": NEIGHBOURHOOD, "fold": False,
    }  # fmt: skip
    assert opened(page, "in=shades&picture=shades/7/&index=exact")["nprobe"]["visible"] is False


def test_a_picture_that_was_brought_along_comes_back(page, engine, uploads):
    path, session = upload(uploads), Session()
    page.take_upload(session, {"path": str(path), "orig_name": "my photo.png"})
    results = search(page, session, drawn=f"{session.query.token}:0,0,30,40")[0]
    assert f"upload={'ab' * 32}%2Fphoto.png" in address_of(results)
    shown = opened(page, address_of(results))
    assert ids(shown["results"]) == ids(results)
    path.unlink()
    back = Session()
    shown = opened(page, address_of(results) + "&q=like:3", back)
    assert "no longer on the server" in shown["status"]
    assert ids(shown["results"]) == [hit.id for hit in engine.search("like:3", RESULTS)]  # the words are searched
    assert len(ids(page.show_more(back, "score")[0])) > RESULTS  # and go on


@pytest.mark.parametrize(
    "name",
    [
        "ab/photo.png", "../secret.png", "/etc/passwd", "AB" * 32 + "/photo.png", "ab" * 32, "ab" * 32 + "/",
        "ab" * 32 + "/../secret.png", "ab" * 32 + "/link.png", "ab" * 32 + "/.", "ab" * 32 + "/a\0.png",
        "../" * 9 + "etc/passwd",
    ],
)  # fmt: skip
def test_no_other_file_is_opened(page, uploads, name):
    path = upload(uploads)
    secret = uploads / "secret.png"
    secret.write_bytes(path.read_bytes())
    (path.parent / "link.png").symlink_to(secret)
    session = Session()
    shown = opened(page, PageAddress("shades", upload=name).written(), session)
    assert "no longer on the server" in shown["status"]
    assert session.query is None and session.result is None and shown["results"] == shown["picture"] == ""


def test_a_picture_is_known_by_its_content_after_its_collection_was_made_anew(page, engine, tmp_path):
    item = engine.store.items[30]
    sha256 = engine.store.hash_of(30)
    shown = opened(page, f"picture=shades/2/{sha256}")
    assert item.path.name in shown["picture"]
    for gone in ("shades/2/" + "0" * 64, "other/2/", "shades/60/", "shades/-1/", "shades/x/", "shades"):
        shown = opened(page, PageAddress(picture=gone).written())
        assert "no longer in its collection" in shown["status"], gone
        assert shown["picture"] == ""


def test_words_that_cannot_be_searched_come_back_with_the_reason(page):
    session = Session()
    shown = opened(page, "in=shades&q=colour:red <b>", session)
    assert "&lt;b&gt;" in shown["reading"] and "<b>" not in shown["status"]
    assert 'class="ris-caution"' in shown["status"] and shown["results"] == "" and session.result is None


def test_an_address_that_asks_nothing_empties_the_page(page):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    search(page, session)
    shown = opened(page, "in=shades", session)
    assert shown["picture"] == shown["results"] == "" and session.query is session.result is None
    assert "Results appear here" in shown["status"]


def test_the_enlarged_picture_is_there_for_the_viewer(page):
    assert ids(opened(page, "in=shades&view=41")["enlarged"]) == [41]
    for none in ("in=shades", "in=shades&view=60", "in=shades&view=-1"):
        assert opened(page, none)["enlarged"] == ""


def test_what_is_shown_as_searched_was_searched(page):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    assert "Set aside, not searched" in page.copy_from_search(session, "", event(words=""))
    assert "Last searched" in search(page, session)[2]
    assert "Last searched" in page.copy_from_search(session, "", event(words=""))
    assert "Set aside, not searched" in page.copy_from_search(session, "", event(words="a boat"))
    assert "Last searched" in page.swap(session, "", "shades", event(words=""))[1]
    assert "Set aside, not searched" in page.swap(session, "", "shades", event(words="a boat"))[1]


def test_what_was_judged_can_be_kept_after_a_reload_by_who_may(page, monkeypatch):
    for may in (True, False):
        monkeypatch.setattr(page, "may_keep", lambda sent_by, may=may: may)
        assert ("ris-keep" in opened(page, "in=shades&q=more:3 less:41")["reading"]) is may


# How what was found is shown


def rows(results):
    """Ids of the tiles, and how many are folded behind each, in the order of the page."""
    tiles = re.findall(r'<figure class="ris-tile".*?</figure>', results, re.DOTALL)
    return [
        (int(re.search(r'data-id="([0-9]+)"', tile)[1]), "data-folded hidden" in tile,
         int(found[1]) if (found := re.search("([0-9]+) more like this", tile)) else 0)
        for tile in tiles
    ]  # fmt: skip


def test_hits_are_sorted_and_grouped(page, engine):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    best = ids(search(page, session, k=40)[0])
    records = {record.id: record for record in engine.store.records(best)}
    items = engine.store.items
    assert ids(page.sort(session, "name")) == sorted(best, key=lambda id: items[id].path.name)
    assert ids(page.sort(session, "size")) == sorted(best, key=lambda id: -records[id].size)
    assert ids(page.sort(session, "date")) == sorted(best, key=lambda id: -records[id].mtime)
    by_label = sorted(best, key=lambda id: items[id].labels)
    assert ids(page.sort(session, "label")) == by_label
    grouped = page.sort(session, "group")
    labels = [items[id].labels[0] for id in ids(grouped)]
    titles = re.findall(r'class="ris-group">([a-z]+) · ([0-9]+)<', grouped)
    assert titles == [(label, str(labels.count(label))) for label in dict.fromkeys(labels)]
    assert labels == sorted(labels, key=[label for label, _ in titles].index) and len(titles) > 1
    assert "data-endless" not in grouped and "data-endless" in page.sort(session, "score")


def test_what_is_nearly_the_same_is_folded_behind_the_best_of_it(page, engine):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    best = ids(search(page, session, k=40)[0])
    vectors = engine.space().space.rows(np.array(best))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    leaders, of = [], {}
    for place in range(len(best)):
        of[place] = next((leader for leader in leaders if unit[leader] @ unit[place] >= ALIKE), place)
        if of[place] == place:
            leaders.append(place)
    folded = page.fold(session, True, "score")
    assert [id for id, is_folded, _ in rows(folded) if not is_folded] == [best[leader] for leader in leaders]
    assert {id: count for id, is_folded, count in rows(folded) if not is_folded} == {
        best[leader]: list(of.values()).count(leader) - 1 for leader in leaders
    }
    assert sorted(ids(folded)) == sorted(best) and any(count for _, _, count in rows(folded))
    assert "fold=1" in address_of(folded)
    back = Session()
    shown = opened(page, address_of(folded), back)
    assert shown["results"] == folded and shown["fold"]["value"] is True and back.fold
    assert ids(page.fold(session, False, "score")) == best


def test_the_query_itself_is_shown_first_with_its_folder(page, engine, uploads):
    session = Session()
    page.take_example(session, event(collection="shades", id=7))
    status = search(page, session)[1]
    path = engine.store.items[7].path
    assert re.search(rf"is in the collection</b>\s*{path.name} in <a[^>]*>{path.parent.name}<", status)
    link = html.unescape(re.search(r'<a href="(\?in=[^"]*)"', status)[1])
    assert BrowseAddress.read(link).filter.count(engine.store) == sum(
        item.path.parent == path.parent for item in engine.store.items
    )
    upload(uploads)
    assert "This very picture" not in opened(page, f"in=shades&upload={'ab' * 32}/photo.png")["status"]
