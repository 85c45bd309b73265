"""Texts as they are compared where neither case nor diacritics matter."""

from __future__ import annotations

import unicodedata


def folded(text: str) -> str:
    """A text without case and diacritics, however its letters are composed."""
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text.casefold())
    return "".join(part for part in parts if not unicodedata.combining(part))
