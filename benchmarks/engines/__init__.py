"""The index and its peers behind one interface: a file each, and a line of ENGINES."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.engines.annoy import Annoy
from benchmarks.engines.base import Arguments, Engine, EngineError, Subject
from benchmarks.engines.faiss import Faiss
from benchmarks.engines.hnswlib import Hnswlib
from benchmarks.engines.ivfpq import Ivfpq
from benchmarks.engines.numpy import Numpy
from benchmarks.engines.scann import Scann
from benchmarks.engines.sklearn import Sklearn
from benchmarks.engines.usearch import Usearch

__all__ = ["ENGINES", "Arguments", "Engine", "EngineError", "Ivfpq", "Sklearn", "Subject", "parse_subjects"]

ENGINES: dict[str, type[Engine]] = {
    "ivfpq": Ivfpq,
    "faiss": Faiss,
    "hnswlib": Hnswlib,
    "annoy": Annoy,
    "sklearn": Sklearn,
    "usearch": Usearch,
    "scann": Scann,
    "numpy": Numpy,
}


def parse_subjects(text: str, factories: Sequence[str]) -> list[Subject]:
    """The subjects that an entry of --engines stands for: one for each factory, if the engine takes any.

    Raises
    ------
    ValueError
        If there is no such engine or variant.
    """
    name, _, variant = text.strip().partition(":")
    engine = ENGINES.get(name)
    if engine is None or (variant and variant not in engine.variants):
        known = [*ENGINES, *(f"{name}:{variant}" for name in ENGINES for variant in ENGINES[name].variants)]
        raise ValueError(f"--engines knows {', '.join(known)}, got {text!r}")
    return [Subject(name, factory, variant) for factory in (factories if engine.takes_factory else [""])]
