"""Product quantization: a vector as M small whole numbers (Jégou, Douze, Schmid 2011, section II)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ivfpq.assign import finder, nearest
from ivfpq.checks import Floats, NotTrainedError, as_vectors, positive_int, read_only
from ivfpq.codeword_groups import in_groups
from ivfpq.kmeans import kmeans
from ivfpq.screening import Points

Codes = npt.NDArray[Any]  # uint8 up to 8 bits, uint16 above
Packed = npt.NDArray[np.uint8]


class Quantizer:
    """What quantizers share: M numbers of nbits bits, packed into bytes, and their codebooks.

    Attributes
    ----------
    ksub : int
        Codewords of a codebook, 2**nbits.
    dsub : int
        Dimension of a codeword.
    code_size : int
        Bytes of a packed code.
    paired : bool
        Whether lists hold two numbers of a code in a byte, as 4 bits allow, the first in the lower half.
    code_rows : int
        Bytes (above 8 bits, words) that a code takes in a list: M, or half as many in pairs.
    codebooks : float32 array, shape (M, ksub, dsub), or None before training
    in_rows : bool
        Whether lists hold code after code. Else they hold blocks of them, transposed: see `Lists`.
    keeps_lengths : bool
        Whether a code has the length of the vector beside what it decodes to: see `kernels.reference`.
    kernel_module : str
        The module of `ivfpq.kernels` that searches their lists in compiled code.
    """

    __slots__ = ("M", "_codebooks", "code_size", "d", "dsub", "ksub", "nbits")
    in_rows: ClassVar[bool] = False
    keeps_lengths: ClassVar[bool] = False
    kernel_module: ClassVar[str] = "compiled"

    def __init__(self, d: int, M: int, nbits: int) -> None:
        self.d = positive_int(d, "d")
        self.M = positive_int(M, "M")
        self.nbits = positive_int(nbits, "nbits", largest=16)
        self.ksub = 1 << self.nbits
        self.dsub = self.d
        self.code_size = (self.M * self.nbits + 7) // 8
        self._codebooks: Floats | None = None

    @property
    def codebooks(self) -> Floats | None:
        """The codewords, float32 of that `shape`, which cannot be written to; None before training."""
        return self._codebooks

    @codebooks.setter
    def codebooks(self, codebooks: Floats | None) -> None:
        self._codebooks = None if codebooks is None else read_only(codebooks)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the codebooks."""
        return self.M, self.ksub, self.dsub

    @property
    def train_size_min(self) -> int:
        """The least number of training vectors."""
        return self.ksub

    def install(self, codebooks: Any) -> None:
        """Use codebooks of that `shape`, made elsewhere. Raises ValueError if they are none."""
        if np.shape(codebooks) != self.shape:
            raise ValueError(f"codebooks must have shape {self.shape}, got {np.shape(codebooks)}")
        flat = as_vectors(np.reshape(codebooks, (-1, self.shape[-1])), self.shape[-1], "codebooks")
        self.check(checked := flat.reshape(self.shape))
        self.codebooks = checked

    def check(self, codebooks: Floats) -> None:
        """That finite numbers of the right shape are codebooks. Raises ValueError if they are not."""

    def check_codes(self, codes: Codes) -> None:
        """That codes (n, M) read from a file can be. Raises ValueError if they cannot."""

    def squared_lengths(self, codes: Codes) -> Floats:
        """Of codes (n, M) that keep lengths: |r|^2 of the vectors, float32 (n,)."""
        raise NotImplementedError

    def train(self, x: Floats, rng: np.random.Generator) -> None:
        """Find the codebooks. `x` is float32 (n, d) with n >= train_size_min."""
        raise NotImplementedError

    def encode(self, x: Floats) -> Codes:
        """float32 (n, d) -> codes (n, M)."""
        return self.encoder()(x)

    def encoder(self) -> Callable[[Floats], Codes]:
        """`encode` for many calls, each in the calling thread, with what they have in common made ready."""
        raise NotImplementedError

    def decode(self, codes: Codes) -> Floats:
        """Codes (n, M) -> float32 (n, d)."""
        raise NotImplementedError

    @property
    def paired(self) -> bool:
        """Whether lists hold two numbers of a code in a byte."""
        return self.nbits == 4 and self.M > 1

    @property
    def code_rows(self) -> int:
        """Numbers of `dtype` that a code takes in a list."""
        return (self.M + 1) // 2 if self.paired else self.M

    def to_rows(self, codes: Codes) -> Codes:
        """Codes (n, M), or blocks (n, M, lanes) of them, as lists hold them: code_rows in place of M."""
        return _in_pairs(codes) if self.paired else codes

    def from_rows(self, rows: Codes) -> Codes:
        """What `to_rows` was given, from what lists hold; terms behind the codes are left out."""
        rows = rows[:, : self.code_rows]
        return _out_of_pairs(rows, self.M) if self.paired else rows

    @property
    def dtype(self) -> type[np.uint8 | np.uint16]:
        """The type of a number of a code."""
        return np.uint8 if self.nbits <= 8 else np.uint16

    def pack(self, codes: Codes) -> Packed:
        """Codes (n, M) -> uint8 (n, code_size): number after number, lowest bit first (as faiss stores them)."""
        if self.nbits == 8:
            return codes
        if self.nbits == 4:
            return _in_pairs(codes)
        if self.nbits == 16:
            return np.ascontiguousarray(codes, dtype="<u2").view(np.uint8)
        bits = (codes[:, :, None] >> np.arange(self.nbits, dtype=codes.dtype)) & 1
        return np.packbits(bits.astype(np.uint8).reshape(len(codes), self.M * self.nbits), axis=1, bitorder="little")

    def unpack(self, packed: Packed) -> Codes:
        """uint8 (n, code_size) -> codes (n, M)."""
        if self.nbits == 8:
            return packed
        if self.nbits == 4:
            return _out_of_pairs(packed, self.M)
        if self.nbits == 16:
            return np.ascontiguousarray(packed).view("<u2")
        bits = np.unpackbits(packed, axis=1, count=self.M * self.nbits, bitorder="little")
        codes = bits.reshape(len(packed), self.M, self.nbits) @ (2 ** np.arange(self.nbits, dtype=np.uint16))
        return codes.astype(self.dtype)

    def _trained(self) -> Floats:
        if self.codebooks is None:
            raise NotTrainedError("the quantizer is not trained: call train first")
        return self.codebooks


def _in_pairs(codes: Codes) -> Packed:
    """Numbers of 4 bits (n, M, ...) two a byte, (n, (M + 1) // 2, ...), the first in the lower half; 0 fills up."""
    pairs: Packed = codes[:, ::2].astype(np.uint8)
    pairs[:, : codes.shape[1] // 2] |= codes[:, 1::2].astype(np.uint8) << 4
    return pairs


def _out_of_pairs(pairs: Packed, M: int) -> Codes:
    """What `_in_pairs` was given, uint8 (n, M, ...)."""
    codes = np.empty((len(pairs), M, *pairs.shape[2:]), np.uint8)
    codes[:, ::2] = pairs & 15
    codes[:, 1::2] = pairs[:, : M // 2] >> 4
    return codes


class ProductQuantizer(Quantizer):
    """Cuts a vector into M parts and replaces each by the nearest of the ksub codewords of its part.

    With x = [x_1, ..., x_M] and codebooks y_m (section II-B):

        code_m(x) = argmin_j |x_m - y_m[j]|^2           (encode)
        x is rebuilt as [y_1[code_1], ..., y_M[code_M]] (decode)

    ksub^M different vectors are told apart with M * ksub codewords in memory.

    Parameters
    ----------
    d : int
        Dimension; a multiple of `M`.
    M : int
        Parts, so numbers in a code.
    nbits : int
        Bits of each number, 1 to 16.

    Attributes
    ----------
    ksub : int
        Codewords of a part, 2**nbits.
    dsub : int
        Dimension of a part, d / M.
    code_size : int
        Bytes of a packed code.
    codebooks : float32 array, shape (M, ksub, dsub), or None before training
    """

    __slots__ = ()

    def __init__(self, d: int, M: int, nbits: int = 8) -> None:
        super().__init__(d, M, nbits)
        if d % M:
            raise ValueError(f"d must be a multiple of M, got d={d}, M={M}")
        self.dsub = self.d // self.M

    def train(self, x: Floats, rng: np.random.Generator) -> None:
        """Find each part's codewords by k-means. `x` is float32 (n, d) with n >= ksub.

        Raises
        ------
        ValueError
            If there are fewer vectors than codewords.
        """
        if len(x) < self.ksub:
            raise ValueError(f"PQ with nbits={self.nbits} needs at least {self.ksub} training vectors, got n={len(x)}")
        self.codebooks = np.stack([in_groups(kmeans(self._part(x, m), self.ksub, rng)) for m in range(self.M)])

    def encode(self, x: Floats) -> Codes:
        """float32 (n, d) -> codes (n, M). Of two codewords at the same distance the smaller number is taken."""
        return nearest(x, self._parts(), "l2").astype(self.dtype)

    def encoder(self) -> Callable[[Floats], Codes]:
        """See `Quantizer.encoder`."""
        find = finder(self._parts(), "l2")
        return lambda x: find(x).astype(self.dtype)

    def decode(self, codes: Codes) -> Floats:
        """Codes (n, M) -> float32 (n, d)."""
        codebooks = self._trained()
        numbers = codes + np.arange(0, self.M * self.ksub, self.ksub)
        return codebooks.reshape(-1, self.dsub).take(numbers, axis=0).reshape(len(codes), self.d)

    def _parts(self) -> list[Points]:
        return [Points.of(codewords) for codewords in self._trained()]

    def _part(self, x: Floats, m: int) -> Floats:
        return np.ascontiguousarray(x[:, m * self.dsub : (m + 1) * self.dsub])
