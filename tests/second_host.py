"""lpw_jax.main for the processes after the first of a run, which keep what they compile as well.

JAX lets only the first write to its cache, and the others look for programs of another name there:
started again and again, they would compile everything each time.
"""

import runpy

from jax._src import compiler, distributed

_write = compiler._cache_write


def _written(*args, **kwargs):
    state = distributed.global_state
    state.process_id, number = 0, state.process_id
    try:
        return _write(*args, **kwargs)
    finally:
        state.process_id = number


if __name__ == "__main__":
    compiler._cache_write = _written
    runpy.run_module("lpw_jax.main", run_name="__main__", alter_sys=True)
