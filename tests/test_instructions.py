"""The kernels for AVX2 and AVX-512 on processors without them: their code as a whole, but for three instructions."""

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
def test_with_their_instructions_emulated_the_kernels_give_the_same_answers(tmp_path):
    chosen = "test_one_list_of_many_tiles or test_equal_codes_tie_by_id or test_the_screen_keeps_its_word"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "emulated_kernels"]
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
import sys

import numpy as np
from numba import typeof
from ivfpq.invlists import InvertedLists
from ivfpq.kernels import layout, scan

floats, ids = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.int64)
records = np.zeros(1, layout.QUANTIZERS), InvertedLists(1, 8).view.addresses
kernel = tuple(name == sys.argv[1] or None for name in ("avx512", "avx2"))
arguments = (kernel, *records, floats, 1, np.zeros(1, layout.SCRATCH), floats, ids)
scan.search.compile(tuple(map(typeof, arguments)))
print(*scan.search.inspect_asm().values())
"""
HASWELL = "+avx,+avx2,+bmi,+bmi2,+fma,+popcnt"
ICE_LAKE = HASWELL + ",+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512vbmi,+avx512vnni"
ON_X86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="LLVM writes machine code for this processor"
)


def loops_with(instruction, kernel, processor, features, cache):
    """How often each instruction is in each stretch of a search's machine code that has such a one."""
    environment = {name: value for name, value in os.environ.items() if name != "IVFPQ_KERNEL"}
    environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": features, "PYTHONPATH": str(HERE.parent)}
    environment["NUMBA_CACHE_DIR"] = str(cache)
    command = [sys.executable, "-c", COMPILE, kernel]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    loops = []
    for block in re.split(r"^[.\w$]+:|(?<=\n)(?=\s+j\w+\s)", ran.stdout, flags=re.MULTILINE):  # up to a jump
        counts = Counter(re.findall(r"^\s+([a-z]\w*)", block, flags=re.MULTILINE))
        if any(re.match(instruction, name) for name in counts):
            loops.append(counts)
    assert loops
    return loops


@pytest.mark.slow
@ON_X86
def test_two_blocks_of_codes_take_a_few_dozen_instructions(tmp_path):
    """Read off the machine code for a processor that has them, which this one need not be."""
    # A codebook of 128 codes: two look-ups for each 64, and a number in two halves added to sums.
    for counts in loops_with("vperm[it]2b", "avx512", "icelake-server", ICE_LAKE, tmp_path):
        assert sum(count for name, count in counts.items() if re.match("vperm[it]2b", name)) == 4
        assert counts["vpaddw"] == 4 and counts["vpsrlw"] == 2 and counts["vpmovb2m"] == 2
        assert sum(counts.values()) <= 32


@pytest.mark.slow
@ON_X86
def test_two_blocks_of_minima_take_fewer(tmp_path):
    """A codebook of 128 codes: four look-ups by the low bits of codes, and as many sums."""
    for counts in loops_with("vpshufb", "avx2", "haswell", HASWELL, tmp_path):
        codebooks = counts["vpshufb"] / 4  # LLVM may take several in a turn
        assert codebooks in (1, 2, 4) and counts["vpaddusb"] == counts["vpand"] == 4 * codebooks
        assert counts["vbroadcasti128"] == codebooks
        assert sum(counts.values()) <= 26 * codebooks
        assert not any(name.startswith("vpinsr") for name in counts)  # what passes stays a mask
