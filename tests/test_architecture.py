"""The four rooms and the one direction data walks through them, checked on the import statements."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ivfpq", "features", "search", "gradio_app")
MAY_IMPORT = {
    "ivfpq": {"ivfpq"},
    "features": {"features"},
    "search": {"ivfpq", "features", "search"},
    "gradio_app": set(ROOMS),
}
GRADIO_FREE = {f"gradio_app/{name}.py" for name in ("engine", "create_index")}
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def imported(path):
    """Full names of the modules that a file's import statements name, wherever they stand in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parent.parts
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            names.add(".".join(filter(None, [base, node.module])))
    return names


def outside(path, *names):
    return {name for name in imported(path) if name.split(".")[0] in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEverySource:
    def test_imports_only_the_rooms_before_it(self, path):
        room = path.relative_to(ROOT).parts[0]
        assert not outside(path, *ROOMS) - outside(path, *MAY_IMPORT[room])

    def test_reads_and_writes_no_pickle(self, path):
        assert not outside(path, "pickle", "cPickle", "joblib", "shelve", "dill", "cloudpickle", "marshal")

    def test_loads_arrays_and_tensors_without_pickle(self, path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                options = set(map(ast.unparse, node.keywords))
                assert "allow_pickle=True" not in options
                assert ast.unparse(node.func) != "torch.load" or "weights_only=True" in options

    def test_only_the_app_imports_gradio(self, path):
        if path.relative_to(ROOT).parts[0] != "gradio_app" or path.relative_to(ROOT).as_posix() in GRADIO_FREE:
            assert not outside(path, "gradio")

    def test_faiss_is_a_peer_and_not_a_part(self, path):
        name = path.relative_to(ROOT).as_posix()
        if name != "ivfpq/faiss_compat.py" and not name.startswith("benchmarks/"):
            assert not outside(path, "faiss")


def test_the_sources_were_found():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(ROOMS)


def test_importing_a_room_loads_nothing_heavy():
    """torch, faiss, numba and gradio load when they are needed: `import ivfpq` stays instant."""
    heavy = ["torch", "torchvision", "timm", "faiss", "numba", "sklearn", "gradio"]
    code = f"import sys, json, ivfpq, features; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []
