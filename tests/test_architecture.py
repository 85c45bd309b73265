"""The four rooms and the one direction data walks through them, checked on the import statements."""

import ast
import functools
import json
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("ivfpq", "features", "search", "gradio_app")
BESIDE = ("benchmarks", "notebooks")  # what measures and shows the rooms; no room knows of it
MAY_IMPORT = {
    "ivfpq": {"ivfpq"},
    "features": {"features"},
    "search": {"ivfpq", "features", "search"},
    "gradio_app": set(ROOMS),
    "benchmarks": {*ROOMS, "benchmarks"},
    "notebooks": {*ROOMS, "benchmarks"},  # a notebook's modules name each other without the folder
}
DOOR = "ivfpq/benchmark.py"  # hands `python -m ivfpq.benchmark` on to the benchmarks of a checkout
GRADIO_FREE = {f"gradio_app/{name}.py" for name in ("engine", "create_index")}
KERNELS = sorted((ROOT / "ivfpq" / "kernels").glob("*.py"))
SOURCES = sorted(path for room in (*ROOMS, *BESIDE) for path in (ROOT / room).rglob("*.py"))

LINES = 450


def name_of(path):
    """The full name of a module by its file, "ivfpq.kernels" for the package's own."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in SOURCES}


@functools.cache
def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path):
    """Full names of the modules that a file's import statements name, wherever they stand in it.

    An import inside a function counts as well: it hides a circle and does not undo it.
    """
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(ROOT).parent.parts
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            named = [f"{module}.{alias.name}" for alias in node.names]
            names.update(name if name in MODULES else module for name in named)
    return names


def outside(path, *names):
    return {name for name in imported(path) if name.split(".")[0] in names}


def found_in(paths, wrong):
    """What is wrong in which files: {path from the root: what `wrong` says of it}, where it says something."""
    return {path.relative_to(ROOT).as_posix(): said for path in paths if (said := wrong(path))}


class TestEverySource:
    """One test reads all sources: a test for each would take more time than its reading."""

    def test_imports_only_the_rooms_before_it(self):
        def wrong(path):
            room = path.relative_to(ROOT).parts[0]
            may = MAY_IMPORT[room] | ({"benchmarks"} if path == ROOT / DOOR else set())
            return outside(path, *ROOMS, *BESIDE) - outside(path, *may)

        assert found_in(SOURCES, wrong) == {}

    def test_is_short_enough_to_be_read_at_once(self):
        def lines_too_many(path):
            lines = len(path.read_text(encoding="utf-8").splitlines())
            return lines > LINES and path.relative_to(ROOT).parts[0] != "benchmarks" and lines

        assert found_in(SOURCES, lines_too_many) == {}

    def test_changes_no_search_path(self):
        def wrong(path):
            named = {ast.unparse(node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)}
            return named & {"sys.path", "site.addsitedir"}

        assert found_in(SOURCES, wrong) == {}

    def test_reads_and_writes_no_pickle(self):
        pickles = ("pickle", "cPickle", "joblib", "shelve", "dill", "cloudpickle", "marshal")
        assert found_in(SOURCES, lambda path: outside(path, *pickles)) == {}

    def test_loads_arrays_and_tensors_without_pickle(self):
        def wrong(path):
            said = []
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Call):
                    options = set(map(ast.unparse, node.keywords))
                    if "allow_pickle=True" in options:
                        said.append((node.lineno, "allow_pickle=True"))
                    if ast.unparse(node.func) == "torch.load" and "weights_only=True" not in options:
                        said.append((node.lineno, "torch.load without weights_only=True"))
            return said

        assert found_in(SOURCES, wrong) == {}

    def test_only_the_app_imports_gradio(self):
        def wrong(path):
            name = path.relative_to(ROOT)
            return (name.parts[0] != "gradio_app" or name.as_posix() in GRADIO_FREE) and outside(path, "gradio")

        assert found_in(SOURCES, wrong) == {}

    def test_faiss_is_a_peer_and_not_a_part(self):
        def wrong(path):
            name = path.relative_to(ROOT)
            may = name.as_posix().startswith("ivfpq/faiss_") or name.parts[0] in BESIDE
            return not may and outside(path, "faiss")

        assert found_in(SOURCES, wrong) == {}


class TestEveryKernel:
    def test_has_no_function_of_more_than_eight_arguments(self):
        def too_many(path):
            said = {}
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    count = len(node.args.posonlyargs) + len(node.args.args)
                    if count > 8:
                        said[getattr(node, "name", "lambda")] = count
            return said

        assert found_in(KERNELS, too_many) == {}

    def test_leaves_the_inside_of_numba_to_one_module(self):
        def wrong(path):
            inside = {name for name in imported(path) if name.startswith(("numba.", "llvmlite."))}
            return path.name != "jit.py" and inside - {"llvmlite.ir", "numba.types"}

        assert found_in(KERNELS, wrong) == {}


def test_the_sources_were_found():
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == {*ROOMS, *BESIDE}
    assert set(KERNELS) < set(SOURCES)


def test_no_package_has_a_circle_inside():
    imports = {
        (name, other) for name, path in MODULES.items() for other in imported(path) & MODULES.keys() if other != name
    }
    graph = {name: set() for name in MODULES}
    for name, other in imports:
        graph[name].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_importing_a_room_loads_nothing_heavy():
    """torch, faiss, numba and gradio load when they are needed: `import ivfpq` stays instant."""
    heavy = ["torch", "torchvision", "timm", "faiss", "numba", "sklearn", "gradio"]
    code = f"import sys, json, ivfpq, features; print(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == []


def test_every_test_that_is_called_slow_is_there():
    for name in (ROOT / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines():
        file, *names = name.split("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert all(re.search(rf"^ *(def|class) {part}\b", text, re.MULTILINE) for part in names), name
