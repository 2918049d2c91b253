"""What callers give: refused with its name, what it must be, and what came."""

from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method.state import State


def described(value: Any) -> str:
    """An array as 'float32 [3, 4]', anything else by its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} [{', '.join(map(str, value.shape))}]"
    return f"{type(value).__name__} {str(value)[:60]}"


def check_state(state: Any, where: str) -> None:
    """Raises TypeError unless it is a `State`."""
    if not isinstance(state, State):
        raise TypeError(
            f"{where}: state: must be a lpw_jax.State, as LatePhase.init makes one, got "
            f"{described(state)}"
        )


def check_key(key: Any, where: str) -> None:
    """Raises TypeError unless it is one key of JAX, of the new kind or the old one, or None."""
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
    is_new = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    is_old = dtype == jnp.uint32 and shape is not None and len(shape) == 1
    if key is not None and not is_new and not is_old:
        raise TypeError(
            f"{where}: key: must be one key, as jax.random.key(0) makes it, got {described(key)}"
        )


def check_call(where: str, state: Any, key: Any) -> None:
    """Raises TypeError unless both are what a step takes."""
    check_state(state, where)
    check_key(key, where)


def check_floating(value: Any, where: str, shape: str, *, axes: int) -> None:
    """Raises TypeError unless it is a floating array with at least so many axes."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating) or value.ndim < axes:
        raise TypeError(f"{where}: must be a floating array {shape}, got {described(value)}")
