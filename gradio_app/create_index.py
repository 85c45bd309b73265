"""A dataset becomes a searchable collection, with our index and faiss's, in one command.

python gradio_app/create_index.py --data caltech|voc|demo|PATH
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import shlex
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # run by its path, so the rooms beside this folder are not found
    paths = os.pathsep.join(filter(None, [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, *sys.orig_argv[1 : -len(sys.argv)], "-m", "gradio_app.create_index", *sys.argv[1:]]
    os.execve(sys.executable, command, os.environ | {"PYTHONPATH": paths})

from features.collection.errors import os_reason
from features.collection.manifest import MANIFEST, read_manifest
from features.collection.names import collection_name
from features.collection.store import FeatureStore, StoreError
from features.command_line import set_up_streams
from features.datasets import (
    Dataset,
    DatasetError,
    add_folder_options,
    as_recorded,
    dataset_names,
    folder_options,
    open_dataset,
)
from features.datasets.base import label_text
from features.encoders import Encoder, EncoderError, create_encoder, encoder_for, without_background
from features.encoding import Progress, encode_ahead, extract
from features.extract import positive
from features.makers import MakerOptions, create_maker
from features.paths import expanded
from ivfpq import index_factory
from search.annotate import annotate
from search.backends import backend_at, backend_names
from search.backends.base import EngineReport, IndexRecipe
from search.backends.milvus import TOKEN
from search.backends.trial import held_out_count
from search.build import (
    ENGINES,
    FACTORY,
    IndexUpdate,
    append_collection,
    create_index,
    create_space,
    create_spaces,
    keep_spaces,
    sync_collection,
)
from search.clip_space import CLIP
from search.databases import index_spaces
from search.duplicate_pairs import find_duplicates
from search.duplicates import duplicates_of
from search.errors import EngineError
from search.meanwhile import Use, UsedMeanwhile
from search.space import VISUAL
from search.spaces import CAPTIONS, default_spaces, space_names

__all__ = ["EngineReport", "IndexUpdate", "collection_name", "create_index", "format_table", "main", "sync_collection"]

logger = logging.getLogger(__name__)

CHECKOUT = Path(__file__).resolve().parent.parent  # where data_download.sh puts its datasets
DEFAULT_COLLECTIONS = Path("collections")


def format_table(reports: Sequence[EngineReport]) -> str:
    """The reports as an aligned Markdown table."""
    header = ["engine", "factory", "train s", "add s", "file size", "bytes/vector", "recall@10", "µs/query"]
    rows = [
        [
            {"ivfpq": "ivfpq (ours)"}.get(r.engine, r.engine),
            r.factory,
            f"{r.train_s:.2f}",
            f"{r.add_s:.3f}",
            f"{r.file_bytes / 1e6:.2f} MB",
            str(r.bytes_per_vector),
            "-" if r.recall_at_10 is None else f"{r.recall_at_10:.3f}",
            "-" if r.us_per_query is None else f"{r.us_per_query:.0f}",
        ]
        for r in reports
    ]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    align: list[Callable[[str, int], str]] = [str.ljust, str.ljust, *([str.rjust] * (len(header) - 2))]
    rule = ["-" * w if a is str.ljust else "-" * (w - 1) + ":" for w, a in zip(widths, align, strict=True)]
    lines = [[a(cell, w) for cell, w, a in zip(row, widths, align, strict=True)] for row in [header, *rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; see ``--help``."""
    parser = argparse.ArgumentParser(
        description="Turn a dataset into a searchable collection. Of a collection that is there already, what no "
        "option says stays as it is."
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="caltech|voc|demo|PATH",
        help="a dataset, a folder of images, or a list of their addresses (.csv, .tsv, .jsonl, .parquet), which is "
        "downloaded to datasets/",
    )
    parser.add_argument("--encoder", default="auto", help="auto (default), resnet50 or efficientnet-lite0")
    parser.add_argument("--weights", metavar="PATH", help="weights file for the encoder")
    parser.add_argument(
        "--remove-background",
        action="store_true",
        help="see white behind the object of each picture, also of those that are searched with",
    )
    parser.add_argument("--factory", help=f"index description, as faiss writes it ({FACTORY})")
    parser.add_argument("--engine", choices=[*backend_names(built=True), "both"], help="(both)")
    parser.add_argument(
        "--store",
        metavar="ADDRESS",
        help="index vectors in a database, beside the others: lance:///folder (LanceDB), http://host:19530 (Milvus, "
        f"its token in the variable {TOKEN}) or milvus:///folder (Milvus Lite, with --factory Flat or IVF100,SQ8)",
    )
    parser.add_argument("--metric", choices=["cosine", "l2", "ip"], help="(cosine)")
    parser.add_argument(
        "--spaces",
        type=spaces,
        metavar="NAME,NAME",
        help=f"what can be searched ({','.join(('visual', *default_spaces()))}): pictures by pictures, and by words",
    )
    parser.add_argument(
        "--clip",
        metavar="MODEL",
        help="with the space clip: which CLIP, SigLIP or SigLIP 2, a folder or its name on the Hugging Face hub",
    )
    parser.add_argument("--name", help="name of the collection (default: that of the dataset)")
    parser.add_argument("--seed", type=int, help="(0)")
    parser.add_argument(
        "--target-recall",
        type=share,
        metavar="SHARE",
        help="search as many lists as it takes to find this share of what all lists hold, as 0.99 (8 lists)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--sync",
        action="store_true",
        help="bring an existing collection up to date with added, edited, renamed and removed images",
    )
    how.add_argument(
        "--append",
        action="store_true",
        help="add images that an existing collection does not have, without looking at the others",
    )
    add_folder_options(parser)
    parser.add_argument("--limit", type=positive, metavar="N", help="take only N images")
    parser.add_argument(
        "--collections", type=expanded, default=DEFAULT_COLLECTIONS, metavar="DIR", help="(%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args(arguments)
    if args.clip is not None and CLIP not in (args.spaces or ()):
        parser.error(f"--clip says which model makes the space {CLIP}: add that to --spaces {VISUAL},...,{CLIP}")
    if args.store is not None:
        try:
            at = backend_at(args.store)
        except EngineError as error:
            parser.error(str(error))
        if args.engine not in (None, "both", at.name):
            parser.error(f"--store {args.store} is for --engine {at.name}, not {args.engine}")
    return args


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = parse_arguments(arguments)
    set_up_streams(logging.INFO)
    try:
        report = run(args)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return 130
    except (DatasetError, EncoderError, StoreError, ValueError, OSError, sqlite3.Error, MemoryError) as error:
        print(f"error: {cause_of(error, args.collections)}", file=sys.stderr)  # noqa: T201
        return 2
    print(report)  # noqa: T201
    return 0


def spaces(text: str) -> tuple[str, ...]:
    """A command line's list of spaces."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := [name for name in names if name not in space_names()]:
        raise argparse.ArgumentTypeError(f"there is no space {unknown[0]!r}; there are {', '.join(space_names())}")
    return names


def share(text: str) -> float:
    """A command line's number above 0 and up to 1."""
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text}")
    return number


def cause_of(error: BaseException, folder: Path) -> str:
    """What went wrong in a folder, in one line, by what the operating system says of it."""
    if isinstance(error, MemoryError):
        said = "there is not enough memory"
    elif isinstance(error, OSError) and error.errno in _CAUSES:
        where = f": {os.fspath(error.filename)}" if isinstance(error.filename, str | os.PathLike) else ""
        said = f"{_CAUSES[error.errno]}{where}"
    elif isinstance(error, sqlite3.Error):  # it keeps the reason to itself
        said = f"{folder} cannot be written: {os_reason(folder / MANIFEST) or error}"
    else:
        said = str(error)
    return " ".join(said.split())


_CAUSES = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EFBIG: "the file would be larger than is allowed",
}


def run(args: argparse.Namespace) -> str:
    """Do what the command line asks; returns what belongs on stdout."""
    dataset = _open_dataset(args)
    folder = args.collections / collection_name(args.name or dataset.name)
    there = (folder / MANIFEST).is_file()
    if there:
        dataset = as_recorded(dataset, read_manifest(folder).get("source"), folder_options(args))
    try:
        if there and (args.sync or args.append):
            told = _run_sync(args, dataset, folder)
            _annotate(dataset, folder)
            return told
        encoder = _checked_encoder(args, folder)
        extract(dataset, encoder, folder, limit=args.limit)
    except StoreError as error:
        root = read_manifest(folder)["root"] if there else str(dataset.root)
        if root == str(dataset.root):
            raise
        raise StoreError(
            f"{folder} is the collection of {root}. If that has moved to {dataset.root}, --sync takes over what has "
            f"changed; for a collection of its own pass --name NAME ({error})"
        ) from error
    told = _told(args, _run_create(args, dataset, folder, encoder))
    _annotate(dataset, folder)
    return told


def _while_fetching(args: argparse.Namespace, pictures: Path) -> Use | None:
    """What is done with the pictures of a list as they come to a folder: they are encoded and, with ``--append``, can
    be searched.
    """
    folder = args.collections / collection_name(args.name or label_text(pictures.name))
    if args.limit is not None or ((folder / MANIFEST).is_file() and not args.append):
        return None
    encoder = _checked_encoder(args, folder)

    def use(dataset: Dataset, progress: Progress) -> None:
        if not args.append:
            encode_ahead(dataset, encoder, folder, progress=progress)
        elif (folder / MANIFEST).is_file():
            report, _ = append_collection(folder, dataset=dataset, encoder=encoder, progress=progress)
            logger.info("%s: %s", folder, str(report).partition("\n")[0])
        else:
            extract(dataset, encoder, folder, progress=progress)
            made = _run_create(args, dataset, folder, encoder)
            logger.info("%s: the first %d images can be searched", folder, made["images"])

    return use


def _annotate(dataset: Dataset, folder: Path) -> None:
    """Let the collection say what came with the pictures: the other columns of a list of addresses."""
    table = getattr(dataset, "table", None)
    if table is None:
        return
    store = FeatureStore.open(folder)
    maker = create_maker("file", store, MakerOptions(table))
    logger.info("%s", annotate(store, maker))
    create_space(store, CAPTIONS, engines=None)


def _open_dataset(args: argparse.Namespace) -> Dataset:
    """A dataset by what the command line says: downloaded ones lie in this folder's ``datasets``, or the checkout's."""
    data: str = args.data
    options = folder_options(args)
    meanwhile = UsedMeanwhile(partial(_while_fetching, args))
    if data not in dataset_names():
        path = expanded(data)
        if data.startswith("~") and not path.exists():
            raise DatasetError(f"unknown dataset {data!r}: no such folder exists")
        spec = str(path.absolute()) if path.exists() else data
        return open_dataset(spec, meanwhile=meanwhile, **options)
    try:
        return open_dataset(data, **options)
    except DatasetError:
        if (CHECKOUT / "datasets").resolve() == Path("datasets").resolve():
            raise
        return open_dataset(data, datasets_dir=CHECKOUT / "datasets")


def _checked_encoder(args: argparse.Namespace, folder: Path) -> Encoder:
    """The encoder, of vectors that can be indexed as asked: what cannot is refused before hours of work."""
    encoder = _encoder(args, folder)
    if factory := args.factory or ("" if (folder / MANIFEST).is_file() else FACTORY):
        index_factory(encoder.dim, factory, metric=args.metric or "cosine")
    if args.store is not None:
        recipe = IndexRecipe(args.factory or FACTORY, args.metric or "cosine", args.seed or 0, args.store)
        backend_at(args.store).check(encoder.dim, recipe)
    return encoder


def _encoder(args: argparse.Namespace, folder: Path) -> Encoder:
    """The encoder that is named, or else that of the collection; without what is behind objects where that is."""
    made = read_manifest(folder)["encoder"] if (folder / MANIFEST).is_file() else None
    if args.encoder == "auto" and args.weights is None and made is not None:
        encoder = encoder_for(made)
    else:
        name = made["name"] if args.encoder == "auto" and made is not None else args.encoder
        encoder = create_encoder(name, weights=None if args.weights is None else expanded(args.weights))
    is_without = args.remove_background or (made is not None and "background" in made)
    return without_background(encoder) if is_without and "background" not in encoder.spec else encoder


def _run_sync(args: argparse.Namespace, dataset: Dataset, folder: Path) -> str:
    """Bring a collection up to date, or add to it."""
    named = args.encoder != "auto" or args.weights is not None or args.remove_background
    encoder = _encoder(args, folder) if named else None
    if args.spaces is not None:
        keep_spaces(folder, args.spaces)  # before what is not wanted any more is brought up to date
    bring = append_collection if args.append else sync_collection
    report, updates = bring(folder, dataset=dataset, encoder=encoder, limit=args.limit)
    created = None if _is_as_asked(args, read_manifest(folder)) else _run_create(args, dataset, folder)
    if created is None and args.spaces is not None:
        create_spaces(FeatureStore.open(folder), args.spaces, models=_models(args))
    if args.json:
        done: dict[str, Any] = {
            "collection": str(folder),
            **asdict(report),
            "engines": [asdict(update) for update in updates],
        }
        return json.dumps({**done, "created": created} if created else done, indent=2, default=str)
    lines = [f"{folder}: {report}", *map(str, updates), *filter(None, [duplicates_of(folder)])]
    return "\n".join(lines if created is None else [*lines, _told(args, created)])


def _is_as_asked(args: argparse.Namespace, manifest: dict[str, Any]) -> bool:
    """Whether the indexes are those of the command line; what it does not say may be anything."""
    indexes = manifest.get("indexes", {})
    return (
        bool(indexes)
        and set(indexes) >= set(_engines(args) or ())
        and (args.store is None or _is_in_store(args.store, indexes))
        and args.metric in (None, manifest["metric"])
        and all(args.seed in (None, entry.get("seed")) for entry in indexes.values())
        and all(args.target_recall in (None, indexes[name].get("target_recall")) for name in ENGINES if name in indexes)
        and all(args.factory in (None, entry.get("asked") or entry.get("factory")) for entry in indexes.values())
    )


def _is_in_store(address: str, indexes: dict[str, Any]) -> bool:
    backend = backend_at(address)
    at = indexes.get(backend.name, {}).get("store")
    return at is not None and at == backend.checked_address(address)


def _engines(args: argparse.Namespace) -> Sequence[str] | None:
    return {None: None, "both": ENGINES}.get(args.engine, (args.engine,))


def _run_create(
    args: argparse.Namespace, dataset: Dataset, folder: Path, encoder: Encoder | None = None
) -> dict[str, Any]:
    store = FeatureStore.open(folder)
    reports = create_index(
        store,
        factory=args.factory,
        engines=_engines(args),
        metric=args.metric,
        seed=args.seed,
        address=args.store,
        target_recall=args.target_recall,
    )
    create_spaces(store, args.spaces, encoder=encoder, models=_models(args))
    if args.store is not None:
        reports += index_spaces(store, args.store)
    find_duplicates(store)
    return {
        "collection": str(folder),
        "images": int(store.ids.size),
        "skipped": int(store.manifest["damaged"]),
        "dataset": dataset.name,
        "encoder": store.manifest["encoder"]["name"],
        "metric": store.manifest["metric"],
        "queries": held_out_count(store.ids.size),
        "engines": [asdict(report) for report in reports],
    }


def _models(args: argparse.Namespace) -> dict[str, str]:
    return {} if args.clip is None else {CLIP: args.clip}


def _told(args: argparse.Namespace, created: dict[str, Any]) -> str:
    """What was created, as JSON or for people."""
    if args.json:
        return json.dumps(created, indent=2)
    lines = [
        f"{created['collection']}: {created['images']} images of {created['dataset']}, {created['encoder']}, "
        f"{created['metric']}",
        "",
        format_table([EngineReport(**report) for report in created["engines"]]),
        "",
        f"recall@10 against exact search, ties counted, on {created['queries']} held-out images, one at a time (median "
        "time); bytes/vector: the code and the id of a stored vector in memory; no time holds compiling, done before",
    ]
    if told := duplicates_of(created["collection"]):
        lines.append(f"{told}; python -m search.duplicates {Path(created['collection']).name} looks closer")
    if created["skipped"]:
        lines.insert(1, f"{created['skipped']} damaged images were skipped; the catalog lists them with the reason")
    return "\n".join([*lines, f"search it: {search_command(Path(created['collection']))}"])


def search_command(folder: Path) -> str:
    """The command that opens a collection in the browser, as it works from the folder that one is in."""
    at_home = Path.cwd() == CHECKOUT
    command = ["python", "gradio_app/app.py" if at_home else str(CHECKOUT / "gradio_app" / "app.py")]
    if not at_home or folder.parent != DEFAULT_COLLECTIONS:
        command += ["--collections", str(folder.parent.resolve())]
    return shlex.join([*command, "--data", folder.name])


if __name__ == "__main__":
    sys.exit(main())
