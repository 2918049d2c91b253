"""Folders and files on this machine or in a bucket ('gs://bucket/folder')."""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from etils import epath

from lpw_jax.errors import UserError

PARTIAL = ".partial"  # ends the name of a file that is being written


def path(text: str) -> epath.Path:
    """The path that a user wrote: local, with '~' for the home folder, or remote."""
    return epath.Path(text).expanduser()


def cache_folder(name: str) -> Path:
    """This user's folder for what can be made again: `$XDG_CACHE_HOME/lpw_jax/NAME`.

    Raises:
      RuntimeError: the user has no home.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # unset, or to be ignored by the rules of XDG
        caches = Path.home() / ".cache"
    return caches / "lpw_jax" / name


def is_remote(place: epath.PathLike) -> bool:
    """Whether `place` is in a bucket, where libraries that open files by name cannot read."""
    return "://" in os.fspath(place)


def is_file(place: epath.Path) -> bool:
    """Whether there is a file: if local, a regular one (opening a pipe would wait for ever)."""
    if is_remote(place):
        return place.exists() and not place.is_dir()
    return os.path.isfile(place)


def has_file(place: epath.Path, *, what: str) -> bool:
    """Whether `place` is there; raises UserError, saying `what` it must be, if it is no file."""
    with reading(place):
        if place.exists() and not is_file(place):
            raise UserError(f"{place}: must be {what}, but is no file")
        return place.exists()


def has_folder(place: epath.Path, *, what: str) -> bool:
    """Whether `place` is there; raises UserError, saying `what` it must be, if it is no folder."""
    with reading(place):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place}: must be {what}, but is no folder")
        return place.exists()


@contextlib.contextmanager
def reading(place: object, remedy: str = "") -> Iterator[None]:
    """Turns whatever goes wrong inside into a UserError that names `place` and the `remedy`.

    Libraries raise nearly anything on a damaged file, and bucket clients share no base class.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        remedy = remedy and f"; {remedy}"
        raise UserError(f"{place} cannot be read: {first_line(error)}{remedy}") from error


def set_aside(place: epath.Path) -> epath.Path:
    """Gives what is damaged another name, 'damaged-NAME', and returns it; nothing is deleted."""
    names = itertools.chain([""], (f"{number}-" for number in itertools.count(2)))
    targets = (place.with_name(f"damaged-{number}{place.name}") for number in names)
    target = next(target for target in targets if not target.exists())
    place.rename(target)
    return target


def copy(files: Iterable[epath.Path], folder: epath.Path) -> None:
    """Copies files into `folder` under their own names; either side may be remote."""
    for file in files:
        with file.open("rb") as source, (folder / file.name).open("wb") as target:
            shutil.copyfileobj(source, target)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, not too long, without TensorFlow's node names."""
    text = re.sub(r"^{{.*?}} ?", "", str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:300]
