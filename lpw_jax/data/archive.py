"""Images out of a tar archive that somebody else made."""

import gzip
import pathlib
import tarfile
from typing import BinaryIO

import numpy as np
from etils import epath

from lpw_jax.data.images import MAX_ENCODED, decode_image, is_image_name
from lpw_jax.errors import UserError
from lpw_jax.files import storage

_MAX_UNPACKED = 1 << 30  # bytes; 10,000 images of 32x32 pixels take 40 MB


def check_archive(archive: epath.Path, *, remedy: str) -> None:
    """Raises UserError, with the `remedy`, if the archive's beginning is not readable."""
    with (
        storage.reading(archive, remedy),
        archive.open("rb") as file,
        _open(_Unpacked(file)) as tar,
    ):
        tar.next()


def read_archive(archive: epath.Path, *, remedy: str) -> np.ndarray:
    """All PNG and JPEG images of a .tar.gz or .tar archive, in the order of their names.

    They are decoded as the stream passes: nothing is unpacked. Other plain files are ignored.

    Returns:
      uint8 [N, 32, 32, 3].

    Raises:
      UserError: with the `remedy`, naming the archive and the member that is damaged, no plain
        file, there twice, or has a name that leads out of the archive.
    """
    images = {}
    with storage.reading(archive, remedy), archive.open("rb") as file:
        source = _Unpacked(file)
        with _open(source) as tar:
            for member in tar:
                path = pathlib.PurePosixPath(member.name)
                where = f"{archive}, member {member.name!r}"
                if path.is_absolute() or ".." in path.parts:
                    raise UserError(f"{where}: names must stay inside the archive; {remedy}")
                if not member.isdir() and not (member.isreg() and member.size >= 0):
                    raise UserError(
                        f"{where}: must be a plain file, not a link or device; {remedy}"
                    )
                if member.isdir() or not is_image_name(member.name):
                    continue
                if path in images:
                    raise UserError(f"{where}: must be there once, not twice; {remedy}")
                encoded = tar.extractfile(member).read(MAX_ENCODED + 1)
                images[path] = decode_image(encoded, where, remedy)
        while rest := source.read(1 << 16):  # to gzip's checksum; tarfile stops at a damaged header
            if rest.strip(b"\0"):
                raise tarfile.ReadError("there is a damaged member in it")
    if not images:
        raise UserError(f"{archive} holds no PNG or JPEG images; {remedy}")
    return np.stack([images[path] for path in sorted(images, key=str)])


def _open(source: "_Unpacked") -> tarfile.TarFile:
    return tarfile.open(fileobj=source, mode="r|", bufsize=tarfile.BLOCKSIZE)


class _Unpacked:
    """The bytes of a tar archive, compressed by gzip or not, up to a limit."""

    def __init__(self, file: BinaryIO):
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        self._file = gzip.GzipFile(fileobj=file, mode="rb") if compressed else file
        self._left = _MAX_UNPACKED
        self._reads_at_end = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left + 1))
        self._reads_at_end += not data
        if self._reads_at_end > 2:  # tarfile would read on up to a size that a header declares
            raise EOFError("it ends inside a member")
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"it unpacks to more than {_MAX_UNPACKED >> 30} GiB")
        return data
