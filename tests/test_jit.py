"""Kernels are compiled whatever becomes of their cache, of numba's inside, or of numba itself."""

import importlib.util
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from ivfpq import kernels
from ivfpq.kernels import jit

ROOT = Path(__file__).resolve().parent.parent
SOURCE = """
from ivfpq.kernels.jit import jit_entry, jit_inner

@jit_inner
def half(x):
    return x / 2

@jit_entry
def mean(a, b):
    return half(a) + half(b)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A function that imports a module of two kernels, as each process would; its cache is the folder `kept`."""
    (tmp_path / "two_kernels.py").write_text(SOURCE)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "kept"))

    def load():
        monkeypatch.setattr(jit, "_said", False)
        spec = importlib.util.spec_from_file_location("two_kernels", tmp_path / "two_kernels.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


def files(tmp_path):
    return sorted(path for path in (tmp_path / "kept").rglob("*") if path.is_file())


def hits(function):
    return sum(function.stats.cache_hits.values())


def test_machine_code_is_kept_for_the_next_process(module, tmp_path, caplog):
    assert module().mean(1.0, 4.0) == 2.5
    assert [path.suffix for path in files(tmp_path)] == [".nbc", ".nbi"]
    again = module()
    assert again.mean(1.0, 4.0) == 2.5 and hits(again.mean) == 1
    assert not caplog.records


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage", "a pickle of something else"])
def test_a_damaged_cache_is_made_again_and_said_once(module, tmp_path, caplog, suffix, damage):
    module().mean(1.0, 4.0)
    for path in files(tmp_path):
        if path.suffix == suffix:
            whole = path.read_bytes()
            made = {"cut": whole[: len(whole) // 2], "empty": b"", "garbage": bytes(range(256)) * 9}
            path.write_bytes(made.get(damage, b"\x80\x04K\x01."))
    damaged = module()
    assert damaged.mean(1.0, 4.0) == 2.5 and damaged.mean(1, 4) == 2.5  # a second signature too
    assert hits(damaged.mean) == 0
    said = [record for record in caplog.records if record.name == "ivfpq.kernels.jit"]
    if not (suffix == ".nbi" and damage == "a pickle of something else"):  # numba takes that for another version's
        assert len(said) == 1 and said[0].levelno == logging.WARNING and "NUMBA_CACHE_DIR" in said[0].message
    caplog.clear()
    mended = module()
    assert mended.mean(1.0, 4.0) == 2.5 and hits(mended.mean) == 1
    assert not caplog.records


def test_a_full_disk_costs_the_cache_and_no_answer(module, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Python 3.11 would keep what it could write of it
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100, before[1])
    )  # no file may grow beyond: write fails as on a full disk
    try:
        full = module()
        assert full.mean(1.0, 4.0) == 2.5 and full.mean(1, 4) == 2.5
        said = [record.message for record in caplog.records]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(said) == 1 and "OSError: [Errno 27]" in said[0]
    assert module().mean(1.0, 4.0) == 2.5


def test_a_cache_that_cannot_be_opened_costs_no_answer(module, tmp_path, caplog):
    module().mean(1.0, 4.0)
    for path in files(tmp_path):
        path.unlink()
        path.mkdir()  # what is in the way here cannot be read or replaced, not by an administrator either
        (path / "something").touch()
    blocked = module()
    assert blocked.mean(1.0, 4.0) == 2.5 and blocked.mean(1, 4) == 2.5
    assert len(caplog.records) == 1 and "NUMBA_CACHE_DIR" in caplog.records[0].message


def test_without_any_folder_to_keep_it_in(module, tmp_path, caplog, monkeypatch):
    def none_found(function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.caching.FunctionCache", none_found)
    assert module().mean(1.0, 4.0) == 2.5
    assert not files(tmp_path) if (tmp_path / "kept").exists() else True
    assert len(caplog.records) == 1 and "no locator available" in caplog.records[0].message


@pytest.fixture
def as_if_new():
    """What is found out once about numba is found out again, before the test and after it."""
    found = (jit._as_a_part, jit._without_c_wrapper)
    for each in found:
        each.cache_clear()
    yield
    for each in found:
        each.cache_clear()


@pytest.mark.parametrize(
    "missing",
    [
        "numba.core.codegen.JITCodeLibrary",
        "numba.core.compiler.DefaultPassBuilder",
        "numba.core.compiler_machinery.register_pass",
        "numba.core.untyped_passes.IRProcessing",
    ],
)
def test_without_a_class_of_numbas_inside_plain_njit_compiles(module, monkeypatch, as_if_new, missing):
    with monkeypatch.context() as patch:
        patch.delattr(missing)
        assert jit._as_a_part() == {} and not jit.linked()
        plain = module()
    assert plain.mean(1.0, 4.0) == 2.5


@pytest.mark.parametrize("option", ["no_cfunc_wrapper", "no_cpython_wrapper", "pipeline_class"])
def test_without_an_option_of_numbas_plain_njit_compiles(module, monkeypatch, as_if_new, option):
    real = jit.njit

    def njit(*args, **options):
        if option in options:
            raise TypeError(f"got an unexpected keyword argument {option!r}")
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(jit, "njit", njit)
        plain = module()
        assert jit.linked() == (option == "no_cfunc_wrapper")
    assert plain.mean(1.0, 4.0) == 2.5


def test_where_two_functions_fail_to_become_one_plain_njit_compiles(module, monkeypatch):
    assert jit._linking_works(jit._as_a_part()["pipeline_class"])
    monkeypatch.setattr(jit, "_works", None)
    monkeypatch.setattr("numba.core.codegen.CPUCodeLibrary._get_module_for_linking", lambda self: 1 / 0)
    tried = module()
    with pytest.raises(ZeroDivisionError):
        tried.mean(1.0, 4.0)  # here not even plain functions can be linked
    assert jit._works is False and not jit.linked()
    monkeypatch.undo()
    assert jit._linking_works(None)


def python(code, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IVFPQ", "NUMBA_DISABLE"))}
    everything = {**kept, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], env=everything, capture_output=True, text=True, check=False)


SEARCH = (
    "import numpy as np, ivfpq\n"
    "x = np.random.default_rng(0).normal(size=(300, 8))\n"
    "index = ivfpq.index_factory(8, 'PCA6,IVF4,PQ3x4,Refine'); index.train(x); index.add(x)\n"
    "found = index.search(x[:3], 4, nprobe=4)\n"
    "print(ivfpq.kernels.active(), found.ids.tolist(), found.distances.tobytes().hex())\n"
)


def test_without_compilation_there_is_the_reference():
    without = python(SEARCH, NUMBA_DISABLE_JIT="1")
    wanted = python(SEARCH, IVFPQ_KERNEL="reference")
    assert without.stdout == wanted.stdout and without.stdout.startswith("reference [[0, "), without.stderr
    assert not without.stderr and not wanted.stderr


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_a_kernel_that_cannot_be_compiled_says_why(name):
    failed = python("import ivfpq; ivfpq.kernels.active()", NUMBA_DISABLE_JIT="1", IVFPQ_KERNEL=name)
    last = failed.stderr.splitlines()[-1]
    wanted = f"ValueError: IVFPQ_KERNEL must be one of reference, got '{name}': NUMBA_DISABLE_JIT is set"
    assert last.startswith(wanted)


def test_a_numba_that_does_not_load_leaves_the_reference(tmp_path):
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.26 or less')")
    broken = python(SEARCH, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert broken.stdout.startswith("reference [[0, ")
    assert broken.stderr.count("Numba needs NumPy 1.26 or less") == 1
    asked = python(
        "import ivfpq; ivfpq.kernels.active()",
        PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]),
        IVFPQ_KERNEL="portable",
    )
    assert "got 'portable': numba cannot be imported (Numba needs NumPy 1.26 or less)" in asked.stderr.splitlines()[-1]


@pytest.mark.slow
def test_the_kernels_are_right_when_plain_njit_compiles_them(tmp_path):
    missing = "import numba.core.compiler_machinery as inside; del inside.register_pass\n"
    check = "from ivfpq.kernels import jit; assert not jit.linked()\n"
    plain = python(missing + SEARCH + check, NUMBA_CACHE_DIR=str(tmp_path), IVFPQ_KERNEL="portable")
    wanted = python(SEARCH, IVFPQ_KERNEL="reference")
    assert plain.stdout.split()[1:] == wanted.stdout.split()[1:] != [], plain.stderr


@pytest.mark.parametrize(
    ("settings", "some", "none"),
    [
        ({"CPU_FEATURES": "+avx2,-avx512f,+fma"}, {"avx2", "fma"}, {"avx512f"}),
        ({"CPU_FEATURES": "", "CPU_NAME": "generic"}, set(), {"avx", "avx2", "avx512f", "sse2"}),
        ({"CPU_FEATURES": None, "CPU_NAME": "x86-64-v3"}, {"avx2"}, {"avx512f", "avx512vbmi"}),
        ({"CPU_FEATURES": None, "CPU_NAME": "x86-64-v2"}, {"bmi2"}, {"avx", "avx2", "avx512f"}),
        ({"CPU_FEATURES": None, "CPU_NAME": None}, {"avx2", "avx512f", "avx512vbmi"}, {"sse4a"}),
        ({"CPU_FEATURES": None, "CPU_NAME": None, "ENABLE_AVX": 0}, {"bmi2"}, {"avx", "avx2", "avx512f"}),
    ],
)
def test_kernels_know_the_processor_that_numba_compiles_for(monkeypatch, settings, some, none):
    host = {"avx": True, "avx2": True, "avx512f": True, "avx512vbmi": True, "bmi2": True, "sse4a": False}
    monkeypatch.setattr(jit.binding, "get_host_cpu_features", lambda: host)
    for name, value in settings.items():
        monkeypatch.setattr(numba.config, name, value)
    assert jit.target_features() >= some and not jit.target_features() & none


def test_the_fastest_kernel_needs_what_numba_compiles_for(monkeypatch):
    try:
        every = frozenset().union(*kernels.FEATURES.values())
        for features, names in ((every, kernels.NAMES), ({"avx2"}, kernels.NAMES[:3]), ({"fma"}, kernels.NAMES[:2])):
            monkeypatch.setattr(jit, "target_features", lambda features=features: features)
            kernels.available.cache_clear()
            kernels._obstacles.cache_clear()
            assert kernels.available() == names
        for name, lacking in (("avx2", "avx2"), ("avx512", "avx512bw, avx512f, avx512vbmi")):
            monkeypatch.setenv("IVFPQ_KERNEL", name)
            with pytest.raises(ValueError, match=f"got '{name}': the processor .* lacks {lacking}"):
                kernels.active()
    finally:
        monkeypatch.undo()
        kernels.available.cache_clear()
        kernels._obstacles.cache_clear()


def test_a_sum_of_the_sources_names_them_all():
    assert len(jit.sources()) == 16 and int(jit.sources(), 16) >= 0
    assert np.dtype([(f"sources_{jit.sources()}", np.int8)]).names[0].isidentifier()
