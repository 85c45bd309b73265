"""Cursors: where an answer was broken off, in a text that means nothing to who hands it back.

They hold nothing secret and are trusted in nothing: whoever writes one by hand asks for another page, and no more.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from fastapi import HTTPException

from gradio_app.routes.api import strict_json

MAX_CURSOR = 16_384  # characters
_BAD = "This cursor is none that was given here."


def fingerprint(question: Any) -> str:
    """Sixteen hex digits of what was asked, by which a cursor knows its question."""
    return hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()[:16]


def written(**said: Any) -> str:
    """A cursor that `read` gives back."""
    return base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")


def read(cursor: str, question: str) -> dict[str, Any]:
    """What a cursor says, if it belongs to a question (`fingerprint`).

    Raises
    ------
    HTTPException
        422: it is none, or that of another question.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        said = strict_json.parse(text)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, _BAD) from error
    if not isinstance(said, dict):
        raise HTTPException(422, _BAD)
    if said.get("question") != question:
        raise HTTPException(422, "This cursor belongs to another question: ask for the first page of this one.")
    return said


def ids_of(said: dict[str, Any], name: str, most: int) -> list[int]:
    """Ids that a cursor says. Raises HTTPException 422 where it does not."""
    ids = said.get(name)
    if not isinstance(ids, list) or len(ids) > most or not all(type(id) is int and id >= 0 for id in ids):
        raise HTTPException(422, _BAD)
    return ids


def id_of(said: dict[str, Any], name: str) -> int:
    """An id that a cursor says. Raises HTTPException 422 where it does not."""
    return ids_of({name: [said.get(name)]}, name, 1)[0]
