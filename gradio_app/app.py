"""The search page: choose a picture or a part of one, see the pictures of a collection that look most like it.

python gradio_app/app.py [--data NAME ...] [--host 127.0.0.1] [--port 7860] [--share] [--auth USER:PASS]
"""

from __future__ import annotations

import argparse
import atexit
import ctypes
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run by its path, so the rooms beside this folder are not found
    paths = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv)], "-m", "gradio_app.app", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": paths})

from gradio_app import quick_start  # noqa: F401  (imports Gradio, and so comes first)

# isort: split
import gradio as gr
import numpy as np

from features.collection.store import StoreError
from features.encoders import EncoderError
from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library
from gradio_app.page import UNQUEUED, SearchPage, Shared
from gradio_app.routes.access import LOOPBACK
from gradio_app.session import Session
from gradio_app.tabs.browse import browse_tab
from gradio_app.tabs.compare import compare_tab
from gradio_app.tabs.controls import ExplainState
from gradio_app.tabs.evaluate import evaluate_tab
from gradio_app.tabs.explain import explain_tab
from gradio_app.tabs.manage import manage_tab
from gradio_app.tabs.search import search_tab
from search.engine import SearchEngine
from search.errors import EngineError

logger = logging.getLogger(__name__)

COLLECTIONS = Path("collections")
WARM_UP_AFTER = 4.0  # seconds: the first page that is opened comes before
GIVE_BACK_EVERY = 5.0  # seconds; it takes 20 ms when the server is at its busiest, and nothing when idle
MAX_CACHE = 2 * 2**30  # bytes of uploads that are kept
# Gradio asks matplotlib for its backend at every event: finding out which there are would import all of it. And after
# every event of its queue it would compute statistics of the last 10,000, with pandas.
ENVIRONMENT = {"MPLBACKEND": "agg", "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9)}
_WATCH = (Path(__file__).parent / "static" / "watch.js").read_text(encoding="utf-8")

Engines = Mapping[str, SearchEngine] | Iterable[SearchEngine]


def build_app(engines: Engines, *, manage: Path | None = None) -> SearchPage:
    """The search page over one or more open collections.

    Parameters
    ----------
    engines : mapping of str to SearchEngine, or iterable of SearchEngine
        The first is shown first. Each goes by its own `name`.
    manage : Path, optional
        Folder of the collections: they can be made and deleted in a tab of the page, by whoever `access.is_trusted`
        lets. Without it the page only searches.

    Returns
    -------
    gr.Blocks
        Call `launch()`.
    """
    library = Library(engines.values() if isinstance(engines, Mapping) else engines)
    if not library:
        raise ValueError("build_app needs at least one collection, got none")
    jobs = None if manage is None else CollectionJobs(manage, library)
    page = SearchPage(library, jobs)
    with page:
        session, state = gr.State(Session()), gr.State(ExplainState())
        with gr.Row(elem_id="ris-head"):
            gr.HTML(
                "<h1>Reverse image search</h1><p>Choose a picture, or drag a box around a part of it, "
                "and see what looks most like it.</p>",
                apply_default_css=False,
            )
            collection = gr.Dropdown(
                **_chooser(library, ""),
                label="Collection",
                container=False,
                elem_id="ris-collection",
                scale=0,
                min_width=240,
            )
            watch = gr.HTML(
                f'<span data-version="{library.version}"></span>',
                js_on_load=_WATCH,
                apply_default_css=False,
                elem_id="ris-watch",
            )
        with gr.Tabs(elem_id="ris-tabs") as tabs:
            shared = Shared(collection, session, tabs, watch)
            with gr.Tab("Search", id="search"):
                searching = search_tab(library, shared)
            with gr.Tab("Browse the collection", id="browse"):
                gallery = browse_tab(library, shared)
            with gr.Tab("Compare", id="compare") as tab:
                compare_tab(library, shared, tab, searching.box, state)
            with gr.Tab("Explain", id="explain") as tab:
                explain_tab(library, shared, tab, searching.box, state, searching.results)
            with gr.Tab("Evaluate", id="evaluate"):
                evaluate_tab(library, shared)
            if jobs is not None:
                with gr.Tab("Manage", id="manage"):
                    manage_tab(library, shared, jobs)
        searching.take(gallery)

        def on_changed(name: str) -> dict[str, Any]:
            return gr.update(**_chooser(library, name))

        watch.changed(on_changed, collection, collection, **UNQUEUED)

        # Searches of different visitors run side by side; the engines are safe for that.
        page.queue(default_concurrency_limit=16)
    return page


def _chooser(library: Library, chosen: str) -> dict[str, Any]:
    choices = [(f"{name} · {len(engine.store.ids):,} pictures", name) for name, engine in library.items()]
    names = [name for _, name in choices]
    return {
        "choices": choices,
        "value": chosen if chosen in names else next(iter(names), None),
        "filterable": len(names) > 8,
    }


class UsageError(Exception):
    """Something the person at the command line can put right; the message is all they see."""


def open_collections(names: Sequence[str] | None, folder: Path = COLLECTIONS) -> dict[str, SearchEngine]:
    """Open collections by name, or all there are; of all, those that cannot be opened are left out, and named.

    Raises
    ------
    UsageError
        If one that was named does not exist or cannot be opened, or no collection is left.
    """
    there = sorted(manifest.parent.name for manifest in folder.glob("*/manifest.json"))
    make = "python gradio_app/create_index.py --data demo"
    if not there:
        raise UsageError(f"there is no collection in {folder}/ yet; make one first: {make}")
    for name in names or ():
        if name not in there:
            raise UsageError(
                f"there is no collection {name!r}; there are: {', '.join(there)}. "
                f"Another is made with: {make.replace('demo', 'caltech|voc|demo|PATH')}"
            )
    engines, wrong = {}, []
    for name in dict.fromkeys(names or there):
        try:
            engines[name] = SearchEngine.open(folder / name)
        except (EngineError, StoreError) as error:
            wrong.append(f"collection {name!r} cannot be opened: {error}")
    if wrong and (names or not engines):
        raise UsageError("\n".join(wrong))
    for line in wrong:
        logger.warning("%s", line)
    return engines


def check_port(host: str, port: int) -> None:
    """Raise `UsageError` unless a server can listen there."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except socket.gaierror as error:
        raise UsageError(f"--host {host}: no such address") from error
    except PermissionError as error:
        raise UsageError(f"port {port} may not be used by ordinary users; choose one above 1023 with --port") from error
    except OSError as error:
        raise UsageError(
            f"port {port} on {host} is in use; choose another with --port, e.g. --port {port + 1}"
        ) from error


def _credentials(text: str) -> tuple[str, str]:
    user, colon, password = text.partition(":")
    if not (user.strip() and colon and password):
        raise argparse.ArgumentTypeError("wants USER:PASS, both not empty")
    return user.strip(), password


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"wants a port from 1 to 65535, got {text!r}")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="app.py", description="Search collections of pictures in the browser.")
    parser.add_argument("--data", nargs="+", metavar="NAME", help="collections to offer (default: all)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    parser.add_argument("--auth", type=_credentials, metavar="USER:PASS", help="ask visitors to log in")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    _share_arenas()
    # Uploads lie in a folder that is this server's own and goes with it, unless the environment names one.
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="reverse-image-search-")
        atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    cache = Path(os.environ["GRADIO_TEMP_DIR"])
    try:
        check_port(args.host, args.port)
        engines = open_collections(args.data)
        # Whoever can reach the page could delete collections: it must be someone at this computer, or who logs in.
        managed = args.auth is not None or (args.host in LOOPBACK and not args.share)
        page = build_app(engines, manage=COLLECTIONS if managed else None)
    except UsageError as error:
        parser.exit(1, f"app.py: {error}\n")
    warming_up = threading.Timer(WARM_UP_AFTER, _warm_up, args=(list(engines.values()),))
    warming_up.daemon = True  # its several seconds are not worth waiting for at the end
    warming_up.start()
    threading.Thread(target=_keep_small, args=(cache,), daemon=True).start()
    threading.Thread(target=_give_back, daemon=True).start()
    try:
        page.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            auth=args.auth,
            prevent_thread_lock=True,
            quiet=True,
        )
        sys.stdout.write(f"Searching {', '.join(engines)} at {page.local_url}  (Ctrl-C stops it)\n")
        if not managed:
            sys.stdout.write(
                "Collections cannot be managed in the page, as anyone might reach it; with --auth they can\n"
            )
        if args.share:
            sys.stdout.write(f"Public link: {page.share_url}\n")
        sys.stdout.flush()
        page.block_thread()
    finally:
        warming_up.cancel()  # a thread that Python's end finds in torch aborts the process
    return 0


def _share_arenas() -> None:
    """Let all threads share two of glibc's arenas; other systems have none.

    By default each of the server's 40 threads comes to keep the memory of its largest pictures in an arena of its own.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(-8, 2)  # M_ARENA_MAX


def _give_back() -> None:
    """Give the system back what lies free between what is in use in glibc's arenas, every few seconds.

    glibc itself gives back the free end of an arena only. Answers of 100 kB to many visitors at once leave it full of
    holes, of which few are of use again: 270 MB after 7,000 searches.
    """
    with suppress(OSError, AttributeError, TypeError):
        trim = ctypes.CDLL(None).malloc_trim
        while True:
            time.sleep(GIVE_BACK_EVERY)
            trim(0)


def _warm_up(engines: Sequence[SearchEngine]) -> None:
    """Loading the network, compiled functions and libraries takes a second; better now than at the first search."""
    for engine in engines:
        grey = np.full((64, 64, 3), 128, np.uint8)
        try:
            for name in engine.engines:
                if name != "exact":  # that one reads all vectors into memory: not before someone wants it
                    engine.search(grey, engine=name)
            for label in list(engine.labels)[:1]:
                engine.search(grey, filter={"label": label})
        except EncoderError as error:
            logger.warning("%s can only be browsed: %s", engine.name, error)


def _keep_small(folder: Path) -> None:
    """Delete the oldest uploads whenever all of them together are too large; Gradio itself goes by their age only."""
    while True:
        time.sleep(60)
        files = []
        for path in folder.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    files.append((path.stat().st_mtime, path.stat().st_size, path))
        too_many = sum(size for _, size, _ in files) - MAX_CACHE
        for _, size, path in sorted(files):
            if too_many <= 0:
                break
            with suppress(OSError):
                path.unlink()
            too_many -= size


if __name__ == "__main__":
    sys.exit(main())
