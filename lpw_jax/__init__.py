"""Neural networks with late-phase weights, in JAX and Flax."""

from typing import Any

__all__ = ["load", "load_weights"]


def __getattr__(name: str) -> Any:
    # Late, so that a mistake in a config is answered before JAX is imported.
    if name in __all__:
        from lpw_jax import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
