"""Images out of a tar archive that somebody else made."""

import gzip
import pathlib
import tarfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from etils import epath

from lpw_jax.data import folders
from lpw_jax.data.images import MAX_ENCODED, decode_image
from lpw_jax.errors import UserError
from lpw_jax.files import limits, storage

_MAX_UNPACKED = 1 << 30  # bytes; 10,000 images of 32x32 pixels take 40 MB
_MAX_IMAGES = 200_000


def check_archive(archive: epath.Path, *, remedy: str) -> None:
    """Raises UserError, with the `remedy`, if the archive's beginning is not readable."""
    with (
        storage.reading(archive, remedy),
        archive.open("rb") as file,
        _open(_Unpacked(file, archive)) as tar,
    ):
        tar.next()


def read_archive(
    archive: epath.Path, *, remedy: str, tell: Callable[[str], object] = lambda message: None
) -> np.ndarray:
    """All images of a .tar.gz or .tar archive, in the order of their names.

    They are decoded as the stream passes: nothing is unpacked. What `folders` says is hidden, or no
    image, is left out, and `tell` is told of it in one line.

    Returns:
      uint8 [N, 32, 32, 3].

    Raises:
      UserError: with the `remedy`, naming the archive and the member that is damaged, no plain
        file, there twice, or has a name that leads out of the archive; or it unpacks to too much.
    """
    images, left_out = {}, folders.LeftOut()
    with storage.reading(archive, remedy), archive.open("rb") as file:
        source = _Unpacked(file, archive)
        with _open(source) as tar:
            while member := tar.next():
                tar.members = []  # it would keep them all
                path = pathlib.PurePosixPath(member.name)
                where = f"{archive}, member {member.name!r}"
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(f"{where}: names must stay inside the archive; {remedy}")
                if not member.isdir() and not (member.isreg() and member.size >= 0):
                    raise UserError(
                        f"{where}: must be a plain file, not a link or device; {remedy}"
                    )
                if member.isdir():
                    continue
                if any(map(folders.is_hidden, path.parts)):
                    left_out.hidden(member.name)
                    continue
                encoded = tar.extractfile(member).read(MAX_ENCODED + 1)
                if not folders.is_image(path.name, lambda encoded=encoded: encoded):
                    left_out.other(member.name)
                    continue
                if path in images:
                    raise UserError(f"{where}: must be there once, not twice; {remedy}")
                if len(images) == _MAX_IMAGES:
                    raise UserError(f"{archive}: must hold at most {_MAX_IMAGES:,} images")
                images[path] = decode_image(encoded, where, remedy)
        while rest := source.read(1 << 16):  # to gzip's checksum; tarfile stops at a damaged header
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is a damaged member in it")
    if not images:
        raise UserError(f"{archive} holds no images, but {left_out or 'nothing'}; {remedy}")
    left_out.tell(archive, tell)
    return np.stack([images[path] for path in sorted(images, key=str)])


def _open(source: "_Unpacked") -> tarfile.TarFile:
    return limits.open_tar(source, "r|", bufsize=tarfile.BLOCKSIZE)


class _Unpacked:
    """The bytes of a tar archive, compressed by gzip or not, up to a limit."""

    def __init__(self, file: BinaryIO, archive: epath.Path):
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._file = gzip.GzipFile(fileobj=file, mode="rb") if compressed else file
        self._most = self._left = limits.unpacked(archive.stat().length, _MAX_UNPACKED)
        self._reads_at_end = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left + 1))
        self._reads_at_end += not data
        if self._reads_at_end > 2:  # tarfile would read on up to a size that a header declares
            raise EOFError("it ends inside a member")
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {limits.size(self._most)}")
        return data
