"""How well duplicates are told from other pictures: ``python -m benchmarks.duplicates collections/caltech101``.

300 pictures of a collection are changed in 17 ways each, and every one of these copies is to be found again; 3,000
others beside them are no copies, and every pair of the 3,300 that is told as one counts against the rule, though some
of them do show the same. The rules are those of `search.duplicate_pairs`: by hash and vector alone, which is all that
there is without OpenCV, and with a closer look at what either speaks for.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageEnhance

from features.images import ImageError
from features.paths import expanded
from features.phash import perceptual_hashes
from features.picture_files import stored_pixels
from ivfpq.distances import normalised
from search.duplicate_pairs import BITS_LIKELY, COSINE_ALIKE, COSINE_LIKELY
from search.engine import SearchEngine
from search.near_hashes import BITS_MAX, near_hashes
from search.same_picture import Sight, can_prove, is_same_picture

ORIGINALS, OTHERS = 300, 3_000

Picture = Image.Image
Change = Callable[[Picture], Picture]


def _saved(kind: str, quality: int) -> Change:
    def change(picture: Picture) -> Picture:
        buffer = io.BytesIO()
        picture.save(buffer, kind, quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def _smaller(part: int) -> Change:
    return lambda picture: picture.resize(
        (max(1, picture.width // part), max(1, picture.height // part)), Image.Resampling.LANCZOS
    )


def _cropped(share: float) -> Change:
    """Less so much of its width and of its height, half of it on each side."""

    def change(picture: Picture) -> Picture:
        left, top = int(picture.width * share / 2), int(picture.height * share / 2)
        return picture.crop((left, top, picture.width - left, picture.height - top))

    return change


def _brighter(factor: float) -> Change:
    return lambda picture: ImageEnhance.Brightness(picture).enhance(factor)


def _with_text(picture: Picture) -> Picture:
    written = picture.copy()
    place = picture.width // 10, picture.height * 8 // 10
    ImageDraw.Draw(written).text(place, "Holiday 2019", fill="white", font_size=max(10, picture.height // 8))
    return written


def _with_border(picture: Picture) -> Picture:
    width = max(2, picture.width // 20)
    framed = Image.new("RGB", (picture.width + 2 * width, picture.height + 2 * width), "black")
    framed.paste(picture, (width, width))
    return framed


CHANGES: dict[str, Change] = {
    "JPEG of quality 50": _saved("JPEG", 50),
    "JPEG of quality 20": _saved("JPEG", 20),
    "WebP of quality 50": _saved("WEBP", 50),
    "half its size": _smaller(2),
    "a quarter of its size": _smaller(4),
    "grey": lambda picture: picture.convert("L").convert("RGB"),
    "1.4 times as bright": _brighter(1.4),
    "0.6 times as bright": _brighter(0.6),
    "text on it": _with_text,
    "a black border": _with_border,
    "cropped by 5 %": _cropped(0.05),
    "cropped by 10 %": _cropped(0.1),
    "cropped by 20 %": _cropped(0.2),
    "turned by 3 degrees": lambda picture: picture.rotate(3, Image.Resampling.BICUBIC),
    "turned by 90 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_180),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}

Floats = NDArray[np.float32]
Hashes = NDArray[np.uint64]


class Pictures:
    """Decoded pictures, with what is compared of them; vectors are those of the collection, or made here."""

    def __init__(self, pixels: list[NDArray[np.uint8]], vectors: Floats) -> None:
        self.pixels, self.vectors = pixels, normalised(vectors)
        hashed = b"".join(perceptual_hashes(each) for each in pixels)
        self.hashes: Hashes = np.frombuffer(hashed, np.uint64).reshape(len(pixels), -1)
        self._sights: dict[int, Sight] = {}

    def sight(self, place: int) -> Sight:
        if place not in self._sights:
            self._sights[place] = Sight.of(self.pixels[place])
        return self._sights[place]


def found_among(originals: Pictures, copies: Pictures) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each copy whether it is told to be its original: without a closer look, and with one where it is possible."""
    cosines = np.einsum("nd,nd->n", originals.vectors, copies.vectors)
    bits = np.minimum(
        np.bitwise_count(copies.hashes ^ originals.hashes[:, :1]).min(axis=1),
        np.bitwise_count(originals.hashes ^ copies.hashes[:, :1]).min(axis=1),
    )
    likely = (cosines >= COSINE_LIKELY) | (bits <= BITS_LIKELY)
    candidates = (cosines >= COSINE_ALIKE) | (bits <= BITS_MAX)
    proved = np.zeros(len(candidates), bool)
    for place in np.flatnonzero(candidates).tolist() if can_prove() else ():
        proved[place] = is_same_picture(originals.sight(place), copies.sight(place))
    return likely, proved


def told_apart(pictures: Pictures) -> tuple[int, int, int, float]:
    """Pairs of different files that are told to be the same, without a closer look and with one; how many pairs were
    looked at, and how many ms of a processor that took each.
    """
    cosines = pictures.vectors @ pictures.vectors.T
    likely, alike = cosines >= COSINE_LIKELY, cosines >= COSINE_ALIKE
    for bits, rule in ((BITS_LIKELY, likely), (BITS_MAX, alike)):
        near, _ = near_hashes(pictures.hashes, bits=bits)
        rule[tuple(near.T)] = True
    pairs = np.argwhere(np.triu(alike, 1))
    started = time.process_time()
    proved = sum(is_same_picture(*map(pictures.sight, pair)) for pair in pairs.tolist()) if can_prove() else 0
    took = 1e3 * (time.process_time() - started) / max(1, len(pairs))
    return int(np.triu(likely, 1).sum()), proved, len(pairs), took


def measure(engine: SearchEngine, originals: int, others: int, seed: int = 0) -> str:
    """The figures as Markdown."""
    store = engine.store
    pixels, chosen = [], []
    for id in np.random.default_rng(seed).permutation(store.ids).tolist():
        try:
            pixels.append(stored_pixels(store.manifest, store.items[id].path))
        except ImageError:  # it has gone since
            continue
        chosen.append(id)
        if len(chosen) == originals + others:
            break
    vectors = np.asarray(store.features[chosen], np.float32)
    first = Pictures(pixels[:originals], vectors[:originals])
    lines = ["| copy | without OpenCV | with OpenCV |", "|---|--:|--:|"]
    totals = []
    for name, change in CHANGES.items():
        changed = [np.asarray(change(Image.fromarray(each))) for each in first.pixels]
        likely, proved = found_among(first, Pictures(changed, engine.encoder.encode(changed)))
        totals.append((likely.mean(), proved.mean()))
        lines.append(f"| {name} | {likely.mean():.3f} | {proved.mean():.3f} |")
    without, with_proof = np.mean(totals, axis=0)
    lines.append(f"| **all {len(CHANGES)}** | **{without:.3f}** | **{with_proof:.3f}** |")
    likely_pairs, proved_pairs, looked_at, took = told_apart(Pictures(pixels, vectors))
    lines.append(f"| pairs of different files | {likely_pairs} | {proved_pairs} |")
    count = len(pixels)
    lines.append(
        f"\n{len(first.pixels)} pictures, and {count * (count - 1) // 2:,} pairs of {count:,} files, of which "
        f"{looked_at:,} were looked at closer, {took:.0f} ms of a processor each"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", type=expanded, help="a folder of collections/")
    parser.add_argument("--originals", type=int, default=ORIGINALS, metavar="N", help="(%(default)s)")
    parser.add_argument("--others", type=int, default=OTHERS, metavar="N", help="(%(default)s)")
    options = parser.parse_args(arguments)
    engine = SearchEngine.open(options.collection)
    if not (options.originals > 0 and options.others >= 0):
        parser.error("there is at least one original, and no fewer than no others")
    if options.originals + options.others > engine.store.ids.size:
        parser.error(f"{options.collection} has {engine.store.ids.size:,} pictures")
    sys.stdout.write(f"{measure(engine, options.originals, options.others)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
