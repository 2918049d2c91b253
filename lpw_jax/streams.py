"""Output that is full, closed or cannot show a character ends no program."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any

from lpw_jax.plain_text import visible

_NAMES = {"stdout": "standard output", "stderr": "standard error"}


class Stream:
    """A text stream whose `write` and `flush` never fail.

    The first failure is told on the other stream; from then on all goes to the null device. What
    the encoding lacks is shown as a backslash escape.
    """

    def __init__(self, stream: Any, name: str):
        self._stream, self._name, self._is_lost = stream, name, False
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self):
        return iter(self._stream)

    def write(self, text: str) -> int:
        """As in a file; returns the number of characters."""
        self._try("write", text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """As in a file."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As in a file."""
        self._try("flush")

    def _try(self, method: str, *args: Any) -> None:
        try:
            getattr(self._stream, method)(*args)
        except (OSError, ValueError) as error:  # the latter of codecs
            if self._is_lost or self._stream.closed:  # the latter by who made it
                return
            self._is_lost = True
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self._stream.fileno())  # C++ writes there, too
                os.close(null)
                self._stream.flush()
            (other,) = _NAMES.keys() - {self._name}
            reason = visible(getattr(error, "strerror", None) or str(error))
            print(
                f"warning: {_NAMES[self._name]} is lost ({reason}); the program goes on without it",
                file=getattr(sys, other),
            )


class _Nowhere(io.TextIOBase):
    """Takes everything and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


def guard() -> None:
    """Makes `sys.stdout` and `sys.stderr` streams that never fail, whatever they are now."""
    for name in _NAMES:
        stream = getattr(sys, name)
        if stream is None:  # closed before Python started
            stream = _Nowhere()
        if not isinstance(stream, Stream):
            setattr(sys, name, Stream(stream, name))


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """`guard` for a while; at the end all that was printed is out, or told to be lost."""
    before = {name: getattr(sys, name) for name in _NAMES}
    guard()
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def open_closed() -> None:
    """Opens the null device in place of a closed standard stream.

    Otherwise the next file that is opened would have its number, and get what C++ prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number
