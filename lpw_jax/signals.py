"""Being asked to leave: by a scheduler, a terminal that was lost, or Ctrl-C."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try again later
INTERRUPTED = 130
CONTINUES = "asked to end; the same command continues"
STOPPED = "interrupted; the same command continues at the newest checkpoint, if there is one"

# All that ask a process to end; schedulers choose among them. Windows lacks most.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)


@contextlib.contextmanager
def handled(handlers: Mapping[int, Callable[[int, Any], None]]) -> Iterator[None]:
    """Handles signals inside, but for those that are ignored: by nohup, or in the background.

    Outside the main thread, where Python allows no handlers, it does nothing.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {n: old for n in handlers if (old := signal.getsignal(n)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def end_at_once(number: int, _: Any = None) -> None:
    """A handler that ends the process there and then: nothing has been begun yet.

    It raises nothing, since JAX swallows exceptions that are raised inside its own callbacks.
    """
    text, code = (STOPPED, INTERRUPTED) if number == signal.SIGINT else (CONTINUES, PREEMPTED)
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())
    os._exit(code)
