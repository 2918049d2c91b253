"""A lock on a folder that dies with its holder."""

import contextlib
import os
import platform
import re
import warnings
from collections.abc import Iterator
from typing import Literal

from etils import epath

from lpw_jax.errors import UserError
from lpw_jax.files import storage

NAME = ".lock"

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextlib.contextmanager
def held(folder: epath.Path, flag: str = "--workdir") -> Iterator[None]:
    """Keeps other processes from using `folder`, which must exist. Not for remote storage.

    `flag` is the one that named it.

    Raises:
      UserError: another process holds it; its id and machine are named.
    """
    if fcntl is None or storage.is_remote(folder):
        (folder / NAME).write_text(_holder())  # shows that the folder can be written
        (folder / NAME).unlink()
        yield
        return
    file = _acquire(folder, flag)
    try:
        file.seek(0)
        file.truncate()
        file.write(_holder())
        file.flush()
        yield
    finally:
        # Removed while still held: whoever opened it meanwhile finds that it is not this file.
        (folder / NAME).unlink(missing_ok=True)
        file.close()


def state(folder: epath.PathLike) -> Literal["free", "held", "left", "unknown"]:
    """Who uses a folder, without taking the lock, which would keep a beginning run out.

    'left' is the lock of a process of this machine that was killed. 'unknown' is that of another
    machine, and whatever is where there are no locks.
    """
    if fcntl is None or storage.is_remote(folder):
        return "unknown"
    try:
        with open(os.path.join(folder, NAME), encoding="utf-8") as file:
            holder = re.fullmatch(r"process (\d+) on (.*)", file.read(1000), re.DOTALL)
    except FileNotFoundError:
        return "free"
    except (OSError, ValueError):
        return "unknown"
    if holder is None or holder[2] != platform.node():
        return "unknown"
    try:
        os.kill(int(holder[1]), 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return "left"
    except OSError:  # another user's
        return "held"
    return "held"


def _holder() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _acquire(folder: epath.Path, flag: str):
    path = folder / NAME
    while True:
        file = open(path, "a+")  # noqa: SIM115  (it is the lock, and outlives this function)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read() or "another process"
            file.close()
            raise UserError(
                f"{flag} = {str(folder)!r}: is in use by {holder}; wait for it, end it, or "
                "choose another folder"
            ) from error
        except OSError as error:  # some network file systems have no locks
            warnings.warn(f"{path}: cannot be locked, {error}", stacklevel=2)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        file.close()
