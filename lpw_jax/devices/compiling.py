"""What is being compiled at this moment, for whoever shows it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

_LEAST = 1.0  # seconds: what is sooner done is not worth a word


class Compilation(NamedTuple):
    """What is compiled, and since when by `time.monotonic`."""

    what: str
    since: float


_now: dict[int, Compilation] = {}  # by thread
_here = threading.local()


def tracing(what: str) -> None:
    """To be called by a function that JAX traces: then its compilation follows."""
    if getattr(_here, "is_watched", False):
        _now[threading.get_ident()] = Compilation(what, time.monotonic())


class Watched:
    """A call that may trace and compile; cheap enough for every training step.

    Attributes:
      what: of the function that was traced, None if none was; known at the end.
    """

    def __init__(self):
        self.what: str | None = None

    def __enter__(self):
        _here.is_watched = True
        return self

    def __exit__(self, *_):
        _here.is_watched = False
        if _now and (found := _now.pop(threading.get_ident(), None)):
            self.what = found.what


@contextlib.contextmanager
def told(what: str | None) -> Iterator[None]:
    """What takes long inside is the compilation of `what`; None is not told."""
    if what is not None:
        _now[threading.get_ident()] = Compilation(what, time.monotonic())
    try:
        yield
    finally:
        _now.pop(threading.get_ident(), None)


def longest() -> str:
    """What has been compiled for longest, in words, and for how long; '' if for no second."""
    first = min(list(_now.values()), key=lambda found: found.since, default=None)
    if first is None or (seconds := time.monotonic() - first.since) < _LEAST:
        return ""
    return f"compiling {first.what}, {seconds:.0f} s"
