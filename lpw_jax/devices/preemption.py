"""Notices that the run is to end: by signals, Ctrl-C, and what a TPU's host is told."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from lpw_jax import signals
from lpw_jax.errors import Preempted

_SAVED = "interrupted and saved; the same command continues"
_SAVING = "interrupted: the run is saved and ends; Ctrl-C again ends it at once"


class Preemption:
    """Whether this run has been asked to end.

    A single process catches signals (`signals.ENDING`, and Ctrl-C) itself. Outside `deferred` it
    ends there and then, since nothing is lost; inside it waits for the next `due`, but for a second
    Ctrl-C. Processes that have joined through `jax.distributed` leave SIGTERM, and their cloud's
    notices, to JAX, which lets all of them see `due` at the same call; other signals are passed on
    as SIGTERM.
    """

    def __init__(self):
        self._requested = self._deferred = self._stopped = False
        self._by_ctrl_c = False
        self._calls = 0

    def due(self) -> bool:
        """Whether to end now. Joined processes must call it equally often.

        Raises:
          KeyboardInterrupt: after Ctrl-C, if a library has swallowed the first one.
        """
        if self._stopped:
            raise KeyboardInterrupt
        if jax.distributed.is_initialized():
            self._calls += 1
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._requested

    def end(self) -> Preempted:
        """What to raise when it is `due` and all is saved."""
        if self._by_ctrl_c:
            return Preempted(_SAVED, signals.INTERRUPTED)
        return Preempted()

    def check(self) -> None:
        """Raises `Preempted` if it is time to end, where nothing has to be saved."""
        if self.due():
            raise self.end()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Listens for signals, but for those that are ignored."""
        handlers = dict.fromkeys(signals.ENDING, self._ask) | {signal.SIGINT: self._interrupt}
        if jax.distributed.is_initialized():
            del handlers[signal.SIGTERM]
        report = sys.unraisablehook

        def reported(found):
            # Raised inside a callback, where Python can only report it; `due` meets it again.
            if not issubclass(found.exc_type, KeyboardInterrupt | Preempted):
                report(found)

        sys.unraisablehook = reported
        try:
            with signals.handled(handlers):
                yield
        finally:
            sys.unraisablehook = report

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Puts the end off until the caller asks `due`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _ask(self, *_) -> None:
        self._requested = True
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)  # JAX tells all processes
        elif not self._deferred:
            raise self.end()

    def _interrupt(self, *_) -> None:
        if self._by_ctrl_c or not self._deferred:
            self._stopped = True
            raise KeyboardInterrupt
        self._by_ctrl_c = True
        with contextlib.suppress(OSError):  # no print: the program may be amid one
            os.write(2, f"{_SAVING}\n".encode())
        self._ask()
