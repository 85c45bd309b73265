"""What the public entry points do to their arguments, once: convert, or refuse with a message that says all."""

from __future__ import annotations

import math
import operator
from collections.abc import Set
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Metric = Literal["l2", "ip", "cosine"]
METRICS: tuple[str, ...] = get_args(Metric)
_FLOAT = np.dtype(np.float32)
LARGEST = int(np.iinfo(np.int64).max)


class NotTrainedError(RuntimeError):
    """The index was asked for something that needs `train` first."""


class NotTunedError(RuntimeError):
    """A search was asked for a recall that the index was not tuned for: see `tune`."""


class IndexFileError(ValueError):
    """An index file is truncated, damaged, of another kind, or of a version this code does not know."""


def as_vectors(x: Any, d: int, name: str = "x") -> Floats:
    """Vectors as a C-ordered float32 array.

    Parameters
    ----------
    x : array_like, shape (n, d)
        Any real number type and any layout. Not copied if it is already what is wanted.
    d : int
        The dimension the caller needs.
    name : str
        The argument's name, for the message.

    Returns
    -------
    float32 array, shape (n, d)

    Raises
    ------
    TypeError
        If `x` does not hold real numbers.
    ValueError
        If the shape is not (n, d), or a number is NaN, infinite or beyond float32.
    """
    array = as_array(x, name)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} must hold real numbers, got dtype {_described(array, x)}")
    if array.ndim != 2 or array.shape[1] != d:
        raise ValueError(f"{name} must have shape (n, {d}), got {array.shape}")
    if array.dtype != _FLOAT or not array.flags.c_contiguous:
        with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused below
            array = np.ascontiguousarray(array, dtype=np.float32)
    # A finite sum of squares is the cheap proof; numbers beyond 1e19 need the other.
    if math.isfinite(np.vdot(array, array)) or np.logical_and.reduce(np.isfinite(array), axis=None):
        return array
    finite = np.isfinite(array).all(axis=1)
    raise ValueError(
        f"{name} must be finite in float32, but {np.count_nonzero(~finite)} of its {len(array)} rows hold NaN or "
        f"infinity (the first is row {int(np.argmin(finite))})"
    )


def check_stored(vectors: npt.NDArray[Any], unit: bool) -> None:
    """That vectors (n, d) read from a file are finite and, with `unit`, of length 1 or zero.

    Raises
    ------
    ValueError
        If they are not. The message names the first row that is wrong.
    """
    slack = 1e-5 if vectors.dtype == _FLOAT else 4e-3  # what rounding the numbers makes of the square of a length of 1
    step = max(1, (1 << 20) // vectors.shape[1])
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", block, block)
        wrong = ~np.isfinite(squares)
        if wrong.any():  # squares may leave float32 where numbers do not
            wrong &= ~np.isfinite(block).all(axis=1)
        if unit:
            wrong |= (np.abs(squares - 1) > slack) & (squares != 0)
        if wrong.any():
            wanted = "finite, of length 1 or zero" if unit else "finite"
            raise ValueError(f"vectors must be {wanted}, but row {start + int(np.argmax(wrong))} is not")


def read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same numbers in an array that cannot be written to, copied if somebody else could write to them."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            array = array.copy()
            array.flags.writeable = False  # or a view of it could be made writeable again
            break
        base = base.base
    array = array.view()
    array.flags.writeable = False
    return array


def as_array(values: Any, name: str) -> npt.NDArray[Any]:
    """An array of what is given, or a sentence that says why there is none."""
    if type(values) is np.ndarray and values.dtype != object:
        return values
    if hasattr(values, "toarray") and not isinstance(values, np.ndarray):
        raise TypeError(f"{name} must be dense, got a sparse {type(values).__name__}: convert it with .toarray()")
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise TypeError(f"{name} must not have masked values: fill them, or leave their rows out")
    try:
        array = np.asarray(values)
        if array.dtype == object and array.ndim == 1 and len(array) and not np.isscalar(array[0]):
            array = np.stack([np.asarray(row) for row in array])  # a column of arrays, as pandas has
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be an array, but what was given makes none: {error}") from None
    return array


def _described(array: npt.NDArray[Any], values: Any) -> str:
    """The dtype of an array, and what is in it if the dtype does not tell."""
    if array.dtype != object:
        return str(array.dtype)
    kinds = sorted({type(value).__name__ for value in array.ravel()[:100].tolist()})
    return f"object ({type(values).__name__} of {', '.join(kinds)})"


def as_ids(ids: Any, name: str = "ids", *, n: int | None = None) -> Ids:
    """Ids as an int64 array, shape (n,): distinct if `n` is given, and never negative (-1 means "no neighbour").

    Raises
    ------
    TypeError
        If `ids` does not hold whole numbers.
    ValueError
        If the shape is not (n,), an id is negative or beyond int64, or, with `n`, one comes twice.
    """
    if isinstance(ids, Set):
        if n is not None:
            raise TypeError(f"{name} must be in an order, which a {type(ids).__name__} has not: give a list")
        ids = list(ids)
    array = as_array(ids, name)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold whole numbers, got dtype {_described(array, ids)}")
    if array.ndim != 1 or (n is not None and len(array) != n):
        raise ValueError(f"{name} must have shape ({'n' if n is None else n},), got {array.shape}")
    if array.size and (array.min() < 0 or array.max() > LARGEST):
        raise ValueError(f"{name} must be from 0 to 2**63 - 1, got {array.min()} to {array.max()}")
    array = np.ascontiguousarray(array, dtype=np.int64)
    if n is not None and not (array[1:] > array[:-1]).all():
        values, counts = np.unique(array, return_counts=True)
        if len(values) < n:
            raise ValueError(f"{name} must be distinct, but {values[counts > 1][0]} comes {counts.max()} times")
    return array


def positive_int(value: Any, name: str, *, largest: int = LARGEST) -> int:
    """`value` as an int from 1 to `largest`.

    Raises
    ------
    TypeError
        If it is not a whole number (a bool is not one).
    ValueError
        If it is out of range.
    """
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if not 1 <= number <= largest:
        wanted = "at least 1" if number < 1 and largest == LARGEST else f"from 1 to {largest}"
        raise ValueError(f"{name} must be {wanted}, got {number}")
    return number


def as_metric(value: Any) -> Metric:
    """`value` if it is one of the three metrics.

    Raises
    ------
    ValueError
        If it is not.
    """
    if value not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(map(repr, METRICS))}, got {value!r}")
    return value
