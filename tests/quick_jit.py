"""`jax.jit` for programs that take longer to compile than to run."""

import functools

import jax

# Machine code that is made twice as fast and is itself slower, by far where convolutions are large.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
