"""What all tests of a session share: dear things made once for all workers, and XLA's effort."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock

# Flags of XLA: what is compiled takes a fifth of the time, or half of it, and runs three times as
# long, or as long as ever. In one process the fixture `fast_steps` does the latter for steps.
_QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
QUICK_COMPILER = f"--xla_backend_optimization_level=0 {_QUICK}"
FAST_PROGRAMS = f"--xla_backend_optimization_level=1 {_QUICK}"  # run for longer than compiled
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
