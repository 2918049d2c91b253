"""Mistakes of the user, as opposed to faults of the program, and how programs end on them."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator


class UserError(ValueError):
    """Something the user can put right; programs print its message and exit with code 2."""


class ConfigError(UserError):
    """A configuration that cannot be run: one line for each mistake."""


class NotFinite(UserError):
    """Predictions or weights are no numbers that a training ends with: it has diverged."""


class SharedError(UserError):
    """One that every process of the run raises, so that none waits for another."""


class Preempted(BaseException):
    """The run was asked to end, and what is to be kept is saved; programs exit with code 75.

    Like KeyboardInterrupt it may come at any time, and nothing but a program's end catches it.
    """


PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130
_CONTINUES = "asked to end; the same command continues"


def exit_code(program: str, run: Callable[[], object]) -> int:
    """Calls `run`; returns the exit code: 0, 2 (UserError), 75 (Preempted) or 130 (Ctrl-C)."""
    try:
        with _ended_by_sigterm():
            run()
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except Preempted:
        print(_CONTINUES, file=sys.stderr)
        return PREEMPTED
    except KeyboardInterrupt:
        print("interrupted; the same command continues at the newest checkpoint", file=sys.stderr)
        return INTERRUPTED
    return 0


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Ends the process at SIGTERM, until something else listens: nothing has been begun yet."""

    def receive(*_):
        # At once: JAX swallows exceptions that are raised inside its own callbacks.
        os.write(2, f"{_CONTINUES}\n".encode())
        os._exit(PREEMPTED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave(code: int) -> None:
    """Ends the process; unless all went well, at once, without waiting for any thread.

    Tearing down a compiling XLA crashes, and threads of an unfinished checkpoint never end.
    """
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit()
