"""What processes that tests and notebooks start are to find: this checkout, from any folder and in whatever Python."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PATHS = [str(ROOT), str(ROOT / "tests")]
GIVEN = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in PATHS]
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, *GIVEN])


def pytest_configure(config):
    """Let processes that share the tests out share the cores as well.

    Threads of OpenMP and OpenBLAS that wait for each other keep a core busy meanwhile, which another process needs.
    """
    processes = len(getattr(config.option, "tx", None) or [])  # of pytest-xdist
    if processes > 1:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
