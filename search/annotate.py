"""Say words of the pictures of a collection: ``python -m search.annotate Pictures --maker model,label``.

Each maker replaces its own words and nobody else's; what people said stays. A run that is stopped goes on where it was,
and a second one looks only at what is new or has changed.
"""

from __future__ import annotations

import argparse
import logging
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from features.collection.exchange import read_said, take_in, write_said
from features.collection.store import FeatureStore, StoreError
from features.command_line import add_collections, collection_folder, set_up_streams
from features.encoders import EncoderError
from features.makers import MakerError, MakerOptions, WordMaker, create_maker, maker_names
from features.paths import expanded
from search.build import create_space
from search.command_line import refused
from search.errors import EngineError
from search.spaces import CAPTIONS

MODEL_MAKERS = {"blip", "caption", "clip", "moondream"}
"""Makers that can be told which model to use."""

MAX_NOTES = 20
"""Sentences of one maker that are shown; of more, how many there are."""


@dataclass(frozen=True)
class AnnotateReport:
    """What a maker did.

    Attributes
    ----------
    looked_at : int
        Pictures that it had not done before.
    with_words : int
        Those of them of which it had something to say.
    notes : tuple of str
        Sentences for who asked.
    """

    maker: str
    looked_at: int
    with_words: int
    captions: int
    tags: int
    fields: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        if not self.looked_at:
            return f"{self.maker}: nothing new"
        counts = f"{self.captions:,} captions, {self.tags:,} tags, {self.fields:,} fields"
        return f"{self.maker}: words of {self.with_words:,} of {self.looked_at:,} pictures: {counts}"


def annotate(store: FeatureStore, maker: WordMaker, *, progress: bool = True) -> AnnotateReport:
    """Let a maker say its words of all pictures that it has not done. What is done is kept batch by batch.

    Raises
    ------
    StoreError
        The annotations cannot be written.
    """
    annotations = store.annotations
    todo = annotations.todo(maker.maker, maker.version, store.records())
    looked_at = with_words = captions = tags = fields = 0
    name = maker.maker.name
    with tqdm(total=len(todo), desc=name, unit="picture", disable=not progress or not todo, smoothing=0.1) as bar:
        for start in range(0, len(todo), maker.batch_size):
            batch = todo[start : start + maker.batch_size]
            answers = zip(batch, maker.words_of(batch), strict=True)
            found = [(record, words) for record, words in answers if words is not None]
            annotations.put(maker.maker, maker.version, found, reads_content=maker.reads_content)
            said, looked_at = [words for _, words in found], looked_at + len(found)
            with_words += sum(bool(words.captions or words.tags or words.fields) for words in said)
            captions += sum(len(words.captions) for words in said)
            tags += sum(len(words.tags) for words in said)
            fields += sum(len(words.fields) for words in said)
            bar.update(len(batch))
    return AnnotateReport(name, looked_at, with_words, captions, tags, fields, tuple(maker.notes))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parse(arguments)
    set_up_streams(logging.INFO)
    try:
        return _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from here\n")
        return 130
    except (EngineError, EncoderError, MakerError, StoreError, OSError, sqlite3.Error, MemoryError) as error:
        return refused(error)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m search.annotate", description=__doc__.split("\n\n")[1])
    parser.add_argument("collection", metavar="NAME", help="a collection, or its folder")
    parser.add_argument(
        "--maker",
        type=lambda text: tuple(dict.fromkeys(filter(None, text.split(",")))),
        default=(),
        metavar="NAME,NAME",
        help=f"who says them: {', '.join(maker_names())}; file reads what lies beside pictures and in them, or --file",
    )
    parser.add_argument("--file", type=Path, metavar="FILE", help="a table of captions: .csv, .tsv, .jsonl, .parquet")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="which writes the captions of caption, or the tags of clip: a folder, or its name",
    )
    parser.add_argument("--vocabulary", type=Path, metavar="FILE", help="the tags that clip chooses from, one a line")
    parser.add_argument("--forget", action="store_true", help="take back what these makers have said")
    parser.add_argument("--export", type=expanded, metavar="FILE", help="write all that is said: .jsonl or .csv")
    parser.add_argument("--import", type=expanded, dest="taken", metavar="FILE", help="say again what such a file says")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    add_collections(parser)
    options = parser.parse_args(arguments)
    if options.file is not None and "file" not in options.maker:
        options.maker += ("file",)
    if options.model is not None and len(takers := MODEL_MAKERS & set(options.maker)) != 1:
        named = ", ".join(sorted(takers)) or "none of them"
        parser.error(f"--model is for one of {', '.join(sorted(MODEL_MAKERS))}, and --maker names {named}")
    if options.vocabulary is not None and "clip" not in options.maker:
        parser.error("--vocabulary is what clip chooses from: add --maker clip")
    return options


def _run(options: argparse.Namespace) -> int:
    store = FeatureStore.open(collection_folder(options.collections, options.collection))
    if options.taken is not None:
        found = take_in(store.annotations, store.records(), read_said(options.taken))
        sys.stdout.write(f"{found.rows:,} rows of {found.pictures:,} pictures taken in\n")
        if found.lost:
            sys.stderr.write(f"{found.lost:,} rows are of no picture of {store.folder.name}, or of more than one\n")
    if options.export is not None:
        sys.stdout.write(f"{write_said(store.annotations, options.export):,} rows written to {options.export}\n")
    if (options.taken or options.export) and not options.maker:
        return 0
    told = MakerOptions(options.file, options.model, options.vocabulary)
    makers = [create_maker(name, store, told) for name in options.maker]
    for maker in makers:
        if options.forget:
            count = store.annotations.forget(maker.maker)
            sys.stdout.write(f"{maker.maker.name}: words of {count:,} pictures taken back\n")
            continue
        report = annotate(store, maker, progress=not options.quiet)
        for note in report.notes[:MAX_NOTES]:
            sys.stderr.write(f"{note}\n")
        if len(report.notes) > MAX_NOTES:
            sys.stderr.write(f"and {len(report.notes) - MAX_NOTES:,} more\n")
        sys.stdout.write(f"{report}\n")
        sys.stdout.flush()
    if makers:
        create_space(store, CAPTIONS, engines=None)
    else:
        for each in store.annotations.makers():
            sys.stdout.write(f"{each.maker.name or each.maker.source}: words of {each.pictures:,} pictures\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
