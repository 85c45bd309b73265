"""What processes that tests and notebooks start are to find: this checkout, from any folder and in whatever Python."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PATHS = [str(ROOT), str(ROOT / "tests")]
GIVEN = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path not in PATHS]
os.environ["PYTHONPATH"] = os.pathsep.join([*PATHS, *GIVEN])
