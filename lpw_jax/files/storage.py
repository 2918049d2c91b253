"""Folders and files on this machine or in a bucket ('gs://bucket/folder')."""

import contextlib
import itertools
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from etils import epath

from lpw_jax.errors import UserError, first_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PARTIAL = ".partial"  # ends the name of a file that is being written


def path(text: epath.PathLike) -> epath.Path:
    """The path that a user wrote: local, with '~' for the home folder, or remote.

    Variables of the environment stand for their values, and spaces around it are no part of it, but
    in the name of what is there as it is written.

    Raises:
      UserError: a variable is not set.
    """
    written = os.fspath(text)
    if not is_remote(written) and os.path.lexists(written):
        return epath.Path(written)
    found = os.path.expandvars(written.strip())
    if unset := re.search(r"\$(\w+|{\w+})", found):
        raise UserError(f"{written!r}: the environment has no variable {unset[1].strip('{}')}")
    return epath.Path(found).expanduser()


def absolute(path: epath.PathLike) -> epath.Path:
    """The path by which orbax and tensorstore find what the system calls `path`.

    Raises:
      UserError: there is none.
    """
    path = epath.Path(path)
    if is_remote(path):
        return path  # to which epath would add the current directory
    # epath takes LINK/../NAME for NAME, wherever the link leads.
    path = epath.Path(os.path.realpath(path)) if ".." in path.parts else path.absolute()
    if os.sep == "/" and "\\" in str(path):  # tensorstore reads it as "/"
        raise UserError(
            f"{str(path)!r}: weights and checkpoints cannot be where a path has a backslash; "
            "choose another folder, or a link to it without one"
        )
    return path


def current_folder() -> str:
    """The process's current directory; '' if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


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


@contextlib.contextmanager
def replacing(target: epath.Path) -> Iterator[epath.Path]:
    """Yields a file to write, which takes the place of `target` at the end, if all went well.

    A reader sees the old file or the whole new one. What a killed process has left is removed.

    Raises:
      OSError, or what a bucket's client raises: it cannot be written.
    """
    if fcntl is None or is_remote(target):  # without locks one name, which is used again
        temporary, held = target.with_name(f"{target.name}{PARTIAL}"), contextlib.nullcontext()
    else:
        _remove_left(target)
        temporary = target.with_name(f"{target.name}.{secrets.token_hex(4)}{PARTIAL}")
        held = open(temporary, "xb")  # noqa: SIM115
        _is_mine(held)
    with held:
        try:
            yield temporary
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(target: epath.Path, text: str) -> None:
    """Writes `target`, as `replacing`, in UTF-8 everywhere; what that lacks is escaped."""
    with replacing(target) as temporary:
        temporary.write_bytes(utf8(text))


def utf8(text: str) -> bytes:
    """The text in UTF-8; halves of characters, as in names of other encodings, are escaped."""
    return text.encode("utf-8", "backslashreplace")


def _remove_left(target: epath.Path) -> None:
    """Removes files of earlier attempts at `target` that no living process holds."""
    for name in os.listdir(target.parent):
        if re.fullmatch(rf"{re.escape(target.name)}\.([0-9a-f]{{8}}\.)?partial", name):
            path = os.path.join(target.parent, name)
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if _is_mine(file):
                    os.unlink(path)


def _is_mine(file) -> bool:
    """Locks a file until it is closed; False where another process has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # in use, or on a file system without locks
        return False
    return True
