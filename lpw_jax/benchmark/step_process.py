"""A step of a suite as a process: its time is limited, and it never outlives the suite."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from lpw_jax.benchmark import guard


def run(
    command: Sequence[str],
    *,
    log: Path,
    seconds: float,
    grace: float = 0.0,
    environment: Mapping[str, str] | None = None,
) -> int | None:
    """Runs a command and all that it starts; nothing of it is left afterwards.

    Args:
      log: file for what it prints.
      seconds: after which it is asked to end (SIGTERM), if it has a `grace`, and
      grace: seconds after that killed.
      environment: of the process, by default this one's.

    Returns:
      its exit code (128 and the signal's number, if it died of one), None if the time was over.
    """
    with open(log, "wb") as output:
        child = subprocess.Popen(
            [sys.executable, guard.__file__, *command],
            stdin=subprocess.PIPE,  # closes with this process
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        is_asked = False
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            is_asked = _ask(child, grace)
            return None
        finally:
            if child.returncode is None and not is_asked:  # this process was asked to end
                _ask(child, grace)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.stdin.close()
            child.wait()


def _ask(child: subprocess.Popen, grace: float) -> bool:
    """Asks the process to end and waits; True."""
    if grace > 0:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    return True


def last_words(log: Path) -> str:
    """The line of a log that says why its program failed: that of an error, or the last."""
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if "error: " in line]
    return (errors or lines or ["it printed nothing"])[-1][:300]
