"""Whether looking at the object helps: ``python -m benchmarks.background collections/caltech101``.

Queries are pictures of the collection, which do not count among their own hits. *Ordinary* ones are as they are. *In
strange scenes* are objects that stand on white, which is told by the pixels alone, pasted on pictures of other labels.
Each is searched as it is, with white in place of what is behind its object (`features.background`), and half-way
between both, as the switch "Look at the object" does; the collection stays as it is. A hit is right if it bears the
label of the query. Last, the ordinary ones are compared with each other alone, with white behind the objects of all, as
in a collection that was made with --remove-background.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from benchmarks.pictures import measures_of
from features.background import on_white
from features.command_line import add_collections, collection_folder
from features.encoders import EncoderError
from features.images import decode_image
from ivfpq.distances import normalised
from search.engine import SearchEngine
from search.picture_parts import between

ORDINARY = 600
LEFT_OUT = "BACKGROUND_Google"
"""A label of Caltech101 whose pictures have nothing in common."""
WHITE = 245
SHARES = (0.08, 0.6)
"""Of a picture that its object covers, to be pasted."""
SIZES = ("1-NN", "P@5", "mAP")

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]


def object_on_white(pixels: Pixels) -> NDArray[np.bool_] | None:
    """Where the object of a picture on white is, bool (H, W); None where it is no such picture."""
    is_white = pixels.min(axis=2) >= WHITE
    border = np.concatenate([is_white[0], is_white[-1], is_white[:, 0], is_white[:, -1]])
    if border.mean() < 0.98:
        return None
    whole: NDArray[np.bool_] = ndimage.binary_fill_holes(~is_white)
    return whole if SHARES[0] <= whole.mean() <= SHARES[1] else None


def pasted(pixels: Pixels, mask: NDArray[np.bool_], scene: Pixels, scale: float = 1.0) -> Pixels:
    """The object of a picture, scaled about the middle, on another picture, which is stretched to the same size."""
    height, width = mask.shape
    made = Image.fromarray(scene).resize((width, height), Image.Resampling.BICUBIC)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    corner = ((width - size[0]) // 2, (height - size[1]) // 2)
    thing = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    made.paste(thing, corner, Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    return np.asarray(made)


def judged(queries: Floats, own: NDArray[np.int64], base: Floats, labels: NDArray[np.str_]) -> NDArray[np.float64]:
    """`SIZES` of unit vectors (n, d) among others, of which `own` are the places of the queries themselves."""
    total = np.zeros(3)
    for vector, place in zip(queries, own.tolist(), strict=True):
        nearness = base @ vector
        nearness[place] = -np.inf
        order = np.argsort(-nearness, kind="stable")[:-1]
        average, first, five, _ = measures_of(labels[order] == labels[place])
        total += (first, five, average)
    return total / len(queries)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.background", description=__doc__.split("\n\n")[0])
    parser.add_argument("source", help="a collection, or its folder")
    add_collections(parser)
    parser.add_argument("--queries", type=int, default=ORDINARY, metavar="N", help="ordinary ones (%(default)s)")
    parser.add_argument("--strange", type=int, default=200, metavar="N", help="at most, pasted (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of what is pasted (%(default)s)")
    options = parser.parse_args(arguments)
    engine = SearchEngine.open(collection_folder(options.collections, options.source))
    store = engine.store
    if "background" in store.manifest["encoder"]:
        parser.error(f"{store.folder.name} was made without what is behind objects: take one that was not")
    base = normalised(np.asarray(store.features[store.ids], np.float32))
    labels = np.array([",".join(store.items[id].labels) for id in store.ids.tolist()])
    known = [place for place in np.random.default_rng(1).permutation(len(labels)).tolist() if labels[place] != LEFT_OUT]

    def pixels_of(place: int) -> Pixels:
        return decode_image(store.items[int(store.ids[place])].path)

    seconds: list[float] = []

    def vectors_of(pictures: list[Pixels]) -> tuple[Floats, Floats, Floats]:
        """Of pictures as they are, with white behind their objects, and half-way."""
        plain, white = [], []
        for pixels in pictures:
            begin = time.process_time()
            cut = on_white(pixels)
            seconds.append(time.process_time() - begin)
            one = engine.encoder.encode([pixels])[0]
            plain.append(one)
            white.append(one if cut is None else engine.encoder.encode([cut])[0])
        mixed = [between(one, other) for one, other in zip(plain, white, strict=True)]
        return normalised(np.stack(plain)), normalised(np.stack(white)), normalised(np.stack(mixed))

    try:
        ordinary = np.array(known[: options.queries])
        plain, white, mixed = vectors_of([pixels_of(place) for place in ordinary.tolist()])
        strange, scenes = [], []
        rng = np.random.default_rng(2)
        for place in known:
            pixels = pixels_of(place)
            mask = object_on_white(pixels)
            if mask is None:
                continue
            behind = int(rng.choice(np.flatnonzero(labels != labels[place])))
            strange.append(place)
            scenes.append(pasted(pixels, mask, pixels_of(behind), options.scale))
            if len(strange) == options.strange:
                break
        in_scenes = vectors_of(scenes) if scenes else None
    except EncoderError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    out = sys.stdout
    out.write(
        f"| {', '.join(SIZES)} | {len(ordinary):,} ordinary queries | {len(strange):,} objects in strange scenes |\n"
    )
    out.write("|---|---|---|\n")
    for row, (title, vectors) in enumerate((("as it is", plain), ("on white", white), ("half-way", mixed))):
        cells = [judged(vectors, ordinary, base, labels)]
        if in_scenes is not None:
            cells.append(judged(in_scenes[row], np.array(strange), base, labels))
        shown = " | ".join(", ".join(f"{value:.3f}" for value in cell) for cell in cells)
        out.write(f"| {title} | {shown} |\n")
    out.write(f"\n| {', '.join(SIZES)} | the {len(ordinary):,} ordinary ones alone |\n|---|---|\n")
    for title, vectors in (("all as they are", plain), ("all on white", white), ("all half-way", mixed)):
        figures = judged(vectors, np.arange(len(ordinary)), vectors, labels[ordinary])
        out.write(f"| {title} | {', '.join(f'{value:.3f}' for value in figures)} |\n")
    out.write(f"\nan object is found in {np.median(seconds):.2f} s of the processor (median)\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
