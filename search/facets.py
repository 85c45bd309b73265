"""Facets of a collection: which values its pictures have, how many each, and filters that are made by choosing them.

What is chosen is a `Filter` and nothing else: of each facet any of some values, and none of some others. A condition
that no facet would make, as of words that were typed, stays in the filter as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.collection.conditions import AllOf, AnyOf, Condition, Not, Scalar, Tree, conditions_of
from features.collection.fields import known_field
from features.collection.store import FeatureStore
from search.facet_values import CountedValues, fixed_facets
from search.filters import Filter
from search.said_facets import SaidFacets

Choice = Literal["", "only", "not"]
Mask = NDArray[np.bool_]

SHOWN = 12
MAX_SHOWN = 500


@dataclass(frozen=True)
class FacetValue:
    """A value of a facet.

    Attributes
    ----------
    text : str
        For people.
    tree : Tree
        The condition that a picture has it.
    count : int
        How many of the pictures have it that everything lets through but what is chosen of this facet.
    choice : str
        Whether it is chosen: "only" these, "not" these, or "".
    """

    text: str
    tree: Tree
    count: int
    choice: Choice = ""


@dataclass(frozen=True)
class Facet:
    """A field that pictures are chosen by.

    Attributes
    ----------
    field, title : str
    values : tuple of FacetValue
        None where the facet is closed.
    more : int
        Values that are not among them.
    """

    field: str
    title: str
    values: tuple[FacetValue, ...] = ()
    more: int = 0


class Chosen(NamedTuple):
    """What is chosen of one facet: pictures that have any of `only`, and none of `no`."""

    only: tuple[Tree, ...] = ()
    no: tuple[Tree, ...] = ()


def chosen_of(filter: Filter) -> tuple[dict[str, Chosen], list[Tree]]:
    """What a filter has chosen of each field, and its conditions that no choice of values could make."""
    chosen: dict[str, Chosen] = {}
    others: list[Tree] = []
    for tree in filter.conditions:
        inner, negated = (tree.of, True) if isinstance(tree, Not) else (tree, False)
        values = _alternatives(inner)
        fields = {field_name_of(condition) for value in values for condition in conditions_of(value)}
        if len(fields) != 1:
            others.append(tree)
            continue
        (field,) = fields
        known = chosen.get(field, Chosen())
        if negated:
            chosen[field] = known._replace(no=(*known.no, *values))
        elif not known.only:
            chosen[field] = known._replace(only=values)
        else:  # both at once is more than a facet can say
            others.append(tree)
    return chosen, others


def choose(filter: Filter, value: Tree, choice: Choice) -> Filter:
    """The filter after a value was chosen, excluded, or (with "") neither any more.

    Raises
    ------
    QueryError
        More is chosen than a filter can have.
    """
    chosen, others = chosen_of(filter)
    field = field_name_of(next(conditions_of(value)))
    only, no = (tuple(tree for tree in trees if tree != value) for trees in chosen.get(field, Chosen()))
    chosen[field] = Chosen((*only, value) if choice == "only" else only, (*no, value) if choice == "not" else no)
    trees = [tree for each in chosen.values() for tree in _trees(each)]
    return Filter(where=AllOf((*trees, *others)))


def without(filter: Filter, tree: Tree) -> Filter:
    """The filter without one of its conditions."""
    return Filter(where=AllOf(tuple(each for each in filter.conditions if each != tree)))


class Facets:
    """The facets of a collection, counted exactly. Safe to use from many threads.

    Columns of what files say are read once, those of what is said follow what is said anew.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._fixed: dict[str, CountedValues] | None = None
        self._said_facets = SaidFacets(store)
        self._said: dict[str, CountedValues] = {}
        self._changes: int | None = None

    def of(self, filter: Filter, opened: Collection[str], whole: Collection[str] = ()) -> list[Facet]:
        """All facets that have values; those of opened ones with how many pictures each.

        Parameters
        ----------
        opened : collection of str
            The fields whose values are wanted.
        whole : collection of str
            Those of them of which not only the most frequent values are wanted.

        Raises
        ------
        QueryError
            The filter asks for what there is not.
        """
        chosen, others = chosen_of(filter)
        with self._lock:
            columns = self._columns()
            facets = []
            for field, column in columns.items():
                facet = Facet(field, column.title)
                if field in opened:
                    limit = MAX_SHOWN if field in whole else SHOWN
                    facet = self._counted(facet, column, chosen, others, limit)
                facets.append(facet)
            return facets

    def warm(self) -> None:
        """Read all columns, as the first question would."""
        with self._lock:
            for column in self._columns().values():
                column.load()

    def _columns(self) -> dict[str, CountedValues]:
        if self._fixed is None:
            self._fixed = fixed_facets(self._store)
        changes = self._store.annotations.changes if self._store.has_annotations else None
        if changes != self._changes:
            self._said = self._said_facets.now()
            self._changes = changes
        return {**self._fixed, **self._said}

    def _counted(
        self, facet: Facet, column: CountedValues, chosen: dict[str, Chosen], others: list[Tree], limit: int
    ) -> Facet:
        mine = chosen.get(facet.field, Chosen())
        around = [tree for field, each in chosen.items() if field != facet.field for tree in _trees(each)] + others
        free = self._mask(around)
        barred = self._mask([*around, *_trees(Chosen(no=mine.no))]) if mine.no else free
        counts = column.counts(barred)
        if mine.no:  # an excluded value says how many it keeps away
            no = set(mine.no)
            excluded = [place for place, tree in enumerate(column.trees) if tree in no]
            counts[excluded] = column.counts(free)[excluded]
        choices: dict[Tree, Choice] = {**dict.fromkeys(mine.only, "only"), **dict.fromkeys(mine.no, "not")}
        places = column.first(counts, limit)
        shown = dict.fromkeys([*places, *(i for i, tree in enumerate(column.trees) if tree in choices)])
        values = [
            FacetValue(column.texts[i], tree, int(counts[i]), choices.pop(tree, ""))
            for i in shown
            for tree in (column.trees[i],)
        ]
        for tree, choice in choices.items():  # what is no value, as it was typed, or values have changed
            count = np.count_nonzero((free if choice == "not" else barred) & self._mask([tree]))
            values.append(FacetValue(_text(tree), tree, int(count), choice))
        there = int(np.count_nonzero(counts))
        return replace(facet, values=tuple(values), more=max(0, there - len(places)))

    def _mask(self, trees: Sequence[Tree]) -> Mask:
        ids = Filter(where=AllOf(tuple(trees))).ids(self._store)
        ids = self._store.ids if ids is None else ids
        mask = np.zeros(len(self._store.features), bool)
        mask[ids] = True
        return mask


def field_name_of(condition: Condition) -> str:
    """The name of a condition's field, whatever alias it was given by."""
    field = known_field(condition.field)
    return condition.field.lower() if field is None else field.name


def _trees(chosen: Chosen) -> list[Tree]:
    """What pictures must be like for a choice."""
    found: list[Tree] = []
    if chosen.only:
        found.append(_any(chosen.only))
    if chosen.no:
        found.append(Not(_any(chosen.no)))
    return found


def _any(values: Iterable[Tree]) -> Tree:
    """Any of some values, as one condition where they are plain ones of one field."""
    values = tuple(values)
    plain = [value for value in values if isinstance(value, Condition) and value.comparison == "eq"]
    others = tuple(value for value in values if value not in plain)
    named: tuple[Scalar, ...] = tuple(value.value for value in plain if isinstance(value.value, str | int | float))
    first = (Condition(plain[0].field, "any", named),) if plain else ()
    return AnyOf((*first, *others))


def _alternatives(tree: Tree) -> tuple[Tree, ...]:
    if isinstance(tree, AnyOf):
        return tuple(value for each in tree.of for value in _alternatives(each))
    if isinstance(tree, Condition) and tree.comparison == "any" and isinstance(tree.value, tuple):
        return tuple(Condition(tree.field, "eq", value) for value in tree.value)
    return (tree,)


def _text(tree: Tree) -> str:
    if isinstance(tree, Condition) and tree.comparison == "eq":
        return str(tree.value)
    return str(Filter(where=tree)).removeprefix("pictures ")
