"""The tables of ``catalog.sqlite``, and what those of earlier versions lack."""

from __future__ import annotations

TABLES = """
CREATE TABLE images (
    id INTEGER PRIMARY KEY,    -- the row of the features
    path NOT NULL UNIQUE,      -- relative to the dataset's root, with "/"; bytes where a name is not valid UTF-8
    size INTEGER NOT NULL,     -- bytes
    mtime INTEGER NOT NULL,    -- nanoseconds since 1970
    sha256 TEXT,               -- of the file's content
    width INTEGER,             -- pixels, as seen (after the EXIF orientation)
    height INTEGER,
    error TEXT                 -- why the image was skipped; its row of the features is zero
);
CREATE INDEX images_sha256 ON images (sha256);
CREATE TABLE labels (
    image_id INTEGER NOT NULL REFERENCES images (id),
    label TEXT NOT NULL,
    PRIMARY KEY (label, image_id)
) WITHOUT ROWID;
CREATE INDEX labels_image ON labels (image_id);
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;  -- JSON
"""

GENERATION = "generation INTEGER NOT NULL DEFAULT 0"
REMOVED = """
CREATE TABLE IF NOT EXISTS removed (
    id INTEGER PRIMARY KEY,    -- never given to another image; its row of the features is zero
    path NOT NULL,             -- where the image was
    generation INTEGER NOT NULL
)
"""

FILTER_INDEXES = tuple(
    f"CREATE INDEX IF NOT EXISTS images_{column} ON images ({column})"
    for column in ("size", "mtime", "folder", "camera")
)
"""A filter by one of these reads no other column; catalogs of earlier versions are read whole."""

PHASH = "phash BLOB"
"""A column of `images`: perceptual hashes, as `features.phash` makes them; NULL where the image could not be read."""

CAMERA = "camera TEXT"
"""A column of `images`: the camera, as `features.images.exif.camera_of` tells it; NULL where nobody has looked yet."""

HASHED_IN = "hashed_in"
"""What `about` calls the generation in which images that had been without got their hashes."""

PATH_PARTS = ("folder", "name", "ending", "folder_folded", "name_folded")
"""Columns of `images` that say again what the path says, for filters: see `file_facts.parts_of`."""

COLUMNS = {
    "images": {"id", "path", "size", "mtime", "sha256", "width", "height", "error"},
    "labels": {"image_id", "label"},
    "about": {"key", "value"},
    "removed": {"id", "path", "generation"},
}
