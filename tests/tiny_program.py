"""lpw_jax.main with a tiny network and no report, and every process keeps what it compiles.

A process of its own spends most of its time on tracing and compiling its network. Of several
processes of a run JAX lets only the first write to its cache, and the others look for programs of
another name there: started again and again, they would compile everything each time.
"""

import functools
import runpy

import tiny_net
from jax._src import compiler, distributed

from lpw_jax import models, report

_write = getattr(compiler, "_cache_write", None)  # not JAX's public interface: it may go


def _written(*args, **kwargs):
    state = distributed.global_state
    state.process_id, number = 0, state.process_id
    try:
        return _write(*args, **kwargs)
    finally:
        state.process_id = number


if __name__ == "__main__":
    report.refresh = lambda *_, **__: None  # its figures take as long as half of a training
    # So wide that a limit on the size of files tells a checkpoint from the logs.
    models.create = functools.partial(tiny_net.create, features=96)
    if _write is not None:
        compiler._cache_write = _written
    runpy.run_module("lpw_jax.main", run_name="__main__", alter_sys=True)
