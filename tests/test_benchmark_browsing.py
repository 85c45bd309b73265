"""The benchmark of leafing through a collection, on little."""

from benchmarks.browsing import main


def test_every_step_is_measured(capsys):
    main(["--count", "3000", "--rounds", "1"])
    told = capsys.readouterr().out
    assert told.startswith("3,000 pictures, milliseconds of the processor")
    assert told.count("\n| ") == 3 + 5 + 5 + 3  # headings and rows
