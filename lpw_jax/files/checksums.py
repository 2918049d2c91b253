"""checksums.json: by it, whoever reads a file of a run knows that it is what was written."""

import json
import zipfile
import zlib

from etils import epath

from lpw_jax.files import limits, storage

NAME = "checksums.json"


class Checksums:
    """The checksums of what a run's folder holds, by name.

    A name has two: of what it is, and of what it was before, which a reader may still find.
    """

    def __init__(self, folder: epath.Path):
        self._path = folder / NAME

    def add(self, name: str, checksum: int) -> None:
        """To be called before `name` is replaced by what has this checksum.

        Raises OSError, or what clients of buckets raise: it cannot be written.
        """
        known = self._known()
        if known is None:
            storage.set_aside(self._path)
        known = known or {}
        known[name] = [checksum, *known.get(name, [])][:2]
        text = json.dumps({"checksum": _of_all(known), "files": known})
        storage.write_text(self._path, f"{text}\n")

    def agree(self, name: str, checksum: int) -> bool | None:
        """Whether `name` was written with this checksum; None if it is not known."""
        known = (self._known() or {}).get(name)
        return known and checksum in known

    def _known(self) -> dict[str, list[int]] | None:
        """The checksums of every name, none if there is no file, None if it is damaged."""
        if not self._path.exists():
            return {}
        try:
            found = limits.read_json(self._path)
            return found["files"] if found["checksum"] == _of_all(found["files"]) else None
        except Exception:  # whatever a damaged file makes the readers raise
            return None


def of_file(place: epath.Path, name: str) -> int:
    """CRC-32 of what is, or will be, the file `name`.

    Of an .npz it is the one of its arrays' own, which are checked at reading.
    """
    if name.endswith(".npz"):
        with place.open("rb") as file, zipfile.ZipFile(file) as archive:
            return _of_all(sorted((info.filename, info.CRC) for info in archive.infolist()))
    return zlib.crc32(place.read_bytes())


def _of_all(value: object) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())
