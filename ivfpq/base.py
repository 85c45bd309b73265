"""What all our indexes share: how verbs work, the known kinds, tuning, and copies."""

from __future__ import annotations

import importlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from ivfpq.abstract import Index
from ivfpq.checks import Floats, Ids, as_ids, as_vectors, positive_int
from ivfpq.invlists import InvertedLists
from ivfpq.publication import Change
from ivfpq.results import RangeResult, SearchResult
from ivfpq.tuning import Reading, Setting, cheapest, from_written, neighbours_in, setting_for, share, with_setting


class StoredIndex(Index):
    """An index that can be saved, merged, and put inside another. A class that derives from this one is known by that.

    What it stores, in lists of its own or of an index inside, and what it learned are published together: see
    `Published`.

    Attributes
    ----------
    kinds : dict
        The known classes by their names, which files hold.
    layer : int
        An index can be put inside one of a higher layer: 0 holds vectors or codes by itself, 1 transforms what goes
        into it, 2 ranks again what it finds.
    components_are_integers : bool
        Whether each component is stored as a whole number. Then a transform in front may be one in integers, too, where
        only candidates are wanted: see `integer_transform`.
    """

    __slots__ = ("_settings_part",)
    kinds: ClassVar[dict[str, type[StoredIndex]]] = {}
    layer: ClassVar[int] = 0
    components_are_integers: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        StoredIndex.kinds.setdefault(cls.__name__, cls)

    @property
    @abstractmethod
    def lists(self) -> InvertedLists:
        """What is stored."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What `tune` has found, by k and recall."""
        settings: tuple[Setting, ...] = self.lists.published.parts[self._settings_part]
        return settings

    @settings.setter
    def settings(self, value: tuple[Setting, ...]) -> None:
        self.lists.published.replace((self._settings_part, value))

    def _begin_settings(self) -> None:
        self._settings_part = self.lists.published.append(())

    @abstractmethod
    def encode(self, x: Floats) -> tuple[Ids, Any]:
        """The list (n,) of each vector (n, d), known to be finite, and what is stored of it there (n, width)."""

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a file must hold: parameters (JSON) and arrays. See `io`."""

    @classmethod
    @abstractmethod
    def from_state(cls, parameters: dict[str, Any], arrays: dict[str, Any]) -> StoredIndex:
        """The index that `state` described. Raises ValueError if the parts do not fit together."""

    @abstractmethod
    def range_search(self, xq: Any, radius: float, *, nprobe: int | None = None, ids: Any = None) -> RangeResult:
        """All vectors of the probed lists nearer than `radius` (for ip and cosine: more similar than it).

        With `ids`, too, `nprobe` lists are looked into, and no more.

        Returns
        -------
        RangeResult
            `lims` (nq + 1,), `distances` and `ids` (lims[-1],): those of query i are at lims[i]:lims[i + 1], best
            first.
        """

    @abstractmethod
    def reconstruct(self, id: int) -> Floats:
        """What the index knows of the vector stored under `id`: float32 (d,).

        Raises
        ------
        KeyError
            If the index does not hold the id.
        """

    @property
    def ntotal(self) -> int:
        """Vectors stored."""
        return self.lists.view.ntotal

    @property
    def ids(self) -> Ids:
        """All ids that it holds, ascending: int64 (ntotal,)."""
        lists = self.lists.view
        return np.sort(lists.ids(lists.rows()))

    @property
    def bytes_per_vector(self) -> int:
        """Bytes of a stored vector in memory: a byte (above 8 bits two) for each number, its term's too, and its id."""
        return self.lists.view.bytes_per_vector

    def search(
        self,
        xq: Any,
        k: int,
        *,
        nprobe: int | None = None,
        ids: Any = None,
        k_factor: int | None = None,
        target_recall: float | None = None,
    ) -> SearchResult:
        """The k nearest of each query among the vectors of the lists that it looks into.

        Parameters
        ----------
        xq : array_like, shape (nq, d)
        k : int
        nprobe : int, optional
            Lists to look into, for this call only.
        ids : array_like of int, optional
            Consider these ids only; those the index does not hold are passed over.
        k_factor : int, optional
            Candidates for each neighbour wanted, for this call only, where they are ranked again (`IndexRefine`). Other
            kinds take it and it means nothing, so that one caller can search any.
        target_recall : float, optional
            Find this share of the k nearest, in place of nprobe and k_factor, as `tune` has learnt to.

        Returns
        -------
        SearchResult
            `distances` float32 (nq, k), `ids` int64 (nq, k); best first, ties by the smaller id. Places that no
            candidate fills hold id -1 at +inf (l2) or -inf (ip, cosine).

        Raises
        ------
        NotTrainedError
            Before training.
        NotTunedError
            If `target_recall` is more than was tuned for at k.
        TypeError, ValueError
            If an argument is of the wrong kind, shape or size, or `target_recall` comes with what it stands for.

        Notes
        -----
        Each query looks into the `nprobe` lists of the nearest centroids (see `IndexIVFPQ.probe`), in an index without
        lists at all vectors. With `ids`, where these lists hold fewer than k of the allowed vectors, it goes on in the
        order of the lists, nearest first, as far as it takes to have seen k allowed ones, or through all lists. So an
        answer shorter than k means that there are no more.
        """
        k = positive_int(k, "k")
        nprobe, _ = self._widths(k, nprobe, k_factor, target_recall)
        return self.search_parts(self._vectors(xq, "xq"), k, nprobe, ids, self.lists.published.parts)

    def tune(self, x: Any, k: int, recall: float, *, truth: Any = None) -> Setting:
        """Learn what a search takes to find a share of the k nearest: `search(..., target_recall=recall)` uses it.

        Parameters
        ----------
        x : array_like, shape (nq, d)
            Vectors like the queries to come, which are not stored themselves: they would find themselves, which is
            easy. From some 1,000, other queries find as many, within 0.01.
        k : int
        recall : float
            Up to 1. Each call adds a recall to those that are known.
        truth : int array, shape (nq, k), optional
            The ids of the true neighbours. If not given: by exact search in an `IndexRefine`, and else what a search of
            all lists finds, so that what codes round away does not count.

        Returns
        -------
        Setting
            It is kept with the index, in its file too, until the index is trained anew. Tune again when what is stored
            has become much more, or other.

        Raises
        ------
        ValueError
            If nothing reaches that recall, there are no queries or nothing is stored, or a shape does not fit.
        """
        recall, k = share(recall, "recall"), positive_int(k, "k")
        asked = as_vectors(x, self.d)
        if not len(asked) or not self.ntotal:
            raise ValueError(f"tuning needs queries and stored vectors, got {len(asked)} and {self.ntotal}")
        truth = self._nearest(asked, k) if truth is None else neighbours_in(truth, len(asked), k)
        found = cheapest(
            lambda nprobe, k_factor: self.search(asked, k, nprobe=nprobe, k_factor=k_factor).ids,
            truth,
            recall,
            k,
            self._reading(),
        )
        self.settings = with_setting(self.settings, found)
        return found

    def _nearest(self, x: Floats, k: int) -> Ids:
        """The k nearest of vectors (nq, d), as far as the index can tell: int64 (nq, k)."""
        return self.search(x, k, nprobe=self._reading().lists).ids

    def _reading(self) -> Reading:
        """What a search reads."""
        lists = int(getattr(self, "nlist", 1))
        return Reading(lists, self.ntotal * self.code_size / lists, 0, self.ntotal)

    def _widths(
        self, k: int, nprobe: int | None, k_factor: int | None, target_recall: float | None
    ) -> tuple[int | None, int | None]:
        """The nprobe and the k_factor that the arguments of a search ask for."""
        if target_recall is None:
            return nprobe, None if k_factor is None else positive_int(k_factor, "k_factor")
        if nprobe is not None or k_factor is not None:
            raise ValueError("target_recall says how much to find, nprobe and k_factor how: give the one or the others")
        return setting_for(self.settings, k, target_recall)

    def train(self, x: Any) -> None:
        """Learn from vectors (n, d) like those to be stored.

        Parameters
        ----------
        x : array_like, shape (n, d)
            At least `train_size_min` vectors.

        Raises
        ------
        ValueError
            If there are too few vectors.
        RuntimeError
            If vectors are stored already: their codes would mean something else afterwards.
        """
        x = self._vectors(x, "x")
        if len(x) < self.train_size_min:
            needs = f"training needs at least {self.train_size_min} vectors ({self._what_training_depends_on()})"
            raise ValueError(f"{needs}, got n={len(x)}")
        self._check_empty()
        changes = self.relearned(x)
        with self._lock:
            self._check_empty()
            self.lists.published.replace(*changes)

    def relearned(self, x: Floats) -> list[Change]:
        """What `learned` says, and that all is forgotten which `tune` had found for what was known before."""
        return [*self.learned(x), (self._settings_part, ())]

    @abstractmethod
    def learned(self, x: Floats) -> list[Change]:
        """What training by vectors (n, d), as the metric compares them, makes of the index."""

    @abstractmethod
    def search_parts(self, x: Floats, k: int, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> SearchResult:
        """`search` in the published parts that are given, for vectors (nq, d) as the metric compares them."""

    @abstractmethod
    def candidates(self, x: Floats, k: int, nprobe: int | None, ids: Any, kernel: str, parts: tuple[Any, ...]) -> Ids:
        """The ids that `search` gives, int64 (nq, k), in no order, the missing ones last: for `IndexRefine`.

        They may be nearly those only, as long as they are the same by every kernel.

        Parameters
        ----------
        x : float32 array, shape (nq, d)
            Known to be finite.
        kernel : str
            The active one.
        parts : tuple
            The published parts to search in.
        """

    @abstractmethod
    def reachable(self, x: Floats, nprobe: int | None, ids: Any, parts: tuple[Any, ...]) -> Iterator[Ids]:
        """Of each query (nq, d), known to be finite, the ids that `range_search` compares it with: int64 (n,)."""

    def _store(self, x: Floats, ids: Ids) -> None:
        encoded = self.encode(x)
        with self._lock:
            self.lists.published.replace(self.lists.added(*encoded, ids))

    def update(self, ids: Any, x: Any) -> None:
        """Replace the vectors stored under ids (n,), distinct, by `x` (n, d).

        A search meanwhile sees all of the old ones or all of the new ones.

        Raises
        ------
        NotTrainedError
            Before training.
        ValueError
            If an id comes twice.
        KeyError
            If the index does not hold an id. In either case nothing is changed.
        """
        x = as_vectors(x, self.d)
        ids = as_ids(ids, n=len(x))
        encoded = self.encode(x)
        with self._lock:
            self.lists.published.replace(self.lists.updated(*encoded, ids))

    def remove_ids(self, ids: Any) -> int:
        """Take the given ids out of the index; returns how many of them it held.

        It takes time and memory in proportion to what goes, and to the lists of codes that it goes from; now and then,
        as removals add up, all is copied once.
        """
        return self.lists.remove(as_ids(ids))

    def merge_from(self, other: Any) -> None:
        """Add what `other` stores, under the same ids. `other` stays as it is.

        Raises
        ------
        TypeError
            If `other` is of another kind.
        ValueError
            If the two were trained differently, or an id is in both; then nothing changes.
        """
        parts = other.lists.published.parts if isinstance(other, StoredIndex) else ()
        with self._lock:
            self.lists.published.replace(*self.merged(other, parts))

    def merged(self, other: Any, parts: tuple[Any, ...]) -> list[Change]:
        """What becomes of the index with all of `other`, whose published parts are given. Errors as `merge_from`."""
        if type(other) is not type(self):
            raise TypeError(f"an {type(self).__name__} can only take in another one, got {type(other).__name__}")
        return self._merged(other, parts)

    @abstractmethod
    def _merged(self, other: Any, parts: tuple[Any, ...]) -> list[Change]:
        """As `merged`, of another of the same kind."""

    def reset(self) -> None:
        """Forget the stored vectors, not the training."""
        self.lists.clear()

    @classmethod
    def check_inside(cls, index: Any, name: str) -> None:
        """That `index`, the argument of that name, can be put inside one of this class."""
        kind = StoredIndex.kinds.get(type(index).__name__)
        if kind is not type(index) or kind.layer >= cls.layer:
            raise TypeError(
                f"{name} must be one of {', '.join(cls.known_kinds(cls.layer))}, got {type(index).__name__}"
            )

    @classmethod
    def known_kinds(cls, below: int | None = None) -> list[str]:
        """The names of the kinds, of the layers below that one if given, lower layers first."""
        known = sorted(StoredIndex.kinds.items(), key=lambda entry: entry[1].layer)
        return [name for name, kind in known if below is None or kind.layer < below]

    def described(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """For an index around this one: what goes into its parameters, and arrays with "index." before their names."""
        parameters, arrays = self.state()
        tuned = {"settings": self.settings} if self.settings else {}
        described = {"kind": type(self).__name__, "parameters": parameters, **tuned}
        return described, {f"index.{n}": a for n, a in arrays.items()}

    @classmethod
    def from_description(cls, described: dict[str, Any], arrays: dict[str, Any]) -> Any:
        """The index inside one of this class that `described` gave. Raises ValueError if it does not belong there."""
        known, kind = cls.known_kinds(cls.layer), described["kind"]
        if kind not in known:
            raise ValueError(f"there is an index of the kind {kind!r} inside, known are {', '.join(known)}")
        inside: Any = StoredIndex.kinds[kind]
        mine = {name.removeprefix("index."): a for name, a in arrays.items() if name.startswith("index.")}
        index = inside.from_state(described["parameters"], mine)
        index.settings = from_written(described.get("settings", []))
        return index

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and for other processes: what a file would hold."""
        io = importlib.import_module("ivfpq.io")  # which knows all kinds of index
        return io.from_bytes, (io.to_bytes(self, metadata={}),), {"metadata": self.metadata}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.metadata = dict(state["metadata"])

    @property
    def _lock(self) -> Any:
        return self.lists.lock

    def _next_id(self) -> int:
        return self.lists.next_id()

    def _what_training_depends_on(self) -> str:
        """For the message that there are too few vectors to train with."""
        return repr(self)

    def _check_empty(self) -> None:
        if self.ntotal:
            raise RuntimeError(f"the index holds {self.ntotal} vectors: reset it before training again")

    def _check_same(self, other: Any, *names: str) -> None:
        """That these numbers are the same in both, as merging needs."""
        for name in names:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                raise ValueError(f"the two indexes differ in {name}: {mine} and {theirs}")
