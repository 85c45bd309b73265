"""The JSON of a query: the same over the wire, in saved searches and in the address of a page.

``{"collection": "demo", "parts": [{"image": {"id": 7}, "crop": [0, 0, 120, 80]}, {"text": "boat", "weight": -0.5},
{"tag": "outdoor"}, {"more": [3], "less": [9]}], "filter": {"rating": {"gte": 4}}, "k": 20,
"options": {"engine": "ivfpq"}}``; of an image ``id``, ``file``, ``url`` or ``bytes`` (base64), and beside it
``"foreground": true`` to look at its object.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from search.errors import QueryError
from search.filters import Filter
from search.options import SearchOptions
from search.query import FeedbackPart, ImagePart, Part, Picture, Query, TagPart, TextPart, is_address

_OPTIONS = tuple(option.name for option in fields(SearchOptions) if option.name != "k")


def to_json(query: Query) -> dict[str, Any]:
    """A query as a mapping that `json.dumps` takes and `from_json` reads as the same query.

    Raises
    ------
    QueryError
        It holds what JSON has no words for: decoded pixels, or text that could not be read.
    """
    if query.faults:
        raise QueryError("; ".join(query.faults))
    options = SearchOptions() if query.options is None else query.options
    written: dict[str, Any] = {
        "collection": query.collection,
        "parts": [part_to_json(part) for part in query.parts],
        "filter": query.filter.to_json() or None,
        "k": query.k,
        "options": None
        if query.options is None
        else {
            name: getattr(options, name)
            for name in _OPTIONS
            if getattr(options, name) != getattr(SearchOptions(), name)
        },
    }
    return {key: value for key, value in written.items() if value is not None}


def from_json(query: Any) -> Query:
    """The query that a mapping says.

    Raises
    ------
    QueryError
        It makes no sense; the sentence says where.
    """
    read = _mapping(query, "a query", "collection", "parts", "filter", "k", "options")
    parts, options, collection = read.get("parts", []), read.get("options"), read.get("collection")
    if not isinstance(parts, list | tuple):
        raise QueryError(f"the parts of a query are a list, got {type(parts).__name__}")
    if not isinstance(collection, str | None):
        raise QueryError(f"a collection is named by a str, got {type(collection).__name__}")
    return Query(
        parts=tuple(map(_read, parts)),
        filter=Filter.of(read.get("filter")),
        k=read.get("k"),
        options=None if options is None else SearchOptions(**_mapping(options, "options", *_OPTIONS)),
        collection=collection,
    )


def part_to_json(part: Part) -> dict[str, Any]:
    """A part of a query as it stands among the `parts`. Raises QueryError for decoded pixels."""
    written: dict[str, Any]
    if isinstance(part, ImagePart):
        written = {"image": _written_picture(part.picture)}
        if part.crop is not None:
            written["crop"] = list(part.crop)
        if part.foreground:
            written["foreground"] = True
    elif isinstance(part, TextPart):
        written = {"text": part.text}
        if part.match != "words":
            written["match"] = part.match
    elif isinstance(part, TagPart):
        written = {"tag": part.tag}
        if part.learned:
            written["learned"] = True
    elif isinstance(part, FeedbackPart):
        written = {name: list(ids) for name, ids in (("more", part.more), ("less", part.less)) if ids}
    else:
        raise QueryError(f"a {type(part).__name__} has no JSON")
    if part.space is not None:
        written["space"] = part.space
    return {**written, "weight": part.weight}


def _written_picture(picture: Picture) -> dict[str, Any]:
    if isinstance(picture, np.ndarray):
        raise QueryError("decoded pixels have no JSON: give the file, or its bytes")
    if isinstance(picture, bytes):
        return {"bytes": base64.b64encode(picture).decode()}
    if isinstance(picture, str | os.PathLike):
        return {"url" if is_address(picture) else "file": os.fsdecode(picture)}
    return {"id": picture}


def _read(part: Any) -> Part:
    if not isinstance(part, Mapping):
        raise QueryError(f"a part of a query is a mapping, got {type(part).__name__}")
    common = {name: part[name] for name in ("weight", "space") if name in part}
    if not isinstance(common.get("space"), str | None):
        raise QueryError(f"a space is named by a str, got {type(part['space']).__name__}")
    if "image" in part:
        read = _mapping(part, "a part", "image", "crop", "foreground", "weight", "space")
        foreground = read.get("foreground", False)
        return ImagePart(_read_picture(read["image"]), crop=read.get("crop"), foreground=foreground, **common)
    if "text" in part:
        read = _mapping(part, "a part", "text", "match", "weight", "space")
        return TextPart(read["text"], match=read.get("match", "words"), **common)
    if "more" in part or "less" in part:
        read = _mapping(part, "a part", "more", "less", "weight", "space")
        return FeedbackPart(more=read.get("more", ()), less=read.get("less", ()), **common)
    if "tag" in part:
        read = _mapping(part, "a part", "tag", "learned", "weight", "space")
        return TagPart(read["tag"], learned=bool(read.get("learned", False)), **common)
    raise QueryError(
        f"a part of a query is an image, a text, a tag or feedback, got {', '.join(map(str, part)) or 'nothing'}"
    )


def _read_picture(picture: Any) -> Picture:
    read = _mapping(picture, "an image", "id", "file", "url", "bytes")
    if len(read) != 1:
        raise QueryError("an image is told by one of id, file, url and bytes")
    ((kind, value),) = read.items()
    if kind == "id":
        if not isinstance(value, int) or isinstance(value, bool):
            raise QueryError(f"the id of an image is a whole number, got {value!r}")
        return value
    if not isinstance(value, str):
        raise QueryError(f"the {kind} of an image is a str, got {type(value).__name__}")
    if kind == "bytes":
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            raise QueryError("the bytes of an image are written in base64") from None
    if is_address(value) != (kind == "url"):
        raise QueryError(f"an address of an image begins with http:// or https:// and a file does not, got {value!r}")
    return value


def _mapping(value: Any, what: str, *known: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise QueryError(f"{what} is a mapping, got {type(value).__name__}")
    if unknown := [str(key) for key in value if key not in known]:
        raise QueryError(f"{what} has no {', '.join(unknown)}; known: {', '.join(known)}")
    return value
