"""Folders of images as a person sees them, on this machine or in a bucket."""

import collections
import dataclasses
import functools
import mimetypes
import os
import re
import stat
from collections.abc import Callable, Iterable

from etils import epath
from PIL import Image

from lpw_jax.data.images import FORMATS
from lpw_jax.errors import UserError
from lpw_jax.files import storage

_SYSTEM = {
    *("__macosx", "icon\r", "network trash folder", "temporary items"),
    *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "system volume information"),
    *("$recycle.bin", "recycler", "lost+found", "__pycache__"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
}
# Images to a person, though nothing here reads them: they are refused by name, not overlooked.
_UNREAD = {
    *(".heic", ".heif", ".hif", ".jxl", ".svg", ".psd", ".xcf", ".eps"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
}
_MAGIC = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF.{4}WEBP|\xff\x4f\xff\x51|qoif"
    rb"|\0\0\0\x0cjP  |.{4}ftyp(avif|avis|heic|heix|mif1)|BM.{4}\0{4}|P[1-6]\s",
    re.DOTALL,
)
_HEAD = 16  # bytes that `_MAGIC` looks at
_HIDDEN, _OTHER, _ODD = "hidden or a system's own", "no images", "not readable, or no plain files"
_TWICE = "links to a folder that is there already"


def is_hidden(name: str) -> bool:
    """Whether file managers hide a name, or a system has put it there for itself."""
    return name.startswith(".") or name.endswith("~") or name.lower() in _SYSTEM


def is_image(name: str, head: Callable[[], bytes]) -> bool:
    """Whether a file is an image by its ending or, if that says nothing, by its content.

    `head` gives its first bytes, 16 or more.
    """
    ending = os.path.splitext(name)[1].lower()
    if ending in _endings() or ending in _UNREAD:
        return True
    known = _types().guess_type(f"x{ending}", strict=False)
    return known == (None, None) and _MAGIC.match(head()) is not None


@functools.cache
def _endings() -> frozenset[str]:
    known = {*FORMATS, "MPO"}  # which Pillow opens as JPEG
    return frozenset(e for e, form in Image.registered_extensions().items() if form in known)


@functools.cache
def _types() -> mimetypes.MimeTypes:
    return mimetypes.MimeTypes()  # Python's own: a machine's lists differ


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """What is no image: names by the reason."""

    names: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )

    def add(self, reason: str, name: str) -> None:
        self.names[reason].append(name)

    def hidden(self, name: str) -> None:
        self.add(_HIDDEN, name)

    def other(self, name: str) -> None:
        self.add(_OTHER, name)

    def within(self, folder: str, other: "LeftOut") -> None:
        """Adds what was left out of a folder."""
        for reason, names in other.names.items():
            self.names[reason] += [f"{folder}/{name}" for name in names]

    def __bool__(self) -> bool:
        return bool(self.names)

    def __str__(self) -> str:
        """All reasons with numbers and first names; '' if nothing was left out."""
        return "; ".join(
            f"{len(names):,} {reason} ({', '.join(names[:3])}{', ...' if names[3:] else ''})"
            for reason, names in self.names.items()
        )

    def tell(self, where: object, tell: Callable[[str], object]) -> None:
        """Says in one line what was left out, if there is something."""
        if self:
            tell(f"{where}: left out are {self}")


def folders(place: epath.Path, left_out: LeftOut) -> list[epath.Path]:
    """The folders in `place`, in the order of their names; all else is left out."""
    found = []
    for path in _entries(place):
        if is_hidden(path.name):
            left_out.hidden(path.name)
        elif path.is_dir():
            found.append(path)
        else:
            left_out.add("beside the folders", path.name)
    return found


def images(place: epath.Path, left_out: LeftOut) -> list[epath.Path]:
    """The images in `place` and its folders, links and what they lead to too, in order of names.

    Each folder counts once, so that links that lead back end nowhere. An image that cannot be read
    is one of them: `read` says what is wrong with it.

    Raises:
      UserError: a folder cannot be read.
    """
    found, waiting, seen = [], [place], {_key(place)}
    while waiting:
        folder = waiting.pop()
        for path in _entries(folder):
            name = path.relative_to(place).as_posix()
            if is_hidden(path.name):
                left_out.hidden(name)
            elif (kind := _kind(path)) == "folder":
                key = _key(path)
                if key in seen:
                    left_out.add(_TWICE, name)
                else:
                    seen.add(key)
                    waiting.append(path)
            elif is_image(path.name, functools.partial(_head, path, kind)):
                found.append(path)
            else:
                left_out.add(_OTHER if kind == "file" else _ODD, name)
    return sorted(found, key=lambda path: path.relative_to(place).as_posix())


def read(path: epath.Path, remedy: str, *, max_bytes: int) -> bytes:
    """The content of an image's file, at most one byte more than `max_bytes`.

    Raises:
      UserError: naming it, if it is empty, a link to nothing, no plain file, or cannot be read.
    """
    if not storage.is_remote(path):
        if os.path.islink(path) and not os.path.exists(path):
            raise UserError(f"{path} is a link that leads to nothing; {remedy}")
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"{path} is no plain file; {remedy}")
    with storage.reading(path, remedy), path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if not content:
        raise UserError(f"{path} is an empty file; {remedy}")
    return content


def _entries(folder: epath.Path) -> Iterable[epath.Path]:
    with storage.reading(folder):
        return sorted(folder.iterdir(), key=lambda path: path.name)


def _kind(path: epath.Path) -> str:
    """'folder', 'file' or 'odd': a device, a pipe, or a link that leads to nothing or to itself."""
    if storage.is_remote(path):  # where every question is a request
        named = os.path.splitext(path.name)[1].lower() in _endings()
        return "folder" if not named and path.is_dir() else "file"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "odd"
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "odd"


def _key(folder: epath.Path) -> object:
    """Which folder it is, by whatever way it was come to."""
    if storage.is_remote(folder):
        return str(folder)
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def _head(path: epath.Path, kind: str) -> bytes:
    if kind != "file":
        return b""
    try:
        with path.open("rb") as file:
            return file.read(_HEAD)
    except Exception:  # clients of buckets raise anything
        return b""
