"""What a search is told, and what it gives: both frozen."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from search.errors import EngineError
from search.hits import Answer, Hit
from search.options import SearchOptions


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"k": 0}, "k must be a whole number of at least 1, got 0"),
        ({"k": 2.5}, "k must be a whole number of at least 1, got 2.5"),
        ({"k": "7"}, "k must be a whole number of at least 1, got '7'"),
        ({"nprobe": 0}, "nprobe must be a whole number of at least 1, got 0"),
        ({"nprobe": -3}, "nprobe must be a whole number of at least 1, got -3"),
        ({"cutoff": "near"}, "cutoff must be a number, got 'near'"),
        ({"neighbourhood": 1.5}, "neighbourhood must be a number from 0 to 1, got 1.5"),
        ({"neighbourhood": float("nan")}, "neighbourhood must be a number from 0 to 1, got nan"),
        ({"neighbourhood": True}, "neighbourhood must be a number from 0 to 1, got True"),
        ({"cutoff": float("nan")}, "cutoff must be a number, got nan"),
    ],
)
def test_options_out_of_range_are_named(wrong, said):
    with pytest.raises(EngineError, match=f"^{said}$"):
        SearchOptions(**wrong)


def test_numbers_of_numpy_are_numbers():
    assert SearchOptions(k=np.int64(3), nprobe=np.int32(2), cutoff=np.float32(0.5)) == SearchOptions(
        k=3, nprobe=2, cutoff=0.5
    )


def hit(rank):
    return Hit(rank, 10 + rank, 1 - rank / 10, 1 - rank / 10, None, ("cup",), Path(f"{rank}.jpg"))


def test_an_answer_is_a_frozen_sequence_of_hits():
    answer = Answer((hit(1), hit(2), hit(3)), own_id=4, search_ms=0.5)
    assert len(answer) == 3
    assert [h.rank for h in answer] == [1, 2, 3]
    assert (answer[0], answer[-1], answer[1:]) == (hit(1), hit(3), (hit(2), hit(3)))
    assert hit(2) in answer
    assert answer.ids == (11, 12, 13)
    assert answer.first(2) == Answer((hit(1), hit(2)))
    assert answer.first(2).own_id == 4
    assert answer == Answer((hit(1), hit(2), hit(3)), search_ms=7), "times do not count"
    assert not Answer(())
    for frozen, name in ((answer, "hits"), (answer[0], "rank"), (SearchOptions(), "k")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, name, ())
