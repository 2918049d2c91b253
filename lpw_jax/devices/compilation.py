"""Compiled programs are kept on disk, so that the next run of a program starts without compiling.

What must be compiled can be begun before it is called, beside other work (`Program`). Kept programs
lie in `$XDG_CACHE_HOME/lpw_jax/xla`, by default `~/.cache/lpw_jax/xla`, which may be
deleted at any time.
"""

import concurrent.futures
import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from lpw_jax.devices import compiling, cpu, parallel
from lpw_jax.display import console
from lpw_jax.files import storage


def use_cache() -> None:
    """Lets JAX keep what takes it a second or more to compile. For programs, before they compute.

    JAX's own settings win: JAX_COMPILATION_CACHE_DIR says where (no further rule applies then),
    JAX_ENABLE_COMPILATION_CACHE=false turns the cache off, and
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS moves the limit. Of several processes JAX lets only
    the first write, so that folders of their own would not help the others: then there is no cache
    but the one that is set. A folder that cannot be written is warned of, and so is one that other
    users can write to, for what lies there is executed: it is used only where it was set.

    Raises:
      UserError: there are no such devices as JAX was told to use.
    """
    parallel.found()
    if (chosen := jax.config.jax_compilation_cache_dir) is not None:
        if not storage.is_remote(chosen) and (unsafe := _unsafe(Path(chosen))):
            console.warn(f"compiled programs are executed, and {unsafe}")
        return
    if not jax.config.jax_enable_compilation_cache or jax.process_count() > 1:
        return
    try:
        folder = storage.cache_folder("xla")
        _make_private(folder)  # what lies there is executed
        if unsafe := _unsafe(folder):
            raise OSError(unsafe)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:  # the latter without a home
        console.warn(
            f"compiled programs are not kept, so every run compiles them again: {error}; "
            "JAX_COMPILATION_CACHE_DIR=DIR chooses another folder"
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def _make_private(folder: Path) -> None:
    """Makes a folder, and those above it, for this user alone, whatever the umask allows."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _unsafe(folder: Path) -> str:
    """Who else can put programs into a folder, and what to do; '' if nobody can."""
    if not hasattr(os, "getuid") or not folder.exists():
        return ""
    for place in (folder := folder.resolve(), *folder.parents):
        found = place.stat()
        if place == folder and found.st_uid not in (0, os.getuid()):
            return f"{place} belongs to another user; remove it, or choose another folder"
        # The groups of folders above are often the user's own; and in sticky ones none can rename.
        writers = stat.S_IWOTH | stat.S_IWGRP if place == folder else stat.S_IWOTH
        if found.st_mode & writers and (place == folder or not found.st_mode & stat.S_ISVTX):
            return (
                f"{place}: other users can write to it; remove what they may have put there, "
                f"and chmod go-w {place}"
            )
    return ""


def jit_once(function: Callable) -> Callable:
    """`jax.jit` for what runs seldom and briefly: compiling it takes longer than running it."""
    options = cpu.little_effort() if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)


# XLA takes one core for a program, on CPUs; what is begun first is compiled first.
_threads = concurrent.futures.ThreadPoolExecutor(2, "compilation")


class Program:
    """A compiled function that can be compiled, in a thread, before its arguments are there.

    Args:
      fn: of `jax.jit` or `Devices.lift`, which keep what was compiled for some shapes.
    """

    def __init__(self, fn: Callable):
        self._fn, self._begun = fn, {}

    def lower(self, *args: Any) -> jax.stages.Lowered:
        """As `jax.jit`'s, of arrays or shapes."""
        with compiling.Watched():
            return self._fn.lower(*args)

    def shapes(self, *args: Any) -> Any:
        """Of what is returned; of `jax.jit` only."""
        with compiling.Watched():
            return self._fn.eval_shape(*args)

    def begin(self, *like: Any) -> None:
        """Traces for arrays or shapes `like`, and compiles in a thread. On CPUs only.

        `like` has the shardings of the arguments; without, these are numpy arrays. A call with such
        arguments waits for the thread.
        """
        with compiling.Watched() as traced:
            lowered = self._fn.lower(*like)
        self._begun[_signature(like)] = _threads.submit(_compile, lowered, traced.what)

    def __call__(self, *args: Any) -> Any:
        if self._begun and (begun := self._begun.pop(_signature(args), None)):
            begun.result()
        with compiling.Watched():
            return self._fn(*args)


def _compile(lowered: jax.stages.Lowered, what: str | None) -> None:
    with compiling.told(what):
        compiled = lowered.compile()
    if plan := compiled.memory_analysis():
        cpu.keep_memory(plan.temp_size_in_bytes)


def _signature(tree: Any) -> tuple:
    return tuple((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def without_cache() -> Iterator[None]:
    """Compiles everything anew, whatever JAX's settings say."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
