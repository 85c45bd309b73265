"""Words as a person types them, and the form in which WordNet lists a noun."""

from __future__ import annotations

from collections.abc import Iterator

_ARTICLES = ("a ", "an ", "the ", "some ")
# Those of WordNet's morphy(7WN) for nouns, and two that its list of exceptions holds word by word.
_ENDINGS = (
    ("ies", "y"),
    ("ves", "f"),
    ("men", "man"),
    ("ses", "s"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("oes", "o"),
    ("s", ""),
)


def forms(text: str) -> Iterator[str]:
    """The forms under which a noun may be listed, likeliest first: as it is, without its article, in the singular."""
    noun = " ".join(text.lower().split())
    yield noun
    for article in _ARTICLES:
        if noun.startswith(article):
            noun = noun.removeprefix(article)
            yield noun
            break
    if not noun.endswith("ss"):
        for plural, singular in _ENDINGS:
            if noun.endswith(plural) and len(noun) > len(plural):
                yield noun.removesuffix(plural) + singular
