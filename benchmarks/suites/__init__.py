"""Our indexes in the benchmark suites of others."""
