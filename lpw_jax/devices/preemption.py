"""Notices that the machine is about to be taken away: SIGTERM, and what a TPU's host is told."""

import contextlib
import signal
import sys
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from lpw_jax.errors import Preempted


class Preemption:
    """Whether this run has been asked to end.

    A single process catches SIGTERM itself. Outside `deferred` it raises `Preempted` there and
    then, since nothing is lost; inside it waits for the next `due`. Processes that have joined
    through `jax.distributed` leave SIGTERM, and their cloud's notices, to JAX, which lets all of
    them see `due` at the same call.
    """

    def __init__(self):
        self._requested = self._deferred = self._interrupted = False
        self._calls = 0

    def due(self) -> bool:
        """Whether to end now. Joined processes must call it equally often.

        Raises:
          KeyboardInterrupt: after Ctrl-C, if a library has swallowed the first one.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        if jax.distributed.is_initialized():
            self._calls += 1
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._requested

    def check(self) -> None:
        """Raises `Preempted` if it is time to end, where nothing has to be saved."""
        if self.due():
            raise Preempted

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Listens for SIGTERM, and for Ctrl-C where that is not ignored."""
        handlers = {}
        if not jax.distributed.is_initialized():
            handlers[signal.SIGTERM] = self._terminate
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            handlers[signal.SIGINT] = self._interrupt
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        report = sys.unraisablehook

        def reported(found):
            # Raised inside a callback, where Python can only report it; `due` meets it again.
            if not issubclass(found.exc_type, KeyboardInterrupt | Preempted):
                report(found)

        sys.unraisablehook = reported
        try:
            yield
        finally:
            sys.unraisablehook = report
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Puts the end off until the caller asks `due`."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _terminate(self, *_) -> None:
        self._requested = True
        if not self._deferred:
            raise Preempted

    def _interrupt(self, *_) -> None:
        self._interrupted = True
        raise KeyboardInterrupt
