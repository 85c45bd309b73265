"""What pictures must be like: a tree of conditions on fields. `fields` turns it into SQL."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

Scalar = str | int | float
Comparison = Literal["eq", "any", "lt", "lte", "gt", "gte", "between", "contains", "prefix", "suffix", "empty"]
COMPARISONS: tuple[Comparison, ...] = get_args(Comparison)
CONNECTIVES = ("and", "or", "not")

MAX_CONDITIONS = 200
MAX_DEPTH = 32

MAX_CHARACTERS = 10_000  # of a value; sqlite compares with no pattern of more than 50,000 bytes

_IN_NO_FILE = re.compile("[\0\ud800-\udfff]")


class FilterError(ValueError):
    """What cannot be filtered by; the message is a sentence for the person who asked."""


@dataclass(frozen=True)
class Condition:
    """What one field must be like.

    Attributes
    ----------
    field : str
        Its name; whether there is such a field shows when the pictures are looked for.
    comparison : str
        One of `COMPARISONS`: equal to, equal to any of, less than, ..., between two (both ends count), contains, begins
        with, ends with, says nothing.
    value : Scalar, tuple of Scalar, or None
        Of "any" all, of "between" both ends, of "empty" None.

    Raises
    ------
    FilterError
        The value does not go with the comparison.
    """

    field: str
    comparison: Comparison
    value: Scalar | tuple[Scalar, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.field, str) or not self.field or self.field in CONNECTIVES:
            raise FilterError(f"a field has a name, and not and, or, not; got {self.field!r}")
        if self.comparison not in COMPARISONS:
            known = ", ".join(COMPARISONS)
            raise FilterError(f"{self.field} cannot be compared by {self.comparison!r}; known: {known}")
        object.__setattr__(self, "field", _IN_NO_FILE.sub("\ufffd", self.field))
        object.__setattr__(self, "value", self._checked_value())

    def _checked_value(self) -> Scalar | tuple[Scalar, ...] | None:
        if self.comparison == "empty":
            return None
        if self.comparison not in ("any", "between"):
            value = _scalar(self.field, self.value)
            return str(value) if self.comparison in ("contains", "prefix", "suffix") else value
        values = self.value
        if not isinstance(values, Iterable) or isinstance(values, str | bytes):
            raise FilterError(f"{self.field} is compared with several values by {self.comparison!r}, got {values!r}")
        checked = tuple(_scalar(self.field, value) for value in values)
        if self.comparison == "between" and len(checked) != 2:
            raise FilterError(f"{self.field} is between two values, got {len(checked)}")
        return checked if self.comparison == "between" else tuple(dict.fromkeys(checked))


@dataclass(frozen=True)
class AllOf:
    """All of these at once; every picture where there are none."""

    of: tuple[Tree, ...]


@dataclass(frozen=True)
class AnyOf:
    """At least one of these; no picture where there are none."""

    of: tuple[Tree, ...]


@dataclass(frozen=True)
class Not:
    """All pictures but these: also those whose field says nothing."""

    of: Tree


Tree = Condition | AllOf | AnyOf | Not

EVERYTHING = AllOf(())
NOTHING = AnyOf(())


def simplified(tree: Tree) -> Tree:
    """The same tree in its shortest form: of two trees that differ only in how they are bracketed it makes one.

    Raises
    ------
    FilterError
        There are more than `MAX_CONDITIONS` conditions, or they are nested deeper than `MAX_DEPTH`.
    """
    simple = _simplified(tree, 1)
    if (count := sum(1 for _ in conditions_of(simple))) > MAX_CONDITIONS:
        raise FilterError(f"a filter has at most {MAX_CONDITIONS} conditions, got {count:,}")
    return simple


def conditions_of(tree: Tree) -> Iterator[Condition]:
    """All conditions of a tree, from left to right."""
    if isinstance(tree, Condition):
        yield tree
    else:
        for inner in (tree.of,) if isinstance(tree, Not) else tree.of:
            yield from conditions_of(inner)


def _simplified(tree: Tree, depth: int) -> Tree:
    if depth > MAX_DEPTH:
        raise FilterError(f"a filter is nested at most {MAX_DEPTH} levels deep")
    if isinstance(tree, Not):
        inner = _simplified(tree.of, depth + 1)
        if inner in (EVERYTHING, NOTHING):
            return NOTHING if inner == EVERYTHING else EVERYTHING
        return inner.of if isinstance(inner, Not) else Not(inner)
    if isinstance(tree, AllOf | AnyOf):
        kind = type(tree)
        flat: list[Tree] = []
        for each in tree.of:
            simple = _simplified(each, depth + 1)
            if simple == (NOTHING if kind is AllOf else EVERYTHING):
                return simple
            flat.extend(simple.of if isinstance(simple, AllOf | AnyOf) and isinstance(simple, kind) else (simple,))
        return flat[0] if len(flat) == 1 else kind(tuple(flat))
    if not isinstance(tree, Condition):
        raise FilterError(f"a filter is made of Condition, AllOf, AnyOf and Not, got {type(tree).__name__}")
    values = tree.value
    if tree.comparison == "any" and not values:
        return NOTHING
    if tree.comparison == "any" and isinstance(values, tuple) and len(values) == 1:
        return _simplified(Condition(tree.field, "eq", values[0]), depth)
    return Condition(tree.field, "empty") if tree.comparison == "eq" and values == "" else tree


def _scalar(field: str, value: object) -> Scalar:
    if isinstance(value, str):
        if len(value) > MAX_CHARACTERS:
            raise FilterError(f"{field} is compared with at most {MAX_CHARACTERS:,} characters, got {len(value):,}")
        return _IN_NO_FILE.sub("\ufffd", value)
    if isinstance(value, bool) or not isinstance(value, Real) or not _is_finite(value):
        raise FilterError(f"{field} is compared with text or a finite number, got {value!r}")
    return int(value) if isinstance(value, Integral) else float(value)


def _is_finite(value: Real) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float comes near
        return False
