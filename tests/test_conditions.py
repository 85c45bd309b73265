"""A tree of conditions finds what a loop over the pictures finds, whatever a person wrote."""

import operator
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.collection import fields
from features.collection.catalog import Catalog
from features.collection.conditions import (
    MAX_CHARACTERS,
    MAX_CONDITIONS,
    MAX_DEPTH,
    AllOf,
    AnyOf,
    Condition,
    FilterError,
    Not,
    simplified,
)
from features.collection.fields import NumberField, field_names, register_field
from features.collection.folding import folded
from features.collection.records import CatalogChanges, Row

PATHS = ["a.jpg", "sea/b.PNG", "sea/deep/100%.jpeg", "sea/a_c.tif", "seas/x", "Sea/ü.JPG", "o'clock/it's.png", "z/.gif"]


def moment(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


DATES = ["2009-12-31 23:59:59", "2010-01-01", "2010-05-17", "2010-05-18", "2010-06-01", "2011-01-01", "2020-02-29"]
ROWS = [
    Row(id, Path(path), 250_000 * id, moment(date), f"{id}" * 64, None if id == 3 else 100 * id, 300, None)
    for id, (path, date) in enumerate(zip(PATHS, [*DATES, "1969-12-31"], strict=True))
] + [Row(8, Path("sea/broken.jpg"), 10, 0, None, None, None, "truncated")]
LABELS = {0: ("cat",), 1: ("cat", "dog"), 2: ("o'clock\" --",), 4: ("Cat",), 8: ("cat",)}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    made = Catalog.create(tmp_path_factory.mktemp("conditions") / "catalog.sqlite")
    made.fill(ROWS, LABELS.items())
    made.close()
    return Catalog.open(made.path)


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (Condition("label", "eq", "cat"), [0, 1]),
        (Condition("label", "any", ["dog", "Cat"]), [1, 4]),
        (Condition("label", "any", []), []),
        (Condition("label", "prefix", "ca"), [0, 1, 4]),
        (Condition("labels", "empty"), [3, 5, 6, 7]),
        (Condition("label", "eq", "cat' OR 1=1 --"), []),
        (Condition("label", "eq", "o'clock\" --"), [2]),
        (Condition("size", "eq", 250_000), [1]),
        (Condition("size", "gt", "1mb"), [5, 6, 7]),
        (Condition("size", "gte", "1 MB"), [4, 5, 6, 7]),
        (Condition("size", "lt", "1MiB"), [0, 1, 2, 3, 4]),
        (Condition("size", "between", ("0.5mb", 750_000)), [2, 3]),
        (Condition("size", "any", (0, "250kb")), [0, 1]),
        (Condition("width", "empty"), [3]),
        (Condition("width", "lte", 200), [0, 1, 2]),
        (Not(Condition("width", "lte", 200)), [3, 4, 5, 6, 7]),
        (Condition("format", "eq", "JPEG"), [0, 2, 5]),
        (Condition("format", "any", (".png", "tiff")), [1, 3, 6]),
        (Condition("format", "empty"), [4, 7]),
        (Condition("folder", "eq", "sea"), [1, 2, 3]),
        (Condition("folder", "eq", "/sea/deep/"), [2]),
        (Condition("folder", "any", ("Sea", "seas")), [4, 5]),
        (Condition("folder", "empty"), [0]),
        (Condition("folder", "contains", "EA"), [1, 2, 3, 4, 5]),
        (Condition("name", "contains", "0%"), [2]),
        (Condition("name", "contains", "_"), [3]),
        (Condition("name", "prefix", "a"), [0, 3]),
        (Condition("path", "eq", "a.jpg"), [0]),
        (Condition("path", "suffix", "/it's.png"), [6]),
        (Condition("date", "eq", 2010), [1, 2, 3, 4]),
        (Condition("year", "between", ("2010", 2011)), [1, 2, 3, 4, 5]),
        (Condition("date", "gt", 2010), [5, 6]),
        (Condition("date", "gte", "2010-05-18"), [3, 4, 5, 6]),
        (Condition("date", "lt", "2010-01"), [0, 7]),
        (Condition("date", "lte", "2010-05"), [0, 1, 2, 3, 7]),
        (Condition("date", "any", ("2010-05-17", "2020-2-29")), [2, 6]),
        (Condition("date", "eq", "2009-12-31T23:59:59"), [0]),
        (Condition("id", "between", (5, 8)), [5, 6, 7]),
        (Condition("sha256", "prefix", "4"), [4]),
        (AllOf(()), [0, 1, 2, 3, 4, 5, 6, 7]),
        (AnyOf(()), []),
        (AllOf((Condition("label", "eq", "cat"), Condition("folder", "eq", "sea"))), [1]),
        (AnyOf((Condition("label", "eq", "dog"), Condition("name", "eq", "x"))), [1, 4]),
    ],
)
def test_each_field_finds_the_right_pictures(catalog, condition, ids):
    found = catalog.ids_matching(condition)
    assert found.tolist() == ids
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (Condition("colour", "eq", 1), "cannot filter by colour; known: label, size, .*; the nearest is source"),
        (Condition("widht", "eq", 1), "the nearest is width$"),
        (Condition("width", "gt", "wide"), "width is a number; got 'wide'"),
        (Condition("width", "eq", "3mb"), "width is a number; got '3mb'"),
        (Condition("size", "eq", "3 cm"), "size is a number, or one with b, kb, mb, .*; got '3 cm'"),
        (Condition("width", "prefix", "1"), "width is a number: it can be equal, smaller, larger or between"),
        (Condition("date", "contains", "1"), "date is a date: it can be equal, earlier, later or between"),
        (Condition("date", "eq", "yesterday"), "date is a date as 2010, 2010-05 or 2010-05-17; got 'yesterday'"),
        (Condition("date", "gt", "2010-13"), "got '2010-13'"),
        (Condition("date", "lte", "9999"), "got '9999'"),
        (Condition("folder", "any", range(501)), "at most 500 values, got 501"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(catalog, condition, said):
    with pytest.raises(FilterError, match=said):
        catalog.ids_matching(condition)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "eq", 1), "a field has a name"),
        (("and", "eq", 1), "a field has a name, and not and, or, not"),
        (("size", "near", 1), "size cannot be compared by 'near'; known: eq, any"),
        (("size", "eq", float("nan")), "finite number, got nan"),
        (("size", "eq", True), "finite number, got True"),
        (("size", "eq", None), "finite number, got None"),
        (("size", "any", "12"), "several values by 'any', got '12'"),
        (("name", "contains", "x" * 10_001), "name is compared with at most 10,000 characters, got 10,001"),
        (("size", "between", (1, 2, 3)), "between two values, got 3"),
    ],
)
def test_a_condition_is_checked_when_it_is_made(arguments, said):
    with pytest.raises(FilterError, match=said):
        Condition(*arguments)


SIGNS = {"eq": operator.eq, "lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}
LEAVES = st.one_of(
    st.builds(Condition, st.just("size"), st.sampled_from(list(SIGNS)), st.integers(-1, 2_000_000)),
    st.builds(Condition, st.just("width"), st.sampled_from(list(SIGNS)), st.integers(0, 800)),
    st.builds(Condition, st.just("label"), st.just("eq"), st.sampled_from(["cat", "dog", "Cat", "' OR '1"])),
    st.builds(Condition, st.just("name"), st.just("contains"), st.text("aj.p%_'\\\x00ü", max_size=3)),
)


def trees(leaves, max_leaves):
    """Such conditions in all ways that they can be joined."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(AllOf, st.lists(inner, max_size=3).map(tuple)),
            st.builds(AnyOf, st.lists(inner, max_size=3).map(tuple)),
            st.builds(Not, inner),
        ),
        max_leaves=max_leaves,
    )


TREES = trees(LEAVES, 12)


def holds(tree, row):
    """What the tree says, asked of one picture."""
    if isinstance(tree, AllOf):
        return all(holds(each, row) for each in tree.of)
    if isinstance(tree, AnyOf):
        return any(holds(each, row) for each in tree.of)
    if isinstance(tree, Not):
        return not holds(tree.of, row)
    if tree.field == "label":
        return tree.value in LABELS.get(row.id, ())
    if tree.field == "name":
        return folded(tree.value) in folded(row.path.name)
    value = getattr(row, tree.field)
    return value is not None and SIGNS[tree.comparison](value, tree.value)


@given(TREES)
def test_trees_find_what_a_loop_finds(catalog, tree):
    wanted = [row.id for row in ROWS if row.error is None and holds(tree, row)]
    assert catalog.ids_matching(tree).tolist() == wanted
    assert catalog.ids_matching(simplified(tree)).tolist() == wanted


@given(
    st.builds(Condition, st.sampled_from(field_names()), st.sampled_from(["eq", "contains", "gt"]), st.text(max_size=9))
)
def test_no_text_is_taken_for_sql(catalog, condition):
    try:
        found = catalog.ids_matching(condition)
    except FilterError:
        return
    assert set(found.tolist()) <= set(range(8))


def test_brackets_that_change_nothing_are_left_out():
    a, b, c = (Condition("width", "eq", i) for i in range(3))
    assert simplified(AllOf((AllOf((a, b)), AllOf((c,))))) == AllOf((a, b, c))
    assert simplified(Not(Not(AnyOf((a,))))) == a
    assert simplified(Condition("label", "any", ("cat",))) == Condition("label", "eq", "cat")
    assert simplified(Condition("label", "eq", "")) == Condition("label", "empty")


def test_a_filter_has_bounds():
    many = AllOf(tuple(Condition("width", "eq", i) for i in range(MAX_CONDITIONS + 1)))
    with pytest.raises(FilterError, match="at most 200 conditions, got 201"):
        simplified(many)
    deep = Condition("width", "eq", 1)
    for _ in range(10 * MAX_DEPTH):
        deep = AllOf((Not(deep), deep))
    with pytest.raises(FilterError, match="nested at most 32 levels"):
        simplified(deep)


def test_filters_at_their_bounds_are_searched(catalog):
    many = tuple(Condition("id", "lt", 5) for _ in range(MAX_CONDITIONS))
    assert catalog.ids_matching(Condition("label", "any", range(20_000))).size == 0
    assert catalog.ids_matching(AllOf(many)).tolist() == [*range(5)]
    assert catalog.ids_matching(simplified(tree_of_depth(MAX_DEPTH - 2))).tolist() == [3]
    assert catalog.ids_matching(Condition("name", "contains", "\U0001f600" * MAX_CHARACTERS)).size == 0
    assert catalog.ids_matching(Condition("folder", "any", range(500))).size == 0


def tree_of_depth(depth):
    """Picture 3, said in a roundabout way."""
    tree = Condition("id", "eq", 3)
    for _ in range(depth // 2):
        tree = AnyOf((AllOf((tree, Condition("id", "lt", 9))), Condition("id", "lt", -1)))
    return tree


def test_a_catalog_that_is_changed_is_searched_as_it_is_then(tmp_path):
    made = Catalog.create(tmp_path / "catalog.sqlite")
    made.fill(ROWS, LABELS.items())
    sea = Condition("folder", "eq", "sea")
    assert made.ids_matching(sea).tolist() == [1, 2, 3]
    made.apply(CatalogChanges(moved=[(1, Path("b.png"), 5, 5)], added=[Row(9, Path("sea/new"), 1, 1, *[None] * 4)]), 1)
    assert made.ids_matching(sea).tolist() == [2, 3, 9]


def test_names_that_are_not_valid_text_are_found(tmp_path):
    made = Catalog.create(tmp_path / "catalog.sqlite")
    made.fill([Row(0, Path("sea/\udcff.jpg"), 1, 1, *[None] * 4)], [])
    assert made.ids_matching(Condition("folder", "eq", "sea")).tolist() == [0]
    assert made.ids_matching(Condition("format", "eq", "jpeg")).tolist() == [0]
    assert made.ids_matching(Condition("name", "contains", "\udcff")).tolist() == [0]


ACCENTS = [
    Row(id, Path(path), 1, 1, *[None] * 4)
    for id, path in enumerate(
        ["Fotos/Müller.jpg", "Fotos/Mu\u0308ller 2.jpg", "Café/MULLER.jpg", "Cafe/müll", "ЁЛКА/ёж.png", "x/Straße.jpg"]
    )
]


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        (Condition("name", "contains", "muller"), [0, 1, 2]),
        (Condition("name", "contains", "MÜLLER"), [0, 1, 2]),
        (Condition("name", "prefix", "mu\u0308ll"), [0, 1, 2, 3]),
        (Condition("name", "suffix", "ÜLLER.JPG"), [0, 2]),
        (Condition("name", "contains", "ü"), [0, 1, 2, 3]),
        (Condition("name", "contains", "strasse"), [5]),
        (Condition("name", "contains", "%ller"), []),
        (Condition("name", "contains", "\u0308"), [1]),  # a mark alone is looked for as it is
        (Condition("folder", "contains", "café"), [2, 3]),
        (Condition("folder", "prefix", "елк"), [4]),
        (Condition("path", "contains", "cafe/mu"), [2, 3]),
        (Condition("path", "suffix", "елка/еж.png"), [4]),
        (Not(Condition("path", "contains", "l")), [4, 5]),
        (Condition("name", "contains", "\ufdfa" * 9_000), []),  # folded, it is eighteen times as long
        (Condition("folder", "eq", "Cafe"), [3]),
    ],
)
@pytest.mark.parametrize("version", [2, 3])
def test_names_are_found_without_regard_to_diacritics(tmp_path, condition, ids, version):
    made = Catalog.create(tmp_path / "catalog.sqlite")
    made.fill(ACCENTS, [])
    made.apply(CatalogChanges(moved=[(0, Path("Fotos/a.jpg"), 1, 1)]), 1)
    made.apply(CatalogChanges(moved=[(0, Path("Fotos/Müller.jpg"), 1, 1)]), 2)
    made.close()
    if version < 3:  # without the columns that were not there yet
        with sqlite3.connect(tmp_path / "catalog.sqlite") as old:
            for column in ("folder_folded", "name_folded"):
                old.execute(f"ALTER TABLE images DROP COLUMN {column}")
            old.execute("PRAGMA user_version = 2")
    opened = Catalog.open(tmp_path / "catalog.sqlite")
    assert opened.ids_matching(condition).tolist() == ids
    migrated = opened.copy(tmp_path / "new.sqlite")
    assert migrated.ids_matching(condition).tolist() == ids


def test_a_made_up_field_is_used_like_the_others(catalog, monkeypatch):
    monkeypatch.setattr(fields, "_FIELDS", dict(fields._FIELDS))
    register_field(NumberField("megapixels", "width * height / 1e6"))
    assert catalog.ids_matching(Condition("megapixels", "gt", 0.16)).tolist() == [6, 7]
    assert "megapixels" in field_names()
