"""How sure a class must be to become a tag: ``python -m benchmarks.tags collections/caltech101``.

A tag is right where it is what the picture's label names, or something that is a kind of: "dog" and "animal" for a
dalmatian. Half of the pictures whose label WordNet's tree has, by a seed, choose the bound; the other half, held out,
tells how good it is. Of the other pictures nothing right can be said, so there the fewest tags are the best.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.collection.store import FeatureStore
from features.command_line import add_collections, collection_folder
from features.encoders import shared_encoder
from features.makers.model import CERTAIN_ENOUGH, ClassTags
from features.wordnet.hypernyms import hypernyms

WANTED_PRECISION = 0.9
BOUNDS = np.round(np.arange(0.1, 1.0, 0.05), 2)


def right_tags(label: str, tags: ClassTags) -> NDArray[np.bool_]:
    """Which tags are right for a label, bool (tags,)."""
    name, tree = label.replace("_", " ").lower(), hypernyms()
    above = frozenset[str]().union(*map(tree.closure, tree.synsets(name)))
    return np.array(
        [synset in above or tag.lower() == name for tag, synset in zip(tags.names, tags.synsets, strict=True)]
    )


def measure(certain: NDArray[np.float32], right: NDArray[np.bool_], bound: float) -> tuple[float, float, float]:
    """Share of right tags among those given, tags a picture, and share of pictures that get any."""
    given = certain >= bound
    return float(right[given].mean()) if given.any() else 1.0, float(given.sum(1).mean()), float(given.any(1).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tags", description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", metavar="NAME", help="a collection, or its folder")
    add_collections(parser)
    options = parser.parse_args(arguments)
    store = FeatureStore.open(collection_folder(options.collections, options.collection))
    encoder = shared_encoder(store.manifest["encoder"])
    tags = ClassTags(encoder)
    labels = store.catalog.labels_by_image()
    ids = np.array([id for id in store.ids.tolist() if labels.get(id)])
    by_label = {label: right_tags(label, tags) for label in store.labels()}
    right = np.stack([np.any([by_label[label] for label in labels[id]], axis=0) for id in ids.tolist()])
    certain = tags.certainties(np.asarray(encoder.classify(store.features[ids]), np.float32))
    known = right.any(axis=1)
    half = np.random.default_rng(0).random(ids.size) < 0.5
    chooses, held_out = known & half, known & ~half
    lines = [
        f"{known.sum():,} pictures with a label of the tree, {(~known).sum():,} others",
        "",
        "| bound | chosen on: right | held out: right | tags a picture | with a tag | others with a tag |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    for bound in BOUNDS.tolist():
        chosen = measure(certain[chooses], right[chooses], bound)[0]
        precise, count, share = measure(certain[held_out], right[held_out], bound)
        others = measure(certain[~known], right[~known], bound)[2]
        lines.append(f"| {bound:.2f} | {chosen:.3f} | {precise:.3f} | {count:.2f} | {share:.3f} | {others:.3f} |")
    good = [b for b in BOUNDS.tolist() if measure(certain[chooses], right[chooses], b)[0] >= WANTED_PRECISION]
    chosen_bound = min(good, default=1.0)
    lines += ["", f"smallest bound with {WANTED_PRECISION:.0%} right: {chosen_bound}; in use: {CERTAIN_ENOUGH}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
