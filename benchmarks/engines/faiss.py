"""faiss."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engines.base import FactoryEngine, Subject, mean_codes
from ivfpq.checks import Floats


class Faiss(FactoryEngine):
    """faiss through its own Python calls.

    Its factory trains PQ for polysemous codes unless told otherwise, which takes longer than the rest of the training
    and changes no plain search. "faiss" leaves that out, as "PQ8np" in its factory string would; "faiss:polysemous" is
    what the string says by itself.
    """

    package = "faiss-cpu"
    variants = ("polysemous",)

    def __init__(self, d: int, subject: Subject, seed: int) -> None:
        import faiss

        self.faiss: Any = faiss
        self.index = faiss.index_factory(d, re.sub(r"\bRefine\b(?!\()", "RFlat", subject.factory))
        quantized: Any = self.index
        while isinstance(quantized, faiss.IndexPreTransform | faiss.IndexRefine):
            quantized = quantized.index if isinstance(quantized, faiss.IndexPreTransform) else quantized.base_index
            quantized = faiss.downcast_index(quantized)
        if subject.variant != "polysemous" and hasattr(quantized, "do_polysemous_training"):
            quantized.do_polysemous_training = False
        parts = [quantized, *(getattr(quantized, codec) for codec in ("pq", "rq") if hasattr(quantized, codec))]
        if isinstance(self.index, faiss.IndexPreTransform):
            chain: Any = self.index.chain
            for opq in map(faiss.downcast_VectorTransform, map(chain.at, range(chain.size()))):
                if isinstance(opq, faiss.OPQMatrix):  # it would train with a quantizer made like this one
                    self.opq = faiss.ProductQuantizer(opq.d_out, opq.M, 8)
                    opq.pq = self.opq
                    parts.append(self.opq)
        for part in parts:
            if hasattr(part, "cp"):
                part.cp.min_points_per_centroid = 1  # no warnings: how many points there are is in the report

    def train(self, x: Floats) -> None:
        self.index.train(x)

    def add(self, x: Floats) -> None:
        self.index.add(x)

    def prepare(self) -> None:
        self.faiss.omp_set_num_threads(self.threads)
        for name, value in self.query.items():
            own_name = {"k_factor": "k_factor_rf"}.get(name, name)
            self.faiss.ParameterSpace().set_index_parameter(self.index, own_name, value)

    def search(self, xq: Floats, k: int) -> Any:
        return self.index.search(xq, k)[1]

    def scanned(self, xq: Floats, k: int) -> float | None:
        if not isinstance(self.index, self.faiss.IndexIVF):
            return None
        lists: Any = self.index.invlists
        sizes = np.array([lists.list_size(number) for number in range(self.index.nlist)])
        return mean_codes(sizes, self.index.quantizer.search(xq, self.index.nprobe)[1])

    def save(self, path: Path) -> None:
        self.faiss.write_index(self.index, str(path))

    def load(self, path: Path, mmap: bool) -> None:
        self.index = self.faiss.read_index(str(path), self.faiss.IO_FLAG_MMAP if mmap else 0)
