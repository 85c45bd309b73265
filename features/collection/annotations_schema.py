"""The tables of ``annotations.sqlite``, and what brings those of earlier versions to them."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- JSON
    CREATE TABLE pictures (
        picture INTEGER PRIMARY KEY,
        image_id INTEGER UNIQUE,  -- in the collection as it is; NULL while the picture is not there
        path NOT NULL,            -- as in the catalog
        sha256 TEXT               -- of the content that something was said of
    );
    CREATE INDEX pictures_sha256 ON pictures (sha256);
    CREATE TABLE captions (
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        source TEXT NOT NULL,     -- label, file, model, ocr, person
        maker TEXT NOT NULL,      -- which of them, '' for a person
        text TEXT NOT NULL,
        PRIMARY KEY (picture, source, maker, text)
    ) WITHOUT ROWID;
    CREATE TABLE tags (
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        tag TEXT NOT NULL,
        source TEXT NOT NULL,
        maker TEXT NOT NULL,
        certainty REAL,           -- 0 to 1; NULL for a person
        PRIMARY KEY (picture, tag, source, maker)
    ) WITHOUT ROWID;
    CREATE INDEX tags_tag ON tags (tag);
    CREATE TABLE favourites (picture INTEGER PRIMARY KEY REFERENCES pictures (picture));
    """,
    """
    ALTER TABLE pictures ADD COLUMN said INTEGER NOT NULL DEFAULT 0;  -- number of the last change of its words
    CREATE INDEX pictures_said ON pictures (said);
    ALTER TABLE captions ADD COLUMN certainty REAL;
    DROP INDEX tags_tag;
    CREATE INDEX tags_tag ON tags (tag COLLATE NOCASE, picture);
    CREATE TABLE fields (
        name TEXT PRIMARY KEY COLLATE NOCASE,
        kind TEXT NOT NULL        -- number, date (nanoseconds since 1970), text
    ) WITHOUT ROWID;
    CREATE TABLE field_values (
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        name TEXT NOT NULL COLLATE NOCASE REFERENCES fields (name),
        value NOT NULL,
        source TEXT NOT NULL,
        maker TEXT NOT NULL,
        PRIMARY KEY (name, picture)
    ) WITHOUT ROWID;
    CREATE INDEX field_values_picture ON field_values (picture);
    CREATE INDEX field_values_value ON field_values (name, value);
    CREATE TABLE refused (        -- machine words that a person crossed out: no maker says them again
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        kind TEXT NOT NULL,       -- caption, tag
        text TEXT NOT NULL,
        PRIMARY KEY (picture, kind, text)
    ) WITHOUT ROWID;
    CREATE TABLE runs (           -- what a maker has looked at, whether or not it had words for it
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        source TEXT NOT NULL,
        maker TEXT NOT NULL,
        version TEXT NOT NULL,    -- of all that the maker's words depend on beside the picture
        sha256 TEXT,              -- of the content that it looked at; NULL where it looks at none
        PRIMARY KEY (picture, source, maker)
    ) WITHOUT ROWID;
    CREATE TABLE edits (
        edit INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,      -- nanoseconds since 1970
        what TEXT NOT NULL,       -- a sentence
        changes TEXT NOT NULL     -- JSON: of each table the rows that the edit took away and that it put in
    );
    CREATE VIRTUAL TABLE words USING fts5 (  -- rowid: the picture's key
        name, captions, tags, fields,
        tokenize = "unicode61 remove_diacritics 2", prefix = '2 3'
    );
    """,
    """
    CREATE TABLE voices (         -- who has said a caption, a tag or a field of which picture: derived of those
        source TEXT NOT NULL,
        maker TEXT NOT NULL,
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        PRIMARY KEY (source, maker, picture)
    ) WITHOUT ROWID;
    CREATE INDEX voices_picture ON voices (picture);
    """,
    """
    CREATE TABLE learned_tags (
        tag TEXT PRIMARY KEY COLLATE NOCASE,
        vector TEXT NOT NULL,     -- float32, little-endian, in base64
        middle REAL NOT NULL,     -- the certainty at a cosine c is 1 / (1 + exp(-slope (c - middle)))
        slope REAL NOT NULL,
        metric TEXT NOT NULL,
        encoder TEXT NOT NULL     -- fingerprint of the encoder whose vectors it was learnt from
    ) WITHOUT ROWID;
    CREATE TABLE learned_examples (
        tag TEXT NOT NULL COLLATE NOCASE REFERENCES learned_tags (tag) DEFERRABLE INITIALLY DEFERRED,
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        meant INTEGER NOT NULL,   -- 1, or 0 for a picture that is not meant
        UNIQUE (tag, picture)
    );
    """,
    """
    CREATE TABLE albums (         -- an album is there as long as a picture is in it
        picture INTEGER NOT NULL REFERENCES pictures (picture),
        album TEXT NOT NULL COLLATE NOCASE,
        PRIMARY KEY (album, picture)
    ) WITHOUT ROWID;
    CREATE INDEX albums_picture ON albums (picture);
    """,
    """
    CREATE TABLE set_aside (      -- pictures that a person would part with, as a duplicate is kept
        picture INTEGER PRIMARY KEY REFERENCES pictures (picture),
        sha256 TEXT NOT NULL,     -- of the content that was looked at: another is not set aside
        kept TEXT NOT NULL        -- SHA-256 of the content that is kept
    );
    CREATE TABLE duplicate_verdicts (
        first TEXT NOT NULL,      -- SHA-256 of two contents, the smaller first
        second TEXT NOT NULL,
        verdict TEXT NOT NULL,    -- different, later
        PRIMARY KEY (first, second)
    ) WITHOUT ROWID;
    """,
)
