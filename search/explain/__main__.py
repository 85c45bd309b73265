"""How a search found its pictures, as a page: ``python -m search.explain demo --query photo.jpg --export found``.

The folder opens in a browser from disk: index.html, and beside it the numbers of this search and small pictures.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from features.collection.store import StoreError
from features.command_line import add_collections, collection_folder, set_up_streams
from features.encoders import EncoderError
from features.images import ImageError, decode_image
from features.paths import expanded
from features.picture_files import stored_pixels
from search.command_line import refused
from search.engine import SearchEngine
from search.errors import EngineError
from search.explain.export import SearchRecord
from search.explain.page import write_page
from search.options import SearchOptions
from search.query import ImagePart


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m search.explain", description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", metavar="NAME", help="a collection, by its name or its folder")
    parser.add_argument("--query", required=True, help="the file of a picture, or the id of one of the collection")
    parser.add_argument("--export", required=True, type=expanded, metavar="FOLDER", help="where the page is written")
    parser.add_argument("--engine", default="ivfpq", help="whose search: ivfpq or faiss (default: %(default)s)")
    parser.add_argument("--nprobe", type=int, metavar="N", help="lists looked into (default: the index's own number)")
    add_collections(parser)
    args = parser.parse_args(arguments)
    set_up_streams(logging.WARNING)
    try:
        engine = SearchEngine.open(collection_folder(args.collections, args.collection))
        options = SearchOptions(args.engine, nprobe=args.nprobe)
        if args.query.isdecimal() and not Path(args.query).exists():
            encoded = engine.encode_part(ImagePart(int(args.query)), engine.space())
            item = engine.store.items[int(args.query)]
            pixels = stored_pixels(engine.store.manifest, item.path)
            label = item.labels[0] if item.labels else item.path.stem
        else:
            encoded = engine.encode(args.query)
            pixels, label = decode_image(args.query), Path(args.query).stem
        picture = Image.fromarray(pixels)
        record = SearchRecord(engine, encoded.vector, encoded.own_id, options, picture=picture, label=label)
        write_page(args.export, record.numbers, record.thumbnails())
    except (EngineError, EncoderError, StoreError, ImageError, OSError) as error:
        return refused(error)
    sys.stdout.write(f"{args.export / 'index.html'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
