"""Search a collection from the command line: ``python -m search "red boat" --in Pictures``.

A query is the file of a picture, or what `search.grammar` reads: words, pictures, filters. ``-`` reads queries from
stdin, one a line. The exit code is 0 if anything was found, 1 if nothing was, and 2 if something is wrong.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import re
import sys
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from features.collection.store import StoreError
from features.command_line import add_collections, collection_folder, set_up_streams
from features.encoders import EncoderError
from features.images import ImageError
from search.command_line import refused
from search.engine import SearchEngine
from search.errors import EngineError
from search.hits import Answer, Hit
from search.options import NEIGHBOURHOOD
from search.parts import learn_tag
from search.query import FeedbackPart, ImagePart, Part, Query
from search.query_json import part_to_json

# A minus and what is neither an option of this command nor a number: "-night", not "-k5" or "-0.5".
_NEGATIVE = re.compile(r"-(?!\Z|[-.0-9]|h\Z|k[0-9]*\Z)", re.DOTALL)

Teller = Callable[[str, Answer], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parse(arguments)
    set_up_streams(logging.WARNING)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the hits has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m search", description=__doc__.split("\n\n")[0].partition(":")[0])
    parser.add_argument(
        "query",
        nargs="?",
        help="the file of a picture; words, as in the search box; or - for queries from stdin, one a line",
    )
    parser.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="FILE",
        help="a picture that is asked for as well; may be repeated",
    )
    parser.add_argument("--in", dest="collection", required=True, metavar="NAME", help="a collection, or its folder")
    parser.add_argument(
        "--foreground", action="store_true", help="look at the object of each picture, not so much at what is behind it"
    )
    parser.add_argument("-k", type=int, default=10, metavar="N", help="most hits wanted (%(default)s)")
    parser.add_argument(
        "--more", type=_ids, action="extend", default=[], metavar="ID,ID", help="hits that are meant (--json has ids)"
    )
    parser.add_argument("--less", type=_ids, action="extend", default=[], metavar="ID,ID", help="hits that are not")
    parser.add_argument("--keep", metavar="TAG", help="keep what the judgements say as a tag: tag:~TAG asks for it")
    parser.add_argument("--cutoff", type=float, metavar="S", help="leave out hits less similar to the picture")
    parser.add_argument(
        "--neighbourhood",
        type=float,
        default=NEIGHBOURHOOD,
        metavar="W",
        help="of a picture: from 0, this very picture, to 1, this kind of thing (%(default)s)",
    )
    add_collections(parser)
    parser.add_argument("--open", action="store_true", help="show the best hit, as this system shows such files")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON object for each query, on a line of its own")
    form.add_argument("--csv", action="store_true", help="a table of all hits")
    form.add_argument("--paths", action="store_true", help="nothing but the files found")
    options = parser.parse_args(_with_minus(sys.argv[1:] if arguments is None else arguments))
    if options.query is None:
        if not (options.image or options.more):
            parser.error("say what to search for: words, the file of a picture, or --image FILE")
        options.query = ""
    return options


def _with_minus(arguments: Sequence[str]) -> list[str]:
    """The arguments with a query such as ``-night`` where argparse takes it for one, behind all options."""
    if "--" in arguments:
        return list(arguments)
    queries = [each for each in arguments if _NEGATIVE.match(each)]
    return [*(each for each in arguments if each not in queries), *(["--", *queries] if queries else [])]


def _run(options: argparse.Namespace) -> int:
    try:
        engine = SearchEngine.open(collection_folder(options.collections, options.collection))
    except (EngineError, StoreError) as error:
        return refused(error)
    queries: Iterable[str] = [options.query]
    if options.query == "-":
        queries = (query for line in sys.stdin if (query := line.strip()))
    tell = _teller(options)
    found, wrong = False, 0
    for query in queries:
        try:
            asked = _whole(query, options)
            if options.keep is not None and isinstance(asked, Query):
                learn_tag(engine, options.keep, asked)
            answer = engine.search(asked, options.k, cutoff=options.cutoff, neighbourhood=options.neighbourhood)
        except (EngineError, EncoderError, StoreError, ImageError) as error:
            wrong = refused(error)
            continue
        weak = ("weak matches: hardly nearer than pictures of other things",) if answer.is_weak else ()
        for hint in (*answer.unanswered, *answer.hints, *weak):
            sys.stderr.write(f"{hint}\n")
        tell(query, answer)
        if options.open and answer and not webbrowser.open(answer[0].path.as_uri()):
            sys.stderr.write(f"there is nothing on this system that would show {answer[0].path}\n")
        sys.stdout.flush()  # a program that asks one query after another waits for each answer
        found = found or bool(answer)
    return wrong or (0 if found else 1)


def _ids(text: str) -> list[int]:
    try:
        return [int(id) for id in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"ids are numbers with commas between, got {text!r}") from None


def _whole(query: str, options: argparse.Namespace) -> str | Query:
    """A query with what options add to it."""
    if not (options.image or options.more or options.less or options.keep is not None or options.foreground):
        return query
    from search.grammar import parse  # its parser takes a while to load

    asked = Query.of(query) if os.path.isfile(query) else parse(query)  # noqa: PTH113 (a NUL is no file)
    pictures = tuple(ImagePart(Path(file)) for file in options.image)
    judged = (FeedbackPart(options.more, options.less),) if options.more or options.less else ()
    parts: tuple[Part, ...] = (*asked.parts, *pictures, *judged)
    if options.foreground:
        parts = tuple(replace(part, foreground=True) if isinstance(part, ImagePart) else part for part in parts)
    return replace(asked, parts=parts)


def _teller(options: argparse.Namespace) -> Teller:
    if options.json:
        return _tell_json
    if options.paths:
        return lambda query, answer: sys.stdout.writelines(f"{hit.path}\n" for hit in answer)
    if options.csv:
        table = csv.writer(sys.stdout, lineterminator="\n")
        table.writerow(["query", "rank", "score", "similarity", "labels", "path"])
        return lambda query, answer: table.writerows([query, *_cells(hit)] for hit in answer)
    several = options.query == "-"
    return lambda query, answer: _tell_people(query, answer, several)


def _cells(hit: Hit) -> list[str]:
    similarity = "" if hit.similarity is None else f"{hit.similarity:.4f}"
    return [str(hit.rank), f"{hit.score:.4f}", similarity, "; ".join(hit.labels), str(hit.path)]


def _tell_people(query: str, answer: Answer, several: bool) -> None:
    if several:
        sys.stdout.write(f"{query}\n")
    for hit in answer:
        near = hit.score if hit.similarity is None else hit.similarity
        sys.stdout.write(f"{hit.rank:3}  {near:.3f}  {hit.path}\n")


def _tell_json(query: str, answer: Answer) -> None:
    hits = [
        {
            "rank": hit.rank,
            "id": hit.id,
            "score": hit.score,
            "similarity": hit.similarity,
            "labels": hit.labels,
            "path": str(hit.path),
            "shares": hit.shares,
        }
        for hit in answer
    ]
    parts = [
        {
            "part": part_to_json(asked.part),
            "spaces": asked.spaces,
            "voices": [voice._asdict() for voice in asked.voices],
            "unanswered": asked.unanswered,
        }
        for asked in answer.parts
    ]
    told = {"query": query, "parts": parts, "hits": hits, "hints": answer.hints, "weak": answer.is_weak}
    json.dump(told, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    raise SystemExit(main())
