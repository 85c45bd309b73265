"""Scalar quantization: each component of a vector as a byte, and the inverted file of it.

A component's range is the one that it had in training. In a range [low, low + width] the byte u stands for

    low + width * (u + 1/2) / 255                                                  (faiss's QT_8bit)

A byte a component loses little: it is a code for what is left when a PCA has taken most components away, and the best
candidates are ranked again by the vectors ("PCA256,IVF100,SQ8,Refine").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np

from ivfpq.checks import Floats, Metric
from ivfpq.index import IndexIVFPQ
from ivfpq.index_pq import IndexPQ
from ivfpq.pq import Codes, Quantizer

STEPS = np.float32(255)
HALF = np.float32(0.5)


class ScalarQuantizer(Quantizer):
    """Each of the d components of a vector as a number of 8 bits: the step of its range that it lies in.

    All in float32, with [low, low + width] the range of a component x:

        u = min(max(floor((x - low) / width * 255), 0), 255)        (encode; 0 where the width is 0)
        x is rebuilt as low + width * ((u + 1/2) / 255)             (decode)

    Parameters
    ----------
    d : int
        Dimension.
    M : int, optional
        Numbers in a code: d.
    nbits : int
        Bits of each: 8.

    Attributes
    ----------
    codebooks : float32 array, shape (2, d), or None before training
        Of each component, low and width. They stand for the codebooks that other quantizers have.
    """

    __slots__ = ()
    in_rows = True
    kernel_module = "scalar"

    def __init__(self, d: int, M: int | None = None, nbits: int = 8) -> None:
        super().__init__(d, d if M is None else M, nbits)
        if self.d != self.M or self.nbits != 8:
            raise ValueError(f"SQ has d numbers of 8 bits a code, got d={d}, M={M}, nbits={nbits}")

    @property
    def shape(self) -> tuple[int, ...]:
        """See `Quantizer.shape`."""
        return 2, self.d

    @property
    def train_size_min(self) -> int:
        """A single vector has a range, of no width."""
        return 1

    def train(self, x: Floats, rng: np.random.Generator) -> None:
        """Find the range of each component in float32 (n, d), n >= 1."""
        low = x.min(axis=0)
        with np.errstate(over="ignore"):
            width = x.max(axis=0) - low
        if not np.isfinite(width).all():
            raise ValueError(f"x lies too far apart for float32: its largest number is {np.abs(x).max():g}")
        self.codebooks = np.stack([low, width])

    def check(self, codebooks: Floats) -> None:
        """See `Quantizer.check`: no width is negative."""
        if (codebooks[1] < 0).any():
            raise ValueError(f"codebooks[1], the widths of the ranges, must not be negative, got {codebooks[1].min()}")

    def encoder(self) -> Callable[[Floats], Codes]:
        """See `Quantizer.encoder`."""
        low, width = self._trained()
        divisor = np.where(width > 0, width, np.float32(np.inf))

        def encode(x: Floats) -> Codes:
            with np.errstate(over="ignore", invalid="ignore"):
                steps = (x - low) / divisor * STEPS
            # What lies outside of the range goes to its ends before it is cut to a byte.
            codes: Codes = np.nan_to_num(np.clip(steps, 0, STEPS)).astype(np.uint8)
            return codes

        return encode

    def decode(self, codes: Codes) -> Floats:
        """Codes (n, d) -> float32 (n, d)."""
        low, width = self._trained()
        with np.errstate(over="ignore"):
            y: Floats = low + width * ((codes.astype(np.float32) + HALF) / STEPS)
        return y


class IndexIVFSQ(IndexIVFPQ):
    """`IndexIVFPQ` with a `ScalarQuantizer` for what a cell's centroid leaves over; all else is the same.

    The distance is that of `kernels.reference` for a code in one part: to what the code decodes to.

    Parameters
    ----------
    d, nlist, metric, nprobe, seed
        See `IndexIVFPQ`.
    """

    __slots__ = ()
    components_are_integers = True
    _quantizer = ScalarQuantizer
    _parameters: ClassVar[tuple[str, ...]] = ("d", "nlist", "metric", "nprobe", "seed")

    def __init__(self, d: int, nlist: int = 100, *, metric: Metric = "l2", nprobe: int = 1, seed: int = 0) -> None:
        super().__init__(d, nlist, d, 8, metric=metric, nprobe=nprobe, seed=seed)

    def _what_training_depends_on(self) -> str:
        return f"nlist={self.nlist}"


class IndexSQ(IndexPQ):
    """`IndexPQ` with a `ScalarQuantizer`: whole vectors, a byte a component (faiss's IndexScalarQuantizer).

    Parameters
    ----------
    d, metric, seed
        See `IndexPQ`.
    """

    __slots__ = ()
    components_are_integers = True
    _quantizer = ScalarQuantizer
    _parameters: ClassVar[tuple[str, ...]] = ("d", "metric", "seed")

    def __init__(self, d: int, *, metric: Metric = "l2", seed: int = 0) -> None:
        super().__init__(d, d, 8, metric=metric, seed=seed)
