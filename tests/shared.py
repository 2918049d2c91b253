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


def make_room(folder: Path, size: int) -> None:
    """Deletes compiled programs, the oldest first, until `folder` has at most `size` bytes.

    JAX's own limit reads the age of every kept program whenever it keeps another, which takes
    longer than to compile a small one.
    """
    files = [(file.stat(), file) for file in folder.glob("*") if file.is_file()]
    for found, file in sorted(files, key=lambda kept: kept[0].st_mtime, reverse=True):
        size -= found.st_size
        if size < 0:
            file.unlink(missing_ok=True)
