"""What compiled code works with: records with named fields, most of them addresses of arrays.

A record is made in Python as an array of shape (1,) or, inside, in memory that `allocate` gives, and read by the
functions below, whose fields numba reads and writes like attributes.
"""

from __future__ import annotations

import numpy as np

from ivfpq.kernels.jit import jit_inner, sources
from ivfpq.kernels.memory import byte_at, int64_at, record_reader, word_at

IP, L2, COSINE = 0, 1, 2  # `QUANTIZERS.metric`
BINS = 512  # of the histogram of coarse distances
GROUPS = 16  # of codewords, told by the low bits of their numbers: see `avx2`
PANEL = 64  # rows of a matrix that are multiplied together: see `panels.Panels`

_INT, _FLOAT = np.int64, np.float64

QUANTIZERS = np.dtype(
    [(name, _INT) for name in ("metric", "d", "M", "code_rows", "ksub", "wide", "dsub", "part", "nlist", "terms")]
    + [(name, _FLOAT) for name in ("longest_centroid", "longest_code")]
    + [(name, _FLOAT) for name in ("centroid_scale", "codebook_scale", "centroid_loss", "codebook_loss", "reach")]
    + [(name, _INT) for name in ("centre", "centroids", "codebooks", "low", "step")]
    + [(name, _INT) for name in ("centroid_panels", "centroid_squares", "codebook_panels", "codebook_squares")]
    + [(f"sources_{sources()}", np.int8)]
)
"""Numbers and, from `centre` on, addresses of arrays (see `compiled.CompiledQuantizers`); last, in a name, which
sources are compiled. `wide` is ksub in whole panels. From one codebook's part of the vector to the next one's are
`part` numbers: dsub, or 0 where codewords are whole vectors. `code_rows` of a block are M numbers, one each or, where
they are fewer than M, two, the first in the lower half. `terms` are the rows of terms behind them: see `quantizers`."""

QUERY = np.dtype(
    [(name, _INT) for name in ("number", "floats", "bytes", "uppers", "k", "held", "list", "by_places")]
    + [(name, _FLOAT) for name in ("theta", "error", "step", "low", "square", "unit", "base", "term_step")]
)
"""A query and the list that is being scanned for it.

`number` in its batch. Addresses of its tables T, float32 (M, wide), and t8, uint8 (M, 256), and of `held` of its
smallest upper bounds, which for k <= FIRST are a heap, float64 (k,), and else float32, see `candidates.shrink`. With
k = 0, theta is fixed. theta and E; the step of t8 and the sum of low_m; |a|^2, and what 1 stands for in a'. Of the
list: its number, base + low_l, and step_l. (Names of numbers are those of the proof in `bounds`.)"""

CANDIDATE = np.dtype([("lower", _FLOAT), ("row", _INT), ("list", _INT), ("query", _INT)])
"""A vector that may be in the answer of a query: a lower bound of its distance, and where it is stored."""

SCRATCH = np.dtype(
    [(name, _INT) for name in ("nq", "nprobe", "kept", "queries", "probes", "order", "ends", "values", "numbers")]
    + [(name, _INT) for name in ("counts", "base", "scores", "a", "pairs", "units", "extent", "y", "tables", "end")]
    + [(name, _INT) for name in ("found", "capacity", "n")]
    + [("theta", _FLOAT)]
)
"""What a search works with: how many queries, lists of each and neighbours of each; addresses (see `scan.furnish`),
`end` being that of what is behind; of the candidates, which may move (see `candidates.make_room`), with how many there
is room for, and how many there are; the theta that queries begin with."""

query_at, candidate_at = record_reader(QUERY), record_reader(CANDIDATE)


# lists.starts[number]
@jit_inner
def list_start(lists, number):
    """The first row of a list."""
    return int64_at(lists.starts, number)


# lists.sizes[number]
@jit_inner
def list_size(lists, number):
    """How many vectors a list holds."""
    return int64_at(lists.sizes, number)


# lists.blocks[row // 64]
@jit_inner
def block_of(lists, row):
    """Address of the block of a row."""
    return lists.blocks + (row >> 6) * 64 * lists.width * lists.code_bytes


# pq.from_rows(block[None])[0, m, lane]
@jit_inner
def code_number(quantizers, lists, block, m, lane):
    """The m-th number of a code in a block, as int64."""
    if quantizers.code_rows < quantizers.M:
        return (np.int64(byte_at(block, 64 * (m >> 1) + lane)) >> (4 * (m & 1))) & 15
    return row_number(lists, block, m, lane)


# block[row, lane]
@jit_inner
def row_number(lists, block, row, lane):
    """What a row of a block holds for a code, as int64."""
    if lists.code_bytes == 1:
        return np.int64(byte_at(block, 64 * row + lane))
    return np.int64(word_at(block, 64 * row + lane))


# unpack_ids(lists.packed_ids[row : row + 1])[0]
@jit_inner
def id_of(lists, row):
    """The id of a row: `id_bytes` bytes, the lowest first."""
    number, place = np.uint64(0), lists.id_bytes * row
    for i in range(lists.id_bytes):
        number |= byte_at(lists.ids, place + i) << np.uint64(8 * i)
    return np.int64(number)


# codebooks[m, block[m, lane]]
@jit_inner
def codeword(quantizers, lists, block, m, lane):
    """Address of the m-th codeword of a code."""
    number = m * quantizers.ksub + code_number(quantizers, lists, block, m, lane)
    return quantizers.codebooks + 4 * quantizers.dsub * number


# pq.d // pq.dsub
@jit_inner
def parts(quantizers):
    """How many codebooks' parts a vector has: M, or 1 where codewords are whole vectors."""
    return quantizers.M if quantizers.part else 1


# -(-panels.with_even_parts(x, dsub).shape[-1] // 16) * 16
@jit_inner
def even_width(quantizers):
    """How many numbers a vector has with a zero behind each odd part, and more behind the last: a multiple of 16."""
    return (parts(quantizers) * 2 * ((quantizers.dsub + 1) // 2) + 15) & ~15


# -(-n // PANEL) * PANEL
@jit_inner
def in_panels(n):
    """n rounded up to whole panels."""
    return (n + 63) & ~63
