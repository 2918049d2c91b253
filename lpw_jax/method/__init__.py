"""Late-phase weights for any model: pure functions of pytrees, on jax and optax alone."""
