"""Which pictures have the words of a text among theirs, and how well they fit: sqlite's FTS5, ranked by BM25."""

from __future__ import annotations

import math
import re
import sqlite3
import sys
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.collection.columns import image_of_key, numbers_of
from features.collection.folding import folded
from features.collection.lru_cache import LruCache

TOKENIZER = "unicode61 remove_diacritics 2"

MAX_TERMS = 64
"""Words of a text that are looked for; the others would only make the search slow."""

# How much a word counts in the name of the file, in captions, tags and fields.
_WEIGHTS = np.array([1.0, 2.0, 2.0, 0.5])

# The constants of BM25 as FTS5 has them, and what stands for the rarity of a word that most pictures have.
_K1, _B, _LEAST_IDF = 1.2, 0.75, 1e-6

MANY = 20_000
"""Of a word that so many pictures have, and half of all, the places are not read: its rarity weighs next to nothing."""

INSTANCES = "CREATE VIRTUAL TABLE temp.instances USING fts5vocab(main, words, instance)"
"""What a connection needs before `FullText` can ask it."""

_OF_TERM = """
SELECT group_concat(4 * doc + CASE col WHEN 'captions' THEN 1 WHEN 'tags' THEN 2 WHEN 'name' THEN 0 ELSE 3 END)
FROM temp.instances WHERE term = ?
"""
_HAVING = "SELECT {} FROM words WHERE words MATCH ?"
_RANKED = f"SELECT rowid, -rank FROM words WHERE words MATCH ? AND rank MATCH 'bm25({', '.join(map(str, _WEIGHTS))})'"

FREQUENT = "a an and at by for from in is it of on the to with"
"""Words that so many captions have that a search had better find them read."""

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]


def expression(text: str, match: str = "words") -> str:
    """What FTS5 is asked for a text: every word quoted, so that none is taken for an operator; "" where there is none.

    Parameters
    ----------
    match : str
        "words": any of them, the more the better. "phrase": all, as they stand. "prefix": the same, and the last is
        only a beginning.
    """
    terms = _words(text)
    if not terms:
        return ""
    if match == "words":
        return " OR ".join(f'"{term}"' for term in dict.fromkeys(terms))
    phrase = " + ".join(f'"{term}"' for term in terms)
    return f"{phrase} *" if match == "prefix" else phrase


def has_words(said: str, text: str, match: str = "words") -> bool:
    """Whether what is said of a picture has the words of a text, as `expression` asks for them."""
    have, asked = (_words(folded(each)) for each in (said, text))
    if match == "words" or not asked:
        return not set(have).isdisjoint(asked)
    whole = asked[:-1] if match == "prefix" else asked
    places = range(len(have) - len(asked) + 1)
    return any(
        have[place : place + len(whole)] == whole and have[place + len(asked) - 1].startswith(asked[-1])
        for place in places
    )


class FullText:
    """The words of all pictures, for who asks for them again and again. For one thread at a time.

    FTS5 ranks a row at a time, and looks up the length of each; a word that most pictures have takes it long. So
    single words are ranked here, by its own formula: where a word stands, and how long the words of each picture are,
    is read once and kept until words change. Phrases and beginnings of words are ranked by FTS5.
    """

    def __init__(self) -> None:
        self._version: int | None = None
        self._said = -1
        self._lengths = np.empty(0)
        self._image_of_key = np.empty(0, np.int64)
        self._terms = LruCache[str, tuple[Keys, Floats]]()
        self._tokenizer = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._tokenizer.execute("CREATE VIRTUAL TABLE asked USING fts5(x, content='', tokenize=\"" + TOKENIZER + '")')
        self._tokenizer.execute("CREATE VIRTUAL TABLE tokens USING fts5vocab(asked, instance)")
        weakref.finalize(self, self._tokenizer.close)

    def search(
        self, connection: sqlite3.Connection, text: str, *, match: str = "words", limit: int = -1
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The images whose words hold those of a text.

        Parameters
        ----------
        connection : sqlite3.Connection
            To the annotations, in a transaction, with what `INSTANCES` makes.
        match : str
            See `expression`.
        limit : int
            At most so many, the best; all if it is negative.

        Returns
        -------
        ids : int64 (n,)
            Best first.
        scores : float32 (n,)
            See `scores`.
        """
        ids, scores = self.scores(connection, text, match=match)
        best = np.lexsort((ids, -scores))[: None if limit < 0 else limit]
        return ids[best], scores[best].astype(np.float32)

    def scores(self, connection: sqlite3.Connection, text: str, *, match: str = "words") -> tuple[Keys, Floats]:
        """The images whose words hold those of a text, in any order, and how well they fit: as `search` takes them.

        Returns
        -------
        ids : int64 (n,)
        scores : float64 (n,)
            BM25 (Robertson et al. 1994) with columns weighted, as FTS5 computes it, with the sign changed; positive.
            A word that half of all pictures have, and `MANY`, counts as if each had it once, in its captions.
        """
        self._follow(connection)
        asked = expression(text, match)
        tokens = self._tokens(text) if match == "words" else None
        if tokens is not None:
            keys, scores = self._ranked(connection, tokens)
        else:
            found = np.array(connection.execute(_RANKED, (asked,)).fetchall() if asked else [], np.float64)
            keys, scores = found.reshape(-1, 2)[:, 0].astype(np.int64), found.reshape(-1, 2)[:, 1]
        ids = self._image_of_key[keys]
        is_here = ids >= 0
        return (ids, scores) if is_here.all() else (ids[is_here], scores[is_here])

    def _follow(self, connection: sqlite3.Connection) -> None:
        """Bring up to date what is kept."""
        ((said,),) = connection.execute("SELECT ifnull(max(said), 0) FROM pictures")
        ((version,),) = connection.execute("PRAGMA data_version")
        if version == self._version:
            return
        self._image_of_key = image_of_key(connection)
        if said != self._said:
            changed = connection.execute(
                "SELECT id, sz FROM words_docsize WHERE id IN (SELECT picture FROM pictures WHERE said > ?)",
                (self._said,),
            ).fetchall()
            lengths = np.full(self._image_of_key.size, np.nan)
            lengths[: self._lengths.size] = self._lengths
            if changed:
                lengths[[key for key, _ in changed]] = _lengths([sizes for _, sizes in changed])
            self._lengths, self._said = lengths, said
            self._terms = LruCache()
        self._version = version

    def _tokens(self, text: str) -> list[str] | None:
        """What FTS5 makes of the words of a text; None where it makes several of one."""
        terms = list(dict.fromkeys(_words(text)))
        self._tokenizer.executemany("INSERT INTO asked (rowid, x) VALUES (?, ?)", enumerate(terms))
        rows = self._tokenizer.execute("SELECT doc, term FROM tokens ORDER BY doc").fetchall()
        self._tokenizer.execute("INSERT INTO asked (asked) VALUES ('delete-all')")
        return [token for _, token in rows] if len({place for place, _ in rows}) == len(rows) else None

    def _ranked(self, connection: sqlite3.Connection, tokens: Sequence[str]) -> tuple[Keys, Floats]:
        """Keys of the pictures that have one of the words, and how well they fit."""
        scores = np.zeros(self._lengths.size)
        is_there = ~np.isnan(self._lengths)
        count = np.count_nonzero(is_there)
        average = self._lengths[is_there].sum() / count if count else 1.0
        found = np.zeros(self._lengths.size, bool)
        for token in tokens:
            keys, frequencies = self._of_term(connection, token)
            idf = max(math.log((count - keys.size + 0.5) / (keys.size + 0.5)), 0.0) or _LEAST_IDF
            length = _K1 * (1 - _B + _B * self._lengths[keys] / average)
            scores[keys] += idf * (frequencies * (_K1 + 1)) / (frequencies + length)
            found[keys] = True
        keys = np.flatnonzero(found)
        return keys, scores[keys]

    def _of_term(self, connection: sqlite3.Connection, token: str) -> tuple[Keys, Floats]:
        """Keys of the pictures that have a word, ascending, and how often, weighted by where it stands."""
        known = self._terms.get(token)
        if known is not None:
            return known
        half = np.count_nonzero(~np.isnan(self._lengths)) / 2
        if self._having(connection, "count(*)", token) >= max(MANY, half):
            keys = numbers_of(self._having(connection, "group_concat(rowid)", token))
            frequencies = np.full(keys.size, _WEIGHTS[1])
        else:
            ((found,),) = connection.execute(_OF_TERM, (token,))
            places = numbers_of(found)  # those of a picture lie together, the pictures ascending
            documents = places >> 2
            starts = np.flatnonzero(np.diff(documents, prepend=-1))
            keys, weights = documents[starts], _WEIGHTS[places & 3]
            frequencies = np.add.reduceat(weights, starts) if starts.size else weights
        self._terms.keep(token, (keys, frequencies), keys.nbytes + frequencies.nbytes + sys.getsizeof(token))
        return keys, frequencies

    @staticmethod
    def _having(connection: sqlite3.Connection, what: str, token: str) -> Any:
        """Something of the keys of the pictures that have a word."""
        return connection.execute(_HAVING.format(what), (f'"{token}"',)).fetchone()[0]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)[:MAX_TERMS]


def _lengths(sizes: Sequence[bytes]) -> Floats:
    """Words of each picture, by FTS5's record of the words of each column: numbers of 7 bits a byte, the high first."""
    digits = np.frombuffer(b"".join(sizes), np.uint8)
    ends = np.flatnonzero(digits < 0x80)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.repeat(ends, ends - starts + 1) - np.arange(digits.size)
    numbers = np.add.reduceat((digits & 0x7F).astype(np.int64) << (7 * place), starts) if ends.size else ends
    return numbers.reshape(len(sizes), -1).sum(axis=1).astype(np.float64)
