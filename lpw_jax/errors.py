"""Mistakes of the user, as opposed to faults of the program, and how programs end on them."""

import os
import sys
from collections.abc import Callable


class UserError(ValueError):
    """Something the user can put right; programs print its message and exit with code 2."""


class ConfigError(UserError):
    """A configuration that cannot be run: one line for each mistake."""


INTERRUPTED = 130


def exit_code(program: str, run: Callable[[], object]) -> int:
    """Calls `run` and returns the process's exit code: 0, 2 (UserError) or 130 (Ctrl-C)."""
    try:
        run()
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "interrupted; the same command evaluates the run if it was trained, "
            "and otherwise starts it again",
            file=sys.stderr,
        )
        return INTERRUPTED
    return 0


def leave(code: int) -> None:
    """Ends the process; after Ctrl-C at once, since tearing down a compiling XLA crashes."""
    if code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
