"""What ours does that faiss's Python does not, and the reverse: ``python -m ivfpq.benchmark --study abilities``.

Each line of the table is a pair of small programs that are run; "yes" is one that did what the line says.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import ivfpq
from benchmarks.report import describe, environment, markdown, write_json
from ivfpq.checks import Floats

D, N = 16, 600
SPEC = "IVF8,PQ4x4"  # 4 bits a number: quick to train

Probe = Callable[[], bool]
Save = Callable[[Any, str], object]
Load = Callable[[str], Any]


class Ability(NamedTuple):
    """A line of the table: a probe of each library says whether it does that."""

    what: str
    ours: Probe
    theirs: Probe


@dataclass
class Found:
    """What the probes said."""

    what: str
    ours: bool
    faiss: bool


def abilities(args: argparse.Namespace, command: Sequence[str], folder: Path, started: float) -> str:
    """Run all probes; abilities.md and abilities.json into --out."""
    rows = [Found(ability.what, does(ability.ours), does(ability.theirs)) for ability in ABILITIES]
    about = {**environment(args.seed, command), "seconds": round(time.perf_counter() - started)}
    text = "\n\n".join(["# What each library does", describe(about), table(rows)])
    (args.out / "abilities.md").write_text(text + "\n", encoding="utf-8")
    write_json(args.out / "abilities.json", {"environment": about, "rows": [asdict(row) for row in rows]})
    return text + "\n"


def does(probe: Probe) -> bool:
    """Whether it answers yes; what a library refuses, in its own way, it does not do."""
    import threadpoolctl

    _faiss()  # loaded before its threads can be counted
    with threadpoolctl.threadpool_limits(1):  # they are small
        try:
            return probe()
        except Exception:  # faiss raises RuntimeError, AttributeError, AssertionError or a class of its own
            return False


def table(rows: Sequence[Found]) -> str:
    """What ours alone does, then what faiss alone does, then both."""
    order = sorted(rows, key=lambda row: (row.ours == row.faiss, row.faiss))
    cells = [[row.what, *("yes" if does else "no" for does in (row.ours, row.faiss))] for row in order]
    return markdown("what|ours|faiss", cells, left=3)


# --- the probes -----------------------------------------------------------------------------------------------------


@cache
def _vectors() -> Floats:
    return np.random.default_rng(0).standard_normal((N, D), np.float32)


def _ours(spec: str = SPEC, **keywords: Any) -> Any:
    index: Any = ivfpq.index_factory(D, spec, **keywords)
    index.train(_vectors())
    index.add(_vectors())
    return index


def _faiss() -> Any:
    import faiss

    return faiss


@cache
def _their_training(spec: str) -> Any:
    index = _faiss().index_factory(D, spec)
    index.train(_vectors())
    return index


def _theirs(spec: str = SPEC) -> Any:
    index = _faiss().clone_index(_their_training(spec))  # its training for polysemous codes takes a third of a second
    index.add(_vectors())
    return index


def _search_theirs(index: Any, xq: Floats, k: int, **parameters: Any) -> Any:
    return index.search(xq, k, params=_faiss().SearchParametersIVF(**parameters))


def _save_theirs(index: Any, path: str) -> None:
    _faiss().write_index(index, path)


def _made(make: Callable[[str], Any], spec: str) -> bool:
    return len(make(spec).search(_vectors()[:1], 3)[1][0]) == 3


def _refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except Exception:  # as in `does`
        return True
    return False


def _flipped(index: Any, save: Save, load: Load) -> bool:
    """Whether a file is refused of which one bit near its end is not as it was written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        save(index, str(path))
        content = bytearray(path.read_bytes())
        content[-40] ^= 1
        path.write_bytes(content)
        return _refused(partial(load, str(path)))


def _batched(search: Callable[[Floats], Any]) -> bool:
    """Whether 64 queries together give the bits that they give one by one."""
    x = _vectors()[:64]
    together, single = search(x), [search(q[None]) for q in x]
    return all(np.array_equal(together[part], np.concatenate([s[part] for s in single])) for part in (0, 1))


def _ties(index: Any) -> bool:
    """Whether copies of a vector are found by the smaller id first."""
    index.add(np.repeat(_vectors()[:1], 50, axis=0))
    found = index.search(_vectors()[:1], 20)[1][0].tolist()
    return found == sorted(found)


def _names_left(index: Any) -> bool:
    """Whether the vector of id 9 is still id 9 when 0 to 4 are gone."""
    index.remove_ids(np.arange(5))
    return bool(index.search(_vectors()[9:10], 1)[1][0, 0] == 9)


def _read_without(index: Any, save: Save) -> bool:
    """Whether safetensors, which knows neither library, finds the centroids in a file."""
    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        save(index, str(Path(folder) / "index"))
        return any(array.shape == (8, D) for array in load_file(Path(folder) / "index").values())


def _python_alone(module: Any) -> bool:
    """Whether it is source text, all of it."""
    return not list(Path(module.__file__).parent.rglob("*.so")) + list(Path(module.__file__).parent.rglob("*.pyd"))


def _mapped(index: Any, save: Save, load: Load) -> bool:
    """Whether an index is searched in its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "index")
        save(index, path)
        return bool(load(path).search(_vectors()[:1], 1)[1][0, 0] >= 0)


def _own_ids(index: Any) -> bool:
    """Whether vectors can be given ids."""
    index.add_with_ids(_vectors(), np.arange(N) + 1000)
    return bool(index.search(_vectors()[7:8], 1)[1][0, 0] == 1007)


def _noted() -> bool:
    """Whether a note comes back from a file of ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        ivfpq.save(_ours(), path, metadata={"encoder": "x"})
        return dict(ivfpq.load(path).metadata) == {"encoder": "x"}


def _updated(index: Any, update: Callable[[Any, Any], object]) -> bool:
    """Whether a vector is found where it was moved."""
    new = _vectors()[:1] + 100
    update(np.array([7]), new)
    return bool(index.search(new, 1)[1][0, 0] == 7)


def _theirs_updated() -> bool:
    index = _theirs()
    index.set_direct_map_type(_faiss().DirectMap.Hashtable)
    return _updated(index, index.update_vectors)


def _ours_updated() -> bool:
    index = _ours()
    return _updated(index, index.update)


def _ours_merged() -> bool:
    index, other = _ours(), _ours()
    other.remove_ids(np.arange(N))
    other.add_with_ids(_vectors(), np.arange(N, 2 * N))
    index.merge_from(other)
    return bool(index.ntotal == 2 * N)


def _theirs_merged() -> bool:
    index = _theirs()
    index.merge_from(_theirs(), N)
    return bool(index.ntotal == 2 * N)


def _filtered(found: Any) -> bool:
    return set(found[1][0].tolist()) == {3, 5}


def _probed(index: Any, search: Callable[[Any], Any]) -> bool:
    """Whether a call finds as many as 300 of 600 vectors in all lists, and the index has its nprobe of 1 after it."""
    return bool((search(index)[1] >= 0).all()) and bool(index.nprobe == 1)


def _sharded() -> bool:
    faiss = _faiss()
    shards = faiss.IndexShards(D)
    for part in (_theirs("Flat"), _theirs("Flat")):
        shards.add_shard(part)
    return bool(shards.ntotal == 2 * N)


def _same(what: str, probe: Callable[[Any], bool], spec: str = SPEC) -> Ability:
    """One program, both libraries: the verb has one name in both."""
    return Ability(what, lambda: probe(_ours(spec)), lambda: probe(_theirs(spec)))


def _built(what: str, spec: str) -> Ability:
    """An index that a factory string makes."""
    return _same(f"{what}: `{spec}`", lambda index: bool((index.search(_vectors()[:1], 3)[1] >= 0).any()), spec)


ABILITIES: tuple[Ability, ...] = (
    Ability(
        "a file with one wrong bit is refused",
        lambda: _flipped(_ours(), ivfpq.save, ivfpq.load),
        lambda: _flipped(_theirs(), _save_theirs, _faiss().read_index),
    ),
    Ability(
        "a file that other programs read (safetensors)",
        lambda: _read_without(_ours(), ivfpq.save),
        lambda: _read_without(_theirs(), _save_theirs),
    ),
    Ability("notes of one's own in the file", _noted, lambda: hasattr(_theirs(), "metadata")),
    _same("an id that is taken is refused", lambda i: _refused(lambda: i.add_with_ids(_vectors()[:1], np.array([3])))),
    _same("NaN is refused", lambda i: _refused(lambda: i.add(_vectors()[:1] * np.float32("nan")))),
    Ability(
        "ids of one's own in any index (here `Flat`)",
        lambda: _own_ids(ivfpq.index_factory(D, "Flat")),
        lambda: _own_ids(_faiss().index_factory(D, "Flat")),
    ),
    _same("an id stays a vector's own when others are removed (here `Flat`)", _names_left, "Flat"),
    _same("`reconstruct(id)` with lists, without a map made before", lambda index: len(index.reconstruct(5)) == D),
    _same("copies of a vector come in the order of their ids", _ties),
    _same(
        "the same bits for queries together and one by one (here `Flat`)",
        lambda index: _batched(lambda x: index.search(x, 10)),
        "Flat",
    ),
    Ability(
        "cosine similarity as a metric of its own",
        lambda: bool(_ours(metric="cosine").search(_vectors()[:1], 1)[0][0, 0] <= 1),
        lambda: hasattr(_faiss(), "METRIC_COSINE"),
    ),
    Ability(
        "a scikit-learn estimator",
        lambda: hasattr(ivfpq.IVFPQTransformer, "fit_transform"),
        lambda: any(hasattr(getattr(_faiss(), name), "fit_transform") for name in dir(_faiss())),
    ),
    Ability(
        "Python throughout: no compiled file comes with it",
        lambda: _python_alone(ivfpq),
        lambda: _python_alone(_faiss()),
    ),
    _built("a graph of vectors", "HNSW16"),
    _built("another graph of vectors", "NSG16"),
    _built("whole vectors in inverted lists", "IVF8,Flat"),
    _built("scalar quantization", "SQ8"),
    _built("local search quantization", "LSQ2x4"),
    _built("residual quantization of parts", "PRQ2x2x4"),
    _built("4-bit codes scanned in registers, 32 at a time", "PQ8x4fs"),
    _built("a graph in place of the list of centroids", "IVF8_HNSW8,PQ4x4"),
    _built("lists by two quantizers together", "IMI2x3,PQ4x4"),
    _built("hashing", "LSH"),
    Ability(
        "other distances, such as L1",
        lambda: ivfpq.IndexFlat(D, metric="l1").d == D,  # type: ignore[arg-type]
        lambda: bool(_faiss().IndexFlat(D, _faiss().METRIC_L1).d == D),
    ),
    Ability(
        "binary vectors, Hamming distance",
        lambda: hasattr(ivfpq, "IndexBinaryFlat"),
        lambda: bool(_faiss().IndexBinaryFlat(64).d == 64),
    ),
    Ability("several indexes searched as one", lambda: hasattr(ivfpq, "IndexShards"), _sharded),
    _same("vectors given back with a search", lambda i: len(i.search_and_reconstruct(_vectors()[:1], 3)) == 3, "Flat"),
    Ability(
        "the best parameters found by trying",
        lambda: hasattr(ivfpq, "ParameterSpace"),
        lambda: hasattr(_faiss().ParameterSpace(), "explore"),
    ),
    _built("product quantization, with lists", SPEC),
    _built("residual quantization, with lists", "IVF8,RQ2x4"),
    _built("PCA, rotation and re-ranking around it", "PCA8,OPQ4_8,IVF8,PQ4x4,RFlat"),
    Ability(
        "a search among given ids",
        lambda: _filtered(_ours().search(_vectors()[:1], 2, nprobe=8, ids=[3, 5])),
        lambda: _filtered(_search_theirs(_theirs(), _vectors()[:1], 2, nprobe=8, sel=_faiss().IDSelectorBatch([3, 5]))),
    ),
    Ability(
        "`nprobe` at a call, the index left as it is",
        lambda: _probed(_ours(), lambda index: index.search(_vectors()[:1], 300, nprobe=8)),
        lambda: _probed(_theirs(), lambda index: _search_theirs(index, _vectors()[:1], 300, nprobe=8)),
    ),
    _same("all vectors within a radius", lambda index: len(index.range_search(_vectors()[:1], 9.0)) == 3),
    Ability("a vector changed by its id", _ours_updated, _theirs_updated),
    Ability("one index merged into another", _ours_merged, _theirs_merged),
    Ability(
        "a file searched where it lies (memory-mapped)",
        lambda: _mapped(_ours(), ivfpq.save, partial(ivfpq.load, mmap=True)),
        lambda: _mapped(_theirs(), _save_theirs, lambda path: _faiss().read_index(path, _faiss().IO_FLAG_MMAP)),
    ),
)
