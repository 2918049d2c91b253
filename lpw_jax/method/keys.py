"""Random numbers that are a function of the key alone, whatever JAX's settings are."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp

IMPL = "threefry2x32"


def make_key(seed: int) -> jax.Array:
    """The typed key of a seed, 0 to 2**64 - 1: neither another generator nor an offset."""
    words = jnp.array([seed >> 32, seed & 0xFFFFFFFF], jnp.uint32)
    return jax.random.wrap_key_data(words, impl=IMPL)


def typed(key: Any) -> jax.Array:
    """A typed key; a raw one of two words is Threefry's, as no other generator has such."""
    key = jnp.asarray(key)
    is_raw = not jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(key, impl=IMPL) if is_raw and key.shape == (2,) else key


def one_stream() -> contextlib.AbstractContextManager[Any]:
    """Inside it, keys are split and drawn from in the one way that JAX does by default."""
    return jax.threefry_partitionable(True)
