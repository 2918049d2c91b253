"""The other processes of a run: joining them, and agreeing with them."""

import contextlib
import json
import os
import pathlib
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lpw_jax.devices import joining, lost, parallel
from lpw_jax.errors import Preempted, SharedError, UserError


@contextlib.contextmanager
def joined(
    *,
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    timeout: float = 300.0,
) -> Iterator[None]:
    """Connects this process with the others of the run, before JAX is used otherwise.

    With an explicit `coordinator` (HOST:PORT of process 0), `num_processes` and `process_id`; with
    `distributed`, by what JAX detects; and without any, wherever several processes are started
    together: Slurm or Open MPI with several tasks, Cloud TPU, or JAX_COORDINATOR_ADDRESS. The
    others are waited for during `timeout` seconds.

    Raises:
      UserError: the others cannot be joined, or JAX does not know how.
    """
    explicit = {"coordinator": coordinator, "num_processes": num_processes}
    explicit |= {"process_id": process_id}
    missing = [f"--{name}" for name, value in explicit.items() if value is None]
    if len(missing) < len(explicit):
        if missing:
            raise UserError(
                f"{', '.join(missing)}: missing; --coordinator, --num_processes and --process_id "
                "are given together, or none of them"
            )
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id = {process_id}: must be 0 to {num_processes - 1} "
                f"(--num_processes = {num_processes})"
            )
        if ":" not in coordinator:
            raise UserError(f"--coordinator = {coordinator!r}: must be HOST:PORT of process 0")
    elif not distributed and not _started_together():
        yield
        return
    try:
        joining.initialize(coordinator, num_processes, process_id, timeout=timeout)
    except UserError:
        raise
    except ValueError as error:
        if coordinator is not None:
            raise UserError(f"--coordinator = {coordinator!r}: {error}") from error
        if distributed:
            raise UserError(
                f"--distributed: JAX detects no cluster here ({error}); give --coordinator "
                "HOST:PORT, --num_processes and --process_id"
            ) from error
        # A machine of its own, although it might have been one of a cluster.
    parallel.found()
    with lost.watched(exchange, joining.host()) as watch:
        try:
            yield
        except (SharedError, Preempted):
            _disconnect(watch)
            raise
        _disconnect(watch)  # after any other exception the others would be waited for in vain


def _disconnect(watch: lost.Watch | None) -> None:
    """Waits for the others, so that none takes this process's end for a failure."""
    if watch is not None:
        watch.end()
    if jax.distributed.is_initialized():
        with contextlib.suppress(RuntimeError):  # another process has failed
            jax.distributed.shutdown()


def _started_together() -> bool:
    tasks = (os.environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    return (
        any(number.isdigit() and int(number) > 1 for number in tasks)
        or "JAX_COORDINATOR_ADDRESS" in os.environ
        or any(pathlib.Path(device).exists() for device in ("/dev/accel0", "/dev/vfio/0"))
    )


def is_primary() -> bool:
    """Whether this process is the one that logs and writes."""
    return jax.process_index() == 0


def exchange(value: Any) -> list[Any]:
    """Every process's `value` (of JSON's types), in the processes' order, on all of them."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([text.size], np.int32)).ravel()
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: text.size] = text
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(bytes(row[:size])) for row, size in zip(np.asarray(rows), sizes, strict=True)
    ]


def together(fn: Callable[[], Any]) -> Any:
    """Calls `fn` on every process; a UserError of one becomes a SharedError of all.

    Without this, the others would wait for ever for one that has stopped.
    """
    if jax.process_count() == 1:
        return fn()
    value, problem = None, None
    try:
        value = fn()
    except UserError as error:
        problem = str(error)
    problems = {i: text for i, text in enumerate(exchange(problem)) if text is not None}
    if problems:
        raise SharedError("; ".join(f"process {i}: {text}" for i, text in problems.items()))
    return value


def on_primary(fn: Callable[[], Any]) -> Any:
    """Calls `fn` on the primary process; all get its result, or its UserError.

    The result may hold numpy arrays, and whatever else can be pickled.
    """
    value = together(lambda: fn() if is_primary() else None)
    if jax.process_count() == 1:
        return value
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    size = exchange(data.size)[0]
    data = data if is_primary() else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(data)).tobytes())


def primary_first(fn: Callable[[], Any]) -> Any:
    """Calls `fn` on the primary process, then on the others: they find what the first has made."""
    first = together(lambda: fn() if is_primary() else None)
    later = together(lambda: None if is_primary() else fn())
    return first if is_primary() else later


def check_same(what: str, value: dict[str, Any]) -> None:
    """Checks that `value`, a dict of JSON's types, is that of every process.

    Raises:
      SharedError: naming `what`, and the entries in which processes differ from process 0.
    """
    first, *others = exchange(value)
    different = [
        f"process {i} has {name} = {other.get(name)!r}, process 0 {first.get(name)!r}"
        for i, other in enumerate(others, 1)
        for name in {**first, **other}
        if first.get(name) != other.get(name)
    ]
    if different:
        raise SharedError(f"every process must have the same {what}: {'; '.join(different)}")
