"""Pictures by a list of their addresses: ``python -m features.download photos.csv --column url --out DIR``.

The same command goes on where it was stopped or killed; what is here is not fetched again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from tqdm import tqdm

from features.command_line import set_up_streams
from features.download.errors import DownloadError
from features.download.lists import url_column
from features.download.options import MEGABYTE, DownloadOptions
from features.download.report import ProgressBar, summary, write_pictures
from features.download.run import add_list, download, opened_state
from features.paths import expanded

_MAX_NOTES = 20
_DEFAULT = DownloadOptions()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = _parse(arguments)
    set_up_streams(logging.INFO)
    try:
        return _run(given)
    except (DownloadError, ValueError, OSError, MemoryError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m features.download",
        description=f"{__doc__} X-Robots-Tag is honoured; robots.txt is with --robots.",
    )
    parser.add_argument(
        "list", type=expanded, metavar="LIST", help=".csv, .tsv, .jsonl, .parquet, or an address a line"
    )
    parser.add_argument("--column", metavar="NAME", help="of the addresses (default: url, image_url, ...)")
    parser.add_argument("--out", type=expanded, required=True, metavar="DIR", help="where pictures and state are kept")
    parser.add_argument(
        "--concurrency", type=int, default=_DEFAULT.concurrency, metavar="N", help="requests at a time (%(default)s)"
    )
    parser.add_argument(
        "--per-host", type=int, default=_DEFAULT.per_host, metavar="N", help="of them to one host (%(default)s)"
    )
    parser.add_argument(
        "--rate", type=float, default=_DEFAULT.rate, metavar="R", help="requests a second to one host (%(default)s)"
    )
    parser.add_argument(
        "--max-size",
        type=_megabytes,
        default=_DEFAULT.max_bytes,
        metavar="MB",
        help=f"the largest file that is taken, in megabytes ({_DEFAULT.max_bytes / MEGABYTE:g})",
    )
    parser.add_argument(
        "--resize", type=int, metavar="PIXELS", help="reduce larger pictures to this longer side, as JPEG"
    )
    parser.add_argument(
        "--retry-failed",
        nargs="?",
        const="transient",
        choices=("transient", "all"),
        help="ask only for what failed before: what may have passed, or with all also what failed for good",
    )
    parser.add_argument("--robots", action="store_true", help="go by the robots.txt of each host (it is not read)")
    parser.add_argument(
        "--allow-private", action="store_true", help="ask addresses of your own network too, which a list may abuse"
    )
    return parser.parse_args(arguments)


def _megabytes(text: str) -> int:
    """A command line's megabytes, in bytes."""
    number = float(text) * MEGABYTE
    if not 1 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"must be a size in megabytes, got {text}")
    return int(number)


def _run(given: argparse.Namespace) -> int:
    options = DownloadOptions(
        concurrency=given.concurrency,
        per_host=given.per_host,
        rate=given.rate,
        max_bytes=given.max_size,
        resize=given.resize,
        allow_private=given.allow_private,
        robots=given.robots,
    )
    path, folder = given.list, given.out
    if not path.is_file():
        raise DownloadError(f"{path} is no file" if path.exists() else f"there is no list {path}")
    column = url_column(path, given.column)
    with opened_state(folder) as state:
        if given.retry_failed is None:
            with tqdm(desc="reading the list", unit="row", disable=None) as bar:
                notes = add_list(state, path, column, bar.update)
            for note in notes[:_MAX_NOTES]:
                sys.stderr.write(f"{note}\n")
            if len(notes) > _MAX_NOTES:
                sys.stderr.write(f"and {len(notes) - _MAX_NOTES:,} more\n")
        state.begin(retry=given.retry_failed, allow_private=options.allow_private)
        bar = ProgressBar(state.counts().get("todo", 0))
        try:
            is_finished = download(state, folder, options, progress=bar)
        finally:
            bar.close()
        write_pictures(state, folder)
        sys.stdout.write(f"{summary(state)}\n")
    if not is_finished:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
