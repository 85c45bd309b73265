"""The benchmark of the map runs and names all that it measures."""

from benchmarks import picture_map


def test_every_answer_is_measured(capsys):
    picture_map.main(["--count", "400", "--dim", "16", "--factory", "IVF4,PQ4", "--rounds", "1"])
    out = capsys.readouterr().out
    assert "400 pictures of 16 dimensions" in out
    assert [line.split(" | ")[0] for line in out.splitlines()[-3:]] == ["| what to draw", "| points", "| lists"]
    assert "| points |" in out
    assert out.splitlines()[-2].endswith("| 5,200 |")
