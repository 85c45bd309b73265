"""What is said of a picture, by whom, in the form that makers give it and pages show it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

PERSON = "person"
SOURCES = ("label", "file", "model", "ocr", PERSON)

MAX_TEXT = 100_000
"""Characters of a caption or a text; of longer ones the beginning is kept."""
MAX_TAG = 200

Value = int | float | str | date | datetime
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1, 1, 1, tzinfo=UTC) - EPOCH
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH
"""Of a field: a number, a text or a moment, in UTC where it does not say."""

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_SURROGATES = re.compile("[\ud800-\udfff]")
_FIELD_NAME = re.compile(r"[^\w.\-]+")


class Maker(NamedTuple):
    """Whose words are meant.

    Attributes
    ----------
    source : str
        One of `SOURCES`.
    name : str
        Which maker of this source: the file of captions, the model; "" for a person.
    """

    source: str
    name: str = ""


A_PERSON = Maker(PERSON)


class Caption(NamedTuple):
    """A sentence about a picture. certainty is 0 to 1, or None where nobody computed one."""

    text: str
    certainty: float | None = None
    maker: Maker = A_PERSON


class Tag(NamedTuple):
    """A word for what is in a picture. certainty as that of a `Caption`."""

    tag: str
    certainty: float | None = None
    maker: Maker = A_PERSON


class FieldValue(NamedTuple):
    """The value of a field for a picture."""

    name: str
    value: Value
    maker: Maker = A_PERSON


@dataclass(frozen=True)
class Said:
    """All that is said of one picture."""

    captions: tuple[Caption, ...] = ()
    tags: tuple[Tag, ...] = ()
    fields: tuple[FieldValue, ...] = ()
    is_favourite: bool = False
    albums: tuple[str, ...] = ()


@dataclass(frozen=True)
class Words:
    """What one maker says of one picture.

    Attributes
    ----------
    captions, tags : mapping of str to float or None
        With the certainty of each.
    fields : mapping of str to Value
    """

    captions: Mapping[str, float | None] = field(default_factory=dict)
    tags: Mapping[str, float | None] = field(default_factory=dict)
    fields: Mapping[str, Value] = field(default_factory=dict)


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """A text without control characters, halves of characters and spare spaces, at most so many characters."""
    return " ".join(_SURROGATES.sub("\ufffd", _CONTROLS.sub(" ", text)).split())[:limit].rstrip()


def clean_tag(tag: str) -> str:
    """A tag as it is kept."""
    return clean_text(tag, MAX_TAG)


def field_name(name: str) -> str:
    """The name of a field as it is kept: of letters, digits and ``_ . -``, as one types it before a colon."""
    clean = _FIELD_NAME.sub("_", clean_text(name, MAX_TAG)).strip("_.-").lower()
    return f"_{clean}" if clean[:1].isdigit() else clean


def kind_of(value: Value) -> str:
    """Of what kind a field of this value is: yes/no, number, date or text."""
    if isinstance(value, bool):
        return "yes/no"
    return "date" if isinstance(value, date) else "text" if isinstance(value, str) else "number"


def stored(value: Value) -> int | float | str | None:
    """A value as sqlite holds it. None where it says nothing.

    A moment is its nanoseconds since 1970, and by the second, as a float, where these are beyond 64 bits.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - EPOCH
        nanoseconds = since // timedelta(microseconds=1) * 1000
        if abs(nanoseconds) < 2**63:
            return nanoseconds
        return float(min(max(since, _FIRST), _LAST) // timedelta(seconds=1)) * 1e9
    if isinstance(value, str):
        return clean_text(value) or None
    if not math.isfinite(value):
        return None
    return value if isinstance(value, float) or abs(value) < 2**63 else float(value)


def shown(value: int | float | str, kind: str) -> Value:
    """What `stored` was given."""
    if kind == "date" and isinstance(value, int):
        return EPOCH + timedelta(microseconds=value // 1000)
    if kind == "date" and isinstance(value, float):
        return EPOCH + timedelta(seconds=round(value / 1e9))
    return value


def as_text(value: int | float | str, kind: str) -> str:
    """A stored value as a person writes it."""
    found = shown(value, kind)
    if isinstance(found, datetime):
        return found.strftime("%Y-%m-%d" if found.time() == datetime.min.time() else "%Y-%m-%dT%H:%M:%S")
    return str(found)
