"""Neural networks with late-phase weights, in JAX and Flax."""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Late, so that a mistake in a config is answered before JAX is imported.
    if name == "load":
        from lpw_jax.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
