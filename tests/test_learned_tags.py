"""Tags that are learnt from judged hits: kept, asked for, suggested, confirmed, refused, taken back."""

import math

import numpy as np
import pytest
from meanings import paint_colours
from test_words import folder, quick_words, root  # noqa: F401  (fixtures)

from features.collection import edits
from features.collection.errors import StoreError
from features.collection.learned_tags import LearnedTag, drop_learned, keep_learned, learned_tag, learned_tags
from features.collection.said import Maker, Tag
from features.collection.store import FeatureStore
from features.datasets import ImageFolder
from features.makers import MakerError, create_maker
from search.__main__ import main
from search.annotate import annotate
from search.annotate import main as say
from search.build import sync_collection
from search.engine import SearchEngine
from search.errors import QueryError
from search.grammar import parse
from search.parts import learn_tag

GREENS = set(range(12, 24))
LEARNED = Maker("model", "learned")


@pytest.fixture
def engine(folder):  # noqa: F811
    """Twelve red, twelve green and twelve blue pictures."""
    return SearchEngine.open(folder)


@pytest.fixture
def grass(engine):
    return learn_tag(engine, "Grass", parse("more:12|13 less:0"))


def tagged(engine, tag="grass"):
    return set(engine.store.annotations.tagged(tag))


def test_what_was_learnt_is_kept_and_asked_for(engine, grass):
    kept = learned_tag(SearchEngine.open(engine.folder).store.annotations, "GRASS")
    assert (kept.tag, kept.more, kept.less, kept.metric) == ("Grass", (12, 13), (0,), "cosine")
    np.testing.assert_array_equal(kept.vector, grass.vector)
    assert (kept.middle, kept.slope, kept.encoder) == (grass.middle, grass.slope, grass.encoder)
    answer = engine.search("tag:~grass", 12)
    assert set(answer.ids) == GREENS  # the examples are hits as others are
    assert answer.parts[0].space == "visual"
    assert set(engine.search("crimson^0.1 tag:~grass^5", 12).ids) == GREENS
    assert not GREENS & set(engine.search("-tag:~grass", 12).ids)


def test_what_cannot_be_asked_or_learnt_is_a_sentence_and_the_others_go_on(engine, grass):
    with pytest.raises(QueryError, match="no learned tag 'gras'; did you mean 'Grass'"):
        engine.search("tag:~gras")
    answer = engine.search("crimson tag:~sunset", 12)
    assert answer.unanswered == ("there is no learned tag 'sunset'",) and not GREENS & set(answer.ids)
    for text, said in [
        ("crimson", "no picture is judged"),
        ("less:3", "at least one picture must be meant"),
        ("more:999", "has no picture 999"),
        ("more:3 less:3", "judged both ways"),
    ]:
        with pytest.raises(QueryError, match=said):
            learn_tag(engine, "sunset", parse(text))
    with pytest.raises(QueryError, match="a name of at least one character"):
        learn_tag(engine, " \0", parse("more:3"))
    annotations = engine.store.annotations
    for vector, middle, said in [([np.nan], 0.5, "finite"), ([1.0], np.inf, "finite"), ([[1.0]], 0.5, "dimension")]:
        with pytest.raises(StoreError, match=said):
            keep_learned(annotations, LearnedTag("x", np.array(vector, np.float32), middle, 1.0, ""))
    with pytest.raises(StoreError, match="no image with id 99"):
        keep_learned(annotations, LearnedTag("x", np.ones(3, np.float32), 0.5, 1.0, "", (99,)))
    with pytest.raises(StoreError, match="twice, or both ways"):
        keep_learned(annotations, LearnedTag("x", np.ones(3, np.float32), 0.5, 1.0, "", (3,), (3,)))
    assert set(learned_tags(annotations)) == {"Grass"}


def test_of_another_encoder_it_says_so_and_the_others_go_on(engine, grass):
    keep_learned(engine.store.annotations, LearnedTag("Grass", grass.vector, 0.5, 10.0, "another", (12,)))
    answer = engine.search("crimson tag:~grass", 12)
    assert "was learnt from vectors of another encoder than those of c: learn it again" in answer.unanswered[0]
    assert answer.ids == engine.search("crimson", 12).ids
    with pytest.raises(MakerError, match="Grass was learnt from vectors of another encoder"):
        create_maker("learned", engine.store)


def test_keeping_and_dropping_are_taken_back_with_the_other_edits(engine, grass):
    annotations = engine.store.annotations
    learn_tag(engine, "grass", parse("more:0 less:12"))  # in its place, whatever the case
    assert {tag: (each.more, each.less) for tag, each in learned_tags(annotations).items()} == {"grass": ((0,), (12,))}
    edits.add_tag(annotations, [3], "lawn")
    learn_tag(engine, "Été", parse("more:0"))
    learn_tag(engine, "été", parse("more:1"))
    assert {tag: each.more for tag, each in learned_tags(annotations).items()} == {"grass": (0,), "été": (1,)}
    edits.undo(annotations)
    assert learned_tag(annotations, "ÉTÉ").more == (0,)
    edits.undo(annotations)
    assert drop_learned(annotations, "GRASS") and not drop_learned(annotations, "GRASS")
    assert [each.what for each in edits.edits(annotations)] == [
        "learned tag GRASS dropped",
        "tagged lawn",
        "learnt grass",
        "learnt Grass",
    ]
    assert edits.undo(annotations) == "learned tag GRASS dropped"
    assert learned_tag(annotations, "grass").more == (0,)
    edits.undo(annotations)
    assert tagged(engine, "lawn") == set()
    edits.undo(annotations)
    np.testing.assert_array_equal(learned_tag(annotations, "grass").vector, grass.vector)
    assert learned_tag(annotations, "grass").more == (12, 13)
    edits.undo(annotations)
    assert learned_tags(annotations) == {}


def test_certainty_is_a_half_between_and_sure_where_the_examples_are(engine, grass):
    rows = np.asarray(engine.store.features, np.float32)
    near = rows @ grass.vector / np.linalg.norm(rows, axis=1)
    certain = grass.certainties(rows)
    wanted = [1 / (1 + math.exp(min(-grass.slope * (float(each) - grass.middle), 700))) for each in near]
    np.testing.assert_allclose(certain, wanted, rtol=1e-2, atol=1e-6)
    assert grass.slope * (near[[12, 13]].mean() - grass.middle) == pytest.approx(math.log(19), rel=1e-2)
    assert grass.middle == pytest.approx(max((near[[12, 13]].mean() + near[0]) / 2, np.quantile(near, 0.99)), abs=0.05)
    assert certain[0] < 0.5


def test_it_suggests_itself_is_confirmed_and_is_refused_for_good(engine, grass):
    annotations = engine.store.annotations
    report = annotate(engine.store, create_maker("learned", engine.store), progress=False)
    suggested = annotations.tagged("grass")
    assert suggested and set(suggested) <= GREENS and report.tags == len(suggested)
    assert all(0.9 <= certainty < 1 for certainty in suggested.values())
    confirmed, refused, *_ = sorted(suggested)
    edits.add_tag(annotations, [confirmed], "Grass")
    edits.remove_tag(annotations, [refused], "grass")
    assert annotations.of([confirmed])[confirmed].tags[0] == Tag("Grass")
    learn_tag(engine, "Grass", parse("more:12|13|14 less:0"))  # learnt again, everything is looked at again
    again = annotate(engine.store, create_maker("learned", engine.store), progress=False)
    assert again.looked_at == 36
    assert refused not in tagged(engine) and confirmed in tagged(engine)
    assert annotate(engine.store, create_maker("learned", engine.store), progress=False).looked_at == 0
    drop_learned(annotations, "Grass")
    annotate(engine.store, create_maker("learned", engine.store), progress=False)
    assert tagged(engine) == {confirmed}, "what was suggested goes with the tag, and what was confirmed stays"
    with pytest.raises(MakerError, match="no tag has been learnt here yet"):
        create_maker("learned", engine.store)


def test_it_survives_a_sync_and_suggests_itself_for_what_is_new(folder, root, engine, grass, capsys):  # noqa: F811
    where = [folder.name, "--collections", str(folder.parent), "--quiet"]
    assert say([*where, "--maker", "learned"]) == 0
    before = tagged(engine)
    paint_colours(root / "new", seed=7, count=4)
    (root / "b" / "00.png").unlink()
    sync_collection(folder, dataset=ImageFolder(root), encoder=engine.encoder, progress=False)
    after = SearchEngine.open(folder)
    kept = learned_tag(after.store.annotations, "grass")
    assert kept.more == (13,) and kept.less == (0,)  # the picture is gone, and what was learnt from it is not
    np.testing.assert_array_equal(kept.vector, grass.vector)
    capsys.readouterr()
    assert say([*where, "--maker", "learned"]) == 0
    assert "of 12 pictures" in capsys.readouterr().out
    new = tagged(after) - before
    names = {after.store.items[id].path.parent.name for id in new}
    assert names <= {"b"} and len(after.search("tag:~grass", 40)) == 40


def test_the_command_keeps_what_was_judged(folder, capsys):  # noqa: F811
    where = ["--in", folder.name, "--collections", str(folder.parent)]
    assert main(["more:12", *where, "--less", "0", "--keep", "grass"]) == 0
    assert main(["tag:~grass", *where, "-k", "12", "--paths"]) == 0
    assert {path.split("/")[-2] for path in capsys.readouterr().out.splitlines()[-12:]} == {"b"}
    assert main(["like:3", *where, "--keep", "grass"]) == 2
    assert "no picture is judged" in capsys.readouterr().err
    store = FeatureStore.open(folder)
    assert learned_tag(store.annotations, "grass").less == (0,)
    drop_learned(store.annotations, "grass")
    assert say([folder.name, "--collections", str(folder.parent), "--maker", "learned"]) == 2
    assert "no tag has been learnt here yet" in capsys.readouterr().err
