"""ImageNet's two archives, as it publishes them, checked before hours are spent on them."""

import contextlib
import dataclasses
import posixpath
import re
import tarfile
from collections.abc import Callable, Collection, Iterator
from typing import IO

from etils import epath

from lpw_jax.errors import UserError
from lpw_jax.files import limits, storage

FILES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_HOME = "https://image-net.org/download-images"
_REMEDY = f"fetch it again from {_HOME}"
_NAMES = {"train": r"(n\d{8})\.tar", "validation": r"ILSVRC2012_val_(\d{8})\.JPEG"}
_LAYOUTS = {
    "train": "one tar for each class, named after one of ImageNet's 1000, as n01440764.tar",
    "validation": "ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG, in no folder",
}
_MAX_BYTES = {"train": 2 << 30, "validation": 64 << 20}  # of a class and of an image, in memory
_MAX_PADDING = 1 << 20  # bytes; tar fills up to a multiple of 10 KiB, of some more if asked to


@dataclasses.dataclass(frozen=True)
class Tars:
    """The archives by split, of which `train` may be missing, and their size together."""

    paths: dict[str, epath.Path]
    num_bytes: int


def known(folder: epath.Path) -> list[str]:
    """The names of the archives in `folder`."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return [name for name in FILES.values() if name in there]


def find(folder: epath.Path) -> Tars:
    """The archives in `folder`, which are not opened.

    Raises:
      UserError: the folder or the validation archive is absent, or something is no plain file.
    """
    where = f"data.manual_dir = {str(folder)!r}"
    if not storage.has_folder(folder, what="the folder of ImageNet's archives (data.manual_dir)"):
        raise UserError(f"{where}: must be the folder of {' and '.join(FILES.values())}, is absent")
    paths = {}
    for split, name in FILES.items():
        if storage.has_file(folder / name, what="one of ImageNet's archives"):
            paths[split] = folder / name
    if "validation" not in paths:
        raise UserError(
            f"{where}: holds no {FILES['validation']}, which every evaluation needs (training "
            f"needs {FILES['train']} too); get it from {_HOME}"
        )
    return Tars(paths, sum(path.stat().length for path in paths.values()))


def check(
    tars: Tars,
    *,
    synsets: Collection[str],
    num_validation: int,
    progress: Callable[[int], object],
) -> dict[str, int]:
    """Walks over all headers of the archives and the archives in them; reads no image.

    Args:
      synsets: the known classes, as 'n01440764'.
      num_validation: the highest number of a validation image.
      progress: is called with the numbers of bytes that were passed.

    Returns:
      The number of images, by split.

    Raises:
      UserError: naming the archive and what in it is truncated, damaged, there twice, no plain
        file, or not named as ImageNet's own. So no name leads out of the archive, either.
    """
    known = {
        "train": set(synsets).__contains__,
        "validation": lambda number: 1 <= int(number) <= num_validation,
    }
    counts = dict.fromkeys(tars.paths, 0)
    for split, path in tars.paths.items():
        with open(path, "rb", buffering=2 * tarfile.BLOCKSIZE) as file:
            for name, size, content in _members(file, str(path)):
                where = f"{path}, member {name!r}"
                match = re.fullmatch(_NAMES[split], name)
                if not match or not known[split](match[1]):
                    raise UserError(f"{where}: must be {_LAYOUTS[split]}{_mistaken(name, split)}")
                _check_size(size, where, split)
                counts[split] += _count(content, where, match[1]) if split == "train" else 1
                progress(size)
        if not counts[split]:
            raise UserError(f"{path}: must hold {_LAYOUTS[split]}, but holds nothing; {_REMEDY}")
    return counts


def _count(content: IO[bytes], where: str, synset: str) -> int:
    """The number of images in the tar of one class."""
    count = 0
    for name, size, _ in _members(content, where):
        _check_size(size, f"{where}, member {name!r}", "validation")
        if not re.fullmatch(rf"{synset}_\d+\.JPEG", name):
            raise UserError(f"{where}: must hold images {synset}_NUMBER.JPEG, not {name!r}")
        count += 1
    return count


def _check_size(size: int, where: str, split: str) -> None:
    if size > _MAX_BYTES[split]:
        largest = limits.size(_MAX_BYTES[split])
        raise UserError(f"{where}: must be at most {largest}, not {limits.size(size)}; {_REMEDY}")


def _mistaken(name: str, split: str) -> str:
    other = next(other for other in FILES if other != split)
    return f"; this seems to be {FILES[other]}" if re.fullmatch(_NAMES[other], name) else ""


def _members(file: IO[bytes], where: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Names, sizes and contents of the files in a tar."""
    with contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(limits.open_tar(file, "r:"))
        except tarfile.ReadError as error:
            raise UserError(
                f"{where} is not an uncompressed tar archive ({error}); {_REMEDY}"
            ) from None
        stack.enter_context(storage.reading(where, _REMEDY))
        seen = set()
        while member := tar.next():
            tar.members = []  # it would keep them all
            name = posixpath.normpath(member.name)
            if member.isdir():
                continue
            if not member.isreg():
                raise UserError(f"{where}, member {name!r}: must be a plain file; {_REMEDY}")
            if name in seen:
                raise UserError(f"{where}, member {name!r}: must be there once; {_REMEDY}")
            seen.add(name)
            yield (
                name,
                member.size,
                tar.extractfile(member).raw,
            )  # unbuffered: only headers are wanted
        # `next` stops in silence at a damaged header, and at a hole that a download left.
        size = file.seek(0, 2)
        file.seek(tar.offset)
        if not tarfile.BLOCKSIZE <= size - tar.offset <= _MAX_PADDING or any(file.read()):
            raise UserError(
                f"{where} is truncated or damaged: it makes sense up to byte {tar.offset:,} of "
                f"{size:,}; {_REMEDY}"
            )
