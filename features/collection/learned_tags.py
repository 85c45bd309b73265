"""Tags that were learnt from examples: what they are like, of which pictures, and with which encoder's vectors.

A learned tag is kept beside what people say, in ``annotations.sqlite``: no build and no sync touches it, and keeping or
dropping one is an edit that `edits.undo` takes back.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.checksum import sha256_of
from features.collection.annotations import Annotations
from features.collection.edits import LEARNED, keep_edit
from features.collection.errors import StoreError
from features.collection.manifest import encoder_identity
from features.collection.said import clean_tag

_COLUMNS = ", ".join(LEARNED["learned_tags"])


@dataclass(frozen=True, eq=False)
class LearnedTag:
    """A tag that was learnt from examples.

    Attributes
    ----------
    tag : str
    vector : float32 (dim,)
        Of length 1: the cosine of a picture's vector with it says how well the tag fits.
    middle, slope : float
        The certainty at a cosine c is 1 / (1 + exp(-slope (c - middle))).
    encoder : str
        `fingerprint` of the encoder whose vectors it was learnt from.
    more, less : tuple of int
        Images of the collection that are examples, and that are not meant.
    metric : str
        How it is compared.
    """

    tag: str
    vector: NDArray[np.float32]
    middle: float
    slope: float
    encoder: str
    more: tuple[int, ...] = ()
    less: tuple[int, ...] = ()
    metric: str = "cosine"

    def certainties(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """How sure it is that each of some pictures bears the tag, float32 (n,), by their vectors (n, dim)."""
        from scipy.special import expit  # a search by a picture does not wait for it

        rows = np.asarray(vectors, np.float32)
        lengths = np.linalg.norm(rows, axis=1)
        cosines = rows @ self.vector / np.where(lengths == 0, 1, lengths)
        certain: NDArray[np.float32] = expit(self.slope * (cosines.astype(np.float64) - self.middle)).astype(np.float32)
        return certain


def fingerprint(encoder: Mapping[str, Any]) -> str:
    """What tells encoders apart whose vectors cannot be compared, by what a manifest says of them."""
    return sha256_of(json.dumps(encoder_identity(dict(encoder)), sort_keys=True).encode())[:16]


def keep_learned(annotations: Annotations, learned: LearnedTag) -> None:
    """Keep a learned tag, in place of one of the same name.

    Raises
    ------
    StoreError
        The tag is empty or its numbers are not finite, or an example is no image of the collection or named twice.
    """
    tag = clean_tag(learned.tag)
    if not tag:
        raise StoreError("a tag has at least one character that can be seen")
    vector = np.ascontiguousarray(learned.vector, "<f4")
    if vector.ndim != 1 or not np.isfinite([*vector.tolist(), learned.middle, learned.slope]).all():
        raise StoreError(f"what was learnt of {tag} must be finite numbers, one of each dimension")
    ids = [*learned.more, *learned.less]
    if len(set(ids)) < len(ids):
        raise StoreError(f"a picture is an example of {tag} twice, or both ways")
    row = (
        tag,
        base64.b64encode(vector.tobytes()).decode(),
        float(learned.middle),
        float(learned.slope),
        learned.metric,
        learned.encoder,
    )
    with annotations.changing() as connection:
        keys = annotations.keys_of(connection, ids)
        meant = [1] * len(learned.more) + [0] * len(learned.less)
        examples = [(tag, key, side) for key, side in zip(keys, meant, strict=True)]
        removed = _removed(connection, tag)
        connection.execute(f"INSERT INTO learned_tags ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", row)
        connection.executemany("INSERT INTO learned_examples (tag, picture, meant) VALUES (?, ?, ?)", examples)
        added = {"learned_tags": [row], "learned_examples": examples}
        changes = {table: (removed[table], added[table]) for table in added}
        keep_edit(connection, f"learnt {tag}", changes)


def drop_learned(annotations: Annotations, tag: str) -> bool:
    """Drop a learned tag; returns whether there was one. Tags that it has given to pictures stay."""
    with annotations.changing() as connection:
        removed = _removed(connection, clean_tag(tag))
        if not removed["learned_tags"]:
            return False
        changes: dict[str, Any] = {table: (rows, []) for table, rows in removed.items()}
        keep_edit(connection, f"learned tag {clean_tag(tag)} dropped", changes)
    return True


def learned_tags(annotations: Annotations) -> dict[str, LearnedTag]:
    """All learned tags, by name."""
    examples: dict[str, tuple[list[int], list[int]]] = {}
    for tag, id, meant in annotations.rows(
        "SELECT tag, image_id, meant FROM learned_examples JOIN pictures USING (picture) "
        "WHERE image_id NOT NULL ORDER BY learned_examples.rowid"
    ):
        examples.setdefault(tag, ([], []))[0 if meant else 1].append(id)
    found = {}
    for tag, vector, middle, slope, metric, encoder in annotations.rows(
        f"SELECT {_COLUMNS} FROM learned_tags ORDER BY tag"
    ):
        more, less = examples.get(tag, ([], []))
        values = np.frombuffer(base64.b64decode(vector), "<f4").astype(np.float32)
        found[tag] = LearnedTag(tag, values, middle, slope, encoder, tuple(more), tuple(less), metric)
    return found


def learned_tag(annotations: Annotations, tag: str) -> LearnedTag | None:
    """A learned tag by its name, in whatever case; None if there is none."""
    wanted = clean_tag(tag).casefold()
    return next((each for name, each in learned_tags(annotations).items() if name.casefold() == wanted), None)


def example_counts(annotations: Annotations) -> dict[str, int]:
    """By how many images that are meant each tag was learnt, by name."""
    meant = "SELECT count(*) FROM learned_examples WHERE learned_examples.tag = learned_tags.tag AND meant"
    return dict(annotations.rows(f"SELECT tag, ({meant}) FROM learned_tags ORDER BY tag"))


def decided(annotations: Annotations, tag: str) -> NDArray[np.int64]:
    """Ids, ascending, of the images of which a person has said whether they bear a tag: given to them, or refused."""
    among = "JOIN pictures USING (picture) WHERE image_id NOT NULL AND"
    rows = annotations.rows(
        f"SELECT image_id FROM tags {among} tag = ?1 COLLATE NOCASE AND source = 'person' UNION "
        f"SELECT image_id FROM refused {among} kind = 'tag' AND text = ?1 COLLATE NOCASE ORDER BY image_id",
        (clean_tag(tag),),
    )
    return np.array([id for (id,) in rows], np.int64)


def _removed(connection: Any, tag: str) -> dict[str, list[tuple[Any, ...]]]:
    """Take away what is kept of a tag, in whatever case; returns the rows by table."""
    # Not by sqlite's NOCASE, which knows of no letters but those of English.
    known = [name for (name,) in connection.execute("SELECT tag FROM learned_tags")]
    names = [(name,) for name in known if name.casefold() == tag.casefold()]
    removed = {}
    for table, columns in LEARNED.items():
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE tag = ?"
        removed[table] = [row for name in names for row in connection.execute(query, name).fetchall()]
        connection.executemany(f"DELETE FROM {table} WHERE tag = ?", names)
    return removed
