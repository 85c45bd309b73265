"""What is asked and answered, as pydantic reads it and OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from search.options import NEIGHBOURHOOD
from search.query import MAX_JUDGED, MAX_PARTS

MAX_PAGE = 200  # hits or pictures of an answer
MAX_HITS = 1_000  # of a search, all its pages together
PAGE = 20
MAX_TEXT = 10_000  # characters of what is typed; as of the page's field
MAX_NAME = 255
MAX_EDGE = 2**31

Id = Annotated[int, Field(ge=0, lt=2**53)]
Weight = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Edge = Annotated[int, Field(ge=0, lt=MAX_EDGE)]
Box = Annotated[list[Edge], Field(min_length=4, max_length=4)]
JsonObject = dict[str, Any]


class Asked(BaseModel):
    """What is asked: nothing is converted, and nothing unknown passed over."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PictureNamed(Asked):
    """A picture by exactly one of: its id in the collection, its address on the public web, its content in base64."""

    id: Id | None = None
    url: Annotated[str, Field(max_length=2_000, pattern="^https?://")] | None = None
    bytes: str | None = None

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    @model_validator(mode="after")
    def _is_one(self) -> PictureNamed:
        if len(self.model_fields_set) != 1 or None in (getattr(self, name) for name in self.model_fields_set):
            raise ValueError("a picture is named by exactly one of id, url and bytes")
        return self


class PicturePart(Asked):
    image: PictureNamed
    crop: Box | None = Field(None, description="Left, top, right and bottom edge of the piece that is meant, in pixels")
    foreground: bool = Field(False, description="Look at its object, not so much at what is behind it")
    weight: Weight = 1.0
    space: str | None = None


class WordsPart(Asked):
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    match: Literal["words", "phrase", "prefix"] = "words"
    weight: Weight = 1.0
    space: str | None = None


class TagPart(Asked):
    tag: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    learned: bool = False
    weight: Weight = 1.0
    space: str | None = None


class JudgedPart(Asked):
    """What was judged of earlier hits, by their ids."""

    more: Annotated[list[Id], Field(max_length=MAX_JUDGED)] = []
    less: Annotated[list[Id], Field(max_length=MAX_JUDGED)] = []
    weight: Weight = 1.0
    space: str | None = None


def _kind(part: Any) -> str:
    named = part if isinstance(part, dict) else getattr(part, "model_fields_set", ())
    return next((name for name in ("image", "text", "tag") if name in named), "judged")


Part = Annotated[
    Annotated[PicturePart, Tag("image")]
    | Annotated[WordsPart, Tag("text")]
    | Annotated[TagPart, Tag("tag")]
    | Annotated[JudgedPart, Tag("judged")],
    Discriminator(_kind),
]


class Options(Asked):
    """How to search; see `search.options.SearchOptions`."""

    engine: str = Field("ivfpq", description="One of the collection's engines")
    nprobe: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    rerank: bool = True
    cutoff: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="The least similarity")
    neighbourhood: Annotated[float, Field(ge=0, le=1)] = NEIGHBOURHOOD
    fusion: Literal["scores", "ranks"] = "scores"


class SearchRequest(Asked):
    """A question: what is typed in the search box, parts, or both; of which pictures; how many.

    The JSON is that of saved searches, and of `search.query_json`.
    """

    collection: Annotated[str, Field(max_length=MAX_NAME)] | None = Field(
        None, description="Its name; may be left out where there is only one"
    )
    q: Annotated[str, Field(max_length=MAX_TEXT)] | None = Field(
        None, description="In the grammar of the search box", examples=["red boat -night label:ship"]
    )
    parts: Annotated[list[Part], Field(max_length=MAX_PARTS)] = []
    filter: JsonObject | None = Field(
        None,
        description='Only these pictures: a tree of conditions joined by "and", "or" and "not"',
        examples=[{"rating": {"gte": 4}, "or": [{"label": "cup"}, {"tags": {"any": ["sea", "lake"]}}]}],
    )
    k: Annotated[int, Field(ge=1, le=MAX_PAGE)] = Field(PAGE, description="Hits of one page")
    options: Options | None = None
    cursor: str | None = Field(None, description="Of the answer before, for its next page: with the same question")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"collection": "demo", "q": "red boat -night", "k": 10},
                {
                    "collection": "demo",
                    "parts": [{"image": {"id": 7}, "crop": [0, 0, 120, 80]}, {"text": "boat", "weight": -0.5}],
                    "filter": {"and": [{"rating": {"gte": 4}}, {"tags": {"any": ["sea", "lake"]}}]},
                    "options": {"neighbourhood": 0.5},
                },
            ]
        }
    )


def _with_file(schema: JsonObject) -> None:
    schema["properties"]["image"] = {"type": "string", "format": "binary", "description": "The picture"}
    schema["required"] = ["image"]
    schema.pop("examples", None)


class SearchForm(SearchRequest):
    """The same as a form, with a picture of your own as `image`; what is no text in it is written as JSON."""

    model_config = ConfigDict(json_schema_extra=_with_file)

    crop: Box | None = Field(None, description="The piece of the picture that is meant")
    foreground: bool = Field(False, description="Look at the object of the picture")
    weight: Weight = Field(1.0, description="Of the picture")


class Problem(BaseModel):
    """RFC 9457; `errors` says what is wrong where in a body."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[dict[str, str]] | None = None


class Links(BaseModel):
    """Addresses on this server."""

    image: str
    thumbnail: str
    view: str
    original: str


class Hit(BaseModel):
    rank: int
    id: int
    path: str = Field(description="Relative to the folder of the collection's pictures")
    labels: list[str]
    similarity: float | None = Field(description="Of the stored vectors, to the nearest picture that was asked with")
    distance: float | None = Field(description="Instead of it, where the collection is compared so")
    score: float = Field(description="What the hits are ordered by")
    shares: list[float] = Field(description="What each part gave to the score, in the order of `parts`")
    links: Links


class PartAnswered(BaseModel):
    said: str = Field(description="The part, in words")
    weight: float
    space: str | None = Field(description="Where it was asked; null where it could not be answered")
    unanswered: str = Field(description="Why not")
    hints: list[str]


class Counts(BaseModel):
    shown: int = Field(description="Hits up to here, those of the pages before included")
    matching: int = Field(description="Pictures that the filter lets through")
    pictures: int = Field(description="Pictures of the collection")


class Timings(BaseModel):
    """Milliseconds of each stage."""

    fetch: float
    decode: float
    encode: float
    search: float
    rerank: float
    fuse: float


class SearchAnswer(BaseModel):
    collection: str
    version: str = Field(description="Of the collection: changes when pictures come or go")
    own_id: int | None = Field(description="The picture that was asked with, where the collection holds it")
    weak: bool | None = Field(
        description="Whether the hits of one picture are hardly nearer than pictures of other things; null if unknown"
    )
    counts: Counts
    hits: list[Hit]
    parts: list[PartAnswered] = Field(description="Empty where the question is one picture")
    notes: list[str] = Field(description="What of the question could not be answered or was not understood")
    timings_ms: Timings
    cursor: str | None = Field(description="For the next page; null where this is the last")


class CollectionShort(BaseModel):
    name: str
    version: str
    pictures: int
    engines: list[str]
    spaces: list[str]
    link: str


class CollectionList(BaseModel):
    collections: list[CollectionShort]


class Collection(CollectionShort):
    metric: str
    encoder: str
    nlist: int | None
    nprobe: int
    labels: dict[str, int] = Field(description="How many pictures bear each label")
    fields: dict[str, str] = Field(description="The kind of each field that people and models gave: number, date, text")
    images: str = Field(description="Address of its pictures")


class By(BaseModel):
    source: str = Field(description="label, file, model, ocr or person")
    maker: str = Field(description="Which of that source; empty for a person")
    certainty: float | None = None


class CaptionSaid(By):
    text: str


class TagSaid(By):
    tag: str


class FieldSaid(By):
    name: str
    value: float | int | str


class ImageShort(BaseModel):
    id: int
    path: str
    labels: list[str]
    links: Links


class Image(ImageShort):
    collection: str
    content: str = Field(description="The first digits of its SHA-256: hand it back with an edit")
    sha256: str | None
    bytes: int
    width: int | None = Field(description="Pixels, as the picture is seen")
    height: int | None
    modified: str = Field(description="UTC")
    captions: list[CaptionSaid]
    tags: list[TagSaid]
    fields: list[FieldSaid]
    favourite: bool


class ImagePage(BaseModel):
    images: list[ImageShort]
    matching: int
    cursor: str | None


class DuplicateImage(ImageShort):
    content: str = Field(description="The first digits of its SHA-256")
    width: int | None
    height: int | None
    bytes: int


class DuplicateGroup(BaseModel):
    level: Literal["same bytes", "same pixels", "proved", "likely", "alike"] = Field(
        description="Of the weakest link between them; likely: by hash and vector, and not looked at closer"
    )
    later: bool = Field(description="Whether the decision was put off")
    images: list[DuplicateImage] = Field(description="First the one of the most pixels, then bytes, then the oldest")


class DuplicateGroups(BaseModel):
    groups: list[DuplicateGroup]
    total: int = Field(description="Groups that are left to decide about")
    set_aside: list[Id] = Field(description="Images that were set aside as another is kept")
    unseen: int | None = Field(description="Pairs that nobody has looked at closer; null: none were looked for")


class DuplicateDecision(Asked):
    """What a person decides of some images; nothing happens to their files."""

    do: Literal["keep", "different", "later", "take_back"] = Field(
        description="keep: the first of them, and set the others aside; different: no two of them are the same; "
        "take_back: they are set aside no longer"
    )
    images: Annotated[list[Id], Field(min_length=1, max_length=200)]


class DuplicatesDecided(BaseModel):
    undo: int | None = Field(description="Takes the decision back, as long as nothing else is edited")


class State(BaseModel):
    status: str


Words = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Many = Annotated[list[Words], Field(max_length=100)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Amount = Annotated[int, Field(gt=-(2**63), lt=2**63)]


class ImageChange(Asked):
    """What is to be said of a picture, or no longer; done as a whole, in the name of a person."""

    content: str | None = Field(
        None,
        max_length=64,
        description="Of the picture that is meant, as it was given: where another has its id by now, the answer is 409",
    )
    add_tags: Many = []
    remove_tags: Many = []
    add_captions: Many = []
    remove_captions: Many = []
    fields: Annotated[dict[str, Amount | Number | Words | None], Field(max_length=100)] = Field(
        {}, description="Numbers, texts, and dates as texts; null takes the value away"
    )
    favourite: bool | None = None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"content": "b7665a5266b576be", "add_tags": ["sea"], "fields": {"rating": 4}}],
        }
    )


class ImageChanged(BaseModel):
    image: Image
    undo: int | None = Field(
        description="Takes the change back, as long as nothing else is edited; null: none was made"
    )


class UndoRequest(Asked):
    undo: Id = Field(description="As the change gave it")


class Undone(BaseModel):
    undone: str = Field(description="What was taken back")


class Job(BaseModel):
    id: str
    kind: Literal["upload", "remove", "sync"]
    collection: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    stage: str = Field(description="What is being done just now")
    done: int
    total: int = Field(description="0 where it is not known how far the stage goes")
    error: str = Field(description="Why it failed")
    result: JsonObject | None = Field(
        description="Once it is done: of an upload `images`, each with the `ids` that its content has in the collection"
    )
    created: str = Field(description="UTC")
    changed: str = Field(description="UTC")
    link: str


class JobList(BaseModel):
    jobs: list[Job] = Field(description="The latest first")
