"""The search page: choose a picture or a part of one, see the pictures of a collection that look most like it.

python gradio_app/app.py [--data NAME ...] [--host 127.0.0.1] [--port 7860] [--share] [--auth USER:PASS]
"""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run by its path, so the rooms beside this folder are not found
    paths = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv)], "-m", "gradio_app.app", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": paths})

from features.command_line import set_up_streams
from features.paths import expanded
from gradio_app import quick_start  # noqa: F401  (imports Gradio, and so comes first)

# isort: split
from gradio_app.gradio_seam import ENVIRONMENT
from gradio_app.jobs import CollectionJobs
from gradio_app.library import Library, LibraryError
from gradio_app.library import open_collections as open_all
from gradio_app.page import SearchPage
from gradio_app.routes.access import LOOPBACK
from gradio_app.serving import Upkeep, UsageError, check_port, share_arenas
from search.engine import SearchEngine

__all__ = ["COLLECTIONS", "UsageError", "build_app", "check_port", "main", "open_collections"]

COLLECTIONS = Path("collections")

Engines = Mapping[str, SearchEngine] | Iterable[SearchEngine]


def build_app(
    engines: Engines, *, manage: Path | None = None, allowed_hosts: Iterable[str] = (), folder: Path | None = None
) -> SearchPage:
    """The search page over one or more open collections.

    Parameters
    ----------
    engines : mapping of str to SearchEngine, or iterable of SearchEngine
        The first is shown first. Each goes by its own `name`.
    manage : Path, optional
        Folder of the collections: they can be made and deleted in a tab of the page, by who has opened the page's
        `start_link` or, where visitors log in, by all of these. Without it the page only searches.
    allowed_hosts : iterable of str
        Host names, besides those of this computer, that a reverse proxy may hand on.
    folder : Path, optional
        Of the collections, in which lies who may use the API beside what visitors may (see `api_keys`).

    Returns
    -------
    gr.Blocks
        Call `launch()`.
    """
    library = Library(engines.values() if isinstance(engines, Mapping) else engines)
    if not library:
        raise ValueError("build_app needs at least one collection, got none")
    jobs = None if manage is None else CollectionJobs(manage, library)
    return SearchPage(library, jobs, allowed_hosts=tuple(allowed_hosts), folder=folder)


def open_collections(names: Sequence[str] | None, folder: Path = COLLECTIONS) -> dict[str, SearchEngine]:
    """As `library.open_collections`; what goes wrong is a `UsageError`."""
    try:
        return open_all(names, folder)
    except LibraryError as error:
        raise UsageError(str(error)) from error


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
    parser.add_argument(
        "--collections",
        type=expanded,
        default=COLLECTIONS,
        metavar="FOLDER",
        help="where they are (default: %(default)s)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=7860, help="port to listen on (default: %(default)s)")
    parser.add_argument("--share", action="store_true", help="also make a public link through Gradio's servers")
    parser.add_argument("--auth", type=_credentials, metavar="USER:PASS", help="ask visitors to log in")
    parser.add_argument(
        "--allow-host", nargs="+", default=[], metavar="NAME", help="host names that a reverse proxy hands on"
    )
    args = parser.parse_args(argv)
    set_up_streams(logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    share_arenas()
    # Uploads lie in a folder that is this server's own and goes with it, unless the environment names one.
    if "GRADIO_TEMP_DIR" not in os.environ:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="reverse-image-search-")
        atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)
    collections = expanded(os.path.expandvars(args.collections))
    try:
        check_port(args.host, args.port)
        engines = open_collections(args.data, collections)
        # Whoever can reach the page sees the folders of the collections: it must be this computer only, or ask who
        # is there. That does not let anyone change them yet: see `routes.access`.
        managed = args.auth is not None or (args.host in LOOPBACK and not args.share)
        page = build_app(
            engines,
            manage=collections if managed else None,
            allowed_hosts=args.allow_host,
            folder=collections,
        )
    except UsageError as error:
        parser.exit(1, f"app.py: {error}\n")
    upkeep = Upkeep(list(engines.values()), Path(os.environ["GRADIO_TEMP_DIR"]), page.resume_jobs)
    upkeep.start()
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
        elif args.auth is None:
            sys.stdout.write(f"To manage collections, open {page.start_link}  (whoever has this link can)\n")
        if args.share:
            sys.stdout.write(f"Public link: {page.share_url}\n")
        sys.stdout.flush()
        page.block_thread()
    finally:
        upkeep.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
