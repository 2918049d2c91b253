"""Writing into a local folder of tensorflow-datasets: alone, with room, whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator

from etils import epath

from lpw_jax.errors import UserError
from lpw_jax.files import lock, storage

UNFINISHED = "incomplete."  # begins the name that tfds gives a version until it is whole


def check_local(place: epath.Path, *, field: str) -> None:
    """Raises UserError, saying what to do instead, if `place` is in a bucket."""
    if storage.is_remote(place):
        raise UserError(
            f"{field} = {str(place)!r}: must be a local folder, for files of this size are read "
            "where they lie; mount the bucket (gcsfuse) and name the folder it is mounted on, or "
            "prepare the data in a local folder and copy it (gcloud storage rsync --recursive)"
        )


@contextlib.contextmanager
def reserved(folder: epath.Path, *, num_bytes: int) -> Iterator[None]:
    """Keeps `folder`, <data_dir>/<name>, for one writer of about `num_bytes` bytes.

    It is made if it is not there, and freed of what an interrupted writer left.

    Raises:
      UserError: it is remote, not writable, too full, or another process writes into it.
    """
    check_local(folder, field="data.dir")
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_if_empty, folder)
            stack.enter_context(lock.held(folder))
            for path in folder.iterdir():
                if path.name.startswith(UNFINISHED):
                    path.rmtree()
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise UserError(f"data.dir: {folder} cannot be written: {error}") from None
        except UserError:
            raise UserError(
                f"data.dir: another process is writing into {folder} ({lock.NAME} in it tells "
                "which); wait for it, then run this again"
            ) from None
        if free < num_bytes:
            raise UserError(
                f"data.dir: {folder} needs about {_gigabytes(num_bytes)} but its disk has only "
                f"{_gigabytes(free)} left; make room or choose another folder"
            )
        yield


def _remove_if_empty(folder: epath.Path) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def _gigabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB"
