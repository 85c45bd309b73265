"""Index files: bit-equal round trips, and every kind of damage named."""

import hashlib
import json
import os
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from ivfpq import IndexFileError, IndexFlat, IndexIVFPQ, IndexIVFRQ, index_factory, load, save
from ivfpq.list_layout import distinct, pack_ids

F = np.float32


def flat(metric="l2"):
    index = IndexFlat(5, metric=metric)
    index.add_with_ids(np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) * 3)
    return index


def ivfpq(metric="l2", nbits=3, n=40, **extra):
    rng = np.random.default_rng(0)
    index = IndexIVFPQ(6, 3, 2, nbits, metric=metric, nprobe=2, seed=4, **extra)
    index.install(rng.normal(size=(3, 6)), rng.normal(size=(2, 1 << nbits, 3)))
    for part in np.array_split(rng.normal(size=(n, 6)), 3):
        index.add(part)
    return index


def ivfrq(metric="ip"):
    rng = np.random.default_rng(0)
    index = IndexIVFRQ(6, 3, 2, 5, metric=metric)
    index.install(rng.normal(size=(3, 6)), rng.normal(size=(2, 32, 6)))
    index.add(rng.normal(size=(40, 6)))
    return index


def nested(spec, metric="l2", n=30):
    index = index_factory(6, spec, metric=metric, seed=3)
    index.train(np.random.default_rng(0).normal(size=(60, 6)))
    index.add_with_ids(np.random.default_rng(1).normal(size=(n, 6)), np.arange(n)[::-1] * 5)
    return index


def with_zero(index):
    index.add(np.zeros((2, 6)))
    return index


def everything():
    return nested("L2norm,PCA5,PCA4,IVF3,RQ2x3,Refine(SQfp16)", n=12)


MADE = {
    "ivfrq": ivfrq,
    "pretransform flat": lambda: nested("PCA4,Flat", "cosine"),
    "pretransform ivfpq": lambda: nested("OPQ2_4,IVF3,PQ2x3", "ip"),
    "pretransform ivfrq": lambda: nested("L2norm,PCA4,IVF3,RQ2x3"),
    "pretransform untrained": lambda: index_factory(6, "PCA4,OPQ2,IVF3,PQ2x3"),
    "refine flat": lambda: nested("Flat,Refine", "ip"),
    "refine ivfpq": lambda: nested("IVF3,PQ2x3,Refine", "cosine"),
    "refine half": everything,
    "refine bytes": lambda: nested("PCA4,IVF3,PQ2x3,Refine(SQ8)"),
    "refine bytes cosine": lambda: with_zero(nested("IVF3,PQ2x3,Refine(SQ8)", "cosine")),
    "refine bytes untrained": lambda: index_factory(6, "Flat,Refine(SQ8)"),
    "refine empty": lambda: nested("PCA4,IVF3,PQ2x3,Refine", n=0),
    "flat": flat,
    "flat ip": lambda: flat("ip"),
    "flat empty": lambda: IndexFlat(5, metric="cosine"),
    "pq": lambda: nested("PQ2x3", "cosine"),
    "pretransform rq": lambda: nested("PCA4,RQ2x3"),
    "ivfpq": ivfpq,
    "ivfpq cosine": lambda: ivfpq("cosine"),
    "ivfpq 12 bits": lambda: ivfpq("ip", 12),
    "ivfpq 4 bits": lambda: ivfpq("cosine", 4),
    "refine rq 4 bits": lambda: nested("PCA4,IVF3,RQ3x4,Refine"),
    "ivfpq empty": lambda: ivfpq(n=0),
    "sq": lambda: nested("SQ8", "cosine"),
    "ivfsq": lambda: nested("IVF3,SQ8"),
    "refine ivfsq": lambda: nested("PCA4,IVF3,SQ8,Refine", "cosine"),
    "ivfsq untrained": lambda: index_factory(6, "IVF3,SQ8"),
    "ivfpq untrained": lambda: IndexIVFPQ(6, 3, 2, 3),
}


@pytest.fixture(params=MADE)
def index(request):
    return MADE[request.param]()


@pytest.mark.parametrize("mmap", [False, True])
def test_what_is_loaded_is_what_was_saved_bit_for_bit(index, tmp_path, mmap):
    path = tmp_path / "a.index"
    index.metadata = {"encoder": "köder", "list": [1, 2.5, None]}
    save(index, path)
    got = load(path, mmap=mmap)
    assert type(got) is type(index) and repr(got) == repr(index) and got.metadata == index.metadata
    (parameters, arrays), (want_parameters, want_arrays) = got.state(), index.state()
    assert parameters == want_parameters and arrays.keys() == want_arrays.keys()
    for name, array in arrays.items():
        assert array.dtype == want_arrays[name].dtype and array.shape == want_arrays[name].shape
        assert array.tobytes() == want_arrays[name].tobytes()
    save(got, tmp_path / "b.index")
    assert (tmp_path / "b.index").read_bytes() == path.read_bytes()
    if index.is_trained:
        q = np.random.default_rng(1).normal(size=(7, index.d))
        for one, two in zip(got.search(q, 9), index.search(q, 9), strict=True):
            assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize("mmap", [False, True])
def test_a_loaded_index_can_be_changed_and_its_file_does_not_change(tmp_path, mmap):
    path = tmp_path / "a.index"
    save(ivfpq(), path)
    before, index = path.read_bytes(), load(path, mmap=mmap)
    index.add(np.ones((5, 6)))
    index.add_with_ids(np.ones((1, 6)), [100])
    assert index.remove_ids([3]) == 1
    want = ivfpq()
    want.add(np.ones((5, 6)))
    want.add_with_ids(np.ones((1, 6)), [100])
    want.remove_ids([3])
    for one, two in zip(index.search(np.ones((1, 6)), 50), want.search(np.ones((1, 6)), 50), strict=True):
        assert one.tobytes() == two.tobytes()
    assert path.read_bytes() == before


def test_a_code_without_lists_has_no_centroid_of_its_own(tmp_path):
    path = tmp_path / "a.index"
    save(nested("PQ2x3"), path)
    raw = path.read_bytes()
    data = bytearray(raw[8 + int.from_bytes(raw[:8], "little") :])
    at = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["centroids"]["data_offsets"][0]
    data[at : at + 4] = np.float32(1).tobytes()
    forged(path, lambda e: None, data=bytes(data))
    with pytest.raises(IndexFileError, match="centroids must be the origin alone"):
        load(path)


def test_mapped_arrays_stay_in_the_file_and_outlive_its_replacement(tmp_path):
    path = tmp_path / "a.index"
    save(flat(), path)
    mapped = load(path, mmap=True)
    assert isinstance(mapped.lists.view.blocks.base, np.memmap) or not mapped.lists.view.blocks.flags.writeable
    want = flat().reconstruct(9)
    save(ivfpq(), path)  # a new file under the same name
    np.testing.assert_array_equal(mapped.reconstruct(9), want)


def test_safetensors_reads_the_file(tmp_path):
    save(ivfpq(), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="numpy") as file:
        assert file.metadata()["format"] == "ivfpq" and file.metadata()["kind"] == "IndexIVFPQ"
        arrays = ivfpq().state()[1]
        assert set(file.keys()) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)


def test_metadata_given_to_save_goes_into_the_file_only(tmp_path):
    index = flat()
    index.metadata = {"a": 1}
    save(index, tmp_path / "a", metadata={"b": 2})
    assert index.metadata == {"a": 1} and load(tmp_path / "a").metadata == {"b": 2}


def test_what_cannot_be_saved_is_refused_and_leaves_no_file(tmp_path):
    for metadata in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises((TypeError, ValueError)):
            save(flat(), tmp_path / "a", metadata=metadata)
    with pytest.raises(TypeError, match="metadata must be a dict, got list"):
        save(flat(), tmp_path / "a", metadata=[])
    with pytest.raises(TypeError, match=r"IndexFlat, .*, IndexRefine, got dict"):
        save({}, tmp_path / "a")
    with pytest.raises(FileNotFoundError):
        save(flat(), tmp_path / "no" / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_keeps_the_old_file_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "a.index"
    save(flat(), path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save(ivfpq(), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_file_is_as_readable_as_any_new_file(tmp_path):
    save(flat(), tmp_path / "a")
    (tmp_path / "b").write_bytes(b"")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize("make", [flat, everything])
def test_every_truncation_is_named(make, tmp_path):
    path = tmp_path / "a.index"
    save(make(), path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 1 if len(whole) < 2500 else 3):
        path.write_bytes(whole[:length])
        with pytest.raises(IndexFileError, match=r"a\.index: .*(truncated|damaged)"):
            load(path, mmap=length % 2 == 1)
    path.write_bytes(whole + b"\0")
    with pytest.raises(IndexFileError, match=r"a\.index: truncated or too long"):
        load(path)


@pytest.mark.parametrize("make", [ivfpq, everything])
def test_every_flipped_bit_is_noticed(make, tmp_path):
    path = tmp_path / "a.index"
    save(make(), path)
    whole = bytearray(path.read_bytes())
    for place in (*range(100), *range(100, len(whole), 1 + len(whole) // 1500)):
        for bit in range(8) if place < 24 or place % 31 == 0 else (place % 8,):
            whole[place] ^= 1 << bit
            path.write_bytes(whole)
            with pytest.raises(IndexFileError, match=r"a\.index: "):
                load(path, mmap=bit % 2 == 1)
            whole[place] ^= 1 << bit
    path.write_bytes(whole)
    load(path)


@pytest.fixture(scope="session")
def saved_files(tmp_path_factory):
    """Paths of one file of each kind in MADE. (hypothesis prints what it draws: let that be short.)"""
    folder = tmp_path_factory.mktemp("saved")
    for name, make in MADE.items():
        save(make(), folder / name)
    return sorted(folder.iterdir())


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_bytes_whatever_crash_the_reader(data, saved_files, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzz.index"
    if data.draw(st.booleans()):
        path.write_bytes(data.draw(st.sampled_from(saved_files)).read_bytes())
        whole = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(whole)))
            whole[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
        if bytes(whole) == path.read_bytes():
            return
        path.write_bytes(whole)
    else:
        path.write_bytes(data.draw(st.binary(max_size=200)))
    with pytest.raises(IndexFileError, match=r"fuzz\.index: "):
        load(path)


def test_a_file_of_version_2_is_read(tmp_path, monkeypatch):
    """It had no terms with residual quantizers."""
    index, path = ivfrq("l2"), tmp_path / "a.index"
    described, arrays = index.state()
    bare = {**arrays, "codes": np.ascontiguousarray(arrays["codes"][:, : index.M])}
    with monkeypatch.context() as patch:
        patch.setattr("ivfpq.io.VERSION", "2")
        patch.setattr(IndexIVFRQ, "state", lambda self: (described, bare))
        save(index, path)
    for name, array in load(path, mmap=True).state()[1].items():
        np.testing.assert_array_equal(array, arrays[name])


def forged(path, change, *, data=None):
    """The file with its header changed by `change(entries)` and both sums made right again: a liar, not an accident."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries, data = json.loads(raw[8 : 8 + length]), raw[8 + length :] if data is None else data
    about = entries["__metadata__"]
    about["header"], about["data"] = "0" * 64, hashlib.sha256(data).hexdigest()
    change(entries)
    text = json.dumps(entries).encode()
    head = len(text).to_bytes(8, "little") + text
    sum_ = hashlib.sha256(head).hexdigest().encode()
    path.write_bytes(head.replace(b"0" * 64, sum_) + data)


def parameters(**changes):
    def change(entries):
        about = entries["__metadata__"]
        about["parameters"] = json.dumps({**json.loads(about["parameters"]), **changes})

    return change


def shape(name, value):
    def change(entries):
        entries[name]["shape"] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e["__metadata__"].update(version="1"), "version 1 .* reads 2, 3, 4: build it again"),
        (lambda e: e["__metadata__"].update(kind="IndexHNSW"), "unknown kind 'IndexHNSW'"),
        (lambda e: e["__metadata__"].update(format="other"), "not an index file"),
        (lambda e: e["__metadata__"].update(parameters="[]"), "do not fit together"),
        (lambda e: e["__metadata__"].update(parameters="{"), "do not fit together"),
        (parameters(nlist=10**15), "do not fit together: sizes must have shape"),
        (parameters(nlist=2), "do not fit together"),
        (parameters(d=12), "do not fit together: centroids must have shape"),
        (parameters(M=3), "do not fit together"),
        (parameters(nbits=17), "nbits must be from 1 to 16"),
        (parameters(nbits=16), "do not fit together"),
        (parameters(metric="l3"), "metric must be one of"),
        (parameters(nprobe=0), "nprobe must be at least 1"),
        (parameters(extra=1), "do not fit together"),
        (shape("codes", [2**62, 4]), "not where its shape"),
        (shape("codes", [-40, -1]), "impossible shape"),
        (shape("codes", [1, 3 * 3 * 64]), "do not fit together: codes must be"),
        (shape("ids", [True]), "impossible shape"),
        (shape("ids", [288, 2]), r"ids must be uint8 \(192, 3 to 8\)"),
        (lambda e: e["ids"].update(dtype="F8"), "do not fit together"),
        (lambda e: e.pop("ids"), "truncated or too long"),
        (lambda e: e["codes"].update(data_offsets=None), "do not fit together"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path, change, message):
    path = tmp_path / "a.index"
    save(ivfpq(), path)
    forged(path, change)
    with pytest.raises(IndexFileError, match=rf"a\.index: .*{message}"):
        load(path)


JUNK = [None, True, -1, 0, 1, 2, 7, 2**40, 10**30, 0.5, "", "l2", "ip", "IndexFlat", "IndexRefine", "PCA", [], {}, [[]]]


def mutated(value, draw):
    """A JSON value with one thing in it replaced, dropped, renamed or doubled."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        match draw(st.integers(0, 5)):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, draw(st.sampled_from(["d", "A", "index.ids", "x"])): value[key]}
            case _:
                return {**value, key: mutated(value[key], draw)}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        changed = [] if not draw(st.integers(0, 4)) else [mutated(value[at], draw)] * draw(st.integers(1, 2))
        return value[:at] + changed + value[at + 1 :]
    return draw(st.sampled_from(JUNK))


@given(data=st.data())
@settings(max_examples=250, deadline=None)
def test_a_lying_file_is_refused_or_loads_into_an_index_that_answers(data, saved_files, tmp_path_factory):
    """Headers changed at random with the sums made right: no crash, no other error, and no memory taken on trust."""
    path = tmp_path_factory.getbasetemp() / "liar.index"
    path.write_bytes(data.draw(st.sampled_from(saved_files)).read_bytes())

    def change(entries):
        about = entries["__metadata__"]
        if data.draw(st.integers(0, 3)):
            about["parameters"] = json.dumps(mutated(json.loads(about["parameters"]), data.draw))
        else:
            name = data.draw(st.sampled_from(sorted(entries)))
            if name == "__metadata__" or data.draw(st.booleans()):
                about["kind"] = data.draw(st.sampled_from(["IndexFlat", "IndexIVFRQ", "IndexRefine", "PCA"]))
            else:
                entries[name] = mutated(entries[name], data.draw)

    raw = path.read_bytes()
    numbers = raw[8 + int.from_bytes(raw[:8], "little") :]
    if numbers and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(numbers) - 1))
        numbers = numbers[:at] + bytes([data.draw(st.integers(0, 255))]) + numbers[at + 1 :]
    forged(path, change if data.draw(st.integers(0, 4)) else lambda e: None, data=numbers)
    try:
        index = load(path, mmap=data.draw(st.booleans()))
    except IndexFileError as error:
        assert "liar.index: " in str(error)
        return
    assert index.d < 1000 and index.code_size < 10**6
    if index.is_trained:
        found = index.search(np.ones((2, index.d)), 4)
        assert found.ids.shape == (2, 4)
        save(index, path)


def test_arrays_that_lie_are_refused(tmp_path):
    path = tmp_path / "a.index"
    sizes = ivfpq().state()[1]["sizes"]
    for wrong in ([41, 0, -1], [2**62, 2**62, 40], [40, 0, 1]):
        save(ivfpq(), path)
        raw = path.read_bytes()
        data = raw[8 + int.from_bytes(raw[:8], "little") :]
        forged(path, lambda e: None, data=data.replace(sizes.tobytes(), np.array(wrong, np.int64).tobytes()))
        with pytest.raises(IndexFileError, match=r"do not fit together: (sizes|ids) must"):
            load(path)
    save(ivfpq(), path)
    raw = path.read_bytes()
    centroids = ivfpq().centroids
    nan = raw[8 + int.from_bytes(raw[:8], "little") :].replace(
        centroids.tobytes(), np.full((3, 6), np.nan, F).tobytes()
    )
    forged(path, lambda e: None, data=nan)
    with pytest.raises(IndexFileError, match="centroids must be finite"):
        load(path)


def test_other_files_are_no_index_files(tmp_path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, tmp_path / "a")
    np.save(tmp_path / "b.npy", np.zeros(300))
    (tmp_path / "c").write_bytes(b"")
    (tmp_path / "d").write_bytes((2).to_bytes(8, "little") + b"[]")
    (tmp_path / "e").write_bytes((5000).to_bytes(8, "little") + b"[" * 5000)
    for name in ("a", "b.npy", "c", "d", "e"):
        with pytest.raises(IndexFileError, match=rf"{name}: "):
            load(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


def test_codes_that_lie_are_refused(tmp_path):
    """A number beyond the codebook would be read from behind it."""
    path = tmp_path / "a.index"
    save(ivfpq(), path)
    raw = path.read_bytes()
    blocks = ivfpq().state()[1]["codes"]
    wrong = blocks.copy()
    wrong[0, 1, 0] = 8
    data = raw[8 + int.from_bytes(raw[:8], "little") :].replace(blocks.tobytes(), wrong.tobytes())
    forged(path, lambda e: None, data=data)
    with pytest.raises(IndexFileError, match=r"codes must be below 2\*\*nbits = 8"):
        load(path)


def id_twice(name, array):
    if name == "ids":
        array[1] = array[0]


def no_number(name, array):
    if name.endswith("vectors"):
        array[3, 1] = np.nan


def twice_as_long(name, array):
    if name.endswith("vectors"):
        array[3] *= 2


def other_term(name, array):
    if name == "codes":
        array[3 if array.shape[2] == 1 else 0, -1, 0] ^= 64


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (ivfpq, id_twice, "ids must be distinct, but 1 comes twice"),
        (flat, id_twice, "ids must be distinct, but 0 comes twice"),
        (flat, no_number, "vectors must be finite, but row 3 is not"),
        (everything, no_number, "vectors must be finite, but row 3 is not"),
        (lambda: flat("cosine"), twice_as_long, "vectors must be finite, of length 1 or zero, but row 3 is not"),
        (MADE["refine ivfpq"], twice_as_long, "vectors must be finite, of length 1 or zero, but row 3 is not"),
        (ivfpq, other_term, "the term of the vector in row 0 is not that of its code"),
        (MADE["refine bytes"], other_term, "the term of the vector in row 3 is not that of its code"),
        (lambda: ivfrq("l2"), other_term, "the term of the vector in row 0 is not that of its code"),
    ],
)
def test_what_no_index_would_have_written_is_refused(make, change, message, tmp_path):
    path, index = tmp_path / "a.index", make()
    save(index, path)
    raw = path.read_bytes()
    data = raw[8 + int.from_bytes(raw[:8], "little") :]
    for name, array in index.state()[1].items():
        changed = array.copy()
        change(name, changed)
        data = data.replace(np.ascontiguousarray(array).tobytes(), np.ascontiguousarray(changed).tobytes())
    forged(path, lambda e: None, data=data)
    with pytest.raises(IndexFileError, match=message):
        load(path)
    with pytest.raises(IndexFileError, match=message):
        load(path, mmap=True)


@pytest.mark.parametrize("many", [3000, 300_000])
def test_ids_in_any_order_are_read_back_and_none_twice(many):
    """From some size on, flags tell whether ids are distinct."""
    ids = np.random.default_rng(0).permutation(many)
    packed = np.full((many + 64, 3), 255, np.uint8)
    packed[:many] = pack_ids(ids, 3)
    assert distinct(packed) == many
    packed[5] = packed[7]
    assert distinct(packed) == many - 1


def test_metadata_that_is_no_object_is_refused(tmp_path):
    save(flat(), tmp_path / "a")
    forged(tmp_path / "a", lambda e: e["__metadata__"].update(metadata="[1]"))
    with pytest.raises(IndexFileError, match="the metadata must be an object, got list"):
        load(tmp_path / "a")


def test_a_large_header_is_summed_before_it_is_read(tmp_path):
    """Its JSON would take many times the memory of its text."""
    text = b'{"header": "' + b"0" * 64 + b'", "x": [' + b"{}," * 3_000_000 + b"0]}"
    (tmp_path / "a").write_bytes(len(text).to_bytes(8, "little") + text)
    tracemalloc.start()
    try:
        with pytest.raises(IndexFileError, match="its SHA-256 is not the recorded one"):
            load(tmp_path / "a")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(text)


def test_what_is_saved_does_not_change_while_others_add():
    """The spare places of the last blocks are not written any more once the arrays were handed out."""
    index = ivfpq()
    arrays = index.state()[1]
    before = {name: array.tobytes() for name, array in arrays.items()}
    index.add(np.ones((5, 6)))
    index.add(np.zeros((5, 6)))
    assert {name: array.tobytes() for name, array in arrays.items()} == before


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_the_old_file_or_the_new(tmp_path):
    path = tmp_path / "a.index"
    script = (
        "import sys, numpy as np; from ivfpq import IndexFlat, save; index = IndexFlat(64)\n"
        "index.add(np.ones((50_000, 64))); print('go', flush=True); n = 0\n"
        "while True: n += 1; save(index, sys.argv[1], metadata={'n': n})\n"
    )
    save(flat(), path, metadata={"n": 0})
    for pause in (0.0, 0.01, 0.02, 0.03, 0.05, 0.08):
        process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(pause)
        process.kill()
        process.wait()
        process.stdout.close()
        index = load(path)
        assert (index.ntotal, index.d) in ((20, 5), (50_000, 64)) and index.metadata["n"] >= 0
