"""The table of abilities says what both libraries do when they are asked."""

import numpy as np
import pytest

from benchmarks import abilities
from benchmarks.abilities import ABILITIES, Found, does, table


@pytest.fixture(scope="module")
def found():
    return [Found(ability.what, does(ability.ours), does(ability.theirs)) for ability in ABILITIES]


def test_every_line_is_done_by_somebody(found):
    assert [row.what for row in found if not row.ours and not row.faiss] == []
    assert len({row.what for row in found}) == len(found)


def test_what_ours_is_said_to_do_it_does(found):
    """Nothing that the project promises is a no by a mistake in its probe."""
    theirs_alone = {row.what.split(":")[0] for row in found if not row.ours}
    assert theirs_alone == {
        "a graph of vectors",
        "another graph of vectors",
        "whole vectors in inverted lists",
        "local search quantization",
        "residual quantization of parts",
        "4-bit codes scanned in registers, 32 at a time",
        "a graph in place of the list of centroids",
        "lists by two quantizers together",
        "hashing",
        "other distances, such as L1",
        "binary vectors, Hamming distance",
        "several indexes searched as one",
        "vectors given back with a search",
        "the best parameters found by trying",
    }


def test_what_faiss_does_too_is_not_claimed_alone(found):
    both = {row.what.split(":")[0] for row in found if row.ours and row.faiss}
    assert {"a search among given ids", "one index merged into another", "a vector changed by its id"} <= both


def test_a_refusal_is_a_no():
    def broken():
        raise AssertionError

    assert not does(broken)
    assert does(lambda: True)


def test_a_flipped_bit_is_seen_in_any_file_that_has_a_checksum_and_only_there(tmp_path):
    def load_anything(path):
        return np.load(path)

    def save(index, path):
        with open(path, "wb") as file:  # noqa: PTH123 (np.save would add a suffix)
            np.save(file, index)

    assert not abilities._flipped(np.zeros(100), save, load_anything)


def test_the_table_has_ours_first_then_theirs_then_both():
    rows = [Found("both", True, True), Found("theirs", False, True), Found("ours", True, False)]
    lines = table(rows).splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == ["ours", "theirs", "both"]
