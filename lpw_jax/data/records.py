"""Random access to the records of a split that tensorflow-datasets prepared as array_record."""

import bisect
import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from concurrent import futures
from typing import Any

from etils import epath

from lpw_jax.data import tfds_folder
from lpw_jax.data.tfds_prepared import REMEDY
from lpw_jax.errors import UserError
from lpw_jax.files import storage

_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
_BUFFER = 1 << 15  # bytes; by default each of a thousand files would take 1 MiB
_THREADS = 32  # for what waits for disks
_OTHER_FILES = 256  # that a process opens later on


class Records:
    """The records of some files, one file after the other, or a part of them, numbered from 0.

    Every file stays open. Reading is thread-safe.

    Attributes:
      first: number of the first record among all those of the files.
    """

    def __init__(self, paths: Sequence[epath.PathLike]):
        """Opens all files, and reads the first record of each.

        Raises:
          UserError: naming a file that is absent, truncated or damaged.
        """
        self._paths = tuple(map(os.fspath, paths))
        _allow_open_files(len(self._paths))
        with futures.ThreadPoolExecutor(_THREADS) as threads:
            self._readers = tuple(threads.map(_open, self._paths))
            self._ends = list(itertools.accumulate(r.num_records() for r in self._readers))
            self.first, self._len = 0, self._ends[-1]
            self._digest = _digest(threads.map(self._describe, range(len(self._paths))))

    def __len__(self) -> int:
        return self._len

    def __getitem__(self, number: int) -> bytes:
        """Raises UserError naming the file, if it cannot be read there."""
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        stored = self.first + int(number)
        file = bisect.bisect_right(self._ends, stored)
        return self._read(file, stored - self._start(file))

    def part(self, first: int, size: int) -> "Records":
        """`size` records from number `first` on; shares the open files."""
        if not 0 <= first <= first + size <= len(self):
            raise ValueError(f"records {first} to {first + size - 1} of {len(self)}")
        part = object.__new__(Records)
        part.__dict__ |= self.__dict__ | {"first": self.first + first, "_len": size}
        return part

    def digest(self) -> str:
        """SHA-256 over all files' names, sizes in bytes, numbers of records and first records."""
        return self._digest

    def _start(self, file: int) -> int:
        return self._ends[file - 1] if file else 0

    def _read(self, file: int, position: int) -> bytes:
        try:  # no context manager: this is called for every image
            return self._readers[file].read([position])[0]
        except Exception as error:
            with storage.reading(self._paths[file], REMEDY):
                raise error

    def _describe(self, file: int) -> str:
        path, first = self._paths[file], _content_digest(self._read(file, 0))
        size, num_records = os.path.getsize(path), self._ends[file] - self._start(file)
        return f"{os.path.basename(path)} {size} {num_records} {first}\n"


def open_split(folder: epath.Path, name: str, split: str, *, num_records: int) -> Records:
    """The records of `split` in `folder`, which is <data_dir>/<name>/<version>.

    Args:
      num_records: as the folder's dataset_info.json tells.

    Raises:
      UserError: naming the folder or file, if it is remote, absent, incomplete or damaged.
    """
    where = f"{folder} (split {split!r})"
    tfds_folder.check_local(folder, field="data.dir")
    stem = f"{name}-{split}.array_record-"
    pattern = re.compile(re.escape(stem) + r"\d{5}-of-(\d{5})")
    with storage.reading(folder):
        found = {
            match[0]: match[1] for p in folder.iterdir() if (match := pattern.fullmatch(p.name))
        }
    count = int(max(found.values(), default=1))
    wanted = [f"{stem}{i:05}-of-{count:05}" for i in range(count)]
    if missing := [file for file in wanted if file not in found]:
        raise UserError(f"{where} lacks its file {missing[0]}; {REMEDY}")
    records = Records([folder / file for file in wanted])
    if len(records) != num_records:
        raise UserError(
            f"{where}: dataset_info.json says {num_records} images, found {len(records)}; {REMEDY}"
        )
    return records


def _open(path: str) -> Any:
    from array_record.python import array_record_module

    with storage.reading(path, REMEDY):
        with open(path, "rb"):
            pass  # the reader takes what it cannot open for empty, like files without their end
        reader = array_record_module.ArrayRecordReader(
            path, options=_RANDOM_ACCESS, file_reader_buffer_size=_BUFFER
        )
        if not reader.num_records():
            raise ValueError("it is truncated, or no array_record")
    return reader


def _content_digest(record: bytes) -> str:
    """SHA-256 of a tf.train.Example, whose features are stored in an order that is random."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        features = tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError:  # what needs an Example will say so
        return hashlib.sha256(record).hexdigest()
    digest = hashlib.sha256()
    for name in sorted(features):
        digest.update(name.encode() + features[name].SerializeToString())
    return digest.hexdigest()


def _digest(lines: Any) -> str:
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _allow_open_files(count: int) -> None:
    """Raises this process' own limit so that it can open `count` files more."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = len(os.listdir("/dev/fd")) + count + _OTHER_FILES
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise UserError(
                f"{count} files must be open at the same time, and {wanted} in all, but this "
                f"process may open {hard}; raise the limit (ulimit -Hn)"
            )
        with contextlib.suppress(ValueError, OSError):  # macOS may have a lower limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
