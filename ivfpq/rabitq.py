"""RaBitQ: a few bits a component and two numbers a vector (Gao and Long 2024; Gao et al. 2025), and the inverted file.

r, what a centroid leaves over of a vector, is known by a vector y of few values and two numbers:

    y_j = u_j - (2^B - 1) / 2                     u_j of B bits, 0 ... 2^B - 1; with one bit y_j = sign(r_j) / 2
    s   = |r|^2 / <y, r>,    n = |r|^2

The inner product of r and any vector a is estimated as s <y, a> (2024, section 3.2; 2025, section 3). Were r rotated at
random, that would be unbiased: so there is a random rotation in front, "PCAR256" in a factory string. And since |r|^2
is kept as it is and not as the code has it,

    |a - r|^2  =  |a|^2 + |r|^2 - 2 <a, r>,   estimated as   |a|^2 + n - 2 s <a, y>

is off by that one product only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from ivfpq.checks import Doubles, Floats, Metric, positive_int
from ivfpq.distances import SMALL_BLOCK
from ivfpq.index import IndexIVFPQ
from ivfpq.index_pq import IndexPQ
from ivfpq.pq import Codes, Quantizer

LARGEST = np.finfo(np.float32).max
FACTORS = 8  # bytes behind the bits: s and n, float32
SCALES = np.geomspace(0.9, 4, 16)  # tried for more than one bit: all components of 1 / scale of the largest fit in


class RaBitQuantizer(Quantizer):
    """The signs of a vector's components, or `bits` bits of each, and two factors.

    A code is `M` bytes: bits, the highest of all components first, then the next ones, each such plane in whole bytes,
    lowest bit first; then s and n as float32. With more than one bit, u = (2^B - 1) / 2 -+ (min(floor(t |r_j|), L - 1)
    + 1/2), L = 2^(B - 1), for the t of those in `SCALES` that brings y nearest to the direction of r (2025, section
    3.2).

    Parameters
    ----------
    d : int
        Dimension.
    bits : int
        B, from 1 to 8.
    """

    __slots__ = ("bits", "plane_bytes")
    in_rows = True
    keeps_lengths = True
    kernel_module = "bitwise"

    def __init__(self, d: int, bits: int = 1) -> None:
        self.bits = positive_int(bits, "bits", largest=8)
        self.plane_bytes = (positive_int(d, "d") + 7) // 8
        super().__init__(d, self.bits * self.plane_bytes + FACTORS, 8)

    @property
    def shape(self) -> tuple[int, ...]:
        """There are no codewords: nothing is learnt."""
        return 0, self.d

    @property
    def train_size_min(self) -> int:
        """None need be there."""
        return 1

    def train(self, x: Floats, rng: np.random.Generator) -> None:
        """Nothing to learn."""
        self.codebooks = np.zeros(self.shape, np.float32)

    def encoder(self) -> Callable[[Floats], Codes]:
        """See `Quantizer.encoder`."""
        self._trained()
        return self._encoded

    def decode(self, codes: Codes) -> Floats:
        """Codes (n, M) -> s y, float32 (n, d)."""
        self._trained()
        planes = codes[:, :-FACTORS].reshape(len(codes), self.bits, self.plane_bytes)
        u = np.zeros((len(codes), self.d), np.float32)
        for plane in range(self.bits):
            u += np.unpackbits(planes[:, plane], axis=1, count=self.d, bitorder="little") * self._weight(plane)
        with np.errstate(over="ignore", invalid="ignore"):
            y: Floats = (u - self._middle) * self._factors(codes)[:, :1]
        return y

    def squared_lengths(self, codes: Codes) -> Floats:
        """n of codes (n, M), float32 (n,)."""
        return self._factors(codes)[:, 1]

    def check_codes(self, codes: Codes) -> None:
        """See `Quantizer.check_codes`: factors are finite and not negative."""
        factors = self._factors(codes)
        if not (factors >= 0).all() or not np.isfinite(factors).all():
            raise ValueError("factors of codes must be finite and not negative")

    @property
    def _middle(self) -> np.float32:
        return np.float32(((1 << self.bits) - 1) / 2)

    def _weight(self, plane: int) -> np.float32:
        return np.float32(1 << (self.bits - 1 - plane))

    def _factors(self, codes: Codes) -> Floats:
        """s and n: float32 (n, 2)."""
        return np.ascontiguousarray(codes[:, self.M - FACTORS : self.M]).view("<f4")

    def _encoded(self, x: Floats) -> Codes:
        codes = np.empty((len(x), self.M), np.uint8)
        step = max(1, SMALL_BLOCK // self.d)
        for start in range(0, len(x), step):
            r = np.clip(x[start : start + step], -LARGEST, LARGEST)  # two vectors may lie further apart than that
            self._encode_block(r.astype(np.float64), codes[start : start + step])
        return codes

    def _encode_block(self, r: Doubles, codes: Codes) -> None:
        """Fill codes (n, M) of vectors (n, d)."""
        size = np.abs(r)
        steps = np.zeros_like(size) if self.bits == 1 else self._steps(size)
        products, squares = np.vecdot(steps + 0.5, size), np.vecdot(r, r)
        factors = np.zeros((len(r), 2))
        np.divide(squares, products, out=factors[:, 0], where=products > 0)
        factors[:, 1] = squares
        with np.errstate(over="ignore"):
            stored = np.minimum(factors, LARGEST).astype("<f4")
        half = 1 << (self.bits - 1)
        u = np.where(r > 0, half + steps, half - 1 - steps).astype(np.uint8)
        for plane in range(self.bits):
            bits = (u >> (self.bits - 1 - plane)) & 1
            at = plane * self.plane_bytes
            codes[:, at : at + self.plane_bytes] = np.packbits(bits, axis=1, bitorder="little")
        codes[:, -FACTORS:] = stored.view(np.uint8)

    def _steps(self, size: Doubles) -> Doubles:
        """min(floor(t |r_j|), L - 1) for the best t of each vector: whole numbers, float64 (n, d)."""
        most = (1 << (self.bits - 1)) - 1
        largest = size.max(axis=1, keepdims=True)
        unit = np.divide(size, largest, out=np.zeros_like(size), where=largest > 0)
        best, kept = np.zeros_like(size), np.full(len(size), -np.inf)
        for scale in SCALES * (most + 1):
            steps = np.minimum(np.floor(unit * scale), most)
            y = steps + 0.5
            cosine = np.vecdot(y, unit) / np.sqrt(np.vecdot(y, y))
            better = cosine > kept
            best[better], kept[better] = steps[better], cosine[better]
        return best


def _of_size(d: int, M: int, nbits: int) -> RaBitQuantizer:
    """The quantizer of d components whose codes have M bytes."""
    return RaBitQuantizer(d, (M - FACTORS) // ((d + 7) // 8))


class IndexIVFRaBitQ(IndexIVFPQ):
    """`IndexIVFPQ` with a `RaBitQuantizer` for what a cell's centroid leaves over; all else is the same.

    Distances are estimates, see the module: the defined ones are those of `kernels.reference`. They need a random
    rotation in front, as "PCAR256,IVF100,RaBitQ" has it.

    Parameters
    ----------
    d, nlist : int
        See `IndexIVFPQ`.
    bits : int
        Of a component, 1 to 8.
    metric, nprobe, seed
        See `IndexIVFPQ`.
    """

    __slots__ = ()
    _quantizer = staticmethod(_of_size)
    _parameters: ClassVar[tuple[str, ...]] = ("d", "nlist", "bits", "metric", "nprobe", "seed")

    def __init__(
        self, d: int, nlist: int = 100, bits: int = 1, *, metric: Metric = "l2", nprobe: int = 1, seed: int = 0
    ) -> None:
        super().__init__(d, nlist, RaBitQuantizer(d, bits).M, 8, metric=metric, nprobe=nprobe, seed=seed)

    @property
    def bits(self) -> int:
        """Bits of a component."""
        quantizer: Any = self.pq
        return int(quantizer.bits)

    def _what_training_depends_on(self) -> str:
        return f"nlist={self.nlist}"


class IndexRaBitQ(IndexPQ):
    """`IndexPQ` with a `RaBitQuantizer`: whole vectors. They should lie around the origin, as behind a PCA.

    Parameters
    ----------
    d, bits, metric, seed
        See `IndexIVFRaBitQ`.
    """

    __slots__ = ()
    _quantizer = staticmethod(_of_size)
    _parameters: ClassVar[tuple[str, ...]] = ("d", "bits", "metric", "seed")

    def __init__(self, d: int, bits: int = 1, *, metric: Metric = "l2", seed: int = 0) -> None:
        super().__init__(d, RaBitQuantizer(d, bits).M, 8, metric=metric, seed=seed)

    @property
    def bits(self) -> int:
        """Bits of a component."""
        quantizer: Any = self.pq
        return int(quantizer.bits)
