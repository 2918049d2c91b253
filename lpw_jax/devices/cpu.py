"""What lets programs run fast on CPUs: how XLA compiles them, and how memory is kept."""

import ctypes
import functools
import importlib.util
import os
import sys

import jax

# XLA has the library YNNPACK compute convolutions and products, each on one core; without it they
# take all cores. Its sums are the faster ones.
_OPTION, _SUMS = "xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE"
_EFFORT = "xla_backend_optimization_level"
_SETTINGS, _PLUGINS = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"), ("jax_plugins", "libtpu")
_MOST_ARENAS, _MOST_MAPPED, _TRIM_ABOVE = -8, -4, -1  # parameters of glibc's mallopt


@functools.cache
def compiler_options() -> dict[str, str | int]:
    """What `jax.jit` is to be given on CPUs, less what flags set; {} where XLA lacks an option."""
    options = little_effort()
    if _OPTION not in os.environ.get("XLA_FLAGS", ""):
        options[_OPTION] = _SUMS
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def little_effort() -> dict[str, int]:
    """XLA's option for less effort at machine code, {} where a flag of the user says how much.

    Compiled sooner; as fast, and the same bits, in the steps that were tried.
    """
    return {} if _EFFORT in os.environ.get("XLA_FLAGS", "") else {_EFFORT: 1}


def share_memory() -> None:
    """Lets all threads take memory from one place, as `keep_memory` needs it.

    To be called before JAX starts its threads.
    """
    _set(_MOST_ARENAS, 1)


def keep_memory(num_bytes: int) -> None:
    """On CPUs, keeps freed memory for the next step, which needs `num_bytes` beside its arguments.

    Otherwise every step gets it anew from the system, page by page (`docs/speed.md`).
    What is kept may be several times as much, for pieces of it lie between others; so it
    is only if the machine has eight times `num_bytes`.
    """
    if sys.platform != "linux":
        return
    if 8 * num_bytes < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        _set(_MOST_MAPPED, 0)
        _set(_TRIM_ABOVE, 2**31 - 1)


def _set(parameter: int, value: int) -> None:
    """Tells glibc, where JAX has nothing but CPUs and the environment sets nothing of the kind."""
    if sys.platform != "linux" or any(name.startswith(_SETTINGS) for name in os.environ):
        return
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(map(importlib.util.find_spec, _PLUGINS)):
        return
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(parameter, value)
