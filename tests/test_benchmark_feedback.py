"""What is said of how much judgements gain."""

from test_words import folder, quick_words, root  # noqa: F401  (fixtures)

from benchmarks import feedback
from search.hits import Answer, Hit
from search.query import FeedbackPart


def answer(*labels):
    return Answer(tuple(Hit(rank, 100 + rank, 0, 0, None, (label,), None) for rank, label in enumerate(labels, 1)))


def test_the_first_right_and_wrong_hits_are_judged():
    shown = answer("cat", "dog", "cat", "cow", "cat")
    assert feedback.judged(shown, "cat", 1) == FeedbackPart((101,), (102,))
    assert feedback.judged(shown, "cat", 2) == FeedbackPart((101, 103), (102, 104))
    assert feedback.judged(shown, "cow", 9) == FeedbackPart((104,), (101, 102, 103, 105))
    assert feedback.judged(shown, "emu", 1) is None is feedback.judged(answer("cat"), "cat", 1)


def test_only_what_was_not_shown_counts():
    found = answer("cat", "dog", *["cat"] * 19, "dog", "cat")
    assert feedback.precision(found, found.first(1), "cat") == 19 / 20
    assert feedback.precision(found, found.first(21), "cat") == 1 / 20


def test_halves_are_of_labels_that_are_frequent_enough():
    counts = {f"label {n}": 45 for n in range(9)} | {"rare": 44, "BACKGROUND_Google": 400}
    halves = feedback.halves_of(counts)
    assert set(halves) == {f"label {n}" for n in range(9)}
    assert sorted(list(halves.values()).count(half) for half in feedback.HALVES) == [4, 5]
    assert halves == feedback.halves_of(dict(reversed(counts.items())))


def test_the_command_prints_a_table(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(feedback, "LABEL_MIN", 12)
    assert feedback.main([str(folder), "--queries", "9"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| | pictures, ") and lines[-1] == "36 pictures, colours, exact"
    rows = [line.split("|")[1].strip() for line in lines[2:-2]]
    assert rows == ["no judgement", *feedback.JUDGED]
