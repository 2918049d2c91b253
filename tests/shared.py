"""What all tests of a session share: dear things made once for all workers, and XLA's effort."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock

# Flag of XLA: machine code is made in half the time, and runs as fast on networks this small.
QUICK_COMPILER = "--xla_backend_optimization_level=1"
FOLDER = "LPW_JAX_TESTS_SHARED"  # environment variable, set by conftest


def once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, which `make(folder)` fills on first use, whichever process that is."""
    folder = Path(os.environ[FOLDER], name)
    with filelock.FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            unfinished.rename(folder)
    return folder
