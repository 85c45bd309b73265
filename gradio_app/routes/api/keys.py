"""API keys: a file beside the collections that holds their hashes, and who may do what with each.

A key is 256 random bits, so its SHA-256 needs no salt and no slow hash: there is nothing to guess it by.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.collection.errors import StoreError, cannot_write
from features.collection.lock import writing
from features.collection.manifest import write_json

FILE = "api_keys.json"
SCOPES = ("read", "write")
MAX_NAME = 80
_PREFIX = "ris"


@dataclass(frozen=True)
class Key:
    """What is kept of a key.

    Attributes
    ----------
    id : str
        The second part of the key itself, by which it is found and revoked.
    name : str
        What it is for.
    scopes : tuple of str
        "read", "write".
    created : str
        When, in UTC.
    sha256 : str
        Of the key.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created: str
    sha256: str


class KeyStore:
    """The keys of the collections in a folder. Safe to use from many threads and processes.

    A server sees at its next request what a command has changed.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def make(self, name: str, scopes: tuple[str, ...]) -> str:
        """A new key, which is told this once and kept nowhere.

        Raises
        ------
        StoreError
            It cannot be written, or the name or the scopes make no sense.
        """
        name = " ".join(name.split())
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise StoreError(f"a key has a name of 1 to {MAX_NAME} characters, got {name!r}")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise StoreError(f"the scopes of a key are of {', '.join(SCOPES)}, got {', '.join(scopes) or 'none'}")
        id = secrets.token_hex(4)
        text = f"{_PREFIX}_{id}_{secrets.token_urlsafe(32)}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        key = Key(id, name, tuple(scope for scope in SCOPES if scope in scopes), now, _hashed(text))
        with self._changing() as keys:
            keys[id] = key
        return text

    def revoke(self, id: str) -> Key:
        """Take a key back; from now on it opens nothing. Raises StoreError if there is none of this id."""
        with self._changing() as keys:
            if id not in keys:
                raise StoreError(f"there is no key {id}")
            return keys.pop(id)

    def listed(self) -> list[Key]:
        """All keys, in the order in which they were made. Raises StoreError if the file cannot be read."""
        return list(self._current().values())

    def find(self, text: str) -> Key | None:
        """Whose key a text is. How long it takes says nothing of how much of it is right."""
        _, _, rest = text.partition("_")
        id, _, _ = rest.partition("_")
        key = self._current().get(id)
        is_it = hmac.compare_digest(_hashed(text), key.sha256 if key is not None else "0" * 64)
        return key if is_it else None

    def _current(self) -> dict[str, Key]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return {}
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        with self._lock:
            if seen != self._seen:
                self._keys, self._seen = self._read(), seen
            return self._keys

    def _read(self) -> dict[str, Key]:
        try:
            said: Any = json.loads(self.path.read_text(encoding="utf-8"))
            keys = [Key(**{**each, "scopes": tuple(each["scopes"])}) for each in said["keys"]]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        return {key.id: key for key in keys}

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Key]]:
        """The keys as they are, to be changed; they are written when the block ends well."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.path, wait_seconds=10.0):
            keys = self._read()
            yield keys
            try:
                write_json(self.path, {"keys": [asdict(key) for key in keys.values()]})
            except OSError as error:
                raise cannot_write(self.path, error) from error


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
