"""The index beside its peers, measured in one run: ``python -m ivfpq.benchmark --help``.

How it is measured:

* Some vectors are held out as queries; `IndexFlat` finds their true neighbours among the rest. An engine is asked for
  ids alone. How far those are is computed here from the vectors, and recall counts ties (`metrics.tie_recall_at_k`).
* Every engine lives in a process of its own (`Worker`), so its memory is its own and a crash costs nobody else. Queries
  are timed inside that process, around the library's call and nothing else.
* Engines take turns, A, B, C, A, B, C, ..., `repeats` rounds of it, so that a machine that drifts drifts for all. What
  is reported is the median of the rounds with the smallest and the largest; a ratio is taken within each round first.
* Before its first timed turn an engine answers every query once. What it compiles, it compiles then or in a small index
  built before (`Engine.warm_up`); both times are reported.
* All get the same number of threads (BLAS, OpenMP, and the engine's own setting). The column `cores` is CPU time
  divided by wall time: it shows who took more, or less.
* What is not installed, does not know a factory string or fails is named with the reason, and the others go on.

To add an engine, write a file in `engines/` that derives a class from `Engine`, and give it a line of `ENGINES`.
`studies` holds measurements that are more than one comparison; `results` writes what was measured into the documents.
"""
