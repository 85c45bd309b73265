"""Nouns: their forms, their definitions, and what is a kind of what."""

import numpy as np
import pytest

from features.wordnet import make_hypernyms
from features.wordnet.definitions import definitions
from features.wordnet.hypernyms import TABLE, Hypernyms, hypernyms
from features.wordnet.nouns import forms

NOUNS = """\
  1 This software and database is being provided to you
00000001 03 n 01 thing 0 001 ~ 00000002 n 0000 | what there is
00000002 05 n 02 animal 0 animate_being 0 002 @ 00000001 n 0000 + 00000009 v 0101 | one that moves; "it ran"
00000003 05 n 01 dog 0 002 @ 00000002 n 0000 #m 00000004 n 0000 | it barks | and bites
00000004 05 n 0b pack 0 a 0 b 0 c 0 d 0 e 0 f 0 g 0 h 0 i 0 j 0 001 @ 00000001 n 0000 | many dogs
00000005 05 n 01 Rex 0 001 @i 00000003 n 0000 | a dog
"""


@pytest.mark.parametrize(
    ("text", "among"),
    [
        ("Dogs", "dog"),
        (" a  red   boat ", "red boat"),
        ("the cherries", "cherry"),
        ("wolves", "wolf"),
        ("boxes", "box"),
        ("torches", "torch"),
        ("fishermen", "fisherman"),
        ("potatoes", "potato"),
        ("buses", "bus"),
    ],
)
def test_a_noun_is_found_in_the_singular_and_without_its_article(text, among):
    assert among in list(forms(text))


def test_what_stands_there_comes_first():
    assert next(forms("Glasses")) == "glasses"
    assert list(forms("glass")) == ["glass"]
    assert list(forms("s")) == ["s"]
    assert list(forms("")) == [""]


def test_the_table_is_made_from_data_noun(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    synsets = make_hypernyms.read_nouns(tmp_path / "data.noun")
    assert synsets["00000004"].lemmas == ("pack", *"abcdefghij")
    assert make_hypernyms.table_lines(synsets, ["00000005"]) == [
        "00000001\tthing\t\n",
        "00000002\tanimal, animate being\t00000001\n",
        "00000003\tdog\t00000002\n",
        "00000005\tRex\t00000003\n",
    ]


def test_the_tree_says_what_is_above(tmp_path):
    (tmp_path / "data.noun").write_text(NOUNS)
    table = tmp_path / "table.tsv"
    table.write_text(
        "".join(make_hypernyms.table_lines(make_hypernyms.read_nouns(tmp_path / "data.noun"), ["00000003"]))
    )
    tree = Hypernyms(table)
    assert len(tree) == 3
    assert tree.synsets("Animate beings") == ("00000002",)
    assert tree.closure("00000003") == {"00000001", "00000002", "00000003"}
    assert (tree.synsets("rex"), tree.closure("00000005")) == ((), frozenset())


def test_the_committed_table_is_that_of_imagenets_classes():
    tree = hypernyms()
    classes = [synset.removeprefix("n") for synset in definitions().imagenet_synsets]
    assert len(tree) == 1860
    assert all(tree.closure(synset) for synset in classes)
    (bird,) = [synset for synset in tree.synsets("bird") if synset.startswith("01503061")]
    assert sum(bird in tree.closure(synset) for synset in classes) == 59  # as ImageNet's own tree has it
    assert "Princeton" in TABLE.with_name("LICENSE-WordNet.txt").read_text()


def test_definitions_are_found_by_any_name_of_a_synset():
    known = definitions()
    assert len(known.imagenet) == len(known.imagenet_synsets) == 1000
    assert known.imagenet[0].startswith("tench, Tinca tinca: freshwater")
    assert "n02084071" in known.synsets("Canis familiaris") and "n02084071" in known.synsets("the dogs")
    assert any(text.startswith("gerenuk, Litocranius walleri: ") for text in known.of("gerenuks"))
    assert known.of("something that flies") == ()
    assert len(known.of("crane")) == np.unique(known.synsets("crane")).size > 1
