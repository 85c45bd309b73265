"""Words beside pictures and in them: ``.txt``, ``.json`` and ``.xmp`` files of their names, XMP and IPTC."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image, IptcImagePlugin

from features.collection.records import Record
from features.collection.said import Maker, Value, Words
from features.images import ImageError
from features.makers.base import WordMaker
from features.makers.tables import own_field_name, split_tags

_DC = "{http://purl.org/dc/elements/1.1/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_TITLE, _KEYWORDS, _CAPTION = (2, 5), (2, 25), (2, 120)

_CAPTION_KEYS = ("caption", "description", "title", "text", "alt")
_TAG_KEYS = ("tags", "keywords", "labels")
_MAX_SIDECAR = 1 << 22


class SidecarMaker(WordMaker):
    """Says what lies beside each picture, ``boat.jpg.txt`` or ``boat.txt``, and what its own file carries."""

    maker = Maker("file", "beside and in pictures")
    version = "1"

    def words_of(self, records: Sequence[Record]) -> list[Words]:
        return [self._words(record) for record in records]

    def _words(self, record: Record) -> Words:
        captions: dict[str, None] = {}
        tags: dict[str, None] = {}
        fields: dict[str, Value] = {}
        for found in self._found(record):
            captions.update(dict.fromkeys(found.captions))
            tags.update(dict.fromkeys(found.tags))
            fields.update(found.fields)
        return Words(captions, tags, fields)

    def _found(self, record: Record) -> Iterator[Words]:
        with suppress(ImageError):  # the catalog has its reason
            yield embedded_words(self.read(record.path))
        for ending, read in ((".txt", _of_text), (".json", _of_json), (".xmp", xmp_words)):
            for path in (Path(f"{record.path}{ending}"), record.path.with_suffix(ending)):
                try:
                    content = self.read(path)
                except ImageError:
                    continue
                try:
                    if len(content) > _MAX_SIDECAR:
                        raise ValueError(f"it has {len(content):,} bytes")
                    yield read(content)
                except (ValueError, SyntaxError, RecursionError) as error:
                    self.notes.append(f"{path} is left out: {error}")
                break


def embedded_words(content: bytes) -> Words:
    """The keywords, descriptions and rating that a picture file carries, by XMP and IPTC."""
    captions: dict[str, None] = {}
    tags: dict[str, None] = {}
    fields: dict[str, Value] = {}
    try:
        with Image.open(io.BytesIO(content)) as image:
            packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
            records = IptcImagePlugin.getiptcinfo(image) or {}
    except Exception:  # whatever a broken file leads the readers of its metadata to
        return Words()
    for key in (_TITLE, _CAPTION):
        captions.update(dict.fromkeys(_decoded(records.get(key))))
    tags.update(dict.fromkeys(_decoded(records.get(_KEYWORDS))))
    if packet:
        try:
            words = xmp_words(packet.encode() if isinstance(packet, str) else packet)
        except (ValueError, SyntaxError):
            words = Words()
        captions.update(dict.fromkeys(words.captions))
        tags.update(dict.fromkeys(words.tags))
        fields.update(words.fields)
    return Words(captions, tags, fields)


def xmp_words(packet: bytes) -> Words:
    """Title, description, subjects and rating of an XMP packet. Raises ValueError or SyntaxError if it is none."""
    from defusedxml.ElementTree import fromstring

    root = fromstring(packet.strip(b"\0 \r\n\t"))
    captions, tags = (
        dict.fromkeys(
            text.strip()
            for name in names
            for node in root.iter(f"{_DC}{name}")
            for item in node.iter(f"{_RDF}li")
            if (text := item.text or "").strip()
        )
        for names in (("title", "description"), ("subject",))
    )
    ratings = [node.text for node in root.iter(f"{_XMP}Rating")]
    ratings += [node.get(f"{_XMP}Rating") for node in root.iter(f"{_RDF}Description")]
    fields: dict[str, Value] = {}
    for rating in filter(None, ratings):
        try:
            fields["rating"] = float(rating)
        except ValueError:
            continue
    return Words(captions, tags, fields)


def _decoded(values: Any) -> list[str]:
    """IPTC texts: UTF-8, or Latin-1 where they are not."""
    texts = []
    for value in values if isinstance(values, list) else [values] if values else []:
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:
            texts.append(value.decode("latin-1"))
    return texts


def _of_text(content: bytes) -> Words:
    """Each paragraph is a caption."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    return Words(dict.fromkeys(each for each in text.replace("\r\n", "\n").split("\n\n") if each.strip()))


def _of_json(content: bytes) -> Words:
    read = json.loads(content.decode("utf-8-sig"))
    if not isinstance(read, Mapping):
        raise ValueError(f"it is a {type(read).__name__}, not an object")
    captions = [read[key] for key in _CAPTION_KEYS if isinstance(read.get(key), str) and read[key].strip()]
    tags = [tag for key in _TAG_KEYS for tag in split_tags(read.get(key))]
    fields = {
        own_field_name(key): value
        for key, value in read.items()
        if key not in (*_CAPTION_KEYS, *_TAG_KEYS) and isinstance(value, str | int | float) and value != ""
    }
    return Words(dict.fromkeys(captions), dict.fromkeys(tags), fields)
