"""Mistakes of the user, as opposed to faults of the program, and how programs end on them."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable

from lpw_jax import signals, streams
from lpw_jax.plain_text import visible
from lpw_jax.signals import INTERRUPTED, PREEMPTED


class UserError(ValueError):
    """Something the user can put right; programs print its message and exit with code 2."""


class ConfigError(UserError):
    """A configuration that cannot be run: one line for each mistake."""


class NotFinite(UserError):
    """Predictions or weights are no numbers that a training ends with: it has diverged."""


class SharedError(UserError):
    """One that every process of the run raises, so that none waits for another."""


class Preempted(BaseException):
    """The run was asked to end, and what is to be kept is saved; programs exit with its code.

    Like KeyboardInterrupt it may come at any time, and nothing but a program's end catches it.
    """

    def __init__(self, message: str = signals.CONTINUES, code: int = PREEMPTED):
        super().__init__(message)
        self.code = code


def begin() -> None:
    """Readies the process of a program before anything else is imported, which takes seconds."""
    streams.open_closed()
    streams.guard()
    numbers = (signal.SIGINT, *signals.ENDING)
    _stack.enter_context(signals.handled(dict.fromkeys(numbers, signals.end_at_once)))


_stack = contextlib.ExitStack()  # of the process: never closed


def exit_code(program: str, run: Callable[[], object]) -> int:
    """Calls `run`; returns the exit code: 0, 2 (UserError), 75 (Preempted) or 130 (Ctrl-C).

    What cannot be printed is no error: the exit code says whether the work was done.
    """
    with streams.guarded():
        try:
            with signals.handled(_HANDLERS):
                run()
        except UserError as error:
            return _ended(f"{program}: error: {error}", 2)
        except Preempted as error:
            return _ended(str(error), error.code)
        except KeyboardInterrupt:
            return _ended(signals.STOPPED, INTERRUPTED)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            return _ended(f"{program}: error: {_OUT_OF_MEMORY}; {first_line(error)}", 2)
    return 0


_HANDLERS = dict.fromkeys(signals.ENDING, signals.end_at_once) | {
    signal.SIGINT: signal.default_int_handler
}
_OUT_OF_MEMORY = (
    "there is too little memory; make one of these smaller: train.batch_size, or its parts by a "
    "larger train.num_microbatches; evaluate.batch_size; late_phase.num_members; or take "
    "late_phase.member_mode = 'scan' or train.compute_dtype = 'bfloat16'"
)


def _ended(message: str, code: int) -> int:
    print(visible(message), file=sys.stderr)
    return code


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, numpy or XLA (which has no type for it) found too little memory."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:200]


def first_line(error: BaseException) -> str:
    """The first line of an error's message, not too long, without TensorFlow's node names."""
    text = re.sub(r"^{{.*?}} ?", "", str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:300]


def leave(code: int) -> None:
    """Ends the process; unless all went well, at once, without waiting for any thread.

    Tearing down a compiling XLA crashes, and threads of an unfinished checkpoint never end.
    """
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit()
