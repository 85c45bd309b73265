"""What is a kind of what: WordNet's tree over ImageNet's classes, from the table that `make_hypernyms` writes."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

from features.wordnet.nouns import forms

TABLE = Path(__file__).with_name("hypernyms.tsv")


class Hypernyms:
    """Synsets by the nouns that name them, and what is above each.

    A synset is named by its offset in WordNet 3.0: ``02084071`` is "dog".

    Parameters
    ----------
    table : Path
        Lines of offset, lemmas (", " between them) and the offsets of the hypernyms, with tabs between them.
    """

    def __init__(self, table: Path = TABLE) -> None:
        self._above: dict[str, tuple[str, ...]] = {}
        self._named: defaultdict[str, list[str]] = defaultdict(list)
        self._lemmas: dict[str, tuple[str, ...]] = {}
        for line in table.read_text(encoding="utf-8").splitlines():
            synset, lemmas, above = line.split("\t")
            self._above[synset] = tuple(above.split())
            self._lemmas[synset] = tuple(lemmas.split(", "))
            for lemma in dict.fromkeys(lemmas.lower().split(", ")):
                self._named[lemma].append(synset)

    def __len__(self) -> int:
        return len(self._above)

    def synsets(self, text: str) -> tuple[str, ...]:
        """The synsets that a text names as it stands, or else in the singular; empty where it names none."""
        return next((tuple(self._named[form]) for form in forms(text) if form in self._named), ())

    def lemmas(self, synset: str) -> tuple[str, ...]:
        """The nouns that name a synset of the table, the most usual first."""
        return self._lemmas[synset]

    def closure(self, synset: str) -> frozenset[str]:
        """A synset and all that is above it; empty for one that the table does not hold."""
        found: set[str] = set()
        waiting = [synset] if synset in self._above else []
        while waiting:
            synset = waiting.pop()
            if synset not in found:
                found.add(synset)
                waiting.extend(self._above[synset])
        return frozenset(found)


@cache
def hypernyms() -> Hypernyms:
    """The table, read at the first call."""
    return Hypernyms()
