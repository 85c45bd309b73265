"""What the index of a text space loses: ``python -m benchmarks.text_index --count 1000000``.

The pictures are made up, their vectors less so: each is the mean of the sentence vectors of a few of ImageNet's
classes, as those of the spaces `concepts` (less the mean of all) and `captions` are. Names of classes are the queries.
Recall is the share of the ten best of all rows that is among the ten best of the candidates which the index gives.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.concepts import unit
from features.encoders.sentence import sentence_encoder
from features.wordnet.definitions import definitions
from ivfpq import IndexIVFPQ, index_factory
from search.spaces import CAPTIONS, CONCEPTS, TEXT_FACTORY
from search.words import CANDIDATES

Floats = NDArray[np.float32]

OF_A_PICTURE = 5
TRAINING = 65_536
K = 10
_BLOCK = 16_384


def made_rows(count: int, classes: Floats, mean: Floats, rng: np.random.Generator) -> NDArray[np.float16]:
    """Vectors (count, dim) of pictures that show a few of the classes."""
    rows = np.empty((count, classes.shape[1]), np.float16)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        shown = rng.integers(0, len(classes), (size, OF_A_PICTURE))
        weights = rng.dirichlet(np.full(OF_A_PICTURE, 0.5), size).astype(np.float32)
        rows[start : start + size] = unit(np.einsum("ij,ijk->ik", weights, classes[shown]) - mean)
    return rows


def through_the_index(rows: NDArray[np.float16], queries: Floats) -> tuple[float, float, float]:
    """Recall@10, and milliseconds of a query through the index and over all rows, medians."""
    index = index_factory(rows.shape[1], TEXT_FACTORY, metric="cosine")
    assert isinstance(index, IndexIVFPQ)
    training = np.random.default_rng(0).permutation(len(rows))[:TRAINING]
    index.train(rows[np.sort(training)].astype(np.float32))
    for start in range(0, len(rows), _BLOCK):
        index.add(rows[start : start + _BLOCK].astype(np.float32))
    hits, took, took_all = 0, [], []
    for query in queries:
        started = time.perf_counter()
        ids = np.sort(index.search(query[None], CANDIDATES, nprobe=index.nlist).ids[0])
        near = rows[ids].astype(np.float32) @ query
        found = ids[np.argsort(-near, kind="stable")[:K]]
        took.append(time.perf_counter() - started)
        started = time.perf_counter()
        blocks = (rows[start : start + _BLOCK].astype(np.float32) @ query for start in range(0, len(rows), _BLOCK))
        truth = np.argsort(-np.concatenate(list(blocks)), kind="stable")[:K]
        took_all.append(time.perf_counter() - started)
        hits += np.isin(truth, found).sum()
    return hits / (K * len(queries)), 1e3 * float(np.median(took)), 1e3 * float(np.median(took_all))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_index", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="pictures (%(default)s)")
    parser.add_argument("--queries", type=int, default=100, help="(%(default)s)")
    options = parser.parse_args(arguments)
    texts, encode = definitions().imagenet, sentence_encoder().encode
    names = [text.partition(":")[0] for text in np.random.default_rng(0).permutation(texts)[: options.queries].tolist()]
    classes, queries = encode(list(texts)), encode(names)
    lines = ["| space | pictures | recall@10 | through the index, ms | all rows, ms |", "|---|--:|--:|--:|--:|"]
    for space, mean in ((CONCEPTS, classes.mean(axis=0)), (CAPTIONS, np.zeros(classes.shape[1], np.float32))):
        rows = made_rows(options.count, classes, mean, np.random.default_rng(1))
        recall, milliseconds, over_all = through_the_index(rows, unit(queries - mean))
        lines.append(f"| {space} | {options.count:,} | {recall:.3f} | {milliseconds:.1f} | {over_all:.1f} |")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
