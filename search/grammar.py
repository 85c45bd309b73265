"""The grammar of the search box: from what a person types to a `Query`, and back.

=================================  =================================================================================
``red boat``                       words, together one part
``"a red boat"``, ``boa*``         a phrase, taken literally; the beginning of a word
``-night``, ``boat^2``             less like it; twice as much
``(red boat)^2``, ``red OR sea``   words as parts of their own
``image:photo.jpg``, ``like:7``    a picture by file or address, or by its id; ``#xywh=x,y,width,height`` for a piece of
                                   it, ``#foreground`` behind that to look at its object
``more:7``, ``less:9|12``          hits that are meant, and that are not: see `FeedbackPart`
``tag:x^2``, ``tag:~x``            a tag that is scored; one that was learnt
``label:cat|dog``, ``-label:cat``  only pictures whose field is one of these; all others
``size:>1mb``, ``year:2010..``     ``>``, ``>=``, ``<``, ``<=``, ``!=``, between, also open at one end
``name:IMG*``, ``name:*7*``        begins with, contains; ``name:""`` is empty, ``name:*`` is not
=================================  =================================================================================

A backslash takes its special meaning from the character after it. Whatever is typed can be read; what of it cannot be
searched is among the query's `faults`, or shows when a collection is asked.
"""

from __future__ import annotations

import base64
import math
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from lark import Lark, Token, Transformer, v_args

from features.collection.conditions import NOTHING, AllOf, AnyOf, Comparison, Condition, FilterError, Not, Scalar, Tree
from search.errors import QueryError
from search.filters import Filter
from search.query import Box, FeedbackPart, ImagePart, Part, Picture, Query, TagPart, TextPart, clean_text

MAX_TEXT = 10_000  # characters; people type a few dozen

_SPACE = r"\s\x00-\x1f\x7f-\x9f"
_NUMBER = r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
_END = rf"(?=[{_SPACE}()\"]|\Z)"
_NO_NUMBER = r"[+-]?(?:[nN][aA][nN]|[iI][nN][fF](?:[iI][nN][iI][tT][yY])?)"  # refused, in a sentence
_WEIGHT = rf"\^(?:{_NUMBER}|{_NO_NUMBER}){_END}"
_QUOTED = r"\"(?:\\.|[^\"\\])*(?:\"|\\?\Z)"
_LETTER = rf"\\(?:.|\Z)|[^{_SPACE}\"()\\]"
_VALUE = rf"(?:{_QUOTED}|(?!{_WEIGHT})(?:{_LETTER}))"

_GRAMMAR = rf"""
start: conjunction (_OR conjunction)*
conjunction: (weighted | negated)*
negated: _NOT weighted
weighted: atom WEIGHT?
?atom: WORD -> word
     | PHRASE -> phrase
     | FIELD VALUE -> field
     | "(" start ")"
_OR.3: /OR{_END}/s
_NOT.2: /-(?=[^{_SPACE})\-])/s
WEIGHT.2: /(?<![{_SPACE}]){_WEIGHT}/s
FIELD.2: /(?:[^\W\d]|\\.)(?:[\w.\-]|\\.)*:(?={_VALUE})/s
VALUE: /{_VALUE}+/s
WORD: /(?:{_LETTER})(?:(?!{_WEIGHT})(?:{_LETTER}))*/s
PHRASE: /{_QUOTED}\*?/s
%ignore /[{_SPACE}]+/
"""

_BRACKETS = re.compile(rf"{_QUOTED}|\\.|[()]", re.DOTALL)
_CROP = re.compile(r"#xywh=([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})\Z")
_FOREGROUND = "#foreground"
_SIGNS: dict[str, Comparison] = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt"}
_FORMS: dict[str, str] = {
    **{comparison: f"{sign}{{}}" for sign, comparison in _SIGNS.items()},
    **{"eq": "{}", "contains": "*{}*", "prefix": "{}*", "suffix": "*{}"},
}
_TAGS = ("tag", "tags")
_VERDICTS = ("more", "less")
_PICTURES = ("image", "like", *_VERDICTS)

# What a quote or a backslash makes literal has no meaning beyond itself, so it is read as another character for as long
# as signs are looked for: one of the halves of characters, which no text has.
_SHIELD = 0xD800
_EMPTY = chr(_SHIELD + 128)  # beyond the characters that are shielded, of which NUL is the first
_SURROGATES = re.compile("[\ud800-\udfff]")


def parse(text: str) -> Query:
    """The query that a person means. It never fails: what cannot be searched is said by `Query.check`."""
    if len(text) > MAX_TEXT:
        return Query(faults=(f"a query has at most {MAX_TEXT:,} characters, got {len(text):,}",))
    reading: _Reading = _parser().parse(_balanced(_SURROGATES.sub("\ufffd", text)))  # type: ignore[assignment]
    try:
        filter, faults = Filter(where=reading.tree), reading.faults
    except QueryError as error:
        filter, faults = Filter(), (*reading.faults, str(error))
    try:
        return Query(reading.parts, filter, faults=faults)
    except QueryError as error:  # judgements of several pieces that contradict one another
        parts = tuple(part for part in reading.parts if not isinstance(part, FeedbackPart))
        return Query(parts, filter, faults=(*faults, str(error)))


def write(query: Query) -> str:
    """What a person would type for the parts and the filter of a query: `parse` reads it as the same.

    Raises
    ------
    QueryError
        There is no word for it: decoded pixels, or a space to ask in.
    """
    if query.faults:
        raise QueryError("; ".join(query.faults))
    return " ".join(write_terms(query))


def write_terms(query: Query) -> list[str]:
    """The pieces of `write`: one of each part, then one of each condition that must hold. Any of them may be left out.

    Raises
    ------
    QueryError
        There is no word for a part: see `write`.
    """
    written, bare = [], True
    for part in query.parts:
        if part.space is not None:
            raise QueryError(f"the search box cannot say that a part is asked in the space {part.space}")
        is_bare = bare and isinstance(part, TextPart) and part.match == "words" and part.weight == 1
        bare = bare and not is_bare  # words without a sign all belong together
        written.append(_written_words(part.text) if is_bare and isinstance(part, TextPart) else _written_part(part))
    return [*written, *map(_written_tree, query.filter.conditions)]


def write_weighable(part: Part) -> str:
    """A part as it is written where a sign comes before it or a weight, ``^2``, after it."""
    written = _written_part(replace(part, weight=1.0)).removesuffix("^1")
    return f"({written})" if isinstance(part, FeedbackPart) else written


def write_judgements(part: FeedbackPart) -> list[str]:
    """The pieces of what `write` says of judgements, one of each picture."""
    weight = _written_weight(part)
    judged = [*((id, "more") for id in part.more), *((id, "less") for id in part.less)]
    return [f"{verdict}:{id}{weight}" for id, verdict in judged]


@dataclass(frozen=True)
class _Reading:
    """What a piece of the text says; a `word` is not a part yet, as it may belong to its neighbours."""

    parts: tuple[Part, ...] = ()
    tree: Tree | None = None
    faults: tuple[str, ...] = ()
    word: str = ""

    def times(self, weight: float) -> _Reading:
        parts = (TextPart(self.word),) if self.word else self.parts
        try:
            parts = tuple(replace(part, weight=part.weight * weight) for part in parts)
        except QueryError as error:
            return _Reading(faults=(*self.faults, str(error)))
        return replace(self, parts=parts, word="")


@v_args(inline=True)
class _Reader(Transformer[Token, _Reading]):
    """Makes a `_Reading` of each piece, from the inside out and without recursion, however deep the brackets are."""

    def start(self, *alternatives: _Reading) -> _Reading:
        told = [each for each in alternatives if each.parts or each.tree is not None or each.faults]
        if len(told) == 1:
            return told[0]
        parts = tuple(part for each in told for part in each.parts)
        faults = tuple(fault for each in told for fault in each.faults)
        trees = tuple(each.tree for each in told if each.tree is not None)
        if trees and (parts or len(trees) < len(told)):
            faults += (
                "OR stands between filters, or between words and pictures, which order and let all through; "
                "not between both",
            )
        return _Reading(parts, AnyOf(trees) if trees else None, faults)

    def conjunction(self, *readings: _Reading) -> _Reading:
        parts: list[Part] = []
        words = [each.word for each in readings if each.word]
        for each in readings:
            if each.word and words:
                parts.append(TextPart(" ".join(words)))
                words = []
            parts.extend(each.parts)
        trees = tuple(each.tree for each in readings if each.tree is not None)
        faults = tuple(fault for each in readings for fault in each.faults)
        return _Reading(tuple(parts), AllOf(trees) if len(trees) > 1 else next(iter(trees), None), faults)

    def negated(self, reading: _Reading) -> _Reading:
        tree = None if reading.tree is None else Not(reading.tree)
        return replace(reading.times(-1), tree=tree)

    def weighted(self, reading: _Reading, weight: Token | None = None) -> _Reading:
        if weight is None:
            return reading
        factor, tree = float(weight[1:]), reading.tree
        if not math.isfinite(factor):
            return _Reading(faults=(f"a weight must be a finite number, got {weight[1:]}",))
        if tree is None:
            return reading.times(factor)
        if isinstance(tree, Condition) and tree.field in _TAGS and tree.comparison in ("eq", "any"):
            return _attempt(lambda: tuple(TagPart(str(tag)) for tag in _values(tree))).times(factor)
        said = "a filter takes no weight, as it lets through or not; words, pictures and tags take one"
        return replace(reading, faults=(*reading.faults, said))

    def word(self, token: Token) -> _Reading:
        word = _shielded(token)
        if len(word) > 1 and word.endswith("*"):
            return _attempt(lambda: (TextPart(_plain(word[:-1]), match="prefix"),))
        return _Reading(word=clean_text(_plain(word)))

    def phrase(self, token: Token) -> _Reading:
        word = _shielded(token)
        phrase = clean_text(_plain(word.removesuffix("*")))
        return _Reading((TextPart(phrase, match="prefix" if word.endswith("*") else "phrase"),) if phrase else ())

    def field(self, token: Token, value: Token) -> _Reading:
        name, wanted = token[:-1], _shielded(value)
        if name == "image":
            return _attempt(lambda: (_picture(wanted),))
        if name == "like":
            return _attempt(lambda: (_like(wanted),))
        if name in _VERDICTS:
            return _attempt(lambda: (_judged(str(name), wanted),))
        name = _plain(_shielded(name))
        if name in _TAGS and wanted.startswith("~"):
            return _attempt(lambda: (TagPart(_plain(wanted[1:]), learned=True),))
        try:
            return _Reading(tree=_condition(name, wanted))
        except FilterError as error:
            return _Reading(faults=(str(error),))


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", transformer=_Reader())


def _balanced(text: str) -> str:
    """The text with a backslash before each bracket that has no partner."""
    opened: list[int] = []
    alone: list[int] = []
    for match in _BRACKETS.finditer(text):
        if match[0] == "(":
            opened.append(match.start())
        elif match[0] == ")":
            if opened:
                opened.pop()
            else:
                alone.append(match.start())
    pieces, last = [], 0
    for place in sorted(opened + alone):
        pieces += [text[last:place], "\\"]
        last = place
    return "".join([*pieces, text[last:]])


def _attempt(parts: Callable[[], tuple[Part, ...]]) -> _Reading:
    try:
        return _Reading(parts())
    except QueryError as error:
        return _Reading(faults=(str(error),))


def _shielded(text: str) -> str:
    """The text without quotes and backslashes, what they made literal as other characters."""
    return re.sub(rf"({_QUOTED})|\\(.)", lambda match: _shield(match[1], match[2]), text, flags=re.DOTALL)


def _shield(quoted: str | None, escaped: str | None) -> str:
    if quoted is None:
        inner = escaped or ""
    else:
        body = quoted[1:-1] if re.fullmatch(r"\"(?:\\.|[^\"\\])*\"", quoted, re.DOTALL) else quoted[1:]
        inner = re.sub(r"\\([\"\\])", r"\1", body)  # a path of Windows keeps its backslashes
        if not inner:
            return _EMPTY
    return "".join(chr(_SHIELD + ord(letter)) if ord(letter) < 128 else letter for letter in inner)


def _plain(shielded: str) -> str:
    """What a shielded text says."""
    return _SURROGATES.sub(lambda match: chr(ord(match[0]) - _SHIELD), shielded.replace(_EMPTY, ""))


def _picture(wanted: str) -> ImagePart:
    crop: Box | None = None
    foreground, wanted = wanted.endswith(_FOREGROUND), wanted.removesuffix(_FOREGROUND)
    if match := _CROP.search(wanted):
        x, y, width, height = map(int, match.groups())
        crop, wanted = (x, y, x + width, y + height), wanted[: match.start()]
    return ImagePart(_plain(wanted), crop=crop, foreground=foreground)


def _like(wanted: str) -> ImagePart:
    part = _picture(wanted)
    id = str(part.picture)
    if not re.fullmatch(r"[0-9]{1,18}", id):
        raise QueryError(f"like: takes the number of a picture of the collection, got {id!r}")
    return replace(part, picture=int(id))


def _judged(verdict: str, wanted: str) -> FeedbackPart:
    ids = [_plain(each) for each in wanted.split("|")]
    if wrong := [id for id in ids if not re.fullmatch(r"[0-9]{1,18}", id)]:
        raise QueryError(f"{verdict}: takes the number of a picture of the collection, got {wrong[0]!r}")
    judged = tuple(map(int, ids))
    return FeedbackPart(more=judged) if verdict == "more" else FeedbackPart(less=judged)


def _values(condition: Condition) -> Sequence[Scalar]:
    value = condition.value
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _condition(field: str, wanted: str) -> Tree:
    """What a field must be like, by the signs that are not shielded."""
    sign = re.match(r"!=|>=|<=|[<>=]", wanted)
    rest = wanted[sign.end() :] if sign else wanted
    if sign and sign[0] in _SIGNS:
        return Condition(field, _SIGNS[sign[0]], _scalar(rest))
    tree = _alternatives(field, rest)
    return Not(tree) if sign and sign[0] == "!=" else tree


def _alternatives(field: str, wanted: str) -> Tree:
    first, dots, last = wanted.partition("..")
    if dots and "|" not in wanted and (first or last):
        if not first:
            return Condition(field, "lte", _scalar(last))
        if not last:
            return Condition(field, "gte", _scalar(first))
        return Condition(field, "between", (_scalar(first), _scalar(last)))
    equal: list[Scalar] = []
    trees: list[Tree] = []
    for each in filter(None, wanted.split("|")):
        inner = each.strip("*")
        if inner == each:
            equal.append(_scalar(each))
        elif not inner:
            trees.append(Not(Condition(field, "empty")))
        elif each.startswith("*"):
            trees.append(Condition(field, "contains" if each.endswith("*") else "suffix", _plain(inner)))
        else:
            trees.append(Condition(field, "prefix", _plain(inner)))
    if equal or not trees:
        trees.append(Condition(field, "any", tuple(equal)))
    return AnyOf(tuple(trees)) if len(trees) > 1 else trees[0]


def _scalar(shielded: str) -> Scalar:
    """A number where it is written as one is, without quotes; text otherwise."""
    if len(shielded) < 400 and re.fullmatch(_NUMBER, shielded):
        for kind in (int, float):
            try:
                number = kind(shielded)
            except ValueError:
                continue
            if str(number) == shielded:
                return number
    return _plain(shielded)


def _written_part(part: Part) -> str:
    by_weight = _written_weight(part)
    if isinstance(part, FeedbackPart):
        return " ".join(write_judgements(part))
    if isinstance(part, ImagePart):
        written = _written_picture(part)
    elif isinstance(part, TagPart):
        written = f"tag:{'~' if part.learned else ''}{_written_value(part.tag)}"
        by_weight = by_weight if part.learned else by_weight or "^1"
    elif isinstance(part, TextPart) and part.match == "words":
        written = _written_words(part.text)
        written = f"({written})" if " " in written else written
        by_weight = by_weight or ("^1" if part.weight > 0 else "")
    elif isinstance(part, TextPart):
        written = f"{_quoted(part.text)}{'*' if part.match == 'prefix' else ''}"
    else:
        raise QueryError(f"the search box cannot say a {type(part).__name__}")
    return f"{'-' if part.weight < 0 else ''}{written}{by_weight}"


def _written_weight(part: Part) -> str:
    weight = abs(part.weight)
    return "" if weight == 1 else f"^{repr(weight).removesuffix('.0')}"


def _written_picture(part: ImagePart) -> str:
    picture: Picture = part.picture
    if isinstance(picture, np.ndarray):
        raise QueryError("the search box cannot say decoded pixels: give the file, or its bytes")
    if isinstance(picture, bytes):
        written = f"image:data:;base64,{base64.b64encode(picture).decode()}"
    elif isinstance(picture, int):
        written = f"like:{picture}"
    else:
        written = f"image:{_written_value(os.fsdecode(picture))}"
    if part.crop is not None:
        left, top, right, bottom = part.crop
        written += f"#xywh={left},{top},{right - left},{bottom - top}"
    return f"{written}{_FOREGROUND if part.foreground else ''}"


def _written_words(text: str) -> str:
    return " ".join(re.sub(r"^-|^OR$|[\\\"():^*]", r"\\\g<0>", word) for word in text.split())


def _quoted(text: str) -> str:
    escaped = re.sub(r"[\\\"]", r"\\\g<0>", text)
    return f'"{escaped}"'


def _written_tree(tree: Tree) -> str:
    if tree == NOTHING:
        return "label:|"
    if isinstance(tree, Not):
        return f"-{_written_tree(tree.of)}"
    if isinstance(tree, AllOf | AnyOf):
        return f"({(' ' if isinstance(tree, AllOf) else ' OR ').join(map(_written_tree, tree.of))})"
    field = re.sub(r"[^\w.\-]|^\W|^\d", lambda match: "\\" + match[0], tree.field)
    field = f"\\{field}" if field in _PICTURES else field
    values = [_written_value(value) for value in _values(tree)]
    if tree.comparison == "empty":
        wanted = '""'
    elif tree.comparison in ("any", "between"):
        wanted = ("|" if tree.comparison == "any" else "..").join(values)
    else:
        wanted = _FORMS[tree.comparison].format(*values)
    return f"{field}:{wanted}"


def _written_value(value: Scalar) -> str:
    if not isinstance(value, str):
        return repr(value)
    # A dot at the end would be the first of the two between the ends of a range.
    is_plain = re.fullmatch(r"[^\W_]([\w./-]*[\w/-])?", value) and ".." not in value and isinstance(_scalar(value), str)
    return value if is_plain else _quoted(value)
