"""What lets programs run fast on CPUs: how XLA compiles them, and how memory is kept."""

import ctypes
import functools
import importlib.util
import os

import jax

# XLA has the library YNNPACK compute convolutions and products, each on one core; without it they
# take all cores. Its sums are the faster ones.
_OPTION, _SUMS = "xla_cpu_experimental_ynn_fusion_type", "LIBRARY_FUSION_TYPE_REDUCE"
_MOST_ARENAS, _MOST_MAPPED, _TRIM_ABOVE = -8, -4, -1  # parameters of glibc's mallopt


@functools.cache
def compiler_options() -> dict[str, str]:
    """What `jax.jit` is to be given on CPUs: {} where XLA lacks the option, or a flag sets it."""
    if _OPTION in os.environ.get("XLA_FLAGS", ""):
        return {}
    options = {_OPTION: _SUMS}
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def keep_memory() -> None:
    """Keeps freed memory for what is allocated next. To be called before JAX starts its threads.

    Otherwise every step gets its memory anew from the system, page by page: a fifth of the time of
    a small network's. Only glibc is told so, only where JAX has nothing but CPUs, and not if the
    environment has settings of its own.
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")) for name in os.environ):
        return
    if os.environ.get("JAX_PLATFORMS") != "cpu" and any(
        importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")
    ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for name, value in ((_MOST_ARENAS, 1), (_MOST_MAPPED, 0), (_TRIM_ABOVE, 2**31 - 1)):
            mallopt(name, value)
