"""Words on the page, without a browser: what they find, how they are shown to be understood, and what is refused."""

import html
import json
import re
from types import SimpleNamespace

import gradio as gr
import pytest
from fakes import reds
from meanings import ColourEncoder, WordSentences, paint_colours

from features.collection import edits
from features.datasets import ImageFolder
from features.encoders import register_encoder, registry
from features.extract import extract
from gradio_app import typed
from gradio_app.library import Library
from gradio_app.remote_image import RemoteImageError
from gradio_app.session import Asked, QueryPicture, Session
from gradio_app.tabs.compare import CompareHandlers
from gradio_app.tabs.explain.handlers import ExplainHandlers
from gradio_app.tabs.explain.state import ExplainState
from gradio_app.tabs.explain.views import strip
from gradio_app.tabs.search import handlers as module
from gradio_app.tabs.search.handlers import SearchHandlers
from gradio_app.tabs.search.opening import OpeningHandlers
from search import spaces
from search.build import create_index, create_spaces
from search.engine import SearchEngine
from search.query import ImagePart, Query, TextPart
from search.reasons import explain_parts


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Twelve red, green and blue pictures, which words tell apart as crimson, viridian and cerulean."""
    folder = tmp_path_factory.mktemp("words")
    sentences, patch = WordSentences(), pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setattr(registry, "_CLASSES", dict(registry._CLASSES))
    patch.setattr(registry, "_shared", {})
    patch.setattr(spaces, "sentence_encoder", lambda: sentences)
    register_encoder("colours", lambda name, **options: ColourEncoder())
    paint_colours(folder / "images")
    store = extract(ImageFolder(folder / "images"), ColourEncoder(), folder / "colours", progress=False)
    create_index(store, factory="Flat", engines=["ivfpq"])
    create_spaces(store)
    yield SearchEngine.open(folder / "colours")
    patch.undo()


@pytest.fixture
def page(engine):
    return SearchHandlers(Library([engine]), SimpleNamespace())


def event(**data):
    return gr.EventData(None, data)


def search(page, session, words="", weight=1.0, *, k=12, labels=None, worst=""):
    sent = (session, "", "colours", k, "ivfpq", None, False, labels, worst, "score", None)
    return page.search(*sent, event(words=words, weight=weight))


def folders(session):
    return [hit.path.parent.name for hit in session.result.hits]


def terms(reading):
    return json.loads(html.unescape(re.search(r'data-terms="([^"]*)"', reading)[1]))


def refusal(page, session, words, **how):
    with pytest.raises(gr.Error) as refused:
        search(page, session, words, **how)
    return html.unescape(refused.value.message)


# What is found


def test_words_alone_a_picture_alone_and_both(page, engine):
    session = Session()
    results, status, last, _, reading = search(page, session, "crimson")
    assert folders(session) == ["a"] * 12
    assert "12 best" in status and "36 pictures" in status
    assert "crimson" in last and terms(reading) == ["crimson"]
    assert results.count("ris-tile") == 12

    session.query = QueryPicture.of(engine, 12)
    search(page, session)
    assert session.result.hits == engine.search(engine.store.items[12].path, 12)
    assert session.result.hits.parts == ()  # the shortest way, which knows nothing of words

    search(page, session, "crimson", k=30)
    picture = ImagePart(engine.store.items[12].path)
    assert session.result.hits == engine.search(Query((TextPart("crimson"), picture)), 30)
    assert {*folders(session)} == {"a", "b", "c"}


def test_the_weight_of_the_picture_counts(page, engine):
    session = Session(query=QueryPicture.of(engine, 12))
    search(page, session, "crimson", 0.01)
    assert folders(session) == ["a"] * 12
    search(page, session, "crimson^.01", 2)
    assert folders(session)[:11] == ["b"] * 11
    search(page, session, "", -1)
    assert "b" not in folders(session)
    for forged in (None, "2", True, 1e9, [1]):
        search(page, session, "crimson", forged)
        assert session.result.asked.weight == 1


def test_filters_and_labels_hold_together(page):
    session = Session()
    _, status, *_ = search(page, session, "crimson -label:a", labels=["b", "a"], k=50)
    assert folders(session) == ["b"] * 12
    assert "24 pictures" in status and "not labelled a" in status
    search(page, session, "label:c", k=50)
    assert folders(session) == ["c"] * 12


def test_nothing_at_all_is_not_searched(page):
    for words in ("", "  "):
        assert "Type some words or choose a picture" in refusal(page, Session(), words)


def test_more_and_fewer_results_are_of_the_same_words(page):
    session = Session()
    search(page, session, "crimson", k=5)
    page.show_more(session, "score")
    assert folders(session) == ["a"] * 10
    page.refine(session, ["b"], "score")
    assert folders(session) == ["b"] * 5


# What the wire may name


def test_a_file_of_the_server_is_never_opened(page, engine, monkeypatch):
    path = engine.store.items[0].path
    monkeypatch.chdir(path.parent)
    for words in (
        f"image:{path}",
        f'image:"{path}"',
        "image:00.png",
        "image:file:///etc/passwd",
        "image:data:;base64,AA==",
    ):
        assert re.search("takes the address of a picture on the web|cannot be typed", refusal(page, Session(), words))
    session = Session()
    search(page, session, "00.png crimson")  # without image: they are words, whatever lies in the folder
    assert session.result.hits.parts[0].part == TextPart("00.png crimson")


def test_an_upload_is_named_by_its_token_and_only_by_its_owner(page, engine):
    picture = QueryPicture.of(engine, 12)
    mine = Session(recent=(Asked(picture),))
    search(page, mine, f"image:{picture.token}", k=11)
    assert folders(mine) == ["b"] * 11
    assert "takes the address" in refusal(page, Session(), f"image:{picture.token}")


def test_a_picture_is_set_beside_another_and_both_are_parts_with_weights(page, engine, tmp_path):
    page.upload.GRADIO_CACHE = str(tmp_path)
    path = tmp_path / ("ab" * 32) / "my photo's (1).png"
    path.parent.mkdir()
    path.write_bytes(engine.store.items[12].path.read_bytes())
    session = Session(query=QueryPicture.open(path, path.name))
    picture, shown = page.set_beside(session, f"{session.query.token}:0,0,4,4", "colours", event(words="", weight=0.5))
    assert picture == "" and session.query is None
    assert "a piece of my photo&#39;s (1).png" in shown
    words = html.unescape(re.search('data-words="([^"]*)"', shown)[1])
    session.query = QueryPicture.of(engine, 0)
    _, shown = page.set_beside(session, "", "colours", event(words=words, weight=1.0))
    words = html.unescape(re.search('data-words="([^"]*)"', shown)[1])
    assert words.endswith("^0.5 like:0")
    session.query = QueryPicture.of(engine, 5)
    _, _, _, _, shown = search(page, session, words, k=9)
    assert shown.count('type="range"') == 3, "each has its weight"
    answer = session.result.hits
    assert [answered.part.weight for answered in answer.parts] == [0.5, 1, 1]
    assert not {0, 5} & set(answer.ids) and len(answer) == 9
    stranger = Session()
    search(page, stranger, words, k=9)
    assert len(stranger.result.hits.parts) == 2, "who is given the words has the pictures"
    path.unlink()
    assert "no longer on the server" in refusal(page, stranger, words)
    for name in ("../../etc/passwd", "ab/x.png", f"{'ab' * 32}/../../x"):
        assert "no longer on the server" in refusal(page, stranger, f'image:"upload:{name}"')


def test_addresses_are_fetched_by_the_guarded_way_once_and_few(page, engine, monkeypatch):
    asked = []

    def fetch(address):
        asked.append(address)
        if "wrong" in address:
            raise RemoteImageError("The address is not public.")
        return engine.store.items[12].path.read_bytes()

    monkeypatch.setattr(module, "fetch_image", fetch)
    session = Session()
    for _ in range(2):
        search(page, session, 'image:"https://example.org/a.png"', k=11)
        assert folders(session) == ["b"] * 11
    assert asked == ["https://example.org/a.png"]
    assert "not public" in refusal(page, session, 'image:"https://wrong.example/a.png"')
    many = " ".join(f'image:"https://example.org/{n}.png"' for n in range(4))
    assert "at most 3 pictures from the web" in refusal(page, session, many)
    assert len(asked) == 2
    for number in range(20):
        search(page, session, f'image:"https://example.org/{number}.png"')
    assert len(session.fetched) == typed.MAX_FETCHED


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("colour:red", "the nearest is"),
        ("labl:a", "the nearest is label"),
        ("crimson size:>big", "ize is a number"),
        ("the of and", "says nothing that could be seen"),
        ("crimson^1e999", "finite number"),
        ("like:999", "has no picture 999"),
        ("label:nobody", "bears the label"),
        ("' OR 1=1; --", None),
        ("<img src=x onerror=hacked()>", None),
        ('label:"<script>"', "bears the label"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence_and_nothing_is_markup(page, words, says):
    session = Session()
    if says is None:
        outputs = search(page, session, words)
        reading, status, last = outputs[4], outputs[1], outputs[2]
    else:
        assert says in refusal(page, session, words)
        reading, status, last = page.show_reading(session, "", "colours", event(words=words)), "", ""
    assert not re.search(r"<(img|script)[^>]*(hacked|>)", reading + status + last.replace('<img src="data:', ""))
    assert session.result is None or says is None


# How it was understood


def test_terms_are_the_query_and_each_can_be_left_out_or_weighed(engine):
    words = 'a red boat "in a row"^2 -night tag:x^3 like:7 (sun OR moon) -label:a size:>1mb'
    query = typed.parse(words)
    shown = typed.terms_of(query, engine)
    assert typed.parse(" ".join(term.written for term in shown)) == query
    assert [term.weight for term in shown[: len(query.parts)]] == [part.weight for part in query.parts]
    for place, part in enumerate(query.parts):
        rest = typed.parse(" ".join(term.written for other, term in enumerate(shown) if other != place))
        assert rest.parts == query.parts[:place] + query.parts[place + 1 :] and rest.filter == query.filter
        weighed = [term.written for term in shown]
        weighed[place] = f"-{shown[place].weighable}^0.25"
        again = typed.parse(" ".join(weighed)).parts[place]
        assert again.weight == -0.25
        assert vars(again) | {"weight": 0} == vars(part) | {"weight": 0}
    assert [term.said for term in shown[-2:]] == ["not labelled a", "size is more than 1mb"]


def test_an_unknown_field_is_marked(page, engine):
    reading = page.show_reading(Session(), "", "colours", event(words="crimson colour:red"))
    assert reading.count("ris-is-wrong") == 1 and terms(reading) == ["crimson", "colour:red"]
    assert typed.terms_of(typed.parse("label:a"), engine)[0].known


def test_fields_of_ones_own_are_known():
    annotations = SimpleNamespace(fields=lambda: {"rating": "number"})
    said = SimpleNamespace(store=SimpleNamespace(has_annotations=True, annotations=annotations))
    assert [term.known for term in typed.terms_of(typed.parse("Rating:>3 ratnig:>3"), said)] == [True, False]


def test_sliders_are_there_for_several_parts_only(page, engine):
    session = Session()
    assert 'type="range"' not in search(page, session, "crimson label:a")[4]
    assert search(page, session, "crimson -cerulean")[4].count('type="range"') == 2
    session.query = QueryPicture.of(engine, 0)
    reading = search(page, session, "crimson", 3.5)[4]
    assert reading.count('type="range"') == 2 and 'max="4"' in reading and "data-picture" in reading


def test_each_hit_bears_the_shares_of_the_parts(page):
    results, *_ = search(page, session := Session(), "crimson cerulean^2 -viridian", k=3)
    hit = session.result.hits[0]
    assert len(hit.shares) == 3 and sum(hit.shares) == pytest.approx(hit.score)
    assert results.count("ris-share") == 3 and "not viridian" in results
    assert "distance" not in results


# What was searched before


def test_words_come_back_with_their_picture(page, engine):
    session = Session(query=QueryPicture.of(engine, 3))
    search(page, session, "crimson", 2)
    session.query = None
    *_, recent, _ = search(page, session, "viridian")
    assert [asked.words for asked in session.recent] == ["viridian", "crimson"] and "viridian" in recent
    picture, reading = page.recall(session, "colours", event(token=session.recent[1].token))
    assert 'data-weight="2.0"' in picture and 'data-words="crimson"' in reading
    assert session.query.path == engine.store.items[3].path
    picture, reading = page.copy_to_search(session, "colours")
    assert picture == "" and 'data-words="viridian"' in reading and session.query is None
    picture, last, reading = page.swap(session, "", "colours", event(words="cerulean"))
    assert session.last.words == "cerulean" and "cerulean" in last and 'data-words="viridian"' in reading


def test_the_address_of_the_page_names_a_collection(page):
    opening = OpeningHandlers(page)
    assert opening.choose_collection(event(collection="colours"))["value"] == "colours"
    for none in ({}, {"collection": ""}, {"collection": 7}):
        assert "value" not in opening.choose_collection(event(**none))
    with pytest.raises(gr.Error, match="no longer there"):
        opening.choose_collection(event(collection="<b>"))


# Where there are no words, and getting ready


def test_getting_ready_loads_what_words_need_once(page, engine, monkeypatch):
    texts = []
    monkeypatch.setattr(SearchEngine, "score_text", lambda self, text: texts.append(text))
    assert "English" in page.warm_up("colours")
    page._warming.add(engine)
    page.warm_up("colours")  # someone else's click is at it
    assert len(texts) == 1


def test_an_encoder_without_classes_says_so_and_still_finds_by_pictures(tmp_path):
    colours = reds(tmp_path)
    page, session = SearchHandlers(Library([colours]), SimpleNamespace()), Session()
    assert "has no classes" in page.warm_up("reds")
    session.query = QueryPicture.of(colours, 0)
    sent = (session, "", "reds", 2, "ivfpq", None, False, None, "", "score", None)
    page.search(*sent, event())
    assert len(session.result.hits) == 2
    with pytest.raises(gr.Error, match="has no classes"):
        page.search(*sent, event(words="boat"))


# Explain and Compare


def explained(page, engine, words, place=0):
    session, state = Session(), ExplainState()
    search(page, session, words, k=36)
    explain = ExplainHandlers(page.library)
    explain.ask(session, state, 1, event(id=session.result.hits[place].id))
    explain.open("colours", session, state, "ivfpq", 10, 1, False, "")
    return session, explain.opened("colours", state, "pca")


def test_explain_says_what_each_part_gave_and_why(page, engine):
    _, (about, strip, detail, cells, figure) = explained(page, engine, "crimson -cerulean", 1)
    assert "crimson -cerulean" in about and strip.count("<li") == 36
    assert "crimson thing" in detail and "not cerulean" in detail and "rank 2" in detail
    assert cells["visible"] is False and figure is None


def test_explain_says_which_caption_or_tag_speaks_for_words(page, engine):
    try:
        edits.add_caption(engine.store.annotations, [20], "a <b>lighthouse</b> in fog")
        edits.add_tag(engine.store.annotations, [20], "sea")
        _, (_, _, detail, *_rest) = explained(page, engine, "lighthouse")
        assert "captions and tags, by meaning" in detail and "captions, tags and names, by words" in detail
        assert "what is seen (space concepts)" in detail
        assert "a &lt;b&gt;lighthouse&lt;/b&gt; in fog" in detail and "caption, has the words" in detail
        _, (_, _, detail, *_rest) = explained(page, engine, "lighthouse", 30)
        assert "It has no caption and no tag" in detail
    finally:
        engine.store.annotations.close()
        engine.store.__dict__.pop("annotations")
        for file in engine.folder.glob("annotations.sqlite*"):
            file.unlink()
        engine._scorers.pop("captions")


def test_reasons_add_up(engine):
    answer = engine.search(Query((TextPart("crimson"), TextPart("viridian", weight=-1))), 36)
    scored = engine.score_text("crimson")
    for hit in (answer[0], answer[-1]):
        crimson, viridian = explain_parts(engine, answer, hit)
        assert (crimson.share, viridian.share) == hit.shares
        assert crimson.text.similarity == scored.similarity[hit.id]
        assert sum(one.added for one in crimson.text.classes) == pytest.approx(crimson.text.similarity, abs=0.01)
        assert sum(one.probability for one in crimson.text.classes) == pytest.approx(1, abs=1e-5)
        best = crimson.text.classes[0]
        assert best.added == max(one.added for one in crimson.text.classes)
    assert explain_parts(engine, answer, answer[0])[0].text.classes[0].name == "crimson thing"


def test_a_typed_picture_of_the_collection_is_explained_as_one_that_was_chosen(page, engine):
    session = Session()
    search(page, session, "like:12", k=11)
    assert folders(session) == ["b"] * 11 and session.result.hits.parts == ()
    state, explain = ExplainState(), ExplainHandlers(page.library)
    assert "00.png" in explain.open("colours", session, state, "ivfpq", 10, 1, False, "")[0]
    assert (state.asked.query.path, state.asked.result) == (engine.store.items[12].path, None)


def test_a_filter_alone_has_nothing_to_explain(page, engine):
    _, (about, *_rest) = explained(page, engine, "label:b")
    assert "only filtered" in about


def test_compare_says_that_words_are_the_same_for_every_index(page, engine):
    session, state = Session(), ExplainState()
    search(page, session, "crimson")
    compare = CompareHandlers(page.library)
    about, answers = compare.compare("colours", session, state, 5, 1, False, "")
    assert "nothing to compare" in about and answers == ""
    session.query = QueryPicture.of(engine, 0)
    about, answers = compare.compare("colours", session, state, 5, 1, False, "")
    assert "without the words" in about and "Recall@5" in answers


def test_compare_and_explain_are_among_the_pictures_of_the_search(page, engine):
    session, state = Session(), ExplainState()
    search(page, session, "like:0 -label:a", labels=["a", "b"])
    session.query = QueryPicture.of(engine, 0)
    compare = CompareHandlers(page.library)
    about, answers = compare.compare("colours", session, state, 20, 1, False, "")
    assert "among pictures labelled a or b and not labelled a" in html.unescape(about)
    shown = {int(id) for id in re.findall(r'data-explain="(\d+)"', answers)}
    assert shown == set(range(12, 24)), "twelve green ones, and no others to fill up"
    compare.explain("colours", state, 20, 1, False, event(engine="ivfpq", id=12))
    assert state.asked.filter.ids(engine.store).tolist() == list(range(12, 24))
    ExplainHandlers(page.library).ask(session, state, 1, event(id=12))
    assert str(state.asked.filter) == "pictures labelled a or b and not labelled a"
    assert "among pictures labelled a or b and not labelled a" in strip(engine, (), (), 12, state.asked.filter)


def test_too_many_parts_and_a_long_text_are_refused(page):
    assert "at most 100 parts" in refusal(page, Session(), " ".join(f"w{n}^2" for n in range(101)))
    assert "at most 10,000 characters" in refusal(page, Session(), "x" * 10_001)


# Judging hits


def test_hits_are_judged_in_the_words(page, engine):
    session = Session(query=QueryPicture.of(engine, 0))
    results, status, *_, reading = search(page, session, "more:12 less:1", k=11)
    assert folders(session) == ["b"] * 11
    assert "by picture and 1 check and 1 cross" in status
    assert terms(reading) == ["more:12", "less:1", ""]
    assert reading.count("ris-judged") == 2 and 'type="range"' not in reading
    assert 'aria-label="Take back: less like 01.png"' in reading
    pressed = re.findall(r'data-id="(\d+)"(?:(?!data-id).)*?data-judge="more" aria-pressed="true"', results, re.DOTALL)
    assert pressed == ["12"]
    assert "Found by: your 1 check and 1 cross" in results

    search(page, session, "crimson more:12|13 less:1 label:b", k=11)
    assert {12, 13} <= {hit.id for hit in session.result.hits} and folders(session) == ["b"] * 11
    assert [term.place for term in typed.terms_of(typed.parse("crimson more:12|13 less:1 label:b"), engine)] == [
        0,
        1,
        1,
        1,
        None,
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("crimson more:3 less:3", "judged both ways"),
        ("more:999", "has no picture 999"),
        ("less:<b>", "takes the number of a picture"),
    ],
)
def test_judgements_that_make_no_sense_are_a_sentence(page, words, says):
    assert says in refusal(page, Session(), words)


def test_explain_says_how_much_the_judgements_added(page, engine):
    _, (about, _, detail, *_rest) = explained(page, engine, "crimson more:12 less:1")
    assert "your 1 check and 1 cross" in detail and "more:12 less:1" in about
