"""What a visitor types, as a query that opens nothing of this computer, and how it was understood.

Text from the page is read by `search.grammar` alone. A picture in it is one of the collection (``like:7``), one at an
address of the public web, or one that this visitor brought along, by its token; a file of the server is none of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from features.collection.conditions import conditions_of
from features.collection.fields import known_field
from gradio_app.markup import printable
from gradio_app.session import QueryPicture, Result, Session
from search.captions import MEANING, WORDS
from search.engine import SearchEngine
from search.errors import QueryError
from search.filters import Filter
from search.hits import PartAnswer
from search.query import FeedbackPart, ImagePart, Part, Query, TagPart, TextPart, is_address

MAX_ADDRESSES = 3  # of a query: each may take seconds
UPLOADED = "upload:"
"""Before the name of a picture that a visitor brought along: see `QueryPicture.upload`."""
MAX_FETCHED = 8  # pictures from the web that a session keeps


@dataclass(frozen=True)
class Term:
    """A piece of what was typed, as the page shows it.

    Attributes
    ----------
    said : str
        For people.
    written : str
        As it is typed; the terms of a query with spaces between them are the query.
    weighable : str
        As it is typed before a weight; "" for what takes none.
    weight : float
        Below 0 for what should be unlike it.
    known : bool
        Whether it can be searched at all.
    place : int or None
        Of the part of the query that it is, or is a piece of; None for what the pictures must be like.
    verdict : str
        "more" or "less" of a hit that was judged.
    """

    said: str
    written: str
    weighable: str = ""
    weight: float = 1.0
    known: bool = True
    place: int | None = None
    verdict: str = ""


def parse(text: str) -> Query:
    """What a visitor typed; see `search.grammar.parse`."""
    from search.grammar import parse  # its parser takes a while to load, and whoever searches by pictures needs none

    return parse(text)


def learned_tag_term(tag: str) -> str:
    """What is typed to ask for a learned tag."""
    from search.grammar import write

    return write(Query((TagPart(tag, learned=True),)))


def picture_term(picture: QueryPicture, engine: SearchEngine, weight: float = 1.0) -> str:
    """What is typed to have a picture with its box as a part of a query: it can be typed again tomorrow."""
    from search.grammar import write

    name, number, _ = (*picture.source.split("/"), "", "")[:3]
    named: int | str = int(number) if picture.source and name == engine.name else UPLOADED + picture.upload
    return write(Query((ImagePart(named, crop=picture.box, foreground=picture.foreground, weight=weight),)))


def fetchable(
    query: Query,
    session: Session,
    fetch: Callable[[str], bytes],
    brought_along: Callable[[str], QueryPicture] | None = None,
) -> Query:
    """The same query with its pictures in place of their addresses and tokens.

    Parameters
    ----------
    brought_along : callable, optional
        Gives the picture that is named as `QueryPicture.upload`.
    fetch : callable
        Gives the picture at an address of the web, or raises a ValueError that says why not.

    Raises
    ------
    QueryError
        A picture is none of those that may be named.
    """
    addresses = {part.picture for part in query.parts if isinstance(part, ImagePart) and is_address(part.picture)}
    if len(addresses) > MAX_ADDRESSES:
        raise QueryError(f"a query takes at most {MAX_ADDRESSES} pictures from the web, got {len(addresses)}")
    return replace(query, parts=tuple(_with_picture(part, session, fetch, brought_along) for part in query.parts))


def _with_picture(
    part: Part,
    session: Session,
    fetch: Callable[[str], bytes],
    brought_along: Callable[[str], QueryPicture] | None,
) -> Part:
    if not isinstance(part, ImagePart) or isinstance(part.picture, int):
        return part
    named = part.picture
    if not isinstance(named, str):
        raise QueryError("a picture cannot be typed: choose it below, or give its address on the web")
    if is_address(named):
        return replace(part, picture=_fetched(named, session, fetch))
    if named.startswith(UPLOADED) and brought_along is not None:
        return replace(part, picture=brought_along(named.removeprefix(UPLOADED)).path)
    brought = session.picture_of(named)
    if brought is None:
        raise QueryError(
            f"image: takes the address of a picture on the web, such as https://example.org/a.jpg, not {named!r}; "
            "a picture of yours is chosen below"
        )
    return replace(part, picture=brought.path if part.crop is not None or brought.box is None else brought.pixels())


def _fetched(address: str, session: Session, fetch: Callable[[str], bytes]) -> bytes:
    content = session.fetched.get(address)
    if content is None:
        try:
            content = fetch(address)
        except ValueError as error:
            raise QueryError(f"{address} cannot be searched with: {error}") from error
        kept = list(session.fetched.items())[1 - MAX_FETCHED :]
        session.fetched = {**dict(kept), address: content}
    return content


def terms_of(query: Query, engine: SearchEngine) -> list[Term]:
    """How a query was understood: its parts, each judged hit for itself, then what the pictures must be like."""
    from search.grammar import write_judgements, write_terms, write_weighable

    written = write_terms(replace(query, faults=()))
    terms: list[Term] = []
    for place, (part, text) in enumerate(zip(query.parts, written, strict=False)):
        if isinstance(part, FeedbackPart):
            judged = [*((id, "more") for id in part.more), *((id, "less") for id in part.less)]
            for (id, verdict), piece in zip(judged, write_judgements(part), strict=True):
                terms.append(Term(_called(id, engine), piece, place=place, verdict=verdict))
        else:
            terms.append(Term(said_of_part(part, engine), text, write_weighable(part), part.weight, place=place))
    conditions = query.filter.conditions
    own = engine.store.annotations.fields() if conditions and engine.store.has_annotations else {}
    return terms + [
        Term(
            str(Filter(where=tree)).removeprefix("pictures ").removeprefix("whose "),
            text,
            known=all(known_field(each.field) or each.field.lower() in own for each in conditions_of(tree)),
        )
        for tree, text in zip(conditions, written[len(query.parts) :], strict=True)
    ]


def filter_of(result: Result) -> Filter:
    """Which pictures a search was among: those with the chosen labels, as far as the words let them through."""
    labels = result.request.labels
    chosen = Filter.of({"label": labels} if labels else None)
    return chosen & parse(result.asked.words).filter if result.asked.words else chosen


def picture_of(result: Result) -> QueryPicture | None:
    """The one picture that was searched with: the one on the page, or the one of the collection that was typed."""
    if result.asked.picture is not None or result.hits.parts:
        return result.asked.picture
    typed = [part.picture for part in parse(result.asked.words).parts if isinstance(part, ImagePart)]
    return QueryPicture.of(result.engine, typed[0]) if typed and isinstance(typed[0], int) else None


def parts_of(result: Result) -> list[str]:
    """What each part of a query that was answered is called; none where it is one picture."""
    if not result.hits.parts:
        return []
    own = [] if result.asked.picture is None else [result.asked.picture.name]
    return [*(_named(part, result.engine) for part in parse(result.asked.words).parts), *own]


def notes_of(result: Result) -> list[str]:
    """What a person should know of an answer: what was not answered or not understood, and of which part."""
    parts, names = result.hits.parts, parts_of(result)
    notes = [
        (name, note) for name, part in zip(names, parts, strict=True) for note in (part.unanswered, *part.hints) if note
    ]
    return [f"“{name}”: {note}" if len(parts) > 1 else note for name, note in notes]


_WAYS = {MEANING: "captions and tags, by meaning", WORDS: "captions, tags and names, by words"}


def way_called(space: str, way: str) -> str:
    """What a way of asking words is called."""
    return _WAYS.get(way, f"what is seen (space {space})")


def asked_in(answer: PartAnswer) -> str:
    """Where words were asked, with the weight of each; "" of what is not asked in several ways."""
    ways = [f"{way_called(voice.space, voice.way)} × {voice.weight:g}" for voice in answer.voices]
    return "; ".join(ways) if len(ways) > 1 else ""


def judgements_of(query: Query) -> str:
    """How many hits are judged, in words; "" for none."""
    part = query.feedback
    counts = () if part is None else ((len(part.more), "check", "checks"), (len(part.less), "cross", "crosses"))
    return " and ".join(f"{count} {one if count == 1 else many}" for count, one, many in counts if count)


def _named(part: Part, engine: SearchEngine) -> str:
    if isinstance(part, FeedbackPart):
        return f"your {judgements_of(Query((part,)))}"
    return f"not {said_of_part(part, engine)}" if part.weight < 0 else said_of_part(part, engine)


def _called(id: int, engine: SearchEngine) -> str:
    items = engine.store.items
    return printable(items[id].path.name) if 0 <= id < len(items) else str(id)


def said_of_part(part: Part, engine: SearchEngine) -> str:
    """A part of a query in words."""
    if isinstance(part, TextPart):
        form = {"words": "{}", "phrase": "“{}”", "prefix": "{}…"}[part.match]
        return form.format(part.text)
    if isinstance(part, TagPart):
        return f"{'learned ' if part.learned else ''}tag {part.tag}"
    picture = part.picture if isinstance(part, ImagePart) else None
    piece = "a piece of " if isinstance(part, ImagePart) and part.crop is not None else ""
    piece = f"the object in {piece}" if isinstance(part, ImagePart) and part.foreground else piece
    if isinstance(picture, int):
        return f"like {piece}{_called(picture, engine)}"
    called = (
        printable(picture.split("/")[-1] if picture.startswith(UPLOADED) else picture)
        if isinstance(picture, str)
        else ""
    )
    return f"{piece}{called or 'a picture'}"
