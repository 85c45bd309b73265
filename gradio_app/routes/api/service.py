"""The API as an application: its routes, what they share, and its description."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.types import ASGIApp

from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.markup import printable
from gradio_app.remote_image import fetch_image
from gradio_app.routes.api import models
from gradio_app.routes.api.callers import Callers, may_read, may_write
from gradio_app.routes.api.collections import collection_routes
from gradio_app.routes.api.context import PREFIX, Context
from gradio_app.routes.api.duplicates import decision_routes, duplicate_routes
from gradio_app.routes.api.job_store import JobStore
from gradio_app.routes.api.job_worker import JobWorker, sync_by
from gradio_app.routes.api.keys import KeyStore
from gradio_app.routes.api.metrics import CONTENT_TYPE
from gradio_app.routes.api.problems import ProblemResponse, Responses, answer_with_problems, documented
from gradio_app.routes.api.requests import RateLimit, Requests
from gradio_app.routes.api.search import search_routes
from gradio_app.routes.api.words import word_routes
from gradio_app.routes.api.writes import write_routes

VERSION = "1.0.0"


def create_api(
    library: Library,
    *,
    folder: Path | None = None,
    jobs: CollectionJobs | None = None,
    fetch: Callable[[str], bytes] = fetch_image,
    limit: RateLimit | None = None,
) -> ASGIApp:
    """The API over open collections.

    Parameters
    ----------
    folder : Path, optional
        Of the collections, where keys and jobs lie as well. Without it there are neither, and nothing is written.
    jobs : CollectionJobs, optional
        Those of the page, if it has them.
    fetch : callable
        Gives the picture at an address of the web, or raises a ValueError that says why not.
    limit : RateLimit, optional
        How often one may ask.
    """
    context = Context(library, fetch)
    keys = None if folder is None else KeyStore(folder)
    app = FastAPI(
        title="Reverse image search",
        version=VERSION,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what functions of a generated client are called
    )
    answer_with_problems(app)
    # Who asks is looked at first, so that strangers learn nothing.
    reading, writing = ([Depends(may), Depends(_knows_its_parameters)] for may in (may_read, may_write))
    for router in (search_routes(context), collection_routes(context), duplicate_routes(context)):
        app.include_router(router, prefix=PREFIX, dependencies=reading)
    _add_health(app, context)
    for router in (word_routes(context), decision_routes(context)):
        app.include_router(router, prefix=PREFIX, dependencies=writing)
    if folder is not None:
        jobs = jobs or CollectionJobs(folder, library)
        store = JobStore(folder)
        worker = JobWorker(store, library, sync_by(jobs))
        if store.path.exists():  # what a server that was killed left behind
            worker.start()
        app.include_router(write_routes(context, store, worker, jobs), prefix=PREFIX, dependencies=writing)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return Requests(app, metrics=context.metrics, caller_of=Callers(keys), limit=limit or RateLimit())


def _knows_its_parameters(request: Request) -> None:
    """Raises HTTPException 422 if the address has a parameter that its route does not take: it may be misspelt."""
    taken = [field.alias for field in request.scope["route"].dependant.query_params]
    unknown = [name for name in request.query_params if name not in taken]
    if unknown:
        wanted = f"it takes {', '.join(taken)}" if taken else "it takes none"
        raise HTTPException(422, f"This address takes no parameter {printable(unknown[0])[:80]!r}; {wanted}.")


def _add_health(app: FastAPI, context: Context) -> None:
    @app.get("/healthz", tags=["health"])
    def healthz() -> models.State:
        """Whether the server answers."""
        return models.State(status="ok")

    not_ready: Responses = {503: documented(503)[503]}

    @app.get("/readyz", tags=["health"], response_model=models.State, responses=not_ready)
    def readyz() -> Any:
        """Whether there is a collection to search."""
        if not context.library:
            return ProblemResponse(503, "No collection is open.")
        return models.State(status="ready")

    written: Responses = {
        200: {"description": "What Prometheus reads", "content": {"text/plain": {"schema": {"type": "string"}}}}
    }

    @app.get(
        "/metrics",
        tags=["health"],
        dependencies=[Depends(may_read)],
        response_class=Response,
        responses={**documented(), **written},
    )
    def metrics() -> Response:
        """Requests, and how long each stage of a search takes."""
        return Response(context.metrics.written(), media_type=CONTENT_TYPE)


def _described(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with what the routes name by reference alone."""
    if app.openapi_schema is None:
        said = get_openapi(title=app.title, version=app.version, routes=app.routes, description=_ABOUT)
        named: list[Any] = [(models.SearchRequest, "validation"), (models.SearchForm, "validation")]
        named.append((models.Problem, "serialization"))
        _, found = models_json_schema(named, ref_template="#/components/schemas/{model}")
        schemas = said.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in found["$defs"].items():
            schemas.setdefault(name, schema)
        said["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer", "description": "Made by python -m gradio_app.api_keys"}
        }
        said["security"] = [{}, {"key": []}]  # whoever sees the page reads without one
        for unused in ("HTTPValidationError", "ValidationError"):  # errors are problems here
            schemas.pop(unused, None)
        app.openapi_schema = said
    return app.openapi_schema


_ABOUT = "Find pictures by a picture, a part of one, by words, or by any mix of them. Errors are problems (RFC 9457)."
