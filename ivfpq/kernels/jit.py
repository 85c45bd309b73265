"""How kernels are compiled, linked into each other and kept on disk: all that knows numba's inside.

numba compiles, optimises and writes machine code for each function by itself, and again for each function that calls
it. Here only functions that Python calls (`jit_entry`) become machine code; those they consist of (`jit_inner`) are
handed over as LLVM code and optimised there, once. That halves the time of the first search. It rests on classes that
numba does not promise to keep, so each is looked for, and without one plain `njit` compiles the same functions.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import extending
from numba import njit as typed_njit
from numba.core import cgutils
from numba.core import config as numba_config

__all__ = ["cgutils", "config", "intrinsic", "jit_entry", "jit_inner", "linked", "sources", "target_features"]

_log = logging.getLogger(__name__)

intrinsic: Any = extending.intrinsic  # the types of these three do not tell all that they take or have
njit: Any = typed_njit
config: Any = numba_config


def jit_entry(function: Callable[..., Any]) -> Any:
    """Compile a function that Python calls, and keep the machine code on disk if that can be.

    numba keeps it in `NUMBA_CACHE_DIR`, or beside the source, or in the user's cache folder.
    """
    dispatcher = njit(nogil=True, error_model="numpy", **_without_c_wrapper())(function)
    if hasattr(dispatcher, "_cache"):
        dispatcher._cache = _Cache(function)
    return dispatcher


def jit_inner(function: Callable[..., Any]) -> Any:
    """Compile a function that compiled functions call, as a part of those.

    The kernels write `min`, `max` and squares out: each would be a function of numba's to compile besides.
    """
    return njit(nogil=True, error_model="numpy", **_without_c_wrapper(), **_as_a_part())(function)


def linked() -> bool:
    """Whether inner functions become parts of their callers, as far as is known before any is compiled."""
    return bool(_as_a_part()) and _works is not False


@functools.cache
def sources() -> str:
    """A sum of the sources of this package.

    numba looks for changes in the file of the function that it has on disk, not in those of the functions called; as a
    part of an argument's type, in a record's field name, the sum makes it look for another.
    """
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def target_features() -> frozenset[str]:
    """The features, by LLVM's names, of the processor that numba compiles for: this one, unless its settings differ.

    It follows from what numba's cache tells machine code apart by, so kernels may differ in it. The levels of x86-64
    that `NUMBA_CPU_NAME` can name have AVX2 from the third on, and no more than AVX-512's first parts, none of which is
    used then.
    """
    if config.CPU_FEATURES is not None:
        return frozenset(part[1:] for part in config.CPU_FEATURES.split(",") if part.startswith("+"))
    try:
        host = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM does not know this processor
        return frozenset()
    known = frozenset(name for name, there in host.items() if there)
    if not config.ENABLE_AVX or config.CPU_NAME in ("x86-64", "x86-64-v2"):
        return frozenset(name for name in known if not name.startswith("avx"))
    if config.CPU_NAME is not None and config.CPU_NAME.startswith("x86-64"):
        return frozenset(name for name in known if not name.startswith("avx512"))
    return known


class _Cache:
    """numba's cache of one function's machine code. Where it fails the function is compiled and not kept."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._kept: Any = None
        try:
            from numba.core.caching import FunctionCache

            self._kept = FunctionCache(function)
        except Exception as error:  # no folder can be written, or numba has changed: nothing depends on it
            _say_once(error)

    @property
    def cache_path(self) -> Any:
        """The folder, or None."""
        return None if self._kept is None else self._kept.cache_path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept for a signature, or None. A damaged file is made anew."""
        if self._kept is None:
            return None
        try:
            return self._kept.load_overload(sig, target_context)
        except Exception as error:  # a file of garbage may raise anything
            _say_once(error)
        try:
            self._kept.flush()
        except Exception as error:
            _say_once(error)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled for a signature."""
        if self._kept is None:
            return
        try:
            self._kept.save_overload(sig, data)
        except Exception as error:
            _say_once(error)

    def enable(self) -> None:
        """As numba's."""
        if self._kept is not None:
            self._kept.enable()

    def disable(self) -> None:
        """As numba's."""
        if self._kept is not None:
            self._kept.disable()

    def flush(self) -> None:
        """As numba's."""
        if self._kept is not None:
            self._kept.flush()


_said = False


def _say_once(error: Exception) -> None:
    """Warn, once in a process, that compiled code could not be read or kept."""
    global _said
    if not _said:
        _said = True
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        _log.warning(
            "compiled kernels cannot be read from their cache or kept in it (%s); they are compiled again, which takes "
            "seconds in each process until that is mended. NUMBA_CACHE_DIR names another folder for them.",
            reason,
        )


_works: bool | None = None  # not known before the first function is compiled


def _linking_works(compiler: Any) -> bool:
    """Whether a function becomes a part of another one as it should: tried once, on two small ones."""
    global _works
    if _works is None:
        _works = True  # for the trial itself, which compiles too
        try:
            add_one = njit(pipeline_class=compiler, **_without_c_wrapper(), no_cpython_wrapper=True)(lambda x: x + 1)
            _works = bool(njit(lambda x: 2 * add_one(x))(20) == 42)
        except Exception as failure:  # of numba's inside, so of any type
            _log.info("numba has changed (%s): kernels are compiled by plain njit, in twice the time", failure)
            _works = False
    return _works


@functools.cache
def _without_c_wrapper() -> dict[str, Any]:
    """The option to leave out a wrapper that nobody calls, if numba has it."""
    return _accepted({"no_cfunc_wrapper": True})


@functools.cache
def _as_a_part() -> dict[str, Any]:
    """Options that make a function a part of its callers; none if numba lacks what they need."""
    try:
        options = {"no_cpython_wrapper": True, "pipeline_class": _linking_compiler()}
    except (ImportError, AttributeError, TypeError) as missing:
        _log.info("numba has changed (%s): kernels are compiled by plain njit, in twice the time", missing)
        return {}
    return _accepted(options)


def _accepted(options: dict[str, Any]) -> dict[str, Any]:
    """The options if this numba takes them, else none."""
    try:
        njit(**options)(lambda: None)
    except Exception as refusal:  # of a type that depends on the version
        _log.info("numba does not take %s: %s", ", ".join(options), refusal)
        return {}
    return options


# Passes for what no kernel has (closures, `with`, `literally`): each would analyse all of them once more.
_NEEDLESS = {
    "FindLiterallyCalls",
    "InlineClosureLikes",
    "InlineInlinables",
    "InlineOverloads",
    "LiteralUnroll",
    "MakeFunctionToJitFunction",
    "WithLift",
}


def _linking_compiler() -> Any:
    """numba's compiler with one pass more, which makes a function's code a part of its callers, and some fewer.

    Raises
    ------
    ImportError, AttributeError, TypeError
        If numba is not as this expects it.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import CompilerBase, DefaultPassBuilder
    from numba.core.compiler_machinery import FunctionPass, register_pass
    from numba.core.untyped_passes import IRProcessing

    class Linked(JITCodeLibrary):
        """Code that is linked into its callers as it is, to be optimised and made machine code there."""

        @property
        def codegen(self) -> Linked:
            """What is asked to announce the environment of a function that Python can call: nobody, see `set_env`."""
            return self

        def set_env(self, *_: Any) -> None:
            """Do nothing: without machine code there is no place that could be told of an environment."""

        def get_pointer_to_function(self, name: str) -> int:
            """0: there is no machine code."""
            return 0

        def _optimize_functions(self, _: Any) -> None:
            pass

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalized = True

    @register_pass(mutates_CFG=False, analysis_only=True)
    class Link(FunctionPass):
        """The pass that makes the code of a function a `Linked` one."""

        _name = "link"

        def __init__(self) -> None:
            super().__init__()

        def run_pass(self, state: Any) -> bool:
            state.library = Linked(state.targetctx.codegen(), state.func_id.func_qualname)
            return False

    class LinkingCompiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            if not _linking_works(LinkingCompiler):
                return [DefaultPassBuilder.define_nopython_pipeline(self.state)]
            passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
            passes.passes = [each for each in passes.passes if each[0].__name__ not in _NEEDLESS]
            passes.add_pass_after(Link, IRProcessing)
            passes.finalize()
            return [passes]

    return LinkingCompiler
