"""Limits on what a file of somebody else's can make the program do, by what it unpacks to."""

import json
import tarfile
import zipfile
from typing import IO, Any

from etils import epath

_FREE, _RATIO = 256 << 20, 8  # bytes, and how often its own size an honest file may be larger
_MAX_JSON = 64 << 20  # bytes
_MAX_HEADER, _MAX_HEADERS = 1 << 20, 64 << 20  # bytes of one of a tar's further headers, of all
_MAX_MEMBERS = 500_000


def unpacked(packed: int, most: int) -> int:
    """How many bytes a compressed file of `packed` bytes may unpack to, at `most`."""
    return min(most, _FREE + _RATIO * packed)


def size(num_bytes: int) -> str:
    """A number of bytes for messages."""
    return (
        f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 1 << 30 else f"{num_bytes / 2**20:.0f} MiB"
    )


def read_json(place: epath.Path) -> Any:
    """What a JSON file holds.

    Raises:
      ValueError: it is larger than any that is wanted, nested too deeply, or no JSON.
      OSError: it cannot be read.
    """
    with place.open("rb") as file:
        return loads(file.read(_MAX_JSON + 1))


def loads(text: bytes) -> Any:
    """What JSON says; raises ValueError as `read_json`."""
    if len(text) > _MAX_JSON:
        raise ValueError(f"it must have at most {size(_MAX_JSON)} of JSON")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def check_zip(file: IO[bytes], *, most: int) -> None:
    """Refuses a zip archive that unpacks to far more than it is, or has too many entries.

    What it declares is enough: `zipfile` unpacks no more than that of an entry.

    Raises:
      ValueError: naming the numbers.
      zipfile.BadZipFile: it is no such archive.
    """
    packed = file.seek(0, 2)
    if (listed := _directory_bytes(file, packed)) > _MAX_HEADERS:
        raise ValueError(f"its list of entries has {size(listed)}, more than any that is wanted")
    with zipfile.ZipFile(file) as archive:
        declared = sum(entry.file_size for entry in archive.infolist())
    if declared > (limit := unpacked(packed, most)):
        raise ValueError(
            f"it must unpack to at most {size(limit)}, as it has {size(packed)}, but unpacks to "
            f"{size(declared)}"
        )
    file.seek(0)


def _directory_bytes(file: IO[bytes], packed: int) -> int:
    """The size of a zip archive's list of entries, which is at its end, as that says."""
    file.seek(max(0, packed - (1 << 17)))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    large = tail.rfind(b"PK\x06\x06", 0, max(end, 0))  # of archives with large numbers
    sizes = [tail[end + 12 : end + 16]] if end >= 0 else []
    sizes = [tail[large + 40 : large + 48]] if large >= 0 else sizes
    return int.from_bytes(sizes[0], "little") if sizes else 0


def open_tar(file: IO[bytes], mode: str, **options: Any) -> tarfile.TarFile:
    """As `tarfile.open`, but reading its members raises ValueError where headers are excessive.

    Headers are read into memory as a whole, by the size that they declare: names, pax records,
    maps of sparse files, which no archive of images has. For as long as it is read, take members by
    `next` and empty `members`, which would keep them all.
    """
    member = type("_Member", (_Member,), {"num": 0, "num_bytes": 0})
    return tarfile.open(fileobj=file, mode=mode, tarinfo=member, **options)


class _Member(tarfile.TarInfo):
    """A header; the class counts those of one archive."""

    num, num_bytes = 0, 0

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        member = super().frombuf(buf, encoding, errors)
        cls.num += 1
        if cls.num > _MAX_MEMBERS:
            raise ValueError(f"it has more than {_MAX_MEMBERS:,} members")
        if member.type == tarfile.GNUTYPE_SPARSE:
            cls._refuse_sparse()
        if member.type in _FURTHER:
            cls.num_bytes += member.size
            if not 0 <= member.size <= _MAX_HEADER or cls.num_bytes > _MAX_HEADERS:
                raise ValueError(f"it has a header of {member.size:,} bytes, which is too large")
        return member

    @staticmethod
    def _refuse_sparse(*_):
        raise ValueError("it holds a sparse file")

    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


_FURTHER = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
