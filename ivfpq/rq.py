"""Residual quantization: a vector as a sum of M codewords (Chen, Guan, Wang 2010), and the inverted file of it.

With codebooks c_1, ..., c_M of whole vectors (not of parts, as a product quantizer has), a vector x is rebuilt as
c_1[j_1] + ... + c_M[j_M]. In as many bytes that is closer to x, and costs more to find: which j_m is best depends on
all the others. The search is a beam (Babenko and Lempitsky 2014, section 3.2, and faiss): codewords are chosen one
codebook after the other, and the `BEAM` best choices so far are kept.

Choosing works on tables of inner products from matrix products in float64, rounded to float32: a code may differ from
one machine to another only where such a sum falls on the edge between two float32 numbers, or two choices are equally
good. Training uses the linear algebra library throughout. What is stored then decodes, and is searched, to the same
bits everywhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ivfpq import kernels
from ivfpq.checks import Doubles, Floats, Ids
from ivfpq.index import IndexIVFPQ
from ivfpq.index_pq import IndexPQ
from ivfpq.kmeans import assign, with_finite_squares
from ivfpq.pq import Codes, Quantizer

logger = logging.getLogger(__name__)

BEAM = 16  # choices kept while encoding
TRAINING_BEAM = 5  # choices kept while the first codebooks are trained, as in faiss
MAX_POINTS = 128  # training vectors per codeword
REFITS = 2  # rounds of encoding anew and fitting all codebooks to the codes
RIDGE = 1.0  # each codeword is fitted as if it also stood for this many zero vectors, so that few examples weigh little
SOLVER_STEPS = 20  # of conjugate gradients in a refit; its codebooks change little after that
GROWTH = 8  # steps in which k-means goes from two dimensions to all
LLOYD = 4  # rounds of k-means at each step
CELLS = 1 << 18  # entries of the table of choices of a block of vectors: 1 MiB of float32
PATIENCE = 5.0  # seconds that training may take without announcing it


class ResidualQuantizer(Quantizer):
    """A vector as a sum of M codewords of ksub = 2**nbits each.

    `encode` looks for the codes that make |x - c_1[j_1] - ... - c_M[j_M]|^2 small; `decode` adds in order of m, each
    sum rounded to float32.

    Parameters
    ----------
    d : int
        Dimension.
    M : int
        Codebooks, so numbers in a code.
    nbits : int
        Bits of each number, 1 to 16.

    Attributes
    ----------
    codebooks : float32 array, shape (M, ksub, d), or None before training
    """

    __slots__ = ("_tables",)

    def __init__(self, d: int, M: int, nbits: int = 8) -> None:
        super().__init__(d, M, nbits)
        self._tables: tuple[Floats, _Tables] | None = None

    def train(self, x: Floats, rng: np.random.Generator) -> None:
        """Find the codebooks from float32 (n, d), n >= ksub.

        First each codebook in turn, by k-means of what the ones before leave over (Chen et al. 2010, section 3), for
        every choice in the beam. k-means starts in the two directions of the largest variance and takes in more as it
        goes (as faiss's progressive training): started with all, it finds cells of one vector each, which mean nothing
        to the next. Then all codebooks together, by least squares for given codes (Babenko and Lempitsky 2014, section
        3.3), in turn with encoding anew.

        Raises
        ------
        ValueError
            If there are fewer vectors than codewords of a codebook.
        """
        if len(x) < self.ksub:
            raise ValueError(f"RQ with nbits={self.nbits} needs at least {self.ksub} training vectors, got n={len(x)}")
        if len(x) > MAX_POINTS * self.ksub:
            x = x[np.sort(rng.choice(len(x), MAX_POINTS * self.ksub, replace=False))]
        started = time.monotonic()
        x, shrunk = with_finite_squares(x)
        basis = np.linalg.eigh(x.T.astype(np.float64) @ x)[1].astype(np.float32)
        x = x @ basis
        codebooks, left = np.zeros((self.M, self.ksub, self.d), np.float32), x
        for m in range(self.M):
            codebooks[m] = _progressive_kmeans(left, self.ksub, rng)
            codes = _beam_search(x, _Tables(codebooks[: m + 1]), TRAINING_BEAM)
            left = x[:, None] - _sum(codes, codebooks)
            logger.debug("RQ codebook %d: error %.6g", m, np.square(left[:, 0]).sum(axis=1).mean())
            left = left.reshape(-1, self.d)
            seconds = (time.monotonic() - started) * self.M
            if m == 0 and seconds > PATIENCE:
                logger.info("training the RQ codebooks on %d vectors takes some %.0f s", len(x), 2 * seconds)
        for _ in range(REFITS):
            codes = _beam_search(x, _Tables(codebooks), BEAM)[:, 0].astype(self.dtype)
            codebooks = _refitted(x, codes, codebooks)
            logger.debug("RQ refit: error %.6g", np.square(x - _sum(codes, codebooks)).sum(axis=1).mean())
        self.codebooks = np.ldexp(codebooks @ basis.T, shrunk)

    def encoder(self) -> Callable[[Floats], Codes]:
        """See `Quantizer.encoder`."""
        codebooks = self._trained()
        known = self._tables
        if known is None or known[0] is not codebooks:
            known = (codebooks, _Tables(codebooks))
            self._tables = known
        tables = known[1]
        return lambda x: _beam_search(x, tables, BEAM)[:, 0].astype(self.dtype)

    def decode(self, codes: Codes) -> Floats:
        """Codes (n, M) -> float32 (n, d)."""
        return _sum(codes, self._trained())


class IndexIVFRQ(IndexIVFPQ):
    """`IndexIVFPQ` with a `ResidualQuantizer` for what a cell's centroid leaves over; all else is the same.

    The distance is that of `kernels.reference` for a code in one part: to what the code decodes to. d need not be a
    multiple of M.
    """

    __slots__ = ()
    _quantizer = ResidualQuantizer


class IndexRQ(IndexPQ):
    """`IndexPQ` with a `ResidualQuantizer`: whole vectors as sums of codewords (faiss's IndexResidualQuantizer)."""

    __slots__ = ()
    _quantizer = ResidualQuantizer


class _Tables:
    """What encoding needs of codebooks (M, ksub, d), so that a choice is valued by additions only.

    |x - sum of c_m|^2 - |x|^2 = sum over m of (|c_m|^2 - 2 <x, c_m>) + sum over p < m of 2 <c_p, c_m>
    """

    __slots__ = ("M", "cross", "ksub", "norms", "shrunk", "words")

    def __init__(self, codebooks: Floats) -> None:
        self.M, self.ksub, d = codebooks.shape
        codebooks, self.shrunk = with_finite_squares(codebooks)  # which codes are best stays
        self.words: Doubles = codebooks.reshape(-1, d).astype(np.float64).T  # (d, M * ksub)
        self.norms: Doubles = np.einsum("ij,ij->j", self.words, self.words)
        # cross[(m (m - 1) / 2 + p) * ksub + i, j] = 2 <c_p[i], c_m[j]>, for p < m
        parts = [np.empty((0, self.ksub), np.float32)]
        for m in range(self.M):
            before, own = self.words[:, : m * self.ksub], self.words[:, m * self.ksub : (m + 1) * self.ksub]
            parts.append((2 * before.T @ own).astype(np.float32))
        self.cross: Floats = np.concatenate(parts)


def _beam_search(x: Floats, tables: _Tables, beam: int) -> Codes:
    """The best codes found for x (n, d), best first: int64 (n, b, M), b the least of `beam` and all there are.

    Of two choices of equal value the one that comes first is kept: after a better code of the beam, or with a smaller
    codeword number. So numpy and compiled code find the same.
    """
    M, ksub = tables.M, tables.ksub
    width, compiled = min(beam, ksub**M), kernels.active() != "reference"
    parts = [np.empty((0, width, M), np.int64)]
    step = max(1, CELLS // ksub // (M if compiled else beam))
    for start in range(0, len(x), step):
        block = np.ldexp(x[start : start + step].astype(np.float64), -tables.shrunk)
        with np.errstate(over="ignore"):  # of vectors far beyond all codewords
            own = (tables.norms - 2 * (block @ tables.words)).astype(np.float32)  # (n, M * ksub)
        if compiled:
            search = kernels.compiled_module("beam").beam_search
            parts.append(search(own, tables.cross, M, width))
        else:
            parts.append(_best_codes(own, tables, beam))
    return np.concatenate(parts)


def _best_codes(own: Floats, tables: _Tables, beam: int) -> Codes:
    """`_beam_search` in numpy. `own` (n, M * ksub): what each codeword alone adds to the error of each vector."""
    ksub, n = tables.ksub, len(own)
    codes, value = np.empty((n, 1, 0), np.int64), np.zeros((n, 1), np.float32)
    for m in range(tables.M):
        choice = value[:, :, None] + own[:, None, m * ksub : (m + 1) * ksub]  # (n, b, ksub)
        for p in range(m):
            choice += tables.cross.take(codes[:, :, p] + (m * (m - 1) // 2 + p) * ksub, axis=0)
        choice = np.fmin(choice.reshape(n, -1), np.float32(np.inf))  # NaN counts as the worst value
        best = _smallest(choice, min(beam, choice.shape[1]))
        value = np.take_along_axis(choice, best, axis=1)
        kept = np.take_along_axis(codes, (best // ksub)[:, :, None], axis=1)
        codes = np.concatenate([kept, (best % ksub)[:, :, None]], axis=2)
    return codes


def _smallest(values: Floats, count: int) -> Ids:
    """The columns of the `count` smallest of each row, smallest first, ties to the smaller column. No NaN."""
    best = np.argpartition(values, count - 1, axis=1)[:, :count]
    limit = np.take_along_axis(values, best[:, -1:], axis=1)
    tied = np.count_nonzero(values <= limit, axis=1) > count  # a partition keeps any of those that are equal
    best[tied] = np.argsort(values[tied], axis=1, kind="stable")[:, :count]
    best.sort(axis=1)
    order = np.argsort(np.take_along_axis(values, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)


def _sum(codes: Codes, codebooks: Floats) -> Floats:
    """The sum of the codewords, in order of m: codes (..., M) -> float32 (..., d)."""
    total = codebooks[0].take(codes[..., 0], axis=0)
    for m in range(1, codes.shape[-1]):
        total += codebooks[m].take(codes[..., m], axis=0)
    return total


def _progressive_kmeans(x: Floats, k: int, rng: np.random.Generator) -> Floats:
    """k centroids of x (n, d), found in the coordinates of the largest variance first. float32 (k, d)."""
    n, d = x.shape
    if n > MAX_POINTS * k:
        x = x[np.sort(rng.choice(n, MAX_POINTS * k, replace=False))]
    order = np.argsort(-x.var(axis=0), kind="stable")
    x = x[:, order]
    centroids = np.zeros((k, d), np.float32)
    widths = sorted({min(d, max(2, round(d ** (step / GROWTH)))) for step in range(1, GROWTH + 1)})
    centroids[:, : widths[0]] = x[rng.choice(len(x), k, replace=False), : widths[0]]
    for width in widths:
        part = np.ascontiguousarray(x[:, :width])
        lengths = np.einsum("ij,ij->i", part, part)
        for _ in range(LLOYD):
            near = centroids[:, :width]
            # numpy sorts small integers by radix.
            nearest = assign(part, lengths, near)[0].astype(np.min_scalar_type(k))
            counts = np.bincount(nearest, minlength=k)
            used = np.flatnonzero(counts)
            centroids[used, :width] = _group_sums(part, nearest)[1] / counts[used, None].astype(np.float32)
            empty = np.flatnonzero(counts == 0)
            if len(empty):  # each takes over half of one of the largest cells
                largest = np.argsort(-counts, kind="stable")[: len(empty)]
                empty = empty[: len(largest)]
                centroids[empty] = centroids[largest] * np.float32(1 + 2**-10)
                centroids[largest] *= np.float32(1 - 2**-10)
    found = np.empty_like(centroids)
    found[:, order] = centroids
    return found


def _group_sums(x: Floats, group: Any) -> tuple[Any, Floats]:
    """The group numbers (g,) that occur in `group` (n,), in order, and the sums of their rows of x, float32 (g, d)."""
    order = np.argsort(group, kind="stable")
    numbers, first = np.unique(group[order], return_index=True)
    return numbers, np.add.reduceat(x[order], first, axis=0)


def _refitted(x: Floats, codes: Codes, codebooks: Floats) -> Floats:
    """The codebooks (M, ksub, d) that make the sum of |x - sum of their codewords|^2 least for the given codes.

    With B the n x (M ksub) matrix of zeros and ones that says who uses which codeword: (B^T B + RIDGE) C = B^T X, by
    conjugate gradients from the codebooks there are, without ever writing B down. Codewords nobody uses stay.
    """
    M = codes.shape[1]

    def scattered(rows: Floats) -> Floats:
        """B^T rows."""
        sums = np.zeros_like(codebooks)
        for m in range(M):
            numbers, sums_m = _group_sums(rows, codes[:, m])
            sums[m, numbers] = sums_m
        return sums

    used = np.zeros(codebooks.shape[:2], bool)
    for m in range(M):
        used[m, codes[:, m]] = True
    fitted: Floats = np.where(used[:, :, None], codebooks, np.float32(0))
    residual = scattered(x - _sum(codes, fitted)) - np.float32(RIDGE) * fitted
    direction = residual.copy()
    size = np.square(residual).sum(axis=(0, 1), dtype=np.float64)  # each coordinate is a system of its own
    for _ in range(SOLVER_STEPS):
        image = scattered(_sum(codes, direction)) + np.float32(RIDGE) * direction
        curvature = (direction * image).sum(axis=(0, 1), dtype=np.float64)
        length = np.divide(size, curvature, out=np.zeros_like(size), where=curvature > 0).astype(np.float32)
        fitted += length * direction
        residual -= length * image
        before, size = size, np.square(residual).sum(axis=(0, 1), dtype=np.float64)
        ratio = np.divide(size, before, out=np.zeros_like(size), where=before > 0).astype(np.float32)
        direction = np.add(residual, ratio * direction, dtype=np.float32)
    return np.where(used[:, :, None], fitted, codebooks)
