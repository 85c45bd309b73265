"""Transforms of vectors before they are indexed: PCA, OPQ (Ge, He, Ke, Sun 2013), scaling to length 1.

**What is defined.** A linear transform gives ordered_sum(A_j * x) + b_j in float32, each product rounded, in the order
of `distances.ordered_sum`: the same on every machine, however many vectors are transformed at a time.

**What is not.** Training uses the linear algebra library (covariance, eigenvectors, singular vectors): the same data
and seed give the same transform on the same machine with the same library and number of its threads.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import numpy as np

from ivfpq import kernels
from ivfpq.checks import Doubles, Floats, NotTrainedError, as_vectors, positive_int, read_only
from ivfpq.distances import SMALL_BLOCK, normalised, ordered_sum
from ivfpq.integer_transform import IntegerTransform
from ivfpq.kmeans import with_finite_squares
from ivfpq.pq import ProductQuantizer

logger = logging.getLogger(__name__)

MAX_POINTS = 65536  # that training looks at, as faiss for OPQ
OPQ_ITERATIONS = 40
OPQ_TOLERANCE = 1e-3  # OPQ ends when an iteration gains less than this share of the error
PATIENCE = 5.0  # seconds that training may take without announcing it


class LinearTransform:
    """x -> A x + b, A with orthonormal rows.

    Parameters
    ----------
    d_in, d_out : int
        Dimensions before and after; d_out is at most d_in.

    Attributes
    ----------
    A : float32 array, shape (d_out, d_in), or None before training
    b : float32 array, shape (d_out,), or None before training
    """

    __slots__ = ("A", "_compiled", "_integers", "b", "d_in", "d_out")

    def __init__(self, d_in: int, d_out: int) -> None:
        self.d_in = positive_int(d_in, "d_in")
        self.d_out = positive_int(d_out, "d_out")
        if d_out > d_in:
            raise ValueError(f"a transform keeps at most the {d_in} dimensions there are, got d_out={d_out}")
        self.A: Floats | None = None
        self.b: Floats | None = None
        self._compiled: Any = None  # what compiled code makes of A and b
        self._integers: IntegerTransform | None = None  # what stands for them in `nearly`, made by its first call

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in self.parameters().items())})"

    def parameters(self) -> dict[str, int]:
        """The arguments of the constructor."""
        return {"d_in": self.d_in, "d_out": self.d_out}

    @property
    def is_trained(self) -> bool:
        """Whether vectors can be transformed."""
        return self.A is not None

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return 1

    def train(self, x: Floats, rng: np.random.Generator, *, centred: bool = True) -> None:
        """Find A and b from float32 (n, d_in). `centred`: distances count, so the origin does not; False for ip."""
        if self.A is None:
            raise RuntimeError("a LinearTransform cannot be trained: give it its numbers with install")

    def install(self, A: Any, b: Any) -> None:
        """Use a transform made elsewhere: `A` (d_out, d_in) with orthonormal rows and `b` (d_out,).

        Raises
        ------
        ValueError
            If a shape is wrong, a number is not finite, or the rows of A are not orthonormal (to 1e-3).
        """
        A = as_vectors(A, self.d_in, "A")
        if A.shape != (self.d_out, self.d_in):
            raise ValueError(f"A must have shape ({self.d_out}, {self.d_in}), got {A.shape}")
        b = as_vectors(np.reshape(b, (1, -1)), self.d_out, "b")[0]
        error = float(np.abs(A.astype(np.float64) @ A.T.astype(np.float64) - np.eye(self.d_out)).max())
        if not error < 1e-3:
            raise ValueError(f"the rows of A must be orthonormal, but their products are off by up to {error:.2g}")
        self._set(A, b)

    def _set(self, A: Floats, b: Floats) -> None:
        self.A, self.b, self._compiled, self._integers = read_only(A), read_only(b), None, None

    def __reduce__(self) -> tuple[Any, ...]:  # what compiled code made of A and b holds addresses
        return _copied, (type(self), self.parameters(), self.arrays())

    def apply(self, x: Floats, kernel: str | None = None) -> Floats:
        """float32 (n, d_in) -> float32 (n, d_out), as the module defines it. `kernel`: the active one, if known."""
        if self.A is None or self.b is None:
            raise NotTrainedError("the transform is not trained: call train first")
        if (kernel or kernels.active()) != "reference":
            if self._compiled is None:
                self._compiled = kernels.compiled_module("transform").Transform(self.A, self.b)
            y: Floats = self._compiled(x)
            return y
        y = np.empty((len(x), self.d_out), np.float32)
        step = max(1, SMALL_BLOCK // self.d_in)
        for i in range(len(x)):
            for j in range(0, self.d_out, step):
                y[i, j : j + step] = ordered_sum(x[i] * self.A[j : j + step])
        return y + self.b + np.float32(0)  # no negative zero

    def nearly(self, x: Floats, kernel: str) -> Floats:
        """What `apply` gives, but for the rounding of A to 8 bits: see `integer_transform`. All kernels do it alike."""
        if self.A is None or self.b is None:
            raise NotTrainedError("the transform is not trained: call train first")
        if self._integers is None:
            self._integers = IntegerTransform(self.A, self.b)
        y, odd = self._integers(x, kernel)
        if odd.any():
            y[odd] = self.apply(x[odd], kernel)
        return y

    def reverse(self, y: Floats) -> Floats:
        """The vectors that `apply` takes to `y`, or the nearest to the origin (plus b's) of them: A^T (y - b).

        float32 (n, d_out) -> float32 (n, d_in), summed in float64 in no defined order.
        """
        if self.A is None or self.b is None:
            raise NotTrainedError("the transform is not trained: call train first")
        x: Floats = ((y - self.b.astype(np.float64)) @ self.A.astype(np.float64)).astype(np.float32)
        return x

    def arrays(self) -> dict[str, Floats]:
        """What a file must hold of it besides `parameters`."""
        return {} if self.A is None or self.b is None else {"A": self.A, "b": self.b}

    def restore(self, arrays: dict[str, Any]) -> None:
        """Take what `arrays` gave. Raises ValueError if it does not fit."""
        if arrays:
            self.install(arrays["A"], arrays["b"])

    def same_as(self, other: Any) -> bool:
        """Whether both give the same numbers: only then can what is behind them be merged."""
        return (
            isinstance(other, LinearTransform)
            and np.array_equal(self.A, other.A)  # type: ignore[arg-type]
            and np.array_equal(self.b, other.b)  # type: ignore[arg-type]
        )


class PCA(LinearTransform):
    """The d_out directions in which the vectors differ most; the vectors' mean goes to the origin.

    For inner products, which are about the origin, it stays: A holds the directions of the largest second moments and
    b = 0. (faiss subtracts the mean there too, which changes what is nearest.)

    Parameters
    ----------
    d_in, d_out : int
        Dimensions before and after.
    rotated : bool
        Turn what comes out at random, so that each component tells as much as any other: for `rabitq`.
    """

    __slots__ = ("rotated",)

    def __init__(self, d_in: int, d_out: int, *, rotated: bool = False) -> None:
        super().__init__(d_in, d_out)
        self.rotated = bool(rotated)

    def parameters(self) -> dict[str, int]:
        """The arguments of the constructor."""
        return super().parameters() | ({"rotated": True} if self.rotated else {})

    @property
    def train_size_min(self) -> int:
        """One for each direction, and one for the mean."""
        return self.d_out + 1

    def train(self, x: Floats, rng: np.random.Generator, *, centred: bool = True) -> None:
        """See `LinearTransform.train`. At least `train_size_min` vectors."""
        x, shrunk = with_finite_squares(_sample(x, max(MAX_POINTS, 4 * self.d_in), rng))
        mean = x.mean(axis=0, dtype=np.float64) if centred else np.zeros(self.d_in)
        A = _directions(x, mean, self.d_out)[0]
        if self.rotated:
            q, r = np.linalg.qr(rng.standard_normal((self.d_out, self.d_out)))
            A = (q * np.sign(np.diag(r))) @ A  # all rotations are as likely as each other (Mezzadri 2007)
        self.install(A, -(A.astype(np.float32) @ np.ldexp(mean, shrunk)))


class OPQ(LinearTransform):
    """A rotation that makes product quantization with M parts lose less (Ge et al. 2013, "Optimized PQ").

    Starting from the principal directions, dealt out to the parts so that each gets the same product of variances
    (section III-C, "eigenvalue allocation"), product quantizer and rotation take turns (section III-B): with z = R x
    and its codewords y(z), R becomes U V^T where U S V^T is the singular value decomposition of the sum of y(z) x^T
    (the orthogonal Procrustes problem). For d_out < d_in the rotation is one within the first d_out principal
    directions: a round then costs d_out^3 and not d_in^3.

    Parameters
    ----------
    d_in, d_out : int
        Dimensions before and after; d_out is a multiple of `M`.
    M : int
        Parts of the product quantizer that will follow.
    nbits : int
        Bits of each of its numbers.
    """

    __slots__ = ("M", "nbits")

    def __init__(self, d_in: int, d_out: int, M: int, nbits: int = 8) -> None:
        super().__init__(d_in, d_out)
        quantizer = ProductQuantizer(d_out, M, nbits)  # checks the numbers
        self.M, self.nbits = quantizer.M, quantizer.nbits

    def parameters(self) -> dict[str, int]:
        """The arguments of the constructor."""
        return {**super().parameters(), "M": self.M, "nbits": self.nbits}

    @property
    def train_size_min(self) -> int:
        """One for each codeword and each direction."""
        return max(self.d_out + 1, 1 << self.nbits)

    def train(self, x: Floats, rng: np.random.Generator, *, centred: bool = True) -> None:
        """See `LinearTransform.train`. At least `train_size_min` vectors."""
        x, _ = with_finite_squares(_sample(x, min(MAX_POINTS, 256 << self.nbits), rng))
        mean = x.mean(axis=0, dtype=np.float64) if centred else np.zeros(self.d_in)
        A, variances = _directions(x, mean, self.d_out)
        A = A[_allocated(variances, self.M)]
        reduced = ((x - mean.astype(np.float32)) @ A.T.astype(np.float32)).astype(np.float32)
        rotation = np.eye(self.d_out)
        pq = ProductQuantizer(self.d_out, self.M, self.nbits)
        previous, started = np.inf, time.monotonic()
        for iteration in range(OPQ_ITERATIONS):
            z = (reduced @ rotation.T.astype(np.float32)).astype(np.float32)
            if iteration == 0:
                pq.train(z, rng)
            else:
                _lloyd(pq, z)
            y = pq.decode(pq.encode(z))
            error = float(np.square(z - y).sum(dtype=np.float64))
            logger.debug("OPQ iteration %d: error %.6g", iteration, error)
            # The first rotations gain little at a time, so a small gain there is no sign of convergence.
            if iteration > 5 and previous - error <= OPQ_TOLERANCE * error:
                break
            previous = error
            u, _, vt = np.linalg.svd(y.T.astype(np.float64) @ reduced)
            rotation = u @ vt
            if iteration == 0 and (seconds := (time.monotonic() - started) * OPQ_ITERATIONS) > PATIENCE:
                logger.info("OPQ of %d vectors to %d dimensions: at most some %.0f s", len(x), self.d_out, seconds)
        self.install(rotation @ A, np.zeros(self.d_out))


class L2Norm:
    """Each vector divided by its length (summed in float64); zero stays zero."""

    __slots__ = ("d_in", "d_out")

    def __init__(self, d_in: int) -> None:
        self.d_in = self.d_out = positive_int(d_in, "d_in")

    def __repr__(self) -> str:
        return f"L2Norm(d_in={self.d_in})"

    is_trained = True
    train_size_min = 0

    def parameters(self) -> dict[str, int]:
        """The arguments of the constructor."""
        return {"d_in": self.d_in}

    def train(self, x: Floats, rng: np.random.Generator, *, centred: bool = True) -> None:
        """Nothing to learn."""

    def apply(self, x: Floats, kernel: str | None = None) -> Floats:
        """float32 (n, d) -> float32 (n, d)."""
        return normalised(x)

    def reverse(self, y: Floats) -> Floats:
        """`y` itself: the lengths are gone."""
        return y

    def arrays(self) -> dict[str, Floats]:
        """Nothing."""
        return {}

    def restore(self, arrays: dict[str, Any]) -> None:
        """Take what `arrays` gave: nothing."""

    def same_as(self, other: Any) -> bool:
        """Whether both give the same numbers."""
        return isinstance(other, L2Norm)


Transform = LinearTransform | L2Norm


def _copied(kind: type[LinearTransform], parameters: dict[str, int], arrays: dict[str, Floats]) -> LinearTransform:
    """A transform that is known to be right."""
    made = kind(**parameters)
    if arrays:
        made._set(arrays["A"], arrays["b"])
    return made


def _sample(x: Floats, most: int, rng: np.random.Generator) -> Floats:
    return x if len(x) <= most else x[np.sort(rng.choice(len(x), most, replace=False))]


def _directions(x: Floats, mean: Doubles, wanted: int) -> tuple[Doubles, Doubles]:
    """The `wanted` directions of the largest second moments about `mean`, (wanted, d), and these, largest first."""
    n, d = x.shape
    x = x - mean.astype(np.float32)
    moments = np.zeros((d, d))
    for start in range(0, n, MAX_POINTS // 8):
        block = x[start : start + MAX_POINTS // 8].astype(np.float64)
        moments += block.T @ block
    cost = 10 * d**3 / 2e10  # the eigenvectors, at what one core does
    if cost > PATIENCE:
        logger.info("principal directions of %d dimensions: some %.0f s", d, cost)
    values, vectors = np.linalg.eigh(moments / n)
    A = vectors[:, ::-1][:, :wanted].T
    largest = np.abs(A).argmax(axis=1)
    # The sign of an eigenvector is arbitrary: its largest component becomes positive.
    A = A * np.sign(A[np.arange(wanted), largest])[:, None]
    return A, np.maximum(values[::-1][:wanted], 0)


def _allocated(variances: Doubles, M: int) -> list[int]:
    """The order of directions that gives each of M parts d / M of them with about the same product of variances.

    Largest first, each to the part of the smallest product that has room (Ge et al. 2013, section III-C).
    """
    capacity = len(variances) // M
    parts: list[list[int]] = [[] for _ in range(M)]
    logs = np.zeros(M)
    floor = np.finfo(np.float64).tiny
    # As in the paper, variances are first scaled to be at least 1: products must grow with the number of factors.
    scaled = np.log(np.maximum(variances, floor)) - math.log(max(float(variances.min()), floor))
    for direction, size in enumerate(scaled.tolist()):
        part = min((m for m in range(M) if len(parts[m]) < capacity), key=lambda m: (logs[m], len(parts[m]), m))
        parts[part].append(direction)
        logs[part] += size
    return [direction for part in parts for direction in part]


def _lloyd(pq: ProductQuantizer, z: Floats) -> None:
    """One round of Lloyd's algorithm on each part's codewords; a codeword that no vector uses stays."""
    if pq.codebooks is None:
        raise NotTrainedError("the product quantizer is not trained: call train first")
    codes, codebooks = pq.encode(z), pq.codebooks.copy()
    parts = z.reshape(len(z), pq.M, pq.dsub)
    for m in range(pq.M):
        used, first = np.unique(np.sort(codes[:, m]), return_index=True)
        sums = np.add.reduceat(parts[np.argsort(codes[:, m], kind="stable"), m], first, axis=0)
        counts = np.diff(np.append(first, len(z)))
        codebooks[m, used] = sums / counts[:, None].astype(np.float32)
    pq.codebooks = codebooks
