"""Errors as problems (RFC 9457): the same few members whatever went wrong, `detail` a sentence for who asked."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from features.collection.errors import StoreError
from features.encoders import EncoderError
from features.images import ImageError
from gradio_app.markup import printable
from search.errors import EngineError

logger = logging.getLogger(__name__)

Responses = dict[int | str, dict[str, Any]]

MEDIA_TYPE = "application/problem+json"
SHOWN_INPUT = 200  # characters of what came, where an error quotes it
DOCUMENTED = {
    400: "The request cannot be read.",
    401: "It is not known who asks, or the key is none.",
    403: "Whoever asks may not do that.",
    404: "There is no such thing.",
    405: "Nothing is done so here.",
    409: "What is there now is not what the request was meant for.",
    410: "The collection has changed since the cursor was given: search again.",
    413: "The body is too large.",
    415: "The body is of no kind that is taken here.",
    422: "The request can be read and makes no sense; the detail says why.",
    429: "Too many requests: `Retry-After` says when the next is taken.",
    503: "Not now.",
}


class ProblemResponse(JSONResponse):
    """A problem as an answer.

    Parameters
    ----------
    detail : str
        A sentence.
    more : mapping, optional
        Members besides those of the standard.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        said = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": sentence(detail)}
        super().__init__({**said, **(more or {})}, status, {**(headers or {}), "Cache-Control": "no-store"})


def sentence(text: str) -> str:
    """A message as a sentence that can be sent."""
    text = printable(text).strip() or "That did not work."
    is_address = "://" in text.partition(" ")[0]
    return f"{text[:1] if is_address else text[:1].upper()}{text[1:]}{'' if text[-1] in '.!?' else '.'}"


def documented(*statuses: int) -> Responses:
    """What OpenAPI says of the problems that a route may answer with, those that any may answer with included."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": DOCUMENTED[status], "content": {MEDIA_TYPE: schema}}
        for status in sorted({*statuses, 400, 401, 403, 413, 422, 429})
    }


def answer_with_problems(app: FastAPI) -> None:
    """Have an application answer every error with a problem."""

    def on_http(request: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, HTTPException)
        return ProblemResponse(error.status_code, str(error.detail), headers=error.headers)

    def on_invalid(request: Request, error: Exception) -> ProblemResponse:
        assert isinstance(error, RequestValidationError)
        return invalid(error.errors())

    def on_search(request: Request, error: Exception) -> ProblemResponse:
        return ProblemResponse(422, str(error))

    def on_store(request: Request, error: Exception) -> ProblemResponse:
        return ProblemResponse(409, str(error))

    def on_encoder(request: Request, error: Exception) -> ProblemResponse:
        logger.warning("a query cannot be encoded: %s", error)
        return ProblemResponse(503, "The encoder of this collection cannot be loaded; the server's log says more.")

    def on_anything(request: Request, error: Exception) -> ProblemResponse:
        return ProblemResponse(500, "That did not work; the server's log says more.")

    app.add_exception_handler(Exception, on_anything)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(EngineError, on_search)
    app.add_exception_handler(ImageError, on_search)
    app.add_exception_handler(StoreError, on_store)
    app.add_exception_handler(EncoderError, on_encoder)


def invalid(errors: Sequence[Any]) -> ProblemResponse:
    """The problem of what pydantic found wrong: where, and what."""
    found = [
        {"where": ".".join(printable(str(step))[:SHOWN_INPUT] for step in each["loc"]), "what": printable(each["msg"])}
        for each in errors[:20]
    ]
    first = found[0] if found else {"where": "body", "what": "it makes no sense"}
    return ProblemResponse(422, f"{first['what']}, at {first['where']}", more={"errors": found})
