"""Which pictures have the words of a text among theirs, and how well they fit: sqlite's FTS5, ranked by BM25."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

MAX_TERMS = 64
"""Words of a text that are looked for; the others would only make the search slow."""

# How much a word counts in the name of the file, in captions, tags and fields.
_WEIGHTS = "1.0, 2.0, 2.0, 0.5"

_FOUND = f"""
SELECT image_id, -score FROM (
    SELECT rowid, rank AS score FROM words WHERE words MATCH ? AND rank MATCH 'bm25({_WEIGHTS})'
    ORDER BY rank LIMIT ?
) JOIN pictures ON picture = rowid WHERE image_id NOT NULL ORDER BY score, image_id
"""


def expression(text: str, match: str = "words") -> str:
    """What FTS5 is asked for a text: every word quoted, so that none is taken for an operator; "" where there is none.

    Parameters
    ----------
    match : str
        "words": any of them, the more the better. "phrase": all, as they stand. "prefix": the same, and the last is
        only a beginning.
    """
    terms = re.findall(r"\w+", text)[:MAX_TERMS]
    if not terms:
        return ""
    if match == "words":
        return " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))
    phrase = " + ".join(f'"{term}"' for term in terms)
    return f"{phrase} *" if match == "prefix" else phrase


def search_words(
    rows: Rows, text: str, *, match: str = "words", limit: int = -1
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The images whose words hold those of a text.

    Parameters
    ----------
    rows : callable
        ``rows(query, values)`` asks the annotations.
    match : str
        See `expression`.
    limit : int
        At most so many, the best; all if it is negative.

    Returns
    -------
    ids : int64 (n,)
        Best first.
    scores : float32 (n,)
        BM25 with the sign changed, so that more is better; positive.
    """
    asked = expression(text, match)
    found = rows(_FOUND, (asked, limit)) if asked else []
    table = np.array(found, dtype=np.float64).reshape(len(found), 2)
    return table[:, 0].astype(np.int64), table[:, 1].astype(np.float32)
