"""What is said of how much words add to a picture."""

from test_words import folder, quick_words, root  # noqa: F401  (fixtures)

from benchmarks import mixed
from search.engine import SearchEngine
from search.hits import Answer, Hit


def test_precision_is_of_the_first_ten():
    labels = ["cat"] * 3 + ["dog"] * 7 + ["cat"] * 5
    answer = Answer(tuple(Hit(rank, rank, 0, 0, None, (label,), None) for rank, label in enumerate(labels, 1)))
    assert mixed.precision(answer, "cat") == 0.3
    assert mixed.precision(answer.first(4), "cat") == 0.3, "what is not found is not right"


def test_a_picture_its_name_and_both_are_asked(folder, tmp_path, monkeypatch):  # noqa: F811
    engine = SearchEngine.open(folder)
    monkeypatch.setattr(mixed, "name_of", {"a": "crimson", "b": "crimson"}.get)
    asked = {id: engine.store.items[id].labels[0] for id in (0, 12)}
    assert list(asked.values()) == ["a", "b"]
    found = mixed.precisions(engine, asked, "exact")
    assert (found["picture"], found["name"]) == (1.0, 0.5) and 0.5 < found["picture and name"] <= 1
    files = mixed.cut_copies(engine, [0, 12], tmp_path)
    assert engine.search(files[1], 1).own_id is None
    taken = mixed.times(engine, files, ["crimson", "cerulean"])
    assert list(taken) == ["picture", "text"] and min(map(min, taken.values())) >= 0
