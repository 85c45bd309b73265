"""How well text finds pictures that nobody captioned: ``python -m benchmarks.words collections/caltech101``.

Each label of a collection is asked for by its name, and of Caltech101 twenty general words beside. Labels decide which
hits are right and are read for nothing else. All pictures are ranked: P@10 is the share of right ones among the first
ten, mAP the mean average precision.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.concepts import Concepts, standardized, unit
from features.encoders.sentence import SentenceEncoder, sentence_encoder
from features.paths import expanded
from features.wordnet.definitions import definitions
from search.captions import MEANING, WORDS, CaptionScorer
from search.engine import SearchEngine
from search.fusion import standardized_over
from search.spaces import CAPTIONS, CONCEPTS
from search.words import TextScores

Floats = NDArray[np.float32]
Relevance = Mapping[str, NDArray[np.bool_]]
"""For each text, which pictures answer it, bool (n,)."""

NAMELESS = ("BACKGROUND_Google",)
"""Labels that name no thing."""

GENERAL_WORDS: Mapping[str, Sequence[str]] = {
    "animal": [
        "Leopards",
        "ant",
        "bass",
        "beaver",
        "butterfly",
        "cougar_body",
        "cougar_face",
        "crab",
        "crayfish",
        "crocodile",
        "crocodile_head",
        "dalmatian",
        "dolphin",
        "dragonfly",
        "elephant",
        "emu",
        "flamingo",
        "flamingo_head",
        "gerenuk",
        "hawksbill",
        "hedgehog",
        "ibis",
        "kangaroo",
        "llama",
        "lobster",
        "mayfly",
        "octopus",
        "okapi",
        "panda",
        "pigeon",
        "platypus",
        "rhino",
        "rooster",
        "scorpion",
        "sea_horse",
        "starfish",
        "tick",
        "wild_cat",
        "nautilus",
        "brontosaurus",
        "stegosaurus",
        "trilobite",
    ],
    "bird": ["emu", "flamingo", "flamingo_head", "ibis", "pigeon", "rooster"],
    "fish": ["bass", "sea_horse"],
    "insect": ["ant", "butterfly", "dragonfly", "mayfly"],
    "vehicle": ["airplanes", "car_side", "ferry", "helicopter", "ketch", "Motorbikes", "schooner", "wheelchair"],
    "something that flies": [
        "airplanes",
        "helicopter",
        "butterfly",
        "dragonfly",
        "mayfly",
        "pigeon",
        "ibis",
        "flamingo",
        "flamingo_head",
    ],
    "boat": ["ferry", "ketch", "schooner"],
    "musical instrument": ["accordion", "electric_guitar", "euphonium", "grand_piano", "mandolin", "saxophone"],
    "flower": ["lotus", "sunflower", "water_lilly"],
    "furniture": ["chair", "windsor_chair", "lamp", "chandelier"],
    "food": ["pizza", "strawberry", "crab", "lobster", "crayfish"],
    "reptile": ["crocodile", "crocodile_head", "hawksbill", "brontosaurus", "stegosaurus"],
    "dinosaur": ["brontosaurus", "stegosaurus"],
    "big cat": ["Leopards", "cougar_body", "cougar_face", "wild_cat"],
    "dog": ["dalmatian"],
    "building": ["minaret", "pagoda", "pyramid"],
    "electronic device": ["camera", "cellphone", "laptop", "headphone"],
    "tool": ["wrench", "scissors", "stapler"],
    "clothing or headgear": ["headphone", "inline_skate"],
    "weapon": ["cannon", "revolver"],
}
"""Words that name several labels of Caltech101, and these labels."""


def relevance_of_names(labels: Sequence[Sequence[str]]) -> Relevance:
    """Each label's name as a text; `labels` are those of each picture."""
    names = sorted({name for each in labels for name in each} - set(NAMELESS))
    return {name.replace("_", " ").lower(): _bearing(labels, [name]) for name in names}


def relevance_of_words(labels: Sequence[Sequence[str]], words: Mapping[str, Sequence[str]]) -> Relevance:
    """General words as texts, with the labels that answer each. Words that no picture answers are left out."""
    relevant = {word: _bearing(labels, names) for word, names in words.items()}
    return {word: right for word, right in relevant.items() if right.any()}


def _bearing(labels: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.bool_]:
    wanted = set(names)
    return np.array([bool(wanted & set(each)) for each in labels])


def precision_at(k: int, scores: Floats, right: NDArray[np.bool_]) -> float:
    """Share of right pictures among the k best; of equal scores the first comes first."""
    return float(right[np.argsort(-scores, kind="stable")[:k]].mean())


def average_precision(scores: Floats, right: NDArray[np.bool_]) -> float:
    """Mean, over the right pictures, of the share of right ones down to each."""
    hits = right[np.argsort(-scores, kind="stable")]
    shares = hits.cumsum() / np.arange(1, hits.size + 1)
    return float(shares[hits].mean())


def baseline(engine: SearchEngine, sentences: SentenceEncoder) -> Callable[[str], Floats]:
    """Plain ConSE: names and definitions averaged as class vectors, probabilities as they are, nothing subtracted."""
    described = definitions().imagenet
    names = [text.partition(": ")[0] for text in described]
    classes = unit(sentences.encode(names) + sentences.encode(described))
    probabilities = Concepts(engine.encoder, sentences).probabilities(engine.store.features[engine.store.ids])
    pictures = unit(probabilities @ classes)
    return lambda text: np.asarray(pictures @ sentences.encode([text])[0], np.float32)


def measure(score: Callable[[str], Floats], relevance: Relevance) -> tuple[float, float]:
    """P@10 and mAP over all texts."""
    precisions, averages = [], []
    for text, right in relevance.items():
        scores = score(text)
        precisions.append(precision_at(10, scores, right))
        averages.append(average_precision(scores, right))
    return float(np.mean(precisions)), float(np.mean(averages))


def ways_with_captions(engine: SearchEngine, found: Mapping[str, TextScores]) -> dict[str, Callable[[str], Floats]]:
    """What is said of the pictures by its words, by its meaning, by both, and with what the encoder sees."""
    scorer, ids = engine.text_scorer(CAPTIONS), engine.store.ids
    assert isinstance(scorer, CaptionScorer)

    def both(text: str) -> Floats:
        voices = scorer.voices(text, "words")
        return voices[MEANING] + voices[WORDS]

    return {
        "captions and tags by words": lambda text: scorer.words(text, "words")[ids],
        "by meaning": lambda text: standardized_over(scorer.meaning(text), ids)[ids],
        "by both": lambda text: both(text)[ids],
        "and what the encoder sees: as it is searched": lambda text: both(text)[ids] + standardized(found[text].scores),
    }


def table(engine: SearchEngine, queries: Mapping[str, Relevance]) -> str:
    """A Markdown table: a line for each way of scoring, P@10 and mAP for each set of queries."""
    found = {text: engine.score_text(text, space=CONCEPTS) for relevance in queries.values() for text in relevance}
    ways: dict[str, Callable[[str], Floats]] = {
        "cosine": lambda text: found[text].similarity,
        "+ tree": lambda text: found[text].similarity + found[text].tree,
        "+ feedback: as it is searched": lambda text: found[text].scores,
    }
    if len(engine.encoder.classes) == len(definitions().imagenet):
        ways = {"plain ConSE": baseline(engine, sentence_encoder()), **ways}
    if CAPTIONS in engine.spaces:
        ways |= ways_with_captions(engine, found)
    lines = ["| | " + " | ".join(f"{name}: P@10 | mAP" for name in queries) + " |"]
    lines.append("|---|" + "--:|--:|" * len(queries))
    for way, score in ways.items():
        figures = [f"{figure:.3f}" for relevance in queries.values() for figure in measure(score, relevance)]
        lines.append(f"| {way} | {' | '.join(figures)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.words", description=__doc__.split("\n\n")[0])
    parser.add_argument("collection", type=expanded, help="a folder of collections/")
    parser.add_argument("--words", type=expanded, metavar="FILE", help='JSON: {"animal": ["dog", "cat"], ...}')
    options = parser.parse_args(arguments)
    engine = SearchEngine.open(options.collection)
    labels = [engine.store.items[id].labels for id in engine.store.ids.tolist()]
    words = json.loads(options.words.read_text("utf-8")) if options.words else GENERAL_WORDS
    queries = {"names": relevance_of_names(labels), "words": relevance_of_words(labels, words)}
    queries = {name: relevance for name, relevance in queries.items() if relevance}
    counts = " and ".join(f"{len(relevance)} {name}" for name, relevance in queries.items())
    encoder = engine.store.manifest["encoder"]["name"]
    sys.stdout.write(f"{table(engine, queries)}\n\n{len(labels):,} pictures, {encoder}, {counts}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
