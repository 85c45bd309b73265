"""Make ``hypernyms.tsv`` from WordNet 3.0: what is a kind of what, among ImageNet's classes and all that is above them.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet
    python -m features.wordnet.make_hypernyms wordnet/usr/share/wordnet/data.noun

It was made of Debian's package, version 1:3.0-37. A line has a synset's offset in ``data.noun``, its lemmas and the
offsets of the synsets that it is a kind, or an instance, of. The format of ``data.noun`` is described in wndb(5WN).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from features.wordnet.definitions import definitions
from features.wordnet.hypernyms import TABLE

_POINTERS = ("@", "@i")  # hypernym and instance hypernym


class Synset(NamedTuple):
    """One line of ``data.noun``."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]


def read_nouns(path: Path) -> dict[str, Synset]:
    """All synsets of a ``data.noun`` by offset."""
    with path.open(encoding="utf-8") as file:
        return dict(_parsed(line) for line in file if not line.startswith("  "))  # the licence is indented


def _parsed(line: str) -> tuple[str, Synset]:
    fields = line.partition(" | ")[0].split()
    count = int(fields[3], 16)
    lemmas = tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2])
    first = 5 + 2 * count
    pointers = fields[first : first + 4 * int(fields[first - 1])]
    symbols, offsets, kinds = pointers[::4], pointers[1::4], pointers[2::4]
    hypernyms = tuple(
        offset
        for symbol, offset, kind in zip(symbols, offsets, kinds, strict=True)
        if symbol in _POINTERS and kind == "n"
    )
    return fields[0], Synset(lemmas, hypernyms)


def table_lines(synsets: dict[str, Synset], classes: Iterable[str]) -> list[str]:
    """The lines of the table for these classes (offsets), in the order of the offsets."""
    wanted: set[str] = set()
    waiting = list(classes)
    while waiting:
        offset = waiting.pop()
        if offset not in wanted:
            wanted.add(offset)
            waiting.extend(synsets[offset].hypernyms)
    return [
        f"{offset}\t{', '.join(synsets[offset].lemmas)}\t{' '.join(synsets[offset].hypernyms)}\n"
        for offset in sorted(wanted)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m features.wordnet.make_hypernyms", description=__doc__)
    parser.add_argument("nouns", type=Path, help="WordNet's data.noun")
    parser.add_argument("--out", type=Path, default=TABLE, help="(%(default)s)")
    options = parser.parse_args(arguments)
    classes = [synset.removeprefix("n") for synset in definitions().imagenet_synsets]
    lines = table_lines(read_nouns(options.nouns), classes)
    options.out.write_text("".join(lines), encoding="utf-8", newline="\n")
    sys.stderr.write(f"{options.out}: {len(lines)} synsets\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
