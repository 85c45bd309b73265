"""The index beside its peers, measured: ``python -m ivfpq.benchmark --help``.

The benchmark is no part of the library. It lies in ``benchmarks/`` of a checkout, and this is the door to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    try:
        from benchmarks import command
    except ModuleNotFoundError as error:
        if error.name not in ("benchmarks", "benchmarks.command"):
            raise
        sys.stderr.write(
            "error: the benchmark is not installed with the library; run it in a checkout of the project\n"
        )
        return 2
    return command.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
