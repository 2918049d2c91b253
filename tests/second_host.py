"""lpw_jax.main for the processes after the first of a run, which keep what they compile as well.

JAX lets only the first write to its cache, and the others look for programs of another name there:
started again and again, they would compile everything each time.
"""

import runpy

from jax._src import compiler, distributed

_write = getattr(compiler, "_cache_write", None)  # not JAX's public interface: it may go


def _written(*args, **kwargs):
    state = distributed.global_state
    state.process_id, number = 0, state.process_id
    try:
        return _write(*args, **kwargs)
    finally:
        state.process_id = number


if __name__ == "__main__":
    if _write is not None:
        compiler._cache_write = _written
    runpy.run_module("lpw_jax.main", run_name="__main__", alter_sys=True)
