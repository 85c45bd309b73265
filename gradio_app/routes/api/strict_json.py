"""JSON as strangers send it: read only where there is one way to read it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

MAX_DEPTH = 64
MAX_DIGITS = 18  # of a whole number: what fits 64 bits whatever its digits


class JsonError(ValueError):
    """It cannot be read, or in more ways than one; the message is a sentence for who sent it."""


def parse(text: bytes | str) -> Any:
    """The value that a JSON text stands for.

    Raises
    ------
    JsonError
        It is no JSON (RFC 8259), says a key twice, or holds NaN, a number that is no 64-bit one, half a character, or a
        nest deeper than `MAX_DEPTH`.
    """
    try:
        read = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(
            read,
            object_pairs_hook=_without_doubles,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=_no_number,
        )
    except JsonError:
        raise
    except RecursionError as error:
        raise JsonError(f"the JSON is nested deeper than {MAX_DEPTH} levels") from error
    except UnicodeDecodeError as error:
        raise JsonError("the JSON is not written in UTF-8") from error
    except ValueError as error:
        raise JsonError(f"this is no JSON: {error}") from error
    _check(value)
    return value


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonError(f"the JSON says {twice[:80]!r} twice in one object")
    return read


def _whole(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise JsonError(f"a whole number has at most {MAX_DIGITS} digits, got {len(digits.lstrip('-'))}")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise JsonError("a number is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise JsonError(f"JSON has no {name}")


def _check(value: Any) -> None:
    """Look at every value, without recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            if isinstance(each, str):
                _check_text(each)
            elif isinstance(each, dict):
                _check_keys(each)
                below.extend(each.values())
            elif isinstance(each, list):
                below.extend(each)
        if not below:
            return
        level = below
    raise JsonError(f"the JSON is nested deeper than {MAX_DEPTH} levels")


def _check_keys(keys: Iterable[str]) -> None:
    for key in keys:
        _check_text(key)


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise JsonError("a text in the JSON holds half a character") from error
