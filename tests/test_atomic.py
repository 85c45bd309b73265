"""A writer that an exception stops, at whatever line, has changed nothing."""

import sys

import numpy as np
import pytest

import ivfpq
from ivfpq import index_factory, load, save
from ivfpq.tuning import Setting

D = 8
SPECS = [
    "Flat",
    "PQ2x3",
    "IVF3,PQ2x3",
    "IVF3,RQ2x3",
    "PCA4,IVF3,PQ2x3",
    "IVF3,PQ2x3,Refine",
    "PCA4,Flat,Refine(SQfp16)",
    "SQ8",
    "IVF3,SQ8",
    "PCAR4,IVF3,RaBitQ2",
    "PCA4,IVF3,SQ8,Refine",
    "RaBitQ,Refine",
    "PCA4,Flat,Refine(SQ8)",
]
ROOM = str(ivfpq.__path__[0])


class Stopped(BaseException):
    """As Ctrl-C is, no Exception."""


def vectors(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def stopped_at(line, call, *arguments):
    """Call, and raise at the line-th line of ours that runs. Whether that line was there."""
    left = line

    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise Stopped
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call(*arguments)
    except Stopped:
        return True
    finally:
        sys.settrace(before)
    return False


def content(index):
    """All that can be seen of an index: what it says of itself, what it finds, and what a file would hold."""
    found = index.search(vectors(4, 9), 60, nprobe=3) if index.is_trained else ()
    parameters, arrays = index.state()
    held = {name: array.tobytes() for name, array in arrays.items()}
    return repr(index), index.is_trained, [array.tobytes() for array in found], parameters, held, index.settings


def writers(spec, metric):
    """The verbs that change an index, each with what it does to it."""
    other = index_factory(D, spec, metric=metric)
    other.train(vectors(80))
    other.add_with_ids(vectors(10, 4), np.arange(500, 510))
    yield "add", lambda index: index.add(vectors(20, 2))
    yield "add_with_ids", lambda index: index.add_with_ids(vectors(20, 2), np.arange(2**24, 2**24 + 20))
    yield "update", lambda index: index.update([3, 7, 31], vectors(3, 3))
    yield "remove_ids", lambda index: index.remove_ids([1, 2, 39])
    yield "merge_from", lambda index: index.merge_from(other)
    yield "reset", lambda index: index.reset()


def made(spec, metric):
    index = index_factory(D, spec, metric=metric)
    index.train(vectors(80))
    index.add(vectors(40, 1))
    index.remove_ids([5])
    index.settings = (Setting(3, 0.5, 0.6, 2, None),)
    return index


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("spec", SPECS)
def test_a_writer_stopped_at_any_line_has_changed_nothing_or_all(spec, metric, tmp_path, monkeypatch):
    monkeypatch.setenv("IVFPQ_KERNEL", "reference")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name, write in writers(spec, metric):
        index = made(spec, metric)
        before = content(index)
        after = made(spec, metric)
        write(after)
        want = content(after)
        line = 1
        while stopped_at(line, write, index):
            now = content(index)
            if now != before:  # it was stopped behind the change
                assert now == want, (name, line)
                index = made(spec, metric)
            line += 1 if line < 60 else 7  # loops of the numpy kernel are long
        assert content(index) == want, name
        save(index, tmp_path / "a")
        assert content(load(tmp_path / "a")) == want


@pytest.mark.parametrize(
    "spec", ["PQ2x3", "IVF3,PQ2x3", "PCA4,IVF3,PQ2x3", "PCA4,IVF3,SQ8,Refine", "PCAR4,IVF3,RaBitQ2"]
)
def test_a_second_training_stopped_at_any_line_leaves_the_first(spec, monkeypatch):
    monkeypatch.setenv("IVFPQ_KERNEL", "reference")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def trained():
        index = index_factory(D, spec)
        index.train(vectors(80))
        index.settings = (Setting(3, 0.5, 0.6, 2, None),)
        return index

    def learned(index):
        copy = load_copy(index)
        copy.add(vectors(20, 1))
        return content(copy), index.settings

    index = trained()
    before, again = learned(index), trained()
    again.train(vectors(80, 5))
    want = learned(again)
    assert before != want and before[1] and not want[1]
    line, step = 1, 1
    while stopped_at(line, index.train, vectors(80, 5)):
        now = learned(index)
        assert now in (before, want), line
        if now == want:
            index = trained()
        line, step = line + step, step + 3  # there are thousands of lines, most of them of k-means
    assert learned(index) == want


def load_copy(index):
    return type(index).from_state(*index.state())


def test_a_failed_add_loses_nothing_of_the_next(monkeypatch):
    """CASES, the index, 1."""
    from ivfpq import invlists

    x = np.random.default_rng(0).normal(size=(4000, 16)).astype("f4")
    index = ivfpq.IndexIVFPQ(16, nlist=8, M=4)
    index.train(x)
    index.add(x[:2000])
    lists = index.codes_of(np.arange(2000))[0]

    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(invlists, "pack_ids", full)
        with pytest.raises(MemoryError):
            index.add(x[2000:])
    index.add(x[:2000][lists == 0][:100])
    assert index.ntotal == 2100
    assert set(index.search(x[:1], 2100, nprobe=8).ids[0].tolist()) == set(range(2100))
