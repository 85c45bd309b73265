"""POST /search: a question as JSON or as a form with a picture, and its answer.

Nothing of a question is kept: a picture lies in memory, or in a nameless file that the system takes back, until the
answer is sent.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from features.checksum import sha256_of
from features.images import STRANGERS_PICTURES, decode_image
from gradio_app.markup import printable
from gradio_app.routes.api import cursors, strict_json
from gradio_app.routes.api.context import Context, links_of, place_of, relative_path
from gradio_app.routes.api.models import (
    MAX_HITS,
    Counts,
    Hit,
    PartAnswered,
    SearchAnswer,
    SearchForm,
    SearchRequest,
    Timings,
)
from gradio_app.routes.api.problems import documented
from gradio_app.routes.pictures import version_of
from gradio_app.typed import MAX_ADDRESSES, parse, said_of_part
from search.engine import SearchEngine
from search.errors import QueryError
from search.filters import Filter
from search.hits import Answer
from search.query import ImagePart, Query, is_address
from search.query_json import from_json

MAX_WAITING = 64  # searches; whoever comes then is asked to come again
_TEXTS = ("collection", "q", "cursor")


def search_routes(context: Context) -> APIRouter:
    router = APIRouter(tags=["search"])
    bodies = {
        "application/json": {"schema": {"$ref": "#/components/schemas/SearchRequest"}},
        "multipart/form-data": {"schema": {"$ref": "#/components/schemas/SearchForm"}},
    }

    @router.post(
        "/search",
        response_model=SearchAnswer,
        responses=documented(404, 410, 415, 503),
        openapi_extra={"requestBody": {"required": True, "content": bodies}},
    )
    async def search(request: Request, response: Response) -> SearchAnswer:
        """The pictures that fit a question best, one page of them.

        The question is JSON, or a form of the same members with a picture of your own as `image`.
        """
        if context.searchers.statistics().tasks_waiting >= MAX_WAITING:
            raise HTTPException(503, "Too many searches are waiting.", headers={"Retry-After": "1"})
        content = await _body(request)
        found = await anyio.to_thread.run_sync(
            partial(_answer, context, content, partial(place_of, request)), limiter=context.searchers
        )
        response.headers["Cache-Control"] = "no-store"
        return found

    return router


async def _body(request: Request) -> bytes | dict[str, str | bytes]:
    """The body as it came: JSON unread, or the fields of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await request.body()
    if kind != "multipart/form-data":
        raise HTTPException(415, "A search is sent as application/json, or with a picture as multipart/form-data.")
    async with request.form(max_files=1, max_fields=20) as form:
        read: dict[str, str | bytes] = {}
        for name, value in form.multi_items():
            if name in read:
                raise HTTPException(422, f"The form says {name[:80]!r} twice.")
            read[name] = await value.read() if isinstance(value, UploadFile) else value
        return read


def _read(content: bytes | dict[str, str | bytes]) -> tuple[SearchRequest, bytes | None]:
    """The question, and the picture that came with it."""
    try:
        if isinstance(content, bytes):
            return SearchRequest.model_validate(strict_json.parse(content)), None
        image = content.pop("image", None)
        if not isinstance(image, bytes):
            raise HTTPException(422, "A form brings a picture, as the file `image`.")
        said: dict[str, Any] = {}
        for name, text in content.items():
            if isinstance(text, bytes):
                raise HTTPException(422, f"{name[:80]} is no file.")
            said[name] = text if name in _TEXTS else strict_json.parse(text)
        return SearchForm.model_validate(said), image
    except strict_json.JsonError as error:
        raise HTTPException(400, str(error)) from error
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found]) from error


def _answer(context: Context, content: bytes | dict[str, str | bytes], place_of: Callable[[str], str]) -> SearchAnswer:
    asked, image = _read(content)
    engine = context.only_collection() if asked.collection is None else context.collection(asked.collection)
    version = version_of(engine)
    said = asked.model_dump(exclude={"cursor", "k"}) | {"collection": engine.name}
    question = cursors.fingerprint([said, None if image is None else sha256_of(image)])
    before = _before(asked.cursor, question, version)

    query = _query(asked, image)
    fetch_ms, decode_ms = _Stopwatch(), _Stopwatch()
    query = replace(
        query, parts=tuple(_opened(part, engine, context.fetch, fetch_ms, decode_ms) for part in query.parts)
    )
    wanted = len(before) + asked.k
    # One more shows whether there is another page.
    found = engine.search(replace(query, k=min(wanted + 1, MAX_HITS)), filter=None)
    new = [hit for hit in found.hits if hit.id not in before]
    hits = new[: min(asked.k, MAX_HITS - len(before))]
    is_more = len(new) > len(hits) and wanted < MAX_HITS
    timings = _timings(found, fetch_ms.ms, decode_ms.ms)
    context.metrics.search(timings)
    place = place_of(engine.name)
    return SearchAnswer(
        collection=engine.name,
        version=version,
        own_id=found.own_id,
        weak=found.is_weak,
        counts=Counts(
            shown=len(before) + len(hits),
            matching=query.filter.count(engine.store),
            pictures=int(engine.store.ids.size),
        ),
        hits=[
            Hit(
                rank=rank,
                id=hit.id,
                path=relative_path(engine, hit.path),
                labels=[printable(label) for label in hit.labels],
                similarity=hit.similarity,
                distance=hit.distance,
                score=hit.score,
                shares=list(hit.shares),
                links=links_of(engine, place, hit.id),
            )
            for rank, hit in enumerate(hits, start=len(before) + 1)
        ],
        parts=[
            PartAnswered(
                said=printable(said_of_part(part.part, engine)),
                weight=part.part.weight,
                space=part.space,
                unanswered=part.unanswered,
                hints=list(part.hints),
            )
            for part in found.parts
        ],
        notes=[printable(note) for note in (*found.unanswered, *found.hints)],
        timings_ms=timings,
        cursor=cursors.written(question=question, version=version, seen=[*before, *(hit.id for hit in hits)])
        if is_more
        else None,
    )


def _before(cursor: str | None, question: str, version: str) -> list[int]:
    """The hits of the pages before.

    How deep a search looks decides a little of the order, so a later page is what is new in a deeper search: no hit
    comes twice, and none is passed over.
    """
    if cursor is None:
        return []
    said = cursors.read(cursor, question)
    if said.get("version") != version:
        raise HTTPException(410, "The collection has changed since this cursor was given: search again.")
    return cursors.ids_of(said, "seen", MAX_HITS)


def _query(asked: SearchRequest, image: bytes | None) -> Query:
    """What is asked, all its ways to say it together."""
    typed = parse(asked.q) if asked.q else Query()
    said = asked.model_dump(exclude_unset=True, include={"parts", "filter", "options"})
    query = from_json({name: value for name, value in said.items() if value is not None})
    parts = (*typed.parts, *query.parts)
    if image is not None and isinstance(asked, SearchForm):
        own = ImagePart(image, crop=asked.crop, foreground=asked.foreground, weight=asked.weight)  # type: ignore[arg-type]
        parts = (*parts, own)
    options = query.options or typed.options
    whole = Query(parts, typed.filter & query.filter, options=options, collection=typed.collection, faults=typed.faults)
    addresses = {part.picture for part in parts if isinstance(part, ImagePart) and is_address(part.picture)}
    if len(addresses) > MAX_ADDRESSES:
        raise QueryError(f"a query takes at most {MAX_ADDRESSES} pictures from the web, got {len(addresses)}")
    whole.check()
    return whole


class _Stopwatch:
    """Adds up how long its `with` blocks take."""

    def __init__(self) -> None:
        self.ms = 0.0
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.ms += (time.perf_counter() - self._started) * 1e3


def _opened(
    part: Any, engine: SearchEngine, fetch: Callable[[str], bytes], fetching: _Stopwatch, decoding: _Stopwatch
) -> Any:
    """A part with its picture in hand. No picture is a file of this computer, whatever it says."""
    if not isinstance(part, ImagePart) or isinstance(part.picture, int):
        return part
    picture = part.picture
    if isinstance(picture, str) and is_address(picture):
        address = picture
        with fetching:
            try:
                picture = fetch(address)
            except ValueError as error:
                raise QueryError(f"{address} cannot be searched with: {error}") from error
    if not isinstance(picture, bytes):
        raise QueryError(
            f"image: takes the address of a picture on the web, such as https://example.org/a.jpg, not {picture!r}; "
            "a picture of yours is sent as `image` of a form"
        )
    if part.crop is None and engine.store.find_copies(sha256_of(picture)):
        return replace(part, picture=picture)  # a picture of the collection, known by its bytes
    with decoding:
        return replace(part, picture=decode_image(picture, limits=STRANGERS_PICTURES))


def _timings(found: Answer, fetch_ms: float, decode_ms: float) -> Timings:
    is_fused = bool(found.parts)
    return Timings(
        fetch=fetch_ms,
        decode=decode_ms,
        encode=found.encode_ms,
        search=found.search_ms,
        rerank=0.0 if is_fused else found.rerank_ms,
        fuse=found.rerank_ms if is_fused else 0.0,
    )


def filter_of(text: str | None) -> Filter:
    """A filter that is written as JSON in an address.

    Raises
    ------
    HTTPException
        400: it is no JSON.
    QueryError
        It makes no sense.
    """
    if text is None:
        return Filter()
    try:
        return Filter.of(strict_json.parse(text))
    except strict_json.JsonError as error:
        raise HTTPException(400, str(error)) from error


def canonical(filter: Filter) -> str:
    """The same text for the same filter."""
    return json.dumps(filter.to_json(), sort_keys=True, default=str)
