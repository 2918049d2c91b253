"""What the environment and JAX's settings could change of results: pinned, or told of."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import flax
import jax

from lpw_jax.method import keys

# Settings of JAX that change draws, precision or gradients. These have context managers,
_IN_CONTEXT = (
    "jax_enable_x64",
    "jax_default_prng_impl",
    "jax_threefry_partitionable",
    "jax_default_matmul_precision",
    "jax_disable_jit",
)
# and these have none.
_PINNED = {
    "jax_random_seed_offset": 0,
    "jax_high_dynamic_range_gumbel": False,
    "jax_allow_f16_reductions": True,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_custom_vjp3": False,
    "jax_remat3": False,
    "jax_scan3": False,
    "jax_no_execution": False,
}
# Draws of linen follow the names of modules, and those of Flax's settings.
_FLAX = ("fix_rng_separator", "preserve_adopted_names", "return_frozendict")
# Names of what cannot change a number; what is not here, also of a newer JAX, is told of.
_WITHOUT_EFFECT = re.compile(
    r"""
    check|guard|promotion|debug|error|leak|no_tracing|legacy_prng|custom_prng|mutable_array|refs_to
    |log|dump|explain|traceback|frames|location|source_|pprint|verbose|captured  # what is told
    |cache|constants|pgle|xla_profile|time_?out|async  # when
    |platform|backend|devices|default_device|host|distributed|recover|preempt|client_create  # where
    |jax2tf|export|serializ|mock|mesh|simplified_jaxpr|emit_pipeline|custom_partitioning  # unused
    """,
    re.VERBOSE,
)
_VARIABLES = re.compile(
    "XLA_FLAGS|LIBTPU_INIT_ARGS|NVIDIA_TF32_OVERRIDE|CUBLAS_WORKSPACE_CONFIG|TF_ENABLE_ONEDNN_OPTS"
    "|TF_DETERMINISTIC_OPS|TF_XLA_FLAGS|(TF_CUDNN|ONEDNN|DNNL)_.*|NPROC|.*_NUM_THREADS"
)
_NUM_DEVICES = re.compile(r"--xla_force_host_platform_device_count=\S*")


@contextlib.contextmanager
def pinned(*, compute_dtype: str, matmul_precision: str) -> Iterator[None]:
    """Computes alike whatever the environment and JAX's settings are, which it restores.

    Draws are Threefry's, made in JAX's default way; arrays have 64 bits if `compute_dtype` is
    'float64'; products that do not say their precision have `matmul_precision`.
    """
    with contextlib.ExitStack() as stack:
        for manager in (
            jax.enable_x64(compute_dtype == "float64"),
            jax.default_prng_impl(keys.IMPL),
            keys.one_stream(),
            jax.default_matmul_precision(matmul_precision),
            jax.disable_jit(False),
            *(flax.config.temp_flip_flag(name, False) for name in _FLAX),
        ):
            stack.enter_context(manager)
        for name, value in _PINNED.items():
            before = getattr(jax.config, name, value)  # other versions of JAX lack some
            if before != value:
                stack.callback(jax.config.update, name, before)
                jax.config.update(name, value)
        yield


def recorded() -> dict[str, Any]:
    """What is not pinned and may change results, if only by rounding: settings and variables."""
    found = {
        name: value
        for name, value in jax.config.values.items()
        if name not in (*_PINNED, *_IN_CONTEXT) and not _WITHOUT_EFFECT.search(name)
    }
    found |= {name: value for name, value in os.environ.items() if _VARIABLES.fullmatch(name)}
    if "XLA_FLAGS" in found:
        flags = _NUM_DEVICES.sub("", found["XLA_FLAGS"])  # that number has its own place
        found["XLA_FLAGS"] = " ".join(sorted(flags.split()))
    plain = bool | int | float | str | None
    return {
        name: value if isinstance(value, plain) else str(value)
        for name, value in sorted(found.items())
        if value != ""
    }
