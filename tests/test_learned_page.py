"""Learned tags on the page, without a browser: kept by who may, suggested, confirmed, refused and taken back."""

import html
import re
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from test_words import folder, quick_words, root  # noqa: F401  (fixtures)
from test_words_page import event

from features.collection import edits
from features.collection.learned_tags import LearnedTag, keep_learned, learned_tag, learned_tags
from features.collection.said import Tag
from gradio_app.library import Library
from gradio_app.routes.access import StartToken
from gradio_app.routes.learned import learned_routes
from gradio_app.routes.words import word_routes
from gradio_app.session import Session
from gradio_app.tabs.search.handlers import SearchHandlers
from search.engine import SearchEngine
from search.errors import QueryError
from search.grammar import parse
from search.learned import TagSuggester
from search.parts import learn_tag

TOKEN = StartToken()
GREENS = set(range(12, 24))


@pytest.fixture
def engine(folder):  # noqa: F811
    """Twelve red, twelve green and twelve blue pictures."""
    return SearchEngine.open(folder)


@pytest.fixture
def grass(engine):
    return learn_tag(engine, "Grass", parse("more:12|13 less:0"))


def client_of(engine, *, is_managed=True, holds_token=True):
    routes = [maker({"c": engine}, TOKEN, is_managed=is_managed) for maker in (learned_routes, word_routes)]
    app = FastAPI(routes=[route for each in routes for route in each])
    return TestClient(app, cookies={TOKEN.cookie: TOKEN.secret} if holds_token else {})


@pytest.fixture
def client(engine):
    return client_of(engine)


def named(engine, *ids):
    return [{"id": id, "content": engine.store.hash_of(id)[:16]} for id in ids]


def decide(client, do, **what):
    return client.post("/learned/c", json={"do": do, "tag": "grass", **what})


def shown(page):
    return [int(id) for id in re.findall(r'<figure class="ris-tile" data-collection="c" data-id="(\d+)"', page)]


# What is suggested


def test_a_tag_suggests_itself_for_what_is_like_its_examples_the_surest_first(engine, grass):
    found = TagSuggester(engine.store).suggest("GRASS")
    assert set(found.ids) <= GREENS and {12, 13} <= set(found.ids)
    wanted = grass.certainties(engine.store.features)
    assert set(found.ids.tolist()) == {id for id in range(36) if wanted[id] >= 0.5}
    assert found.certainties.tolist() == sorted(wanted[found.ids].tolist(), reverse=True)
    with pytest.raises(QueryError, match="no learned tag 'moss'"):
        TagSuggester(engine.store).suggest("moss")


def test_what_a_person_has_said_is_not_asked_again(engine, grass):
    suggester, annotations = TagSuggester(engine.store), engine.store.annotations
    first, second, *others = suggester.suggest("grass").ids.tolist()
    edits.add_tag(annotations, [first], "grass")
    edits.remove_tag(annotations, [second], "GRASS")
    assert suggester.suggest("grass").ids.tolist() == others
    assert "Grass" not in suggester.suggestions_of(second) and suggester.suggestions_of(others[0]).keys() == {"Grass"}
    learn_tag(engine, "Grass", parse(f"more:12|13 less:{others[0]}"))
    assert others[0] not in suggester.suggest("grass").ids, "learnt anew, and that one is not meant"
    assert others[0] not in {id for id in range(36) if suggester.suggestions_of(id)}


# The tab


def test_the_tab_shows_the_tags_and_what_the_chosen_one_may_fit(engine, grass, client):
    learn_tag(engine, "a <b>&", parse("more:0"))
    page = client.get("/learned/c?tag=grass").text
    assert shown(page) == TagSuggester(engine.store).suggest("grass").ids.tolist()
    assert "a &lt;b&gt;&amp;" in page and "<b>&</b>" not in page
    assert 'data-tag="Grass" aria-pressed="true"' in page
    assert "% · your example" in page and 'title="certainty"' in page
    assert 'data-find="tag:~Grass"' in page
    assert "Confirm" not in page and page.count('data-decide="confirm"') == len(shown(page))
    assert 'data-find="tag:~&#34;a &lt;b&gt;&amp;&#34;"' in client.get("/learned/c?tag=a <b>%26").text


def test_without_tags_it_says_how_to_come_to_some_and_makes_no_file(engine):
    for client in (client_of(engine), client_of(engine, is_managed=False)):
        assert "Nothing has been learnt here yet" in client.get("/learned/c?tag=x&shown=-5").text
        assert client.get("/learned/other").status_code == 404
        assert client.get("/learned/c?shown=many").status_code == 422
    assert not engine.store.has_annotations


def test_it_is_confirmed_refused_and_taken_back(engine, grass, client):
    annotations = engine.store.annotations
    first, second, *others = shown(client.get("/learned/c?tag=Grass").text)
    assert shown(decide(client, "confirm", pictures=named(engine, first)).text) == [second, *others]
    assert annotations.of([first])[first].tags == (Tag("Grass"),), "as it was named, and a person's"
    page = decide(client, "refuse", pictures=named(engine, second)).text
    assert shown(page) == others
    (last,) = edits.edits(annotations, 1)
    assert f'data-do="undo" data-edit="{last.number}"' in page
    assert decide(client, "undo", edit=last.number + 1).status_code == 409
    assert set(shown(decide(client, "undo", edit=last.number).text)) == {second, *others}
    page = decide(client, "confirm", pictures=named(engine, second, *others)).text
    assert shown(page) == [] and "fits no picture of which you have not said so already" in page
    assert set(annotations.tagged("grass")) == {first, second, *others}
    assert edits.edits(annotations, 1)[0].what == f"tagged Grass ({1 + len(others)} pictures)"
    page = decide(client, "drop").text
    assert learned_tags(annotations) == {} and "Undo: learned tag grass dropped" in page
    assert set(annotations.tagged("grass")) == {first, second, *others}


def test_what_cannot_be_decided_is_a_sentence_and_changes_nothing(engine, grass, client):
    annotations = engine.store.annotations
    before = edits.edits(annotations)
    (real,) = named(engine, 14)
    for pictures, tag, status in [
        ([real, {"id": 15, "content": "0" * 16}], "grass", 409),
        ([{"id": 99, "content": ""}], "grass", 404),
        ([{"id": -1, "content": ""}], "grass", 404),
        ([real], "moss", 409),
        ([real], "\0", 409),
        ([{"id": 14}], "grass", 422),
        ([real] * 481, "grass", 422),
        ("all", "grass", 422),
    ]:
        assert decide(client, "confirm", tag=tag, pictures=pictures).status_code == status
    assert client.post("/learned/c", content=rb'{"do": "confirm", "tag": "\ud800"}').status_code in (409, 422)
    for odd in ("tag=%ff", "tag=" + "x" * 1_900, f"shown={10**30}", "shown=-1", "tag=%00"):
        assert client.get(f"/learned/c?{odd}").status_code == 200
    assert decide(client, "confirm", pictures=[], shown=10**30).status_code == 200
    assert decide(client, "undo", edit=10**30).status_code == 409
    for body in ({}, {"do": "learn"}, [], {"do": "confirm", "tag": 7}):
        assert client.post("/learned/c", json=body).status_code == 422
    keep_learned(annotations, LearnedTag("Grass", grass.vector, 0.5, 10.0, "another", (12,)))
    assert "learn it again" in client.get("/learned/c?tag=grass").text
    assert "learn it again" in decide(client, "confirm", pictures=[real]).json()["detail"]
    assert edits.edits(annotations)[1:] == before and not annotations.tagged("grass")


def test_strangers_only_look(engine, grass):
    for client in (client_of(engine, holds_token=False), client_of(engine, is_managed=False)):
        page = client.get("/learned/c?tag=grass").text
        assert shown(page) and "data-decide" not in page and "data-do" not in page
        assert decide(client, "confirm", pictures=named(engine, 14)).status_code == 403
    theirs = {"origin": "https://evil.example"}
    assert client_of(engine).post("/learned/c", json={"do": "drop", "tag": "grass"}, headers=theirs).status_code == 403
    assert learned_tag(engine.store.annotations, "grass") is not None


def test_the_viewer_suggests_and_confirms_too(engine, grass, client):
    page = client.get("/words/c/14").text
    certainty = f"{grass.certainties(engine.store.features[[14]])[0]:.0%}"
    assert f"<span>Grass</span><small>suggested {certainty}</small>" in page
    assert 'data-do="add_tag" data-text="Grass"' in page and 'data-do="remove_tag" data-text="Grass"' in page
    page = client.post("/words/c/14", json={"do": "add_tag", "text": "Grass"}).text
    assert "<span>Grass</span><small>a person</small>" in page and "suggested" not in page
    page = client.post("/words/c/15", json={"do": "remove_tag", "text": "Grass"}).text
    assert "suggested" not in page and 15 not in TagSuggester(engine.store).suggest("grass").ids
    assert "<span>Grass</span>" not in client.get("/words/c/1").text


# Kept on the Search tab


@pytest.fixture
def page(engine):
    return SearchHandlers(Library([engine]), SimpleNamespace(), TOKEN)


OWN = SimpleNamespace(headers={"cookie": f"{TOKEN.cookie}={TOKEN.secret}"}, app=FastAPI())
STRANGER = SimpleNamespace(headers={}, app=FastAPI())


def search(page, session, words, sent_by=OWN):
    sent = (session, "", "c", 12, "ivfpq", None, False, None, "", "score", None)
    return page.search(*sent, event(words=words, weight=1.0), sent_by)[-1]


def refusal(page, session, name, sent_by=OWN):
    with pytest.raises(gr.Error) as refused:
        page.keep_tag(session, event(name=name), sent_by)
    return html.unescape(refused.value.message)


def test_what_was_judged_is_named_and_kept(page, engine):
    session = Session()
    assert "ris-keep" in search(page, session, "more:12|13 less:0")
    reading = page.keep_tag(session, event(name=" Old <i>grass "), OWN)
    kept = learned_tag(engine.store.annotations, "old <i>grass")
    assert (kept.tag, kept.more, kept.less) == ("Old <i>grass", (12, 13), (0,))
    same = learn_tag(engine, "same", parse("more:12|13 less:0"))
    assert (kept.vector == same.vector).all()
    assert "“Old &lt;i&gt;grass”, learnt from 3 pictures:" in reading
    assert "<code>tag:~&#34;Old &lt;i&gt;grass&#34;</code>" in reading and "<i>grass" not in reading
    assert "in place of what it meant before" in page.keep_tag(session, event(name="OLD <I>GRASS"), OWN)
    assert page.show_learned()["selected"] == "learned"


def test_only_who_may_manage_keeps(page, engine):
    session = Session()
    for sent_by in (STRANGER, None):
        assert "ris-keep" not in search(page, session, "more:12", sent_by)
        assert "link that it printed at its start" in refusal(page, session, "grass", sent_by)
    assert "ris-keep" in search(page, session, "more:12")
    page.token = None  # a page that manages nothing
    assert "link that it printed" in refusal(page, session, "grass")
    assert not engine.store.has_annotations


def test_what_cannot_be_kept_is_a_sentence(page, engine):
    session = Session()
    assert "Search again first" in refusal(page, session, "grass")
    for words in ("crimson", "less:3 crimson"):
        assert "ris-keep" not in search(page, session, words)
    assert "at least one picture must be meant" in refusal(page, session, "grass")
    search(page, session, "more:12")
    for name in ("", " \0\n", None, 7, ["x"]):
        assert "Give what you mean a name first" in refusal(page, session, name)
    page.library.put(SearchEngine.open(engine.folder))
    assert "Search again first" in refusal(page, session, "grass")
    assert not engine.store.has_annotations or not learned_tags(engine.store.annotations)
