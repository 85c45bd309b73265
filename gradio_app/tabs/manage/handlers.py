"""What happens on the tab; whatever changes a collection asks first who wants it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr

from gradio_app.gradio_seam import login_is_needed, sorry
from gradio_app.jobs import CollectionJobs, JobError
from gradio_app.library import Library
from gradio_app.recipe import Recipe, RecipeError
from gradio_app.routes.access import REFUSED, StartToken, may_manage
from gradio_app.session import Making, Session
from gradio_app.tabs.controls import collection_chooser
from gradio_app.tabs.manage.views import NEW, into_choices, job_view, send_field, shelf

EVERY = 0.5  # seconds between two looks at a job


class ManageHandlers:
    """What is answered to the listeners of `layout`."""

    def __init__(self, library: Library, jobs: CollectionJobs, token: StartToken) -> None:
        self.library = library
        self.jobs = jobs
        self.token = token

    def open(self, request: gr.Request) -> Any:
        """Tell who may only look how to get further, before they fill anything in."""
        return gr.update(visible=not self._may_manage(request))

    def choose_source(self, kind: str) -> Any:
        is_sent = kind == "sent"
        return (
            gr.update(visible=not is_sent),
            gr.update(visible=True if is_sent else "hidden"),
            self._targets(kind),
            *self.choose_target(NEW),
        )

    def _targets(self, kind: str) -> Any:
        """What can be chosen for pictures to become part of."""
        targets = into_choices(self.jobs)
        return gr.update(choices=targets, value=NEW, visible=kind == "sent" and len(targets) > 1)

    def choose_target(self, into: str) -> Any:
        """What is added to a collection takes its name, and is made as that was."""
        is_new = into == NEW
        button = "Make the collection" if is_new else "Add the pictures"
        return gr.update(visible=is_new), gr.update(visible=is_new), gr.update(value=button)

    def choose_quality(self, quality: str) -> Any:
        """Exact search compares with every picture: there is no index to choose."""
        return gr.update(visible=quality != "exact")

    def create(
        self,
        session: Session,
        name: str | None,
        kind: str,
        into: str | None,
        typed: str | None,
        encoder: str,
        quality: str,
        index: str,
        with_faiss: bool,
        spaces: list[str] | None,
        token: str | None,
        request: gr.Request,
    ) -> None:
        """Begin to make a collection, or to add to one. The form stays as it is until that is done."""
        self._check(request)

        def recipe() -> Recipe:
            return Recipe.chosen(encoder or "", index or "", quality or "", bool(with_faiss), spaces or [])

        with _in_words():
            making = Making(name or "", typed or "", (token or "") if kind == "sent" else "")
            if kind == "sent":
                if not making.upload:
                    raise JobError("Choose pictures, a folder or a zip file first, and wait until they are sent.")
                if into and into != NEW:
                    making.job = self.jobs.add(into, making.upload)  # what is made already stays as it is
                else:
                    making.job = self.jobs.create_of_sent(making.name, making.upload, recipe())
            else:
                folder = making.folder.strip()
                if not folder:
                    raise JobError("Name the folder that the pictures are in first.")
                making.job = self.jobs.create(making.name, folder, recipe())
        session.making = making

    def sync(self, event: gr.EventData, request: gr.Request) -> None:
        self._check(request)
        with _in_words():
            self.jobs.sync(str(getattr(event, "name", "")))

    def cancel(self, request: gr.Request) -> None:
        self._check(request)
        self.jobs.cancel()

    def delete(self, event: gr.EventData, request: gr.Request) -> str:
        self._check(request)
        with _in_words():
            self.jobs.delete(str(getattr(event, "name", "")))
        return shelf(self.library, self.jobs)

    async def watch(self) -> AsyncIterator[Any]:
        """What becomes of the job under way, until it is over. Sleeping here keeps no thread busy."""
        while True:
            job = self.jobs.job
            yield job_view(job, self.library), gr.skip()
            if job is None or job.state != "running":
                break
            await asyncio.sleep(EVERY)
        yield job_view(self.jobs.job, self.library), shelf(self.library, self.jobs)

    def open_made(self, session: Session, name: str | None, kind: str, typed: str | None, token: str | None) -> Any:
        """Open a collection that has been made, and empty the form of what it was made of; else it stays as it is."""
        making = session.making
        if making is None or making.job is None or making.job.state != "done":
            return (gr.skip(),) * 7
        session.making = None
        is_sent = bool(making.upload) and token == making.upload  # and nothing else in the meantime
        name_field, how, button = self.choose_target(NEW)
        return (
            gr.update(**collection_chooser(self.library, making.job.collection)),
            gr.update(value="") if typed == making.folder else gr.skip(),
            send_field(making.upload) if is_sent else gr.skip(),
            self._targets(kind),
            name_field | ({"value": ""} if name == making.name else {}),
            how,
            button,
        )

    def browse(self, event: gr.EventData) -> Any:
        """Show the pictures of a collection."""
        name = str(getattr(event, "name", ""))
        if name not in self.library:
            raise sorry(f"The collection {name} is no longer there.")
        return gr.update(**collection_chooser(self.library, name)), gr.update(selected="browse")

    def _may_manage(self, request: gr.Request) -> bool:
        return may_manage(request.headers, self.token, logged_in=login_is_needed(request.app))

    def _check(self, request: gr.Request) -> None:
        if not self._may_manage(request):
            raise sorry(REFUSED)


@contextmanager
def _in_words() -> Iterator[None]:
    """Turns what cannot be done into what the visitor is told."""
    try:
        yield
    except (JobError, RecipeError) as error:
        raise sorry(str(error)) from error
