"""A search engine without network or index, for tests of the page: same surface as search.engine.SearchEngine."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from features.datasets import Item
from features.images import decode_image
from search.errors import QueryError
from search.hits import Answer, Hit
from search.query import ImagePart, Query


class FakeEngine:
    """Finds pictures by their mean colour. `asked` keeps every query as it came."""

    metric = "cosine"
    engines = ("ivfpq", "faiss", "exact")
    nlist: int | None = 16
    nprobe = 4
    encoder = neighbour_order = None

    def __init__(self, name: str, pictures: Mapping[Path, str]) -> None:
        self.name = name
        self.folder = Path("collections") / name
        items = [Item(i, path, (label,) if label else ()) for i, (path, label) in enumerate(pictures.items())]
        manifest = {
            "name": name,
            "root": os.path.commonpath([path.parent for path in pictures] or ["/"]),
            "encoder": {"name": "colour"},
        }
        ids = np.arange(len(items))
        self.store = SimpleNamespace(
            items=items,
            ids=ids,
            manifest=manifest,
            has_annotations=False,
            hash_of=lambda id: f"{id:064x}",
            find_copies=lambda sha256: [],
        )
        self.asked: list[Any] = []
        self.labels = dict(Counter(label for item in items for label in item.labels))

    def search(
        self, query, k=10, *, nprobe=None, engine="ivfpq", rerank=False, filter=None, cutoff=None, **order
    ) -> Answer:
        if isinstance(query, Query):
            self.score_text("")
        query = query.picture if isinstance(query, ImagePart) else query
        self.asked.append((query, k, nprobe, engine))
        pixels = query if isinstance(query, np.ndarray) else decode_image(query)
        own = Path(query) if isinstance(query, str | os.PathLike) else None
        distances = [
            (float(np.linalg.norm(decode_image(item.path).mean((0, 1)) - pixels.mean((0, 1)))), item)
            for item in self.store.items
            if item.path != own and (filter is None or set(filter["label"]) & set(item.labels))
        ]
        distances.sort(key=lambda pair: pair[0])
        return Answer(
            tuple(
                Hit(rank, item.id, 1 - distance / 442, 1 - distance / 442, None, item.labels, item.path)
                for rank, (distance, item) in enumerate(distances[:k], start=1)
            ),
            own_id=next((item.id for item in self.store.items if item.path == own), None),
            encode_ms=10 + len(self.asked),  # no two answers read the same
            search_ms=0.45,
        )

    def score_text(self, text: str) -> None:
        raise QueryError(f"{self.name} cannot be asked by words: its encoder colour has no classes")


def reds(folder: Path, count: int = 3, brighter: int = 80) -> FakeEngine:
    """An engine "reds" over pictures of 40 x 30 that it makes in a folder, each redder than the one before."""
    pictures = {folder / f"{i}.png": "red" for i in range(count)}
    for i, path in enumerate(pictures):
        Image.new("RGB", (40, 30), (brighter * i, 0, 0)).save(path)
    return FakeEngine("reds", pictures)
