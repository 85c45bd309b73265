"""What a manifest must look like, checked as a whole before anything in it is believed."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

MAX_DEPTH = 32
"""Levels of JSON within each other; our own manifests have five."""

MANIFEST, ANNOTATIONS = "manifest.json", "annotations.sqlite"
_NAME = re.compile(r"[^./\\\0][^/\\\0]*")


def _own_file(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r}, which is not a file of its folder")
    if name in (MANIFEST, ANNOTATIONS):
        raise ValueError(f"{name!r}, which is no part that it could speak of")
    return name


def _absolute_path(path: Any) -> str:
    # Not pydantic's own text: a name that is not UTF-8 has lone surrogates, which that refuses.
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("must be a path")
    return path


Count = Annotated[int, Field(ge=0, le=2**53)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_own_file)]
RootPath = Annotated[str, PlainValidator(_absolute_path)]
Metric = Literal["cosine", "l2", "ip"]


class _Entry(BaseModel):
    """A part of the manifest. What else it says is kept: programs of later versions may have said it."""

    model_config = ConfigDict(strict=True, extra="allow")


class FileEntry(_Entry):
    """A file of the collection: its name, SHA-256 and size in bytes."""

    file: FileName
    sha256: Sha256 | None = None
    bytes: Count | None = None


class GrownEntry(_Entry):
    """Rows that were written behind those of a file of vectors, and the SHA-256 of their bytes."""

    rows: Annotated[int, Field(ge=1, le=2**53)]
    sha256: Sha256


class VectorsEntry(FileEntry):
    """A file of rows; `sha256` is that of its header and of the rows that this speaks of."""

    grown: list[GrownEntry] = []


class FeaturesEntry(VectorsEntry):
    """The file of vectors."""

    sha256: str


class CatalogEntry(FileEntry):
    """The catalog; `change_counter` is that of the sqlite file when it was written."""

    change_counter: Count | None = None


class IndexEntry(_Entry):
    """An index: in a file, or elsewhere."""

    file: FileName | None = None
    sha256: Sha256 | None = None
    factory: str | None = None
    asked: str | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    target_recall: Annotated[float, Field(gt=0, le=1)] | None = None
    generation: Count | None = None


class SpaceEntry(VectorsEntry):
    """Vectors of another kind over the same pictures: which parts of a query may be asked there, and its indexes."""

    dim: Annotated[int, Field(ge=1, le=2**20)]
    dtype: Literal["float16", "float32"]
    metric: Metric
    accepts: list[str] = []
    maker: dict[str, Any] | None = None
    generation: Count = 0
    indexes: dict[str, IndexEntry] = {}
    beside: dict[str, VectorsEntry] = {}


class WeightsEntry(_Entry):
    """Weights of an encoder: what a person names them by, and their SHA-256."""

    argument: str | None = None
    sha256: str


class BackgroundEntry(_Entry):
    """The network that told objects from what is behind them, which was left out."""

    network: str
    sha256: Sha256


class EncoderEntry(_Entry):
    """What made the vectors."""

    name: str
    dim: Annotated[int, Field(ge=1, le=2**20)]
    weights: WeightsEntry
    background: BackgroundEntry | None = None


class DuplicatesEntry(FileEntry):
    """Pairs of pictures that may be the same, found in a generation of the collection."""

    generation: Count = 0


class MapEntry(FileEntry):
    """The pictures as points of a plane, by the vectors of a generation, as a metric compares them."""

    generation: Count = 0
    metric: Metric


class SourceEntry(_Entry):
    """How the images of the root were chosen; see `features.datasets.base.source_of`."""

    kind: str | None = None
    exclude: list[str] = []
    follow_links: bool = False
    max_megapixels: Annotated[float, Field(gt=0, le=1e5)] | None = None


class Manifest(_Entry):
    """A manifest of format 1."""

    format: Literal[1]
    generation: Count = 0
    dataset: str = "folder"
    root: RootPath
    source: SourceEntry = SourceEntry()
    follow_links: bool = False  # in earlier versions, which did not say it in the source
    count: Count
    removed: Count = 0
    damaged: Count
    dim: Annotated[int, Field(ge=1, le=2**20)]
    dtype: Literal["float16", "float32"]
    metric: Metric
    encoder: EncoderEntry
    features: FeaturesEntry
    catalog: CatalogEntry | None = None
    indexes: dict[str, IndexEntry] = {}
    spaces: dict[str, SpaceEntry] = {}
    duplicates: DuplicatesEntry | None = None
    map: MapEntry | None = None
    annotations: Annotated[str, Field(pattern="^[0-9a-f]{32}$")] | None = None

    @model_validator(mode="after")
    def _adds_up(self) -> Manifest:
        if self.removed + self.damaged > self.count:
            raise ValueError(f"{self.removed} removed and {self.damaged} damaged are more than all {self.count} images")
        return self


def fault_of(manifest: dict[str, Any]) -> str | None:
    """What is wrong with the content of a manifest, or None."""
    if _is_deeper(manifest, MAX_DEPTH):
        return f"is nested more than {MAX_DEPTH} levels deep"
    try:
        Manifest.model_validate(manifest)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        missing = [str(fault["loc"][0]) for fault in faults if fault["type"] == "missing" and len(fault["loc"]) == 1]
        if missing:
            return f"lacks {', '.join(sorted(missing))}"
        return _sentence(faults[0])
    return None


def _sentence(fault: Any) -> str:
    where = ".".join(map(str, fault["loc"]))
    what = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error" and where.endswith("file"):
        return f"names {what}"
    got = "" if fault["type"] in ("missing", "value_error") else f", got {str(fault['input'])[:80]!r}"
    if fault["loc"] and fault["loc"][0] in ("features", "catalog", "indexes", "spaces"):
        return f"does not say which files it speaks of ({where}: {what}{got})"
    return f"is damaged: {where}: {what}{got}" if where else f"is damaged: {what}"


def _is_deeper(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        layer = [
            inner
            for outer in layer
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True
