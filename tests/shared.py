"""What several tests need and is dear to make: made once for all workers of a session."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock

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
