"""Waiting for the other processes of a run, with words, an end, and an ear for signals."""

import math
import os
import socket
import sys
import threading
import time
from typing import Any

import jax

from lpw_jax.errors import UserError, first_line

TELL_AFTER = 4.0  # seconds


def initialize(
    coordinator: str | None, num_processes: int | None, process_id: int | None, *, timeout: float
) -> None:
    """`jax.distributed.initialize`, which by itself waits in C++, silent and deaf to signals.

    Raises:
      UserError: the others were not there after `timeout` seconds, or cannot be joined.
      ValueError: JAX does not know who the others are.
    """
    if not 0 < timeout < math.inf:
        raise UserError(f"--join_timeout = {timeout:g}: must be > 0 seconds, and finite")
    problems: list[BaseException] = []

    def join():
        try:
            jax.distributed.initialize(
                coordinator,
                num_processes,
                process_id,
                initialization_timeout=int(timeout) + 60,  # we give up before
            )
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=join, daemon=True)
    start, told = time.monotonic(), False
    thread.start()
    while thread.is_alive():
        thread.join(0.1)  # signals are handled in between
        waited = time.monotonic() - start
        if waited > TELL_AFTER and not told:
            told = True
            print(f"{_waits_for()}; for {timeout:g} s (--join_timeout)", file=sys.stderr)
        if waited > timeout and thread.is_alive():
            raise UserError(f"after {waited:.0f} s the run was given up: {_waits_for()}")
    if problems:
        if isinstance(problems[0], RuntimeError):
            raise UserError(
                f"cannot join the other processes of the run: {first_line(problems[0])}"
            ) from problems[0]
        raise problems[0]


def host() -> str | None:
    """Of process 0, as the others know it; None if that is not known."""
    address = getattr(_state(), "coordinator_address", None)
    return address and address.rpartition(":")[0].strip("[]")


def _state() -> Any:
    """What JAX knows of the group, so far; None where a newer JAX keeps that elsewhere."""
    try:
        from jax._src.distributed import global_state  # it has no public place
    except ImportError:
        return None
    return global_state


def _waits_for() -> str:
    """Who is waited for, and why there should be others at all."""
    state = _state()
    if state is None:
        return "waiting for the other processes of the run"
    address = state.coordinator_address or "an address that JAX has not found yet"
    which = f"this is process {state.process_id}"
    if state.process_id:
        reached = _answers(address)
        what = (
            f"{which}; process 0 at {address} answers, others are not there yet"
            if reached
            else f"{which}; process 0 does not answer at {address}"
        )
    else:
        number = state.num_processes
        what = (
            f"{which} of {number} at {address}, not all others have come" if number > 1 else which
        )
    tasks = [f"{n}={os.environ[n]}" for n in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE",
             "JAX_COORDINATOR_ADDRESS") if n in os.environ]  # fmt: skip
    because = f" (started together by {', '.join(tasks)}; alone: without them)" if tasks else ""
    return f"waiting for the other processes of the run: {what}{because}"


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except (OSError, ValueError):
        return False
    return True
