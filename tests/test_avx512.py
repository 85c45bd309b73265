"""The kernel for AVX-512 on processors without it: its code as a whole, but for two instructions."""

import os
import platform
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.slow
def test_with_its_two_instructions_emulated_the_kernel_gives_the_same_answers(tmp_path):
    chosen = "test_one_list_of_many_tiles or test_equal_codes_tie_by_id or test_the_screen_keeps_its_word"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "emulated_avx512"]
    environment = {name: value for name, value in os.environ.items() if name != "IVFPQ_KERNEL"}
    environment |= {"PYTHONPATH": str(HERE), "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(
        [*command, "tests/test_compiled.py", "-k", chosen],
        cwd=HERE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0 and "8 passed" in ran.stdout, ran.stdout[-3000:]


COMPILE = """
import numpy as np
from numba import typeof
from ivfpq.invlists import InvertedLists
from ivfpq.kernels import layout, scan

floats, ids = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.int64)
records = np.zeros(1, layout.QUANTIZERS), InvertedLists(1, 8).view.addresses
arguments = (True, *records, floats, 1, np.zeros(1, layout.SCRATCH), floats, ids)
scan.search.compile(tuple(map(typeof, arguments)))
print(*scan.search.inspect_asm().values())
"""
ICE_LAKE = "+avx,+avx2,+bmi,+bmi2,+fma,+popcnt,+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vbmi,+avx512vnni"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="LLVM writes machine code for this processor")
def test_two_blocks_of_codes_take_a_few_dozen_instructions(tmp_path):
    """Read off the machine code for a processor that has them, which this one need not be."""
    environment = {name: value for name, value in os.environ.items() if name != "IVFPQ_KERNEL"}
    environment |= {"NUMBA_CPU_NAME": "icelake-server", "NUMBA_CPU_FEATURES": ICE_LAKE, "PYTHONPATH": str(HERE.parent)}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path)
    ran = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    loops = []
    for block in re.split(r"^[.\w$]+:", ran.stdout, flags=re.MULTILINE):
        counts = Counter(re.findall(r"^\s+([a-z]\w*)", block, flags=re.MULTILINE))
        if any(re.match("vperm[it]2b", name) for name in counts):
            loops.append(counts)
    assert loops
    for counts in loops:  # a codebook of 128 codes: two look-ups for each 64, and a number in two halves added to sums
        assert sum(count for name, count in counts.items() if re.match("vperm[it]2b", name)) == 4
        assert counts["vpaddw"] == 4 and counts["vpsrlw"] == 2 and counts["vpmovb2m"] == 2
        assert sum(counts.values()) <= 32
