"""Texts: enwik8, the sources of Python's standard library, and any file or folder."""

import hashlib
import platform
import sysconfig
import zipfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from lpw_jax.data.text import Text
from lpw_jax.errors import UserError, first_line
from lpw_jax.files import storage

ENWIK8_BYTES = 100_000_000
ENWIK8_MD5 = "a1fa5ffddb56f4953e226637dabbb36a"
_ENWIK8_PAGE = "https://mattmahoney.net/dc/textdata.html"
# Neither the library's own text nor the same everywhere.
_NOT_THE_LIBRARY = {"site-packages", "dist-packages", "__pycache__", "test", "tests"}
_MOST_BYTES = 2_000_000_000  # places in the text are int32


def enwik8(
    name: str, *, manual_dir: str, num_bytes: int, sequence_length: int, context: int
) -> Text:
    """The first 100 MB of a copy of the English Wikipedia, from `enwik8` or `enwik8.zip`.

    The usual split: 90 MB, 5 MB and 5 MB.

    Args:
      manual_dir: the folder that has one of the files.
      num_bytes: take only so many, the first ones; 0 = all.

    Raises:
      UserError: there is no such file, or it holds something else.
    """
    folder = Path(storage.path(manual_dir or "."))
    plain, packed = folder / "enwik8", folder / "enwik8.zip"
    where = f"data.manual_dir = {manual_dir!r}"
    file = plain if plain.exists() else packed
    try:
        if plain.exists():
            text = plain.read_bytes()
        else:
            with zipfile.ZipFile(packed) as archive, archive.open("enwik8") as member:
                text = member.read(ENWIK8_BYTES + 1)
    except FileNotFoundError as error:
        raise UserError(
            f"{where}: must hold enwik8.zip or enwik8, the first {ENWIK8_BYTES:,} bytes of a copy "
            f"of the English Wikipedia; {_ENWIK8_PAGE} has it"
        ) from error
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(f"{where}: {file} cannot be read, {first_line(error)}") from error
    found = hashlib.md5(text, usedforsecurity=False).hexdigest()
    if len(text) != ENWIK8_BYTES or found != ENWIK8_MD5:
        raise UserError(
            f"{where}: {file} must hold enwik8, {ENWIK8_BYTES:,} bytes with MD5 {ENWIK8_MD5}, but "
            f"its content is another one, {len(text):,} bytes with MD5 {found}; {_ENWIK8_PAGE} has "
            "enwik8, and data.name = 'text' takes any text"
        )
    return _divided(name, text, num_bytes, sequence_length, context, "enwik8")


def python_sources(name: str, *, num_bytes: int, sequence_length: int, context: int) -> Text:
    """The standard library of the Python that runs this: its .py files, in the order of a hash.

    In the order of their names the last ones would be of another kind than the first; so all parts
    of the text, and its first bytes, are samples of the whole. Tests and installed packages are not
    in it. Another version of Python is another text.

    Raises:
      UserError: the files are not there, as in a Python that keeps them in an archive.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    note = f"sources of the standard library of Python {platform.python_version()}"
    files = sorted(
        _walk(folder, "*.py", without=_NOT_THE_LIBRARY),
        key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest(),
    )
    text = _joined(files, num_bytes, field=f"data.name = {name!r}")
    if not text:
        raise UserError(
            f"data.name = {name!r}: the sources of Python's standard library are not in {folder}; "
            "data.name = 'text' takes any text, with data.dir"
        )
    return _divided(name, text, num_bytes, sequence_length, context, note)


def text(name: str, *, data_dir: str, num_bytes: int, sequence_length: int, context: int) -> Text:
    """A file, or all files of a folder and the folders in it, as `_walk` orders them.

    Raises:
      UserError: there is no such file or folder, nothing in it, or more than 2 GB.
    """
    path, field = Path(storage.path(data_dir or ".")), f"data.dir = {data_dir!r}"
    if not data_dir or not path.exists():
        raise UserError(f"{field}: must be a file of text or a folder of such files")
    files = list(_walk(path, "*")) if path.is_dir() else [path]
    found = _joined(files, num_bytes, field=field)
    of = f"{len(files):,} files of" if path.is_dir() else "the file"
    return _divided(name, found, num_bytes, sequence_length, context, f"{of} {path.name}")


def _walk(folder: Path, pattern: str, *, without: Collection[str] = ()) -> Iterator[Path]:
    """The files of a folder by their names, then those of the folders in it by theirs."""
    inside = sorted(folder.iterdir(), key=lambda path: path.name)
    yield from (path for path in inside if path.is_file() and path.match(pattern))
    for path in inside:
        if path.is_dir() and not path.is_symlink() and path.name not in without:
            yield from _walk(path, pattern, without=without)


def _joined(files: Iterable[Path], num_bytes: int, *, field: str) -> bytes:
    """The files one after the other, only as many as `num_bytes` need."""
    parts, size, most = [], 0, num_bytes or _MOST_BYTES
    for file in files:
        try:
            with file.open("rb") as opened:
                parts.append(opened.read(_MOST_BYTES + 1 - size))
        except OSError as error:
            raise UserError(f"{field}: {file} cannot be read, {first_line(error)}") from error
        size += len(parts[-1])
        if size > _MOST_BYTES:
            raise UserError(f"{field}: must have at most {_MOST_BYTES:,} bytes")
        if size >= most:
            break
    return b"".join(parts)


def _divided(
    name: str, text: bytes, num_bytes: int, sequence_length: int, context: int, note: str
) -> Text:
    if num_bytes > len(text):
        raise UserError(
            f"data.num_bytes = {num_bytes}: must be at most the {len(text):,} bytes of {name}"
        )
    taken = np.frombuffer(text, np.uint8)[: num_bytes or None]
    cut = f", the first {len(taken):,} of its bytes" if num_bytes else f", {len(taken):,} bytes"
    options = dict(sequence_length=sequence_length, context=context)
    return Text.divided(name, taken, note=note + cut, **options)
