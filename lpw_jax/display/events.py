"""TensorBoard's event files, in the folder `tensorboard` of a run; no TensorFlow writes them."""

import math
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

from lpw_jax.devices import hosts
from lpw_jax.display import console
from lpw_jax.files import described, storage
from lpw_jax.files.results import Results
from lpw_jax.files.workdir import Workdir

FOLDER = "tensorboard"
_EPOCHS, _RESULTS = "epochs", "results"  # end the names of files


class Events:
    """The epochs of a training as event file, a point of each curve an epoch.

    Every session writes all epochs again, since what an earlier one has written may be ahead of its
    checkpoint: there is one point an epoch, whatever happened. Only the primary process writes.

    Args:
      folder: of the run.
      records: of the finished epochs, as in metrics.jsonl.

    What cannot be written is warned about: it ends no run.
    """

    def __init__(self, folder: Workdir, records: Sequence[Mapping[str, Any]]):
        self._file = _File(folder, _EPOCHS, replaces=(_EPOCHS, _RESULTS))
        now, left = time.time(), sum(record["seconds"] for record in records)
        points = []
        for record in records:
            left -= record["seconds"]
            # As if they had just been trained: it is their durations that TensorBoard shows.
            points.append((record["epoch"], _epoch_tree(record), now - left))
        self._file.write(points)

    def add(self, record: Mapping[str, Any]) -> None:
        """Adds a line of metrics.jsonl."""
        self._file.write([(record["epoch"], _epoch_tree(record), time.time())])


def write_results(folder: Workdir, results: Results) -> None:
    """Adds the views of results.json to the last epoch, in place of an earlier evaluation's."""
    file = _File(folder, _RESULTS, replaces=(_RESULTS,))
    final = {"final": described.plain(results.views)}
    file.write([(results.train.epochs, final, time.time())])


def _epoch_tree(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is drawn of an epoch, named as TensorBoard groups it."""
    losses = record["member_loss"]
    return {
        "train": {
            "loss": record["loss"],
            "accuracy": record["accuracy"],
            "member_loss_spread": max(losses) - min(losses) if losses[1:] else None,
        },
        "members": {"distance": record.get("member_distance")},
        "learning_rate": {
            "shared": record["learning_rate"],
            "late_phase": record["late_phase_learning_rate"],
        },
        "speed": {"images_per_second": record["images_per_second"]},
        "test": record.get("evaluation"),
        "test_swa": record.get("evaluation_swa"),
    }


def _scalars(tree: Any, tag: str = "") -> Iterator[tuple[str, float]]:
    """Tags and values of all finite numbers; a list of members becomes their mean."""
    if isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _scalars(branch, f"{tag}/{name}" if tag else name)
    elif isinstance(tree, Sequence) and tree and isinstance(tree[0], Mapping):
        members = [dict(_scalars(member, f"{tag}_mean")) for member in tree]
        for name in members[0]:
            yield name, statistics.fmean(found[name] for found in members if name in found)
    elif isinstance(tree, Real) and math.isfinite(tree):
        yield tag, float(tree)


class _File:
    """An event file of this session, new and in place of those that end in `replaces`."""

    def __init__(self, folder: Workdir, ending: str, *, replaces: Iterable[str]):
        self._folder, self._data, now = folder, b"", time.time()
        # TensorBoard follows the files of a folder in the order of their names.
        self._path = folder.path / FOLDER / f"events.out.tfevents.{int(now):010d}.{ending}"

        def begin():
            place = self._path.parent
            with folder.writing(self._path):
                if place.exists() and not place.is_dir():
                    console.warn(f"{place}: is no folder; renamed {storage.set_aside(place).name}")
                for old in replaces:
                    for path in place.glob(f"*.{old}"):
                        path.unlink()

        _try(begin)
        start = [{"file_version": "brain.Event:2"}]
        if ending == _EPOCHS:  # a TensorBoard that is watching forgets what it has seen
            start.append({"session_log": {"status": "START"}})
        self._append(_record(wall_time=now, **event) for event in start)

    def write(self, points: Iterable[tuple[int, Any, float]]) -> None:
        """Adds the numbers of trees at a step and a time, in seconds since 1970."""
        self._append(
            _record(
                step=step,
                wall_time=wall_time,
                summary={"value": [{"tag": t, "simple_value": v} for t, v in _scalars(tree)]},
            )
            for step, tree, wall_time in points
        )

    def _append(self, records: Iterable[bytes]) -> None:
        def append():
            new = b"".join(records)
            self._data += new
            with self._folder.writing(self._path):
                self._path.parent.mkdir(exist_ok=True)
                # Nothing can be appended in a bucket, nor to what a user has removed.
                if storage.is_remote(self._path) or not self._path.exists():
                    self._path.write_bytes(self._data)
                else:
                    with self._path.open("ab") as file:
                        file.write(new)

        _try(append)


def _try(write: Callable[[], None]) -> None:
    """Calls `write` on the primary process."""
    if hosts.is_primary():
        with console.optional("TensorBoard's events were not written"):
            write()


def _record(**fields: Any) -> bytes:
    """An event in the framing of TFRecord: length, its checksum, data, their checksum."""
    from tensorboardX.proto.event_pb2 import Event  # takes a moment
    from tensorboardX.record_writer import masked_crc32c

    data = Event(**fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)
