import sys

from ivfpq.benchmark.command import main

sys.exit(main())
