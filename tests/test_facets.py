"""Facets: what is chosen is a filter and comes back from it, and every count is what the filter itself lets through."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_store import SPEC, facts

from features.collection import edits
from features.collection.conditions import AnyOf, Condition, Not
from features.collection.said import Maker, Words
from features.collection.writer import StoreWriter
from features.datasets import Item
from search.errors import QueryError
from search.facets import Facets, choose, chosen_of, without
from search.filters import Filter
from search.orders import ORDERS, PictureOrders

FIELDS = (
    "label",
    "folder",
    "date",
    "size",
    "format",
    "favourite",
    "album",
    "tag",
    "camera",
    "rating",
    "weight",
    "taken",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty pictures in folders within each other, of four years, formats and sizes, of which much is said."""
    root = tmp_path_factory.mktemp("facets")
    rng = np.random.default_rng(0)
    items = []
    for i in range(60):
        folder = root / "pictures" / ("cup", "chair", "old")[i % 3] / ("a" if i % 2 else "b/c")
        folder.mkdir(parents=True, exist_ok=True)
        side = (4, 60, 120)[i % 3]
        path = folder / f"{'Zz'[i % 2]}{i}.{('png', 'jpg', 'JPEG', 'tif')[i % 4]}"
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(path)
        os.utime(path, (datetime(2010 + i % 4, 6, 1, tzinfo=UTC).timestamp(),) * 2)
        items.append(Item(i, path, (("cup", "chair")[i % 3],) if i % 3 < 2 else ()))
    dataset = SimpleNamespace(items=items, root=root / "pictures", name="pictures")
    writer = StoreWriter(root / "c", dataset, items, SPEC, "float16")
    writer.append(rng.standard_normal((60, 4)).astype(np.float32), facts(dataset))
    store = writer.finish()
    said = store.annotations
    edits.add_tag(said, range(0, 30), "Sea")
    edits.add_tag(said, range(20, 40), "sky")
    edits.put_in_album(said, range(5, 15), "Best of 2010")
    edits.set_favourite(said, range(3, 9), True)
    said.put(
        Maker("file", "exif"),
        "1",
        [
            (
                record,
                Words(
                    {},
                    {"sea": 0.5} if record.id < 10 else {},
                    {
                        "camera": ("Canon", "Nikon")[record.id % 2],
                        "rating": record.id % 5,
                        "weight": record.id**2 / 7,
                        "taken": datetime(1950 + record.id // 20, 1, 1, tzinfo=UTC),
                    },
                ),
            )
            for record in store.records()[:50]
        ],
    )
    return store


def ids(store, filter):
    found = Filter.of(filter).ids(store)
    return (store.ids if found is None else found).tolist()


FILTERS = [
    Filter(),
    Filter(("cup",)),
    Filter.of({"label": ["cup", "chair"], "not": {"tag": "sea"}}),
    Filter.of({"and": [{"or": [{"label": "cup"}, {"label": {"empty": True}}]}, {"date": ["2010", "2012"]}]}),
    Filter.of({"not": {"or": [{"album": "Best of 2010"}, {"folder": "old"}]}, "size": {"gt": 100}}),
    Filter.of({"favourite": "yes", "camera": "Nikon"}),
    Filter.of({"name": {"contains": "z1"}, "rating": [1, 2]}),
]


@pytest.mark.parametrize("filter", FILTERS, ids=str)
def test_every_count_is_what_the_filter_lets_through(store, filter):
    for facet in Facets(store).of(filter, FIELDS, FIELDS):
        chosen, _ = chosen_of(filter)
        for value in facet.values:
            alone = filter
            for tree in chosen.get(facet.field, ((), ()))[0]:
                alone = choose(alone, tree, "")
            if value.choice == "not":
                for tree in chosen[facet.field].no:
                    alone = choose(alone, tree, "")
            assert value.count == len(ids(store, choose(alone, value.tree, "only"))), (facet.field, value)
        assert facet.more == 0


def test_all_fields_are_facets_and_closed_ones_count_nothing(store):
    found = {facet.field: facet for facet in Facets(store).of(Filter(), ["label"])}
    assert set(found) == set(FIELDS)
    assert [(value.text, value.count) for value in found["label"].values] == [("chair", 20), ("cup", 20), ("none", 20)]
    assert found["tag"].values == ()
    opened = {facet.field: facet for facet in Facets(store).of(Filter(), FIELDS)}
    assert [(value.text, value.count) for value in opened["tag"].values] == [("Sea", 30), ("none", 20), ("sky", 20)]
    assert [(value.text, value.count) for value in opened["format"].values] == [("jpeg", 30), ("png", 15), ("tiff", 15)]
    assert [value.text for value in opened["date"].values] == ["2013", "2012", "2011", "2010"]
    assert ("old/b/c", 10) in [(value.text, value.count) for value in opened["folder"].values]
    assert sum(value.count for value in opened["size"].values) == 60
    assert sum(value.count for value in opened["weight"].values) == 60  # none is one of them
    assert [value.text for value in opened["rating"].values] == ["0", "1", "2", "3", "4", "none"]
    assert [(value.text, value.count) for value in opened["taken"].values][:2] == [("1952", 10), ("1951", 20)]


def test_choosing_is_one_filter_and_is_read_from_it(store):
    cup, chair, none = Condition("label", "eq", "cup"), Condition("label", "eq", "chair"), Condition("label", "empty")
    filter = choose(choose(Filter(), cup, "only"), chair, "only")
    assert filter == Filter(("cup", "chair"))
    assert str(filter) == "pictures labelled cup or chair"
    filter = choose(filter, none, "only")
    assert chosen_of(filter)[0]["label"].only == (cup, chair, none)
    filter = choose(filter, Condition("tag", "eq", "sea"), "not")
    filter = choose(filter, Condition("tag", "eq", "sky"), "not")
    assert chosen_of(Filter.of(filter.to_json())) == chosen_of(filter)
    assert Not(Condition("tag", "any", ("sea", "sky"))) in filter.conditions
    assert chosen_of(choose(filter, chair, "not"))[0]["label"] == ((cup, none), (chair,))
    for tree in (cup, chair, none):
        filter = choose(filter, tree, "")
    assert filter == Filter.of({"not": {"tag": ["sea", "sky"]}})
    assert without(filter, filter.conditions[0]) == Filter()


def test_what_no_facet_could_say_stays_as_it_is():
    mixed = AnyOf((Condition("label", "eq", "cup"), Condition("size", "gt", 5)))
    both = Filter.of({"and": [{"label": "a"}, {"label": "b"}]})
    filter = choose(Filter(where=mixed), Condition("label", "eq", "chair"), "only")
    assert mixed in filter.conditions
    assert chosen_of(both)[1] == [Condition("label", "eq", "b")]


def test_a_value_that_is_none_of_the_known_is_counted_too(store):
    (sizes,) = (each for each in Facets(store).of(Filter.of({"size": {"gt": 100}}), ["size"]) if each.field == "size")
    assert [value.choice for value in sizes.values].count("only") == 1
    value = sizes.values[-1]
    assert (value.text, value.count) == ("whose size is more than 100", len(ids(store, {"size": {"gt": 100}})))


def test_an_edit_is_counted_at_once(store):
    facets, said = Facets(store), store.annotations

    def tags():
        (tag,) = (each for each in facets.of(Filter(), ["tag"]) if each.field == "tag")
        return {value.text: value.count for value in tag.values}

    before = tags()
    edits.add_tag(said, [50, 51], "moon")
    assert tags() == {**before, "moon": 2, "none": before["none"] - 2}
    edits.undo(said)
    assert tags() == before


def test_only_the_most_frequent_are_shown_of_many(store):
    names = [f"tag {number:03}" for number in range(40)]
    for place, name in enumerate(names):
        edits.add_tag(store.annotations, range(place, 60), name)
    (tag,) = (each for each in Facets(store).of(Filter(), ["tag"]) if each.field == "tag")
    assert [value.text for value in tag.values] == names[:12]
    assert tag.more == 30  # the others, Sea and sky; none has none left
    (tag,) = (each for each in Facets(store).of(Filter(), ["tag"], ["tag"]) if each.field == "tag")
    assert len(tag.values) == 42
    for _ in names:
        edits.undo(store.annotations)


def test_orders_hold_every_picture_once(store):
    orders, some = PictureOrders(store), np.arange(3, 50)
    items = store.items
    for order in ORDERS:
        assert sorted(orders.ordered(some, order, 7).tolist()) == some.tolist()
    names = [items[id].path.name.casefold() for id in orders.ordered(some, "name").tolist()]
    assert names == sorted(names)
    sizes = [items[id].path.stat().st_size for id in orders.ordered(some, "size").tolist()]
    assert sizes == sorted(sizes, reverse=True)
    dates = [items[id].path.stat().st_mtime_ns for id in orders.ordered(some, "date").tolist()]
    assert dates == sorted(dates, reverse=True)
    labels = [(items[id].labels or ("~",))[0] for id in orders.ordered(some, "label").tolist()]
    assert labels == sorted(labels)
    first = orders.ordered(some, "random", 1).tolist()
    assert first != orders.ordered(some, "random", 2).tolist()
    assert first == PictureOrders(store).ordered(some, "random", 1).tolist()
    with pytest.raises(QueryError, match="no order 'best'; known: collection"):
        orders.ordered(some, "best")


def test_albums_are_undone_and_named_as_at_first(store):
    said = store.annotations
    edits.put_in_album(said, [40], "best OF 2010")
    assert said.of([40])[40].albums == ("Best of 2010",)
    edits.take_out_of_album(said, [40, 5], "BEST of 2010")
    assert ids(store, {"album": "Best of 2010"}) == list(range(6, 15))
    edits.undo(said)
    edits.undo(said)
    assert ids(store, {"albums": "best of 2010"}) == list(range(5, 15))
