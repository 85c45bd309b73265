"""One query in three notations: typed, JSON and Python. Whatever a person types is read."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_conditions import TREES, trees

from features.collection.conditions import AllOf, AnyOf, Condition, Not, simplified
from search.errors import QueryError
from search.filters import Filter
from search.grammar import MAX_TEXT, parse, write
from search.options import SearchOptions
from search.query import MAX_JUDGED, FeedbackPart, ImagePart, Query, TagPart, TextPart, clean_text
from search.query_json import from_json, to_json

TEXT = st.text(st.characters(blacklist_categories=["Cs"]) | st.sampled_from(list(' "\\()^*:|-.<>=~#"')), max_size=12)
WORDS = TEXT.filter(clean_text)
WEIGHTS = st.sampled_from([1, 2, -1, 0.5, 0]) | st.floats(-1e6, 1e6)
CROPS = st.none() | st.builds(
    lambda x, y, width, height: (x, y, x + width, y + height), *[st.integers(0, 99)] * 2, *[st.integers(1, 99)] * 2
)
PICTURES = (
    TEXT | st.integers(0, 10**9) | st.binary(max_size=9) | st.sampled_from(["https://example.org/a(b)?c=d#e", "data:"])
)
PARTS = st.one_of(
    st.builds(TextPart, WORDS, st.sampled_from(["words", "phrase", "prefix"]), weight=WEIGHTS),
    st.builds(TagPart, WORDS, st.booleans(), weight=WEIGHTS),
    st.builds(FeedbackPart, st.lists(st.integers(0, 40), min_size=1, max_size=4), weight=WEIGHTS.map(abs)),
    st.builds(FeedbackPart, less=st.lists(st.integers(41, 10**9), min_size=1, max_size=4), weight=WEIGHTS.map(abs)),
    st.builds(ImagePart, PICTURES.filter(lambda each: each != "data:"), CROPS, st.booleans(), weight=WEIGHTS),
)
SCALARS = TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
NAMES = TEXT | st.sampled_from(["image", "like", "more", "less", "tag", "label"])
FIELDS = NAMES.filter(lambda name: name not in ("", "and", "or", "not"))
ONE = st.sampled_from(["eq", "lt", "lte", "gt", "gte", "contains", "prefix", "suffix"])
CONDITIONS = st.one_of(
    st.builds(Condition, FIELDS, ONE, SCALARS),
    st.builds(Condition, FIELDS, st.just("any"), st.lists(SCALARS, max_size=3)),
    st.builds(Condition, FIELDS, st.just("between"), st.tuples(SCALARS, SCALARS)),
    st.builds(Condition, FIELDS, st.just("empty")),
)
FILTERS = trees(CONDITIONS, 6).map(lambda tree: Filter(where=tree))
QUERIES = st.builds(Query, st.lists(PARTS, max_size=4).map(tuple), FILTERS | st.just(Filter()))


@given(QUERIES)
@example(Query(filter=Condition("year", "between", ("0.", ""))))
@example(Query(filter=Condition("year", "between", ("a.", "b"))))
def test_what_is_written_for_the_search_box_is_read_as_the_same(query):
    assert parse(write(query)) == query


def test_a_nul_is_a_character_like_others():
    for query in (Query((ImagePart("\0"),)), Query((ImagePart("a\0b"),)), Query(filter=Condition("name", "eq", ""))):
        assert parse(write(query)) == query


@given(QUERIES, st.none() | st.integers(1, 99), st.none() | st.sampled_from([SearchOptions(nprobe=4), SearchOptions()]))
def test_json_is_read_as_the_same(query, k, options):
    query = Query(query.parts, query.filter, k, options, collection="demo")
    assert from_json(json.loads(json.dumps(to_json(query)))) == query


@given(TEXT | st.text(max_size=40))
def test_whatever_is_typed_is_read(text):
    query = parse(text)
    if not query.faults:
        assert parse(write(query)) == query == from_json(json.loads(json.dumps(to_json(query))))


@given(TREES)
def test_trees_of_any_shape_are_written(tree):
    assert parse(write(Query(filter=Filter(where=tree)))).filter == Filter(where=tree)


BOAT = TextPart("boat")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("red boat", [TextPart("red boat")]),
        ("a red boat^2 at sea", [TextPart("a red at sea"), TextPart("boat", weight=2)]),
        ('"red  boat"', [TextPart("red boat", match="phrase")]),
        ("boa*", [TextPart("boa", match="prefix")]),
        ("boat -night", [BOAT, TextPart("night", weight=-1)]),
        ('-"dark night"^.5', [TextPart("dark night", match="phrase", weight=-0.5)]),
        ("(red boat)^2 -(dark night)", [TextPart("red boat", weight=2), TextPart("dark night", weight=-1)]),
        ("(a (b c)^2 -d)^3", [TextPart("a", weight=3), TextPart("b c", weight=6), TextPart("d", weight=-3)]),
        ("boat OR sea", [BOAT, TextPart("sea")]),
        ("image:photo.jpg", [ImagePart("photo.jpg")]),
        ('image:"a b.jpg"#xywh=10,20,30,40^2', [ImagePart("a b.jpg", (10, 20, 40, 60), weight=2)]),
        ("like:7#foreground^2", [ImagePart(7, foreground=True, weight=2)]),
        ("image:a.jpg#xywh=0,0,3,4#foreground", [ImagePart("a.jpg", (0, 0, 3, 4), foreground=True)]),
        ('image:"a.jpg#foreground"', [ImagePart("a.jpg#foreground")]),
        (r'image:"C:\a b\"c\\d.jpg"', [ImagePart(r'C:\a b"c\d.jpg')]),
        ("image:https://example.org/b.jpg?c=1", [ImagePart("https://example.org/b.jpg?c=1")]),
        ("image:data:;base64,AAEC", [ImagePart(b"\x00\x01\x02")]),
        ("like:7 -like:8^2", [ImagePart(7), ImagePart(8, weight=-2)]),
        ("tag:~sunset", [TagPart("sunset", learned=True)]),
        (
            "tag:outdoor^2 -tag:night|fog^1",
            [TagPart("outdoor", weight=2), *[TagPart(t, weight=-1) for t in ("night", "fog")]],
        ),
        ("10:30 T-shirt don't", [TextPart("10:30 T-shirt don't")]),
        (r"\-x \OR y\:z", [TextPart("-x OR y:z")]),
        ("boat ^2", [TextPart("boat ^2")]),
        ("'; DROP TABLE images; --", [TextPart("'; DROP TABLE images; --")]),
        ("\u05e1\u05d9\u05e8\u05d4 \u202eabc", [TextPart("\u05e1\u05d9\u05e8\u05d4 \u202eabc")]),
        ("\U0001f6a3\u200d\u2640\ufe0f", [TextPart("\U0001f6a3\u200d\u2640\ufe0f")]),
        ("red\0boat", [TextPart("red boat")]),
        ("\ud83d boat", [TextPart("\ufffd boat")]),
        ("((a) b", [TextPart("( b"), TextPart("a")]),
    ],
)
def test_parts_are_read(text, parts):
    query = parse(text)
    assert list(query.parts) == parts
    assert query.filter == Filter()
    assert query.faults == ()


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("label:cat", Condition("label", "eq", "cat")),
        ('label:cat|"big dog"', Condition("label", "any", ("cat", "big dog"))),
        ("-label:cat", Not(Condition("label", "eq", "cat"))),
        ("label:!=cat", Not(Condition("label", "eq", "cat"))),
        ("year:2010..2015", Condition("year", "between", (2010, 2015))),
        ("year:2010..", Condition("year", "gte", 2010)),
        ("year:..2015", Condition("year", "lte", 2015)),
        ("size:>1mb", Condition("size", "gt", "1mb")),
        ("size:<=0.5", Condition("size", "lte", 0.5)),
        ("rating:>=4 rating:<5", AllOf((Condition("rating", "gte", 4), Condition("rating", "lt", 5)))),
        ("name:IMG*", Condition("name", "prefix", "IMG")),
        ("name:*.jpg", Condition("name", "suffix", ".jpg")),
        ("name:*7*", Condition("name", "contains", "7")),
        ('name:"*7*"', Condition("name", "eq", "*7*")),
        ('label:"7" id:7', AllOf((Condition("label", "eq", "7"), Condition("id", "eq", 7)))),
        ('label:""', Condition("label", "empty")),
        ("label:*", Not(Condition("label", "empty"))),
        ("tag:outdoor", Condition("tag", "eq", "outdoor")),
        (
            "(label:cat OR -year:2010) size:>1",
            AllOf(
                (
                    AnyOf((Condition("label", "eq", "cat"), Not(Condition("year", "eq", 2010)))),
                    Condition("size", "gt", 1),
                )
            ),
        ),
        ("label:x' OR '1'='1", Condition("label", "eq", "x'")),
    ],
)
def test_filters_are_read(text, tree):
    query = parse(text)
    assert query.filter.where == simplified(tree)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x" * 2**20, "at most 10,000 characters, got 1,048,576"),
        ("a OR " * 1_999, "at most 100 parts, got 1,999"),
        ("id:1 " * 1_999, "at most 200 conditions, got 1,999"),
        ("", "nothing to search for: there are no words"),
        (' \0 "" () ', "nothing to search for: there are no words"),
        ("boat^0 -sea^0", "nothing to search for: every part has the weight 0"),
        ("boat^1e999", "a weight must be a finite number, got 1e999"),
        ("boat^nan", "a weight must be a finite number, got nan"),
        ("like:3^-Infinity sea", "a weight must be a finite number, got -Infinity"),
        ("(boat^1e200)^1e200", "weight of a part must be a finite number, got inf"),
        ("label:cat^2", "a filter takes no weight"),
        ("label:cat OR boat", "OR stands between filters, or between words"),
        ("(label:cat boat) OR label:dog", "OR stands between filters, or between words"),
        ("like:first", "like: takes the number of a picture of the collection, got 'first'"),
        ("image:x#xywh=1,1,0,5", "a crop must be at least one pixel wide"),
        ("image:data:nonsense", "goes on with its content in base64"),
        ("not:x", "a field has a name, and not and, or, not"),
        ('tag:~""', "a tag has at least one character"),
    ],
)
def test_what_cannot_be_searched_is_a_sentence(text, said):
    with pytest.raises(QueryError, match=said):
        parse(text).check()


def test_what_only_looks_like_no_number_is_a_word():
    assert parse(r"boat^nana boat\^nan boat^").parts == (TextPart("boat^nana boat^nan boat^"),)


def test_as_many_brackets_as_fit_are_read():
    half = MAX_TEXT // 2 - 10
    assert parse("(" * half + "boat" + ")" * half).parts == (BOAT,)
    assert parse("-(" * 3_331 + "boat" + ")" * 3_331).parts == (TextPart("boat", weight=-1),)
    assert parse('"' * MAX_TEXT).parts == ()
    assert parse("(" * MAX_TEXT).faults == parse("^1" * (MAX_TEXT // 2)).faults == ()
    deep = parse("(id:1 OR (id:2 " * 500 + "))" * 500)
    with pytest.raises(QueryError, match="nested at most 32 levels"):
        deep.check()


@pytest.mark.parametrize("weight", [math.nan, math.inf, "2", None, True])
def test_a_weight_is_a_finite_number(weight):
    with pytest.raises(QueryError, match="weight of a part must be a finite number"):
        TextPart("boat", weight=weight)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TextPart(7), "must be a str, got int"),
        (lambda: TextPart("\0 "), "at least one word"),
        (lambda: TextPart("x", match="fuzzy"), "matches as words, phrase or prefix"),
        (lambda: TagPart(None), "must be a str, got NoneType"),
        (lambda: ImagePart(None), "got NoneType"),
        (lambda: ImagePart("a", (1, 2, 3)), r"a crop is \(left, top, right, bottom\)"),
        (lambda: ImagePart("a", (1, 2, 1, 3)), "at least one pixel wide"),
        (lambda: ImagePart("a", (0.5, 2, 1, 3)), "whole numbers"),
        (lambda: ImagePart("a", foreground=1), "foreground is true or false, got 1"),
        (lambda: Query(("boat",)), "parts of a query are ImagePart, TextPart or TagPart"),
        (lambda: Query(k=0), "k must be a whole number"),
        (lambda: Query(filter={"not": 3}), "a filter is a mapping"),
        (lambda: Query.of(7), "a query is a path"),
    ],
)
def test_python_is_checked_when_it_is_made(make, said):
    with pytest.raises(QueryError, match=said):
        make()


def test_the_json_of_the_design_is_read():
    asked = {
        "collection": "demo",
        "parts": [
            {"image": {"id": 7}, "crop": [0, 0, 120, 80], "weight": 1},
            {"text": "boat", "weight": -0.5},
            {"tag": "outdoor"},
        ],
        "filter": {"and": [{"rating": {"gte": 4}}, {"tags": {"any": ["sea", "lake"]}}]},
        "k": 20,
        "options": {"engine": "ivfpq"},
    }
    where = AllOf((Condition("rating", "gte", 4), Condition("tags", "any", ("sea", "lake"))))
    parts = (ImagePart(7, (0, 0, 120, 80)), TextPart("boat", weight=-0.5), TagPart("outdoor"))
    assert from_json(asked) == Query(parts, Filter(where=where), 20, SearchOptions(), "demo")
    assert from_json({"parts": [{"image": {"file": "a"}, "space": "tint"}]}).parts == (ImagePart("a", space="tint"),)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ([], "a query is a mapping, got list"),
        ({"part": []}, "a query has no part; known: collection, parts"),
        ({"parts": "boat"}, "the parts of a query are a list, got str"),
        ({"parts": ["boat"]}, "a part of a query is a mapping, got str"),
        ({"parts": [{}]}, "is an image, a text, a tag or feedback, got nothing"),
        ({"parts": [{"text": "a", "wieght": 2}]}, "a part has no wieght"),
        ({"parts": [{"text": "a", "weight": "2"}]}, "finite number, got '2'"),
        ({"parts": [{"text": "a", "space": 2}]}, "a space is named by a str"),
        ({"parts": [{"image": "a.jpg"}]}, "an image is a mapping, got str"),
        ({"parts": [{"image": {}}]}, "by one of id, file, url and bytes"),
        ({"parts": [{"image": {"id": "7"}}]}, "whole number, got '7'"),
        ({"parts": [{"image": {"bytes": "?"}}]}, "written in base64"),
        ({"parts": [{"image": {"url": "file:///etc/passwd"}}]}, "begins with http:// or https://"),
        ({"parts": [{"image": {"file": "http://a"}}]}, "and a file does not"),
        ({"k": 2.5}, "k must be a whole number"),
        ({"options": {"speed": 1}}, "options has no speed"),
        ({"collection": 3}, "a collection is named by a str"),
    ],
)
def test_json_that_makes_no_sense_is_a_sentence(query, said):
    with pytest.raises(QueryError, match=said):
        from_json(query)


def test_what_has_no_notation_is_said():
    pixels = np.zeros((2, 2, 3), np.uint8)
    for notation in (write, to_json):
        with pytest.raises(QueryError, match="decoded pixels"):
            notation(Query((ImagePart(pixels),)))
        with pytest.raises(QueryError, match="no weight"):
            notation(parse("label:cat^2"))
    with pytest.raises(QueryError, match="in the space tint"):
        write(Query((ImagePart("a", space="tint"),)))
    assert ImagePart(pixels) == ImagePart(pixels.copy()) != ImagePart(pixels, weight=2)
    assert len({ImagePart(pixels), ImagePart(pixels.copy()), ImagePart("a"), ImagePart(b"a")}) == 3


def test_judgements_are_one_part_however_they_are_written():
    query = parse("boat more:7 -label:a less:9|12 -more:3 (more:8 less:2)^2")
    assert query.parts == (BOAT, FeedbackPart((7, 8), (9, 12, 3, 2)))
    assert write(query) == "boat more:7 more:8 less:9 less:12 less:3 less:2 -label:a"
    assert to_json(query)["parts"][1] == {"more": [7, 8], "less": [9, 12, 3, 2], "weight": 1.0}
    assert FeedbackPart((7,), (9,), weight=-2) == FeedbackPart((9,), (7,), weight=2)
    assert parse("more:7^0.5").parts == (FeedbackPart((7,), weight=0.5),)
    assert parse("\\more:7").filter.where == Condition("more", "eq", 7)


def test_a_judgement_is_taken_back_and_turned():
    query = parse("boat").judged(7, "more").judged(9, "less")
    assert query.parts == (BOAT, FeedbackPart((7,), (9,)))
    assert query.judged(7, "less").parts == (BOAT, FeedbackPart((), (9, 7)))
    assert query.judged(7, None).judged(9, None) == parse("boat")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("boat more:7 less:7", "picture 7 is judged both ways"),
        ("more:first", "more: takes the number of a picture of the collection, got 'first'"),
        ("less:1|", "less: takes the number of a picture of the collection, got ''"),
        ("more:7^1e999", "finite number"),
    ],
)
def test_judgements_that_make_no_sense_are_a_sentence_and_the_rest_is_read(text, said):
    query = parse(text)
    with pytest.raises(QueryError, match=said):
        query.check()
    assert [part for part in query.parts if part != BOAT] == []


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: FeedbackPart(), "at least one picture"),
        (lambda: FeedbackPart(range(10_000)), f"at most {MAX_JUDGED:,} judged pictures, got 10,000"),
        (lambda: FeedbackPart([True]), "its id, a whole number"),
        (lambda: FeedbackPart([-1]), "its id, a whole number"),
        (lambda: FeedbackPart("7"), "a list of ids, got '7'"),
        (lambda: FeedbackPart(7), "a list of ids, got 7"),
        (lambda: FeedbackPart([7], weight=math.nan), "finite number, got nan"),
        (lambda: Query((FeedbackPart([7]), FeedbackPart(less=[7]))), "judged both ways"),
        (lambda: from_json({"parts": [{"more": ["7"]}]}), "its id, a whole number"),
        (lambda: from_json({"parts": [{"more": 7}]}), "a list of ids"),
        (lambda: from_json({"parts": [{"less": [7], "tag": "x"}]}), "a part has no tag"),
    ],
)
def test_judgements_are_checked_when_they_are_made(make, said):
    with pytest.raises(QueryError, match=said):
        make()
