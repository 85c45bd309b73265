"""The kernel for AVX-512 on processors without it: its code as a whole, but for two instructions."""

import os
import subprocess
import sys
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
