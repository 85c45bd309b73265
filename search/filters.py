"""Which pictures a search may find: a filter gives their ids, by SQL, and a sentence for people."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.collection.conditions import (
    EVERYTHING,
    NOTHING,
    AllOf,
    AnyOf,
    Condition,
    FilterError,
    Not,
    Scalar,
    Tree,
    conditions_of,
    simplified,
)
from features.collection.fields import known_field
from features.collection.store import FeatureStore
from search.errors import QueryError

FilterLike = Mapping[str, Any]
"""``{"label": "cup"}``, ``{"label": ["cup", "chair"]}``, ``{"size": {"gt": "1mb"}, "format": "png"}``, or with "and",
"or" and "not": ``{"or": [{"label": "cup"}, {"not": {"folder": "old"}}]}``."""

_SYNONYMS = {"=": "eq", "in": "any", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}

# As a sentence says them of one picture, and of what is not so.
_WORDS = {
    "eq": ("is", "is not"),
    "any": ("is", "is not"),
    "lt": ("is less than", "is not less than"),
    "lte": ("is at most", "is not at most"),
    "gt": ("is more than", "is not more than"),
    "gte": ("is at least", "is not at least"),
    "between": ("is between", "is not between"),
    "contains": ("contains", "does not contain"),
    "prefix": ("begins with", "does not begin with"),
    "suffix": ("ends with", "does not end with"),
    "empty": ("is empty", "is not empty"),
}


@dataclass(frozen=True)
class Filter:
    """Only some pictures; all of them if it asks for nothing.

    A filter never hides what it lets through: a search finds k of the pictures that it lets through, or all of them.

    Parameters
    ----------
    labels : tuple of str, optional
        Only pictures that bear one of these labels.
    where : Tree, optional
        Only pictures that are so. It is kept in its shortest form.

    Raises
    ------
    QueryError
        There are too many conditions, or they are nested too deep.
    """

    labels: InitVar[tuple[str, ...] | None] = None
    where: Tree | None = None

    def __post_init__(self, labels: tuple[str, ...] | None) -> None:
        wanted = [] if labels is None else [Condition("label", "any", labels)]
        asked = [*wanted, *([] if self.where is None else [self.where])]
        try:
            tree = simplified(AllOf(tuple(asked)))
        except FilterError as error:
            raise QueryError(str(error)) from error
        object.__setattr__(self, "where", None if tree == EVERYTHING else tree)

    @classmethod
    def of(cls, filter: Filter | FilterLike | Tree | None) -> Filter:
        """A filter as it is, as a tree, or as a mapping says it (see `FilterLike`).

        Raises
        ------
        QueryError
            The mapping makes no sense.
        """
        if filter is None or isinstance(filter, Filter):
            return filter or cls()
        if isinstance(filter, Condition | AllOf | AnyOf | Not):
            return cls(where=filter)
        try:
            return cls(where=_read(filter))
        except FilterError as error:
            raise QueryError(str(error)) from error
        except RecursionError as error:
            raise QueryError("a filter is nested too deep") from error

    def __and__(self, other: Filter) -> Filter:
        """What both let through."""
        return Filter(where=AllOf(tuple(tree for tree in (self.where, other.where) if tree is not None)))

    def ids(self, store: FeatureStore) -> NDArray[np.int64] | None:
        """Ids of the usable pictures that it lets through, ascending; None for all of them.

        Raises
        ------
        QueryError
            There is no such field, it cannot be compared so, or no picture bears one of the labels.
        """
        if self.where is None:
            return None
        _check_labels(self.where, store)
        if isinstance(self.where, Condition) and (labels := _labels_of(self.where)) is not None:
            return store.ids_with({"label": labels})
        try:
            return store.ids_matching(self.where)
        except FilterError as error:
            raise QueryError(str(error)) from error

    @property
    def conditions(self) -> tuple[Tree, ...]:
        """What must hold all at once; empty for all pictures."""
        return () if self.where is None else self.where.of if isinstance(self.where, AllOf) else (self.where,)

    def count(self, store: FeatureStore) -> int:
        """How many usable pictures it lets through, exactly."""
        ids = self.ids(store)
        return int(store.ids.size if ids is None else ids.size)

    def to_json(self) -> dict[str, Any]:
        """As a mapping that `of` reads as the same filter; empty for all pictures."""
        return {} if self.where is None else _written(self.where)

    def __str__(self) -> str:
        if self.where is None:
            return "all pictures"
        if self.where == NOTHING:
            return "no pictures"
        return f"pictures {_said(self.where)}"


def _read(filter: Any) -> Tree:
    """The tree of a mapping. Of several keys all must hold."""
    if not isinstance(filter, Mapping):
        raise FilterError(f"a filter is a mapping, got {type(filter).__name__}")
    trees: list[Tree] = []
    for key, value in filter.items():
        if key in ("and", "or"):
            if not isinstance(value, list | tuple):
                raise FilterError(f'"{key}" joins a list of filters, got {type(value).__name__}')
            trees.append((AllOf if key == "and" else AnyOf)(tuple(map(_read, value))))
        elif key == "not":
            trees.append(Not(_read(value)))
        elif isinstance(value, Mapping):
            trees.extend(_comparison(key, name, wanted) for name, wanted in value.items())
        elif isinstance(value, Collection) and not isinstance(value, str | bytes):
            trees.append(Condition(key, "any", tuple(value)))
        else:
            trees.append(Condition(key, "eq", value))
    return trees[0] if len(trees) == 1 else AllOf(tuple(trees))


def _comparison(field: str, name: Any, value: Any) -> Tree:
    if name in ("ne", "!="):
        return Not(Condition(field, "eq", value))
    if name == "empty":
        if not isinstance(value, bool):
            raise FilterError(f'whether {field} is "empty" is true or false, got {value!r}')
        empty = Condition(field, "empty")
        return empty if value else Not(empty)
    return Condition(field, _SYNONYMS.get(name, name), value)


def _written(tree: Tree) -> dict[str, Any]:
    if isinstance(tree, Not):
        return {"not": _written(tree.of)}
    if isinstance(tree, AllOf | AnyOf):
        return {"and" if isinstance(tree, AllOf) else "or": [_written(each) for each in tree.of]}
    value = tree.value
    if tree.comparison == "eq":
        return {tree.field: value}
    if tree.comparison == "empty":
        return {tree.field: {"empty": True}}
    return {tree.field: {tree.comparison: list(value) if isinstance(value, tuple) else value}}


def _labels_of(condition: Condition) -> list[str] | None:
    """The labels that a condition names as they are, if it is one on labels."""
    field, value = known_field(condition.field), condition.value
    if field is None or field.name != "label" or condition.comparison not in ("eq", "any") or value is None:
        return None
    return [str(label) for label in (value if isinstance(value, tuple) else (value,))]


def _check_labels(tree: Tree, store: FeatureStore) -> None:
    """Raise QueryError where a label is named that no picture bears."""
    named = {label for condition in conditions_of(tree) for label in _labels_of(condition) or ()}
    if missing := sorted(named - store.catalog.borne(named)):
        nearest = difflib.get_close_matches(missing[0], list(store.labels()), 1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise QueryError(f"no image of {store.folder.name} bears the label {', '.join(map(repr, missing))}{hint}")


def _said(tree: Tree, *, negated: bool = False) -> str:
    if isinstance(tree, Not):
        return f"not ({_said(tree.of)})" if not isinstance(tree.of, Condition) else _said(tree.of, negated=True)
    if isinstance(tree, AllOf | AnyOf):
        said = (f"({_said(each)})" if isinstance(each, AllOf | AnyOf) else _said(each) for each in tree.of)
        return (" and " if isinstance(tree, AllOf) else " or ").join(said)
    field, values = known_field(tree.field), tree.value
    listed: tuple[Scalar, ...] = values if isinstance(values, tuple) else () if values is None else (values,)
    joined = (" and " if tree.comparison == "between" else " or ").join(map(str, listed))
    if field is not None and field.participle and tree.comparison in ("eq", "any"):
        return f"{'not ' if negated else ''}{field.participle} {joined}"
    words = _WORDS[tree.comparison][negated]
    return f"whose {tree.field} {words}" if tree.comparison == "empty" else f"whose {tree.field} {words} {joined}"
