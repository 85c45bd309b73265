"""Fields of a catalog that pictures can be filtered by, and the SQL of a filter.

What a person writes becomes a parameter of a statement, never a piece of it; the pieces are those of the fields below.
A new field is a line at the end or one call of `register_field`.
"""

from __future__ import annotations

import difflib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar, NamedTuple

from features.collection.conditions import Condition, FilterError, Scalar
from features.collection.folding import folded


class Sql(NamedTuple):
    """A condition in SQL with a question mark for each parameter."""

    text: str
    parameters: tuple[Scalar, ...] = ()


MAX_PATTERN = 10_000  # characters

MAX_JOINED = 500  # an expression of sqlite is nested at most 1,000 levels deep, and each OR is a level

_SIGNS = {"eq": "=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_PATTERNS = {"contains": "%{}%", "prefix": "{}%", "suffix": "%{}"}


class Elsewhere(NamedTuple):
    """Images by what a table beside that of the images says of them.

    Attributes
    ----------
    rows : Sql
        What follows FROM.
    key : str
        The column that says whose row it is: `id`s of images, or what `said.pictures` makes of them.
    is_not : bool
        Meant are all images but these.
    """

    rows: Sql
    key: str
    is_not: bool = False


class Field(ABC):
    """What pictures can be filtered by.

    Parameters
    ----------
    name : str
    aliases : iterable of str
        Other names for it.
    participle : str
        How a sentence says that a picture has a value of it, as "labelled" cup; "" for "whose `name` is" cup.

    Attributes
    ----------
    is_of_images : bool
        Whether its SQL is a condition on a row of images; else `elsewhere` says where to look.
    is_later : bool
        Whether its SQL speaks of columns that catalogs of earlier versions lack: folder, name, ending, camera.
    is_said : bool
        Whether it is of the annotations, which are attached as `said`.
    """

    is_of_images: ClassVar[bool] = True
    is_later: ClassVar[bool] = False
    is_said: ClassVar[bool] = False

    def __init__(self, name: str, *, aliases: Iterable[str] = (), participle: str = "") -> None:
        self.name = name
        self.aliases = tuple(aliases)
        self.participle = participle

    @abstractmethod
    def sql(self, condition: Condition) -> Sql:
        """A condition of this field on a row of its table. Raises FilterError if it makes no sense."""

    def elsewhere(self, condition: Condition) -> Elsewhere:
        """Which rows of another table say that a condition of this field holds."""
        raise NotImplementedError(f"{self.name} lies in the table of the images")

    def holds_unsaid(self, condition: Condition) -> bool:
        """Whether a condition of a field `is_said` holds for a picture of which nothing is said."""
        return condition.comparison == "empty"


class TextField(Field):
    """A text of each picture. It is compared letter by letter; contains, prefix and suffix take a for A."""

    def __init__(self, name: str, expression: str, *, aliases: Iterable[str] = (), participle: str = "") -> None:
        super().__init__(name, aliases=aliases, participle=participle)
        self.expression = expression

    def sql(self, condition: Condition) -> Sql:
        return compare_text(self.expression, condition)


class TableField(Field):
    """A text that lies in a table of its own, in any number of rows for a picture."""

    is_of_images = False

    def __init__(
        self, name: str, table: str, key: str, column: str, *, aliases: Iterable[str] = (), participle: str = ""
    ) -> None:
        super().__init__(name, aliases=aliases, participle=participle)
        self._table, self._key, self._column = table, key, column

    def sql(self, condition: Condition) -> Sql:
        return compare_text(self._column, condition)

    def elsewhere(self, condition: Condition) -> Elsewhere:
        if condition.comparison == "empty":
            return Elsewhere(Sql(f"{self._table} WHERE {self._column} <> ''"), self._key, is_not=True)
        text, parameters = self.sql(condition)
        return Elsewhere(Sql(f"{self._table} WHERE {text}", parameters), self._key)


class PathField(TextField):
    """The name of a file, or its path below the collection's root.

    Parameters
    ----------
    as_folded : str, optional
        The same in SQL without case and diacritics: what contains, prefix and suffix look at.
    """

    is_later = True

    def __init__(self, name: str, expression: str, *, as_folded: str = "") -> None:
        super().__init__(name, expression)
        self._as_folded = as_folded

    def sql(self, condition: Condition) -> Sql:
        wanted = folded(str(condition.value)) if condition.comparison in _PATTERNS else ""
        if not wanted or not self._as_folded:
            return super().sql(condition)
        if len(wanted) > MAX_PATTERN:  # of no file, and more than sqlite compares with
            return Sql("0")
        return compare_text(self._as_folded, Condition(self.name, condition.comparison, wanted))


class CameraField(TextField):
    """The camera that a picture was taken with, by its EXIF."""

    is_later = True


class FolderField(PathField):
    """The folder of a picture below the collection's root. A picture is in all folders around it."""

    def sql(self, condition: Condition) -> Sql:
        value = condition.value
        if condition.comparison == "any" and isinstance(value, tuple):
            return joined(" OR ", map(self._inside, value), nothing="0")
        if condition.comparison == "eq" and value is not None:
            return self._inside(value)
        return super().sql(condition)

    def _inside(self, value: Scalar | tuple[Scalar, ...]) -> Sql:
        folder = str(value).strip("/")
        # All that begins with the folder and a slash is before the folder and the character that follows the slash.
        return Sql("(folder = ? OR folder >= ? AND folder < ?)", (folder, f"{folder}/", f"{folder}0"))


FORMAT_ENDINGS = (("jpeg", "jpg", "jpe", "jfif"), ("tiff", "tif"), ("heic", "heif"))
"""Endings that mean the same format, which is called by the first."""


class FormatField(PathField):
    """The file format, by the ending of the name."""

    def sql(self, condition: Condition) -> Sql:
        value = condition.value
        if condition.comparison not in ("eq", "any") or value is None:
            return super().sql(condition)
        formats = [str(each).lower().lstrip(".") for each in (value if isinstance(value, tuple) else (value,))]
        endings = {ending for each in formats for ending in next((s for s in FORMAT_ENDINGS if each in s), (each,))}
        return super().sql(Condition(self.name, "any", tuple(sorted(endings))))


class NumberField(Field):
    """A number of each picture, with the names of its units, if it has any: "1.5mb"."""

    def __init__(self, name: str, expression: str, *, units: dict[str, int] | None = None) -> None:
        super().__init__(name)
        self._expression = expression
        self._units = units or {}

    def sql(self, condition: Condition) -> Sql:
        if condition.comparison in _PATTERNS:
            raise FilterError(f"{self.name} is a number: it can be equal, smaller, larger or between")
        return _compare(self._expression, condition, self._number)

    def _number(self, value: Scalar) -> float:
        if isinstance(value, str):
            match = re.fullmatch(r"([+-]?(?:\d+\.?\d*|\.\d+))\s*([a-z]*)", value.strip().lower(), re.ASCII)
            if match is None or (match[2] and match[2] not in self._units):
                units = f", or one with {', '.join(self._units)}" if self._units else ""
                raise FilterError(f"{self.name} is a number{units}; got {value!r}")
            value = float(match[1]) * self._units.get(match[2], 1)
        return float(value)


class DateField(Field):
    """A moment of each picture, by nanoseconds since 1970: "2010" is a whole year, "2010-05" a month. In UTC."""

    def __init__(self, name: str, expression: str, *, aliases: Iterable[str] = ()) -> None:
        super().__init__(name, aliases=aliases)
        self._expression = expression

    def sql(self, condition: Condition) -> Sql:
        value, expression = condition.value, self._expression
        if condition.comparison in _PATTERNS:
            raise FilterError(f"{self.name} is a date: it can be equal, earlier, later or between")
        if condition.comparison == "empty":
            return Sql(f"{expression} IS NULL")
        if condition.comparison == "any" and isinstance(value, tuple):
            return joined(" OR ", (self._during(each, each) for each in value), nothing="0")
        if condition.comparison == "between" and isinstance(value, tuple):
            return self._during(*value)
        if condition.comparison == "eq":
            return self._during(value, value)
        begin, end = self._span(value)
        return {
            "lt": Sql(f"{expression} < ?", (begin,)),
            "lte": Sql(f"{expression} < ?", (end,)),
            "gt": Sql(f"{expression} >= ?", (end,)),
            "gte": Sql(f"{expression} >= ?", (begin,)),
        }[condition.comparison]

    def _during(self, first: object, last: object) -> Sql:
        return Sql(f"({self._expression} >= ? AND {self._expression} < ?)", (self._span(first)[0], self._span(last)[1]))

    def _span(self, value: object) -> tuple[float, float]:
        """The first nanosecond of a year, month, day, hour, minute or second, and the first one after it."""
        text = str(value).strip().replace(" ", "T")
        match = re.fullmatch(r"(\d{4})(?:-(\d\d?)(?:-(\d\d?)(?:T(\d\d?)(?::(\d\d)(?::(\d\d))?)?)?)?)?", text, re.ASCII)
        try:
            if match is None:
                raise ValueError
            known = [int(each) for each in match.groups() if each is not None]
            begin = datetime(*(known + [1] * (3 - len(known))), tzinfo=UTC)  # type: ignore[misc,arg-type]
            year, month = begin.year, begin.month
            end = {
                1: lambda: datetime(year + 1, 1, 1, tzinfo=UTC),
                2: lambda: datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC),
                3: lambda: begin + timedelta(days=1),
                4: lambda: begin + timedelta(hours=1),
                5: lambda: begin + timedelta(minutes=1),
                6: lambda: begin + timedelta(seconds=1),
            }[len(known)]()
        except (ValueError, OverflowError):
            raise FilterError(f"{self.name} is a date as 2010, 2010-05 or 2010-05-17; got {value!r}") from None
        return _nanoseconds(begin), _nanoseconds(end)


class SaidField(Field):
    """What people and models say of pictures: a field of the rows of `said` that a piece of SQL names."""

    is_of_images = False
    is_said = True

    def __init__(self, inner: Field, rows: str, *, aliases: Iterable[str] = (), participle: str = "") -> None:
        super().__init__(inner.name, aliases=aliases, participle=participle)
        self._inner = inner
        self._rows = rows

    @property
    def text(self) -> tuple[str, str] | None:
        """Rows and column, as SQL names them, where it is a text."""
        return (self._rows, self._inner.expression) if isinstance(self._inner, TextField) else None

    def sql(self, condition: Condition) -> Sql:
        return self._inner.sql(condition)

    def elsewhere(self, condition: Condition) -> Elsewhere:
        if condition.comparison == "empty":
            return Elsewhere(Sql(self._rows), "picture", is_not=True)
        text, parameters = self.sql(condition)
        return Elsewhere(Sql(f"{self._rows} WHERE {text}", parameters), "picture")


class FavouriteField(Field):
    """Whether a picture is a favourite: yes or no."""

    is_of_images = False
    is_said = True

    def sql(self, condition: Condition) -> Sql:
        return Sql(str(int(not self.holds_unsaid(condition))))

    def elsewhere(self, condition: Condition) -> Elsewhere:
        return Elsewhere(Sql("said.favourites"), "picture", is_not=self.holds_unsaid(condition))

    def holds_unsaid(self, condition: Condition) -> bool:
        answer = str(condition.value).lower()
        if condition.comparison != "eq" or answer not in ("yes", "true", "1", "no", "false", "0"):
            raise FilterError(f"{self.name} is yes or no, got {condition.value!r}")
        return answer in ("no", "false", "0")


class ToldField(Field):
    """What something beside the catalog tells of the images of a collection, such as the lists of its index.

    Parameters
    ----------
    ids_of : callable, optional
        The ids of the images with a value. Without it nothing is told: so it is in a collection that has nothing of
        the kind, and the sentence says so.
    """

    def __init__(
        self, name: str, ids_of: Callable[[Scalar], Iterable[int]] | None = None, *, participle: str = ""
    ) -> None:
        super().__init__(name, participle=participle)
        self._ids_of = ids_of

    def sql(self, condition: Condition) -> Sql:
        if self._ids_of is None:
            raise FilterError(f"nothing in this collection has an {self.name}")
        if condition.comparison not in ("eq", "any") or condition.value is None:
            raise FilterError(f"{self.name} can be equal to one value or to any of several")
        values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        ids = sorted({int(id) for value in values for id in self._ids_of(value)})
        return Sql("id IN (SELECT value FROM json_each(?))", (json.dumps(ids),))


def own_field(name: str, kind: str) -> Field:
    """A field that people and models have filled, by its name and kind: see `Annotations.fields`."""
    kinds: dict[str, Callable[[str, str], Field]] = {"number": NumberField, "date": DateField}
    inner = kinds.get(kind, TextField)(name, "value")
    quoted = name.replace("'", "''")  # a name is of letters, digits and _ . -
    return SaidField(inner, f"(SELECT picture, value FROM said.field_values WHERE name = '{quoted}')")


def compare_text(expression: str, condition: Condition) -> Sql:
    """A condition on an expression that is text."""
    comparison, value = condition.comparison, condition.value
    if comparison in _PATTERNS:
        return Sql(rf"{expression} LIKE ? ESCAPE '\'", (like(comparison, str(value)),))
    if comparison == "empty":
        return Sql(f"ifnull({expression}, '') = ''")
    return _compare(expression, condition, str)


def like(comparison: str, text: str) -> str:
    r"""The pattern of LIKE, escaped by "\", for contains, prefix or suffix."""
    return _PATTERNS[comparison].format(re.sub(r"[\\%_]", r"\\\g<0>", text))


def _compare(expression: str, condition: Condition, convert: Callable[[Scalar], Scalar]) -> Sql:
    comparison, value = condition.comparison, condition.value
    if comparison == "empty":
        return Sql(f"{expression} IS NULL")
    if isinstance(value, tuple):
        values = tuple(convert(each) for each in value)
        if comparison == "between":
            return Sql(f"{expression} BETWEEN ? AND ?", values)
        return Sql(f"{expression} IN (SELECT value FROM json_each(?))", (json.dumps(values),))
    assert value is not None
    return Sql(f"{expression} {_SIGNS[comparison]} ?", (convert(value),))


def joined(word: str, parts: Iterable[Sql], *, nothing: str) -> Sql:
    """Conditions put together by a word, in brackets."""
    parts = list(parts)
    if len(parts) > MAX_JOINED:
        raise FilterError(f"a folder or a date is compared with at most {MAX_JOINED} values, got {len(parts):,}")
    if not parts:
        return Sql(nothing)
    text = word.join(part.text for part in parts)
    return Sql(f"({text})", tuple(parameter for part in parts for parameter in part.parameters))


def _nanoseconds(moment: datetime) -> float:
    """Since 1970, a whole number or, where that is beyond 64 bits, a float: as `said.stored` has it."""
    seconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 10**9 if abs(seconds) * 10**9 < 2**63 else float(seconds) * 1e9


_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

_FOLDER, _NAME = (f"ifnull({part}_folded, {part})" for part in ("folder", "name"))

_FIELDS: dict[str, Field] = {}


def register_field(field: Field) -> None:
    """Let pictures be filtered by a field. A field of the same name is replaced."""
    _FIELDS.update(dict.fromkeys((field.name, *field.aliases), field))


for _field in (
    TableField("label", "labels", "image_id", "label", aliases=["labels"], participle="labelled"),
    NumberField("size", "size", units=_BYTES),
    NumberField("width", "width"),
    NumberField("height", "height"),
    FormatField("format", "ending"),
    FolderField("folder", "folder", as_folded=_FOLDER),
    PathField("name", "name", as_folded=_NAME),
    PathField("path", "ltrim(folder || '/' || name, '/')", as_folded=f"ltrim({_FOLDER} || '/' || {_NAME}, '/')"),
    DateField("date", "mtime", aliases=["year"]),
    CameraField("camera", "camera COLLATE NOCASE", participle="taken with"),
    NumberField("id", "id"),
    TableField("sha256", "images", "id", "sha256"),
    SaidField(TextField("tag", "tag COLLATE NOCASE"), "said.tags", aliases=["tags"], participle="tagged"),
    SaidField(TextField("caption", "text"), "said.captions", aliases=["captions"]),
    SaidField(TextField("source", "source"), "said.voices"),
    SaidField(TextField("maker", "maker"), "said.voices"),
    FavouriteField("favourite", aliases=["favorite"]),
    SaidField(TextField("album", "album COLLATE NOCASE"), "said.albums", aliases=["albums"], participle="in the album"),
    ToldField("index_list", participle="in index list"),
):
    register_field(_field)


def field_names() -> tuple[str, ...]:
    """What pictures can be filtered by, aliases left out."""
    return tuple(name for name, field in _FIELDS.items() if name == field.name)


def known_field(name: str) -> Field | None:
    """A field by its name or alias; None if there is none."""
    return _FIELDS.get(name.lower())


def field_of(condition: Condition, own: Mapping[str, Field]) -> Field:
    """The field of a condition: one of a collection's own, or of all. Raises FilterError, which names the nearest."""
    name = condition.field.lower()
    field = own.get(name) or known_field(name)
    if field is None:
        (nearest,) = difflib.get_close_matches(name, [*_FIELDS, *own], 1, cutoff=0.0)
        known = ", ".join((*field_names(), *own))
        raise FilterError(f"cannot filter by {condition.field}; known: {known}; the nearest is {nearest}")
    return field
