"""How well text finds pictures that nobody captioned: ``python -m benchmarks.words collections/caltech101``.

Each label of a collection is asked for by its name, and of Caltech101 twenty general words beside. Labels decide which
hits are right and are read for nothing else. All pictures are ranked: P@10 is the share of right ones among the first
ten, mAP the mean average precision. ``--data FOLDER`` measures on any folder of class folders instead: a collection is
made of it, and thrown away. Where something is said of the pictures, the weights of meaning and words are chosen on one
half of the texts, by a seed, and it is told what they are worth on the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.command_line import add_collections, collection_folder
from features.concepts import Concepts, standardized, unit
from features.datasets import ImageFolder
from features.encoders import create_encoder
from features.encoders.sentence import SentenceEncoder, sentence_encoder
from features.extract import extract
from features.paths import expanded
from features.wordnet.definitions import definitions
from search.build import create_index, create_spaces
from search.captions import MEANING, MEANING_WEIGHT, WORDS, WORDS_WEIGHT, CaptionScorer
from search.engine import SearchEngine
from search.fusion import standardized_over
from search.space import VISUAL
from search.spaces import CAPTIONS, CONCEPTS
from search.words import TextScores

Floats = NDArray[np.float32]
Relevance = Mapping[str, NDArray[np.bool_]]
"""For each text, which pictures answer it, bool (n,)."""

MIXES = tuple((meaning, words) for meaning in (0.25, 0.5, 1.0) for words in (1.0, 2.0, 4.0))
"""Weights of meaning and words, beside 1 for what the encoder sees, of which the best is chosen."""

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


def mixes_by_halves(engine: SearchEngine, relevance: Relevance, seed: int = 0) -> str:
    """A Markdown table: mAP of each of `MIXES` on two halves of the texts, the best on the first one in bold."""
    scorer, ids = engine.text_scorer(CAPTIONS), engine.store.ids
    assert isinstance(scorer, CaptionScorer)
    texts = np.random.default_rng(seed).permutation(sorted(relevance)).tolist()
    figures = np.empty((len(MIXES), len(texts)))
    for column, text in enumerate(texts):
        seen = standardized(engine.score_text(text, space=CONCEPTS).scores)
        meaning = standardized_over(scorer.meaning(text), ids)[ids]
        words = scorer.words(text, "words")[ids]
        for row, (by_meaning, by_words) in enumerate(MIXES):
            figures[row, column] = average_precision(seen + by_meaning * meaning + by_words * words, relevance[text])
    half = len(texts) // 2
    chosen, held_out = figures[:, :half].mean(axis=1), figures[:, half:].mean(axis=1)
    lines = [f"| meaning | words | chosen on ({half} texts) | held out ({len(texts) - half}) |", "|--:|--:|--:|--:|"]
    for row, mix in enumerate(MIXES):
        mark = "**" if row == int(np.argmax(chosen)) else ""
        used = " (in use)" if mix == (MEANING_WEIGHT, WORDS_WEIGHT) else ""
        cells = [f"{mark}{cell}{mark}" for cell in (f"{chosen[row]:.3f}", f"{held_out[row]:.3f}")]
        lines.append(f"| {mix[0]:g} | {mix[1]:g}{used} | {' | '.join(cells)} |")
    return "\n".join(lines)


def made_of(images: Path, encoder: str, folder: Path) -> Path:
    """A collection of a folder of class folders, in `folder`, that can be asked by words."""
    store = extract(ImageFolder(images), create_encoder(encoder), folder)
    create_index(store, factory="Flat")
    create_spaces(store, [VISUAL, CONCEPTS])
    return store.folder


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
    parser.add_argument("collection", metavar="NAME", nargs="?", help="a collection, or its folder")
    add_collections(parser)
    parser.add_argument("--data", type=expanded, metavar="FOLDER", help="a folder of class folders, instead")
    parser.add_argument("--encoder", default="auto", help="with --data (%(default)s)")
    parser.add_argument("--words", type=expanded, metavar="FILE", help='JSON: {"animal": ["dog", "cat"], ...}')
    options = parser.parse_args(arguments)
    if (options.collection is None) == (options.data is None):
        parser.error("give a collection, or --data with a folder of class folders")
    with tempfile.TemporaryDirectory() as scratch:
        if options.data is None:
            folder = collection_folder(options.collections, options.collection)
        else:
            folder = made_of(options.data, options.encoder, Path(scratch, "collection"))
        sys.stdout.write(report(SearchEngine.open(folder), options.words))
    return 0


def report(engine: SearchEngine, words_file: Path | None) -> str:
    """What the command prints."""
    labels = [engine.store.items[id].labels for id in engine.store.ids.tolist()]
    words = json.loads(words_file.read_text("utf-8")) if words_file else GENERAL_WORDS
    queries = {"names": relevance_of_names(labels), "words": relevance_of_words(labels, words)}
    queries = {name: relevance for name, relevance in queries.items() if relevance}
    counts = " and ".join(f"{len(relevance)} {name}" for name, relevance in queries.items())
    encoder = engine.store.manifest["encoder"]["name"]
    said = f"{table(engine, queries)}\n\n{len(labels):,} pictures, {encoder}, {counts}\n"
    if CAPTIONS in engine.spaces:
        for name, relevance in queries.items():
            said += f"\n{name}, mAP by the weights of what is said:\n\n{mixes_by_halves(engine, relevance)}\n"
    return said


if __name__ == "__main__":
    raise SystemExit(main())
