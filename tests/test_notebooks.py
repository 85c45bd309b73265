"""The notebooks as they are committed: run from top to bottom, small, with nothing of the machine they ran on."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def code(request):
    """The code cells."""
    cells = json.loads(request.param.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_one_name_at_the_top_chooses_the_collection(code):
    assert re.fullmatch(r'COLLECTION = "\w+"', "".join(code[0]["source"]))
    assert "COLLECTION =" not in "".join(line for cell in code[1:] for line in cell["source"])


def test_executed_from_top_to_bottom_without_errors_or_warnings(code):
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert outputs
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


def test_no_path_of_the_machine_in_the_outputs(code):
    text = json.dumps([output for cell in code for output in cell["outputs"]])
    assert str(FOLDER.parent) not in text
    assert "site-packages" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_small(path):
    assert path.stat().st_size < 750_000
